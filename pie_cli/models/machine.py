"""What this machine offers pie: versions, devices, memory, disk, limits on watching files."""

import os
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch

from pie_cli import __version__
from pie_cli.models.cache import cache_folder
from pie_cli.models.devices import available_bytes

_PACKAGES: Final = ("torch", "transformers", "tokenizers", "huggingface_hub", "watchdog", "rich")
# What makes matrix products quick, in the names that Linux gives them.
_INSTRUCTIONS: Final = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
_INOTIFY: Final = Path("/proc/sys/fs/inotify")


@dataclass(frozen=True)
class Gpu:
    """A CUDA device.

    Attributes:
        device: its name for `--device`.
        name: its model.
        free_bytes, total_bytes: memory.
    """

    device: str
    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class CacheFolder:
    """Where downloaded models are kept.

    Attributes:
        folder: of the hub's client.
        free_bytes: of its disk; None where it cannot be told.
        writable: whether a download could be stored.
    """

    folder: Path
    free_bytes: int | None
    writable: bool


@dataclass(frozen=True)
class Machine:
    """What there is.

    Attributes:
        versions: of pie, Python and the packages that matter; None for one that is not there.
        platform: operating system and machine.
        cpu: model of the processor.
        threads: that torch computes with.
        instructions: those of the processor that make matrix products quick, where known.
        free_bytes: memory; None where it cannot be told.
        gpus: CUDA devices.
        mps: whether Apple's GPU is there.
        cache: of downloaded models.
        watches, watchers: how many files and folders, and how many programs, Linux lets a user
            watch; None elsewhere.
        encoding: of standard output.
    """

    versions: Mapping[str, str | None]
    platform: str
    cpu: str
    threads: int
    instructions: tuple[str, ...]
    free_bytes: int | None
    gpus: tuple[Gpu, ...]
    mps: bool
    cache: CacheFolder
    watches: int | None
    watchers: int | None
    encoding: str


def examine() -> Machine:
    """Look at this machine; loads no model and writes nothing."""
    versions: dict[str, str | None] = {"pie": __version__, "python": platform.python_version()}
    return Machine(
        versions={**versions, **{package: _version(package) for package in _PACKAGES}},
        platform=platform.platform(),
        cpu=cpu_name(),
        threads=torch.get_num_threads(),
        instructions=_instructions(),
        free_bytes=available_bytes("cpu"),
        gpus=tuple(_gpus()),
        mps=torch.backends.mps.is_available(),
        cache=_cache(),
        watches=_limit("max_user_watches"),
        watchers=_limit("max_user_instances"),
        encoding=getattr(sys.stdout, "encoding", None) or "unknown",
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cpu_name() -> str:
    """Return the processor's model, as far as it can be told."""
    return _cpu_fact("model name") or platform.processor() or platform.machine()


def _cpu_fact(*names: str) -> str:
    """Return what Linux says of the first core under one of some names; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    # One line a core, all alike.
    return next((line for line in lines if line.startswith(names)), "").partition(":")[2].strip()


def _instructions() -> tuple[str, ...]:
    known = set(_cpu_fact("flags", "Features").split())  # the latter on ARM
    return tuple(name for name in _INSTRUCTIONS if name in known)


def _gpus() -> list[Gpu]:
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Gpu(f"cuda:{index}", torch.cuda.get_device_name(index), free, total))
    return found


def _cache() -> CacheFolder:
    folder = cache_folder()
    # The folder is made by the first download.
    there = next((path for path in (folder, *folder.parents) if path.is_dir()), folder)
    try:
        free = shutil.disk_usage(there).free
    except OSError:
        return CacheFolder(folder, None, writable=False)
    return CacheFolder(folder, free, os.access(there, os.W_OK | os.X_OK))


def _limit(name: str) -> int | None:
    try:
        return int((_INOTIFY / name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
