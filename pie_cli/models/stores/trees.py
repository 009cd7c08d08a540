"""Stores that are folders of files: LM Studio's, llama.cpp's, the hub client's and pie's own."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pie_cli.folders import data_folder, home
from pie_cli.models.gguf.files import gguf_files, parts_of
from pie_cli.models.stores.found import GGUF, SAFETENSORS, Found, Store, size_of
from pie_cli.regular import read_regular

_REPOSITORY: Final = "models--"
_QUANTISATION: Final = re.compile(
    r"[-._]((?:I?Q\d\w*|TQ\d\w*|BF16|F16|F32|MXFP4\w*))(?:-\d{5}-of-\d{5})?$", re.IGNORECASE
)
_MLX: Final = "mlx"


def own_folder() -> Path:
    """Return the folder of the models that pie pulled, whether it exists or not."""
    return data_folder() / "models"


def own_models() -> Iterator[Found]:
    """List what `pie models pull` fetched from the package index."""
    for path in gguf_files(own_folder()):
        yield Found(path.stem, "pie", GGUF, path, _size(path))


def lm_studio_folders() -> tuple[Path, ...]:
    """Return the folders of LM Studio's models, today's and the one of its first versions."""
    return (
        home() / ".lmstudio" / "models",
        home() / ".cache" / "lm-studio" / "models",
    )


def lm_studio_models() -> Iterator[Found]:
    """List LM Studio's models: a folder each, below its publisher's."""
    for root in lm_studio_folders():
        for folder in _folders(root, "*/*"):
            name = "/".join(folder.relative_to(root).parts)
            yield from _in_folder(name, folder, "LM Studio")
            if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
                form = _MLX if "mlx" in name.lower() else SAFETENSORS
                problem = "it is in MLX's format" if form == _MLX else None
                yield Found(name, "LM Studio", form, folder, size_of(folder), problem)


def llama_cpp_folders() -> tuple[Path, ...]:
    """Return llama.cpp's cache folders."""
    own = os.environ.get("LLAMA_CACHE")
    if own:
        return (Path(own),)
    if sys.platform == "darwin":
        return (home() / "Library" / "Caches" / "llama.cpp",)
    root = os.environ.get("XDG_CACHE_HOME")
    return ((Path(root) if root else home() / ".cache") / "llama.cpp",)


def llama_cpp_models() -> Iterator[Found]:
    """List llama.cpp's cache: files side by side, or repositories like the hub client's."""
    for root in llama_cpp_folders():
        for path in gguf_files(root):
            yield Found(path.stem, "llama.cpp", GGUF, path, _size(path))
        yield from _repositories(root, "llama.cpp")


def hub_models() -> Iterator[Found]:
    """List the repositories in the hub client's cache that hold a model."""
    from pie_cli.models.cache import cache_folder

    yield from _repositories(cache_folder(), "hub")


def _repositories(root: Path, store: Store) -> Iterator[Found]:
    for folder in _folders(root, f"{_REPOSITORY}*"):
        name = folder.name.removeprefix(_REPOSITORY).replace("--", "/")
        snapshot = _snapshot(folder)
        if snapshot is None:
            continue
        if (snapshot / "config.json").is_file() and any(snapshot.glob("*.safetensors")):
            yield Found(name, store, SAFETENSORS, snapshot, size_of(snapshot))
        yield from _in_folder(name, snapshot, store)


def _snapshot(repository: Path) -> Path | None:
    """Return the snapshot that `main` stands for, else the newest one."""
    snapshots = repository / "snapshots"
    try:
        commit = read_regular(repository / "refs" / "main", 1 << 20).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        commit = ""
    if re.fullmatch(r"[0-9a-f]{40}", commit) and (snapshots / commit).is_dir():
        return snapshots / commit
    return max(_folders(repository, "snapshots/*"), key=lambda path: path.name, default=None)


def _in_folder(name: str, folder: Path, store: Store) -> Iterator[Found]:
    """List a folder's GGUF models: by its name, and by the file's where it holds several."""
    try:
        files = [
            *gguf_files(folder),
            *(f for inner in _folders(folder, "*") for f in gguf_files(inner)),
        ]
    except OSError:
        return
    for file in files:
        own = f"{name}/{file.relative_to(folder).as_posix()}"
        match = _QUANTISATION.search(file.stem)
        tagged = (f"{name}:{match[1]}",) if match else ()
        if len(files) == 1:
            yield Found(name, store, GGUF, file, _size(file), others=(own, *tagged))
        else:
            yield Found(own, store, GGUF, file, _size(file), others=tagged)


def _folders(root: Path, pattern: str) -> list[Path]:
    try:
        return sorted(path for path in root.glob(pattern) if path.is_dir())
    except OSError:
        return []


def _size(path: Path) -> int:
    """Return the size of all parts that are there."""
    try:
        return sum(map(size_of, parts_of(path)))
    except Exception:  # noqa: BLE001 (a part is missing: what opens it says so)
        return size_of(path)
