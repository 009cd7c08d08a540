"""What the engine asks of a device: time stamps that wait for it, its lack of memory named."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pie_cli.errors import CacheCapacityError

_NO_MEMORY = re.compile("(can't allocate|not enough|out of) memory", re.IGNORECASE)


@contextmanager
def memory_sufficing() -> Iterator[None]:
    """Turn a device's lack of memory into an error that says what to do.

    Raises:
        CacheCapacityError: when the device's memory does not suffice.
    """
    try:
        yield
    except RuntimeError as error:
        # CUDA has a class for it; a CPU's allocator and MPS only say so.
        said = isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error))
        if not said:
            raise
        raise CacheCapacityError(
            "the device has no memory left for the cache", "lower --context-tokens"
        ) from error


def stamp(device: torch.device) -> float:
    """Return `time.perf_counter()` in seconds once all work queued on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
