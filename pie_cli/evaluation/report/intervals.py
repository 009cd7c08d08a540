"""Bootstrap confidence intervals: what other cases of the same kind would have given."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2_000
_BOUNDS = (2.5, 97.5)


def interval(sums: Sequence[float], counts: Sequence[int], seed: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by resampling whole clusters with replacement.

    A cluster is one case, or all saves of one session, which depend on each other. For the
    difference between two strategies, give the differences: each case is compared with itself
    (paired), so that what makes a case hard for both drops out.

    Args:
        sums: by cluster, the sum of its values.
        counts: by cluster, the number of its values, at least 1.
        seed: the same seed draws the same cases.

    Returns:
        The 2.5th and the 97.5th percentile of the resampled means.

    Raises:
        ValueError: no clusters, or lists of different lengths.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), percentile method.
    """
    if not sums or len(sums) != len(counts):
        raise ValueError(f"{len(sums)} sums of {len(counts)} clusters")
    times_drawn = _times_drawn(len(sums), seed)
    totals = times_drawn @ np.asarray(sums, dtype=np.float64)
    sizes = times_drawn @ np.asarray(counts, dtype=np.float64)
    low, high = np.percentile(totals / sizes, _BOUNDS)
    return float(low), float(high)


@lru_cache(maxsize=8)
def _times_drawn(clusters: int, seed: int) -> NDArray[np.float64]:
    """Return how often each resample draws each cluster: [resamples, clusters]."""
    draws = np.random.default_rng(seed).integers(0, clusters, (RESAMPLES, clusters))
    times = np.zeros((RESAMPLES, clusters))
    np.add.at(times, (np.arange(RESAMPLES)[:, None], draws), 1.0)
    return times
