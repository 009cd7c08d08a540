"""Durations on the host's clock, `time.perf_counter`."""

from time import perf_counter
from typing import Final

BEGAN: Final = perf_counter()
"""When this process began, as nearly as it can tell: `pie` imports this module first of all."""


def elapsed_ms(start: float, stop: float) -> float:
    """Return the milliseconds between two `perf_counter` stamps (seconds)."""
    return (stop - start) * 1000.0


def since_start_ms() -> float:
    """Return the milliseconds since this process began."""
    return elapsed_ms(BEGAN, perf_counter())
