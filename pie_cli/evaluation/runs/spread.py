"""Repeated measurements in short."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

LEAST: Final = 5
"""Values that a 95th percentile needs: of fewer it is little else than their median."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements in short; the unit is that of the values.

    Attributes:
        median: of them.
        p95: their 95th percentile; None of fewer than `LEAST`.
    """

    median: float
    p95: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up at least one value."""
        median, p95 = (float(value) for value in np.percentile(values, (50, 95)))
        return cls(median, p95 if len(values) >= LEAST else None)


@dataclass(frozen=True)
class ByEnd:
    """A figure of the time to the first token, and the same of the time to the line."""

    first_token: float
    line: float
