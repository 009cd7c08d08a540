"""Repeated measurements in short."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """Repeated measurements in short; the unit is that of the values."""

    median: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Sum up at least one value."""
        return cls(*(float(value) for value in np.percentile(values, (50, 95))))


@dataclass(frozen=True)
class ByEnd:
    """A figure of the time to the first token, and the same of the time to the line."""

    first_token: float
    line: float
