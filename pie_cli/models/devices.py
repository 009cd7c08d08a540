"""Devices: which of them are there, and what memory they have free."""

import importlib.util
import os
from pathlib import Path
from typing import Final

import torch

from pie_cli.config import check_device
from pie_cli.errors import DeviceError

_MEMINFO: Final = Path("/proc/meminfo")
_CGROUP: Final = Path("/sys/fs/cgroup")


def pick_device(device: str = "auto") -> str:
    """Return the device to use, settled and known to be there.

    Raises:
        DeviceError: unknown, or not there.
    """
    check_device(device)
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if cuda else "mps" if mps else "cpu"
    if device == "map":
        _require_mapping()
    kind, _, index = device.partition(":")
    absent = (kind == "cuda" and (not cuda or int(index or 0) >= torch.cuda.device_count())) or (
        kind == "mps" and not mps
    )
    if absent:
        raise DeviceError(
            f"there is no device {device}", "use --device cpu, or auto for what is there"
        )
    return device


def can_map() -> bool:
    """Tell whether weights can be placed on their devices while they are loaded."""
    return importlib.util.find_spec("accelerate") is not None


def _require_mapping() -> None:
    if not can_map():
        raise DeviceError(
            "placing a model on several devices needs the package accelerate",
            "pip install 'pie-cli[map]', or give one device",
        )


def available_bytes(device: str) -> int | None:
    """Return the free memory of a device, or None where it cannot be told."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    gpus = range(torch.cuda.device_count()) if device == "map" else ()
    on_gpus = sum(int(torch.cuda.mem_get_info(index)[0]) for index in gpus)
    free = _host_bytes()
    if free is None:
        return None
    allowed = _container_bytes()
    return on_gpus + (free if allowed is None else min(free, allowed))


def _host_bytes() -> int | None:
    try:
        for line in _MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def _container_bytes() -> int | None:
    """Return what a container's limit leaves; what files occupy in its cache can be freed."""
    try:
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines():
            if line.startswith("inactive_file "):
                used -= int(line.split()[1])
    except (OSError, ValueError):
        # No container, or "max".
        return None
    return max(limit - used, 0)
