"""The libraries that compute, as environment variables tell them: threads, and kernels kept."""

import os

_KERNELS = 64
"""Kernels that are kept: those of some ten numbers of rows, of which each pass takes one."""

_BUSY = 0.5
"""Processors' worth of other load from which on one is left to it."""


def wait_passively() -> None:
    """Let threads sleep while they wait for each other; to be called before torch is imported.

    By default they spin, which is fastest on a machine with nothing else to do. Beside a busy
    program it takes a pass from some 100 ms to seconds (docs/log.md): a thread that has no
    processor is waited for by one that has. What the user has set stays.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")


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
