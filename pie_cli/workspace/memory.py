"""Memory that caches may take: sizes as people write them, and what a device has free."""

import os
import re
from contextlib import suppress
from pathlib import Path

from pie_cli.errors import InputError

_UNITS = {
    unit: base**power
    for power, letter in enumerate("KMGT", start=1)
    for unit, base in ((letter, 1024), (f"{letter}B", 1000), (f"{letter}IB", 1024))
}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT](?:I?B)?)", re.IGNORECASE)

# An accelerator's memory is there for the model; a machine's is also for the editor.
_SHARE = {"cpu": 0.25, "cuda": 0.5, "mps": 0.25}
_WHERE_UNKNOWN = 1 << 30


def parse_size(text: str) -> int:
    """Read a size such as 2GB, 1.5GiB or 512M, in bytes.

    Raises:
        InputError: when it is none, or no memory at all.
    """
    match = _SIZE.fullmatch(text.strip())
    n_bytes = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if n_bytes < 1:
        raise InputError(f"{text!r} is no size of memory", "give one such as 2GB or 512MB")
    return n_bytes


def share_of_free(device: str) -> int:
    """Return how much of a device's free memory caches may take unless told otherwise, in bytes.

    Args:
        device: where a model lies, such as cpu or cuda:0.
    """
    kind = device.split(":", maxsplit=1)[0]
    free = _free_on_gpu(device) if kind in ("cuda", "mps") else _free_on_host()
    return int(free * _SHARE.get(kind, 0.25)) if free else _WHERE_UNKNOWN


def _free_on_gpu(device: str) -> int | None:
    import torch

    if device.startswith("mps"):
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return torch.cuda.mem_get_info(device)[0]


def _free_on_host() -> int | None:
    """Return the memory that can be had without swapping; None where the system does not say."""
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return min(int(line.split()[1]) << 10, _free_in_group())
    with suppress(OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return None


def _free_in_group() -> int:
    """Return what a container's limit leaves, or a great deal where it has none."""
    group = Path("/sys/fs/cgroup")
    with suppress(OSError, ValueError):
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        return limit - int((group / "memory.current").read_text(encoding="ascii"))
    return 1 << 62
