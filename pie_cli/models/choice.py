"""Which model runs where none is named, and which would be better on this machine."""

from collections.abc import Sequence
from typing import Final

from pie_cli.models.stores.lookup import find
from pie_cli.models.stores.package import PACKAGED

EMBEDDED: Final = "pie-nano"
"""The demonstration model that comes along."""

_ON_ACCELERATORS: Final = (
    (24 << 30, "qwen2.5-coder-7b"),
    (8 << 30, "qwen2.5-coder-3b"),
    (3 << 30, "qwen2.5-coder-1.5b"),
)
"""Models by the free memory of a GPU that they are comfortable in: weights, cache and some room."""

_ON_PROCESSORS: Final = ((8, 8 << 30, "qwen2.5-coder-0.5b"),)
"""Models by threads and free memory: each predicted token reads all weights once."""


def best_at_hand() -> str:
    """Return the name of the best model that needs no download."""
    for name in PACKAGED:
        found = find(name)
        if found is not None and found.problem is None:
            return name
    return EMBEDDED


def advised(threads: int, free_bytes: int | None, gpu_bytes: Sequence[int] = ()) -> str:
    """Return the name of the model to run on a machine.

    Args:
        threads: that compute.
        free_bytes: of the host's memory; None where it cannot be told.
        gpu_bytes: free memory of each accelerator.
    """
    for needed, name in _ON_ACCELERATORS:
        if max(gpu_bytes, default=0) >= needed:
            return name
    for least, needed, name in _ON_PROCESSORS:
        if threads >= least and (free_bytes or 0) >= needed:
            return name
    return next(iter(PACKAGED))
