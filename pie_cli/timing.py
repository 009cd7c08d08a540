"""Durations on the host's clock: laps, stamps, and the median and spread of repeated measurements.

The clock is `time.perf_counter`. Work on an accelerator is asynchronous, so a stopwatch takes the
function that waits for it (for CUDA `torch.cuda.synchronize`) and calls it before each reading;
this module itself knows no torch.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter


def _nothing() -> None:
    """Wait for nothing: the CPU has done its work when a call returns."""


def elapsed_ms(start: float, stop: float) -> float:
    """Return the milliseconds between two `perf_counter` stamps (seconds)."""
    return (stop - start) * 1000.0


@dataclass
class Stopwatch:
    """Named durations of one piece of work, counted from its first moment.

    Attributes:
        synchronise: called before each reading of the clock.
        started_at: `perf_counter` stamp, seconds, from which `total_ms` counts.
        durations_ms: what was measured, by name; a name measured twice adds up.
    """

    synchronise: Callable[[], None] = _nothing
    started_at: float = field(default_factory=perf_counter)
    durations_ms: dict[str, float] = field(default_factory=dict)

    def now(self) -> float:
        """Return a `perf_counter` stamp in seconds, taken after the device has finished."""
        self.synchronise()
        return perf_counter()

    def total_ms(self, at: float | None = None) -> float:
        """Return the milliseconds from the start to `at`, a stamp; by default to now."""
        return elapsed_ms(self.started_at, self.now() if at is None else at)

    def add(self, name: str, duration_ms: float) -> None:
        """Add a duration that was measured elsewhere."""
        self.durations_ms[name] = self.durations_ms.get(name, 0.0) + duration_ms

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Measure the body under `name`, also when it raises."""
        start = self.now()
        try:
            yield
        finally:
            self.add(name, elapsed_ms(start, self.now()))


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements in short; the unit is that of the values."""

    median: float
    p95: float


def median(values: Sequence[float]) -> float:
    """Return the median.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no values to take the median of")
    return float(statistics.median(values))


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, linearly interpolated between the two nearest ranks.

    Args:
        values: in any order.
        percent: 0 to 100.

    Raises:
        ValueError: no values, or a percentage outside of its range.
    """
    if not values:
        raise ValueError("no values to take a percentile of")
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentile lies between 0 and 100, not at {percent}")
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    low = math.floor(rank)
    high = math.ceil(rank)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (rank - low))


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return percentile(values, 95)


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the 95th percentile of at least one value."""
    return Spread(median(values), p95(values))
