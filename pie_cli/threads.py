"""The libraries that compute, as environment variables tell them: threads, and kernels kept."""

import os
import sys
from pathlib import Path

_KERNELS = 64
"""Kernels that are kept: those of some ten numbers of rows, of which each pass takes one."""

_ROUNDS = "100000"
"""Of spinning: about a millisecond, longer than any stretch of a pass that one thread computes."""

_OTHER_RUNTIMES = ("libiomp", "libomp")
"""Which take the place of GNU's where torch was built with them."""

_BUSY = 0.5
"""Processors' worth of other load from which on one is left to it."""


def spin_briefly() -> None:
    """Let threads that wait for each other spin a millisecond, then sleep; before torch is there.

    So within a pass they spin, and `engine/crew.py` sees to it that they do not stand in the way of
    other programs. Runtimes other than GNU's were not measured, and sleep at once. What the user
    has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ and "torch" not in sys.modules:
        os.environ.setdefault("GOMP_SPINCOUNT", _ROUNDS)
    os.environ.setdefault("KMP_BLOCKTIME", "0")


def threads_spin() -> bool:
    """Whether threads wait as `spin_briefly` wants it; to be called once torch is imported."""
    if os.environ.get("GOMP_SPINCOUNT") != _ROUNDS:
        return False
    try:
        libraries = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "libgomp" in libraries and not any(name in libraries for name in _OTHER_RUNTIMES)


def keep_few_kernels() -> None:
    """Bound what oneDNN and torch's layer above it keep; to be called before torch is imported.

    For each number of rows and each shape of weights a kernel of some 0.6 MB is generated and kept,
    by default 1,024 of them in either place; edits come in all sizes (docs/log.md). What the user
    has set stays.
    """
    for variable in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(variable, str(_KERNELS))


def threads_for(cores: int, asked: int | None = None) -> int:
    """Return how many threads are to compute.

    Args:
        cores: that torch would take, one thread each.
        asked: by the user; None for all cores, one less where other programs are at work.
    """
    if asked is not None:
        return asked
    return max(1, cores - 1) if _other_load() >= _BUSY else cores


def _other_load() -> float:
    """Return the processors' worth of load in the last minute; 0 where that cannot be told."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0
