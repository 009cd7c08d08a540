"""Converted GGUF models, kept in the user's cache: each is unpacked once.

A model is known by the SHA-256 of its files and the dtype that it was unpacked to. Hashing
gigabytes takes seconds as well, so a hash is remembered for as long as a file's place, size, inode
and times stay the same. The folders together stay below a bound: those used longest ago go.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from pie_cli.errors import ModelError
from pie_cli.folders import cache_folder
from pie_cli.models.gguf.conversion import plan_conversion
from pie_cli.models.gguf.model import GgufModel
from pie_cli.models.gguf.weights import is_quantised
from pie_cli.models.quiet import Progress
from pie_cli.models.temporary import TEMPORARY
from pie_cli.storing import reason, remedy

LIMIT_BYTES: Final = 32_000_000_000
"""Of all converted models together; the one that is asked for may be larger."""

# Raised with any change of what is written, so that older folders are made again.
_FORMAT: Final = 1
_BLOCK: Final = 1 << 20
_REMEMBERED: Final = 500
_IN_USE_S: Final = 600


def converted_folder() -> Path:
    """Return the folder of converted models, whether it exists or not."""
    return cache_folder() / "gguf"


def converted(model: GgufModel, dtype: str, on_progress: Progress | None = None) -> Path:
    """Return a model's converted folder, written now where it is not there.

    Args:
        model: its headers, just read.
        dtype: of what is unpacked.
        on_progress: told about the stage "convert", in bytes.

    Raises:
        ModelError: the model cannot be read, changed meanwhile, or finds no room.
    """
    root = converted_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        before = _states(model)
        kind = dtype if is_quantised(model) else "plain"
        folder = root / f"{_identity(root, model, before)[:32]}-{kind}-{_FORMAT}"
        if not (folder / "config.json").is_file():
            conversion = plan_conversion(model, dtype)
            _make_room(root, conversion.size_bytes)
            conversion.write(folder, on_progress)
            if _states(model) != before:
                shutil.rmtree(folder, ignore_errors=True)
                raise _changed(model)
        with suppress(OSError):
            os.utime(folder)
    except OSError as error:
        raise ModelError(
            f"{model.facts.path} cannot be converted into {root}: {reason(error)}",
            f"{remedy(error, 'check both')}, or point XDG_CACHE_HOME at another place",
        ) from error
    return folder


def _states(model: GgufModel) -> list[tuple[int, ...]]:
    states = [path.stat() for path in model.paths]
    return [(it.st_dev, it.st_ino, it.st_size, it.st_mtime_ns, it.st_ctime_ns) for it in states]


def _identity(root: Path, model: GgufModel, states: list[tuple[int, ...]]) -> str:
    """Return the hash of a model's files, from memory where they are as they were."""
    places = [str(path.resolve()) for path in model.paths]
    key = hashlib.sha256(json.dumps([places, states]).encode()).hexdigest()[:32]
    remembered = root / "hashes" / key
    with suppress(OSError):
        known = remembered.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    digest = hashlib.sha256()
    for path in model.paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    if _states(model) != states:
        raise _changed(model)
    found = digest.hexdigest()
    with suppress(OSError):
        remembered.parent.mkdir(exist_ok=True)
        _forget(remembered.parent)
        # Short enough to be written at once; anything else is not believed.
        remembered.write_text(found, encoding="ascii")
    return found


def _forget(folder: Path) -> None:
    """Keep the newest of the remembered hashes."""
    paths = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in paths[_REMEMBERED:]:
        path.unlink(missing_ok=True)


def _make_room(root: Path, needed_bytes: int) -> None:
    """Remove what was used longest ago until a model fits the bound, and the disk.

    Raises:
        ModelError: the disk has no room for it even then.
    """
    kept = sorted(_folders(root), key=lambda entry: entry[0])
    total = sum(size for _, size, _ in kept)
    for used, size, folder in kept:
        free = shutil.disk_usage(root).free
        if total + needed_bytes <= LIMIT_BYTES and needed_bytes <= free:
            return
        # Another process may be loading it.
        if time.time() - used > _IN_USE_S:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
    free = shutil.disk_usage(root).free
    if needed_bytes > free:
        raise ModelError(
            f"unpacked the model takes {needed_bytes / 1e9:.1f} GB in {root}, where "
            f"{free / 1e9:.1f} GB are free",
            "make room, give --dtype bfloat16, or point XDG_CACHE_HOME at another place",
        )


def _folders(root: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield when each converted folder was last used, its size, and where it is."""
    for folder in root.iterdir():
        if folder.name.startswith(TEMPORARY) or not (folder / "config.json").is_file():
            continue
        with suppress(OSError):
            size = sum(path.stat().st_size for path in folder.iterdir())
            yield folder.stat().st_mtime, size, folder


def _changed(model: GgufModel) -> ModelError:
    return ModelError(f"{model.facts.path} changed while it was read", "try again when it is whole")
