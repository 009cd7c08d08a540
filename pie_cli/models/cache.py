"""What of a model lies on this disk, told without the network."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name

from pie_cli.errors import ModelError
from pie_cli.models.checkpoint import inspect_folder
from pie_cli.models.gguf.files import parts_of
from pie_cli.models.registry import ModelSource, Origin


class Presence(Enum):
    """How much of a model is at hand."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    ABSENT = "absent"


@dataclass(frozen=True)
class OnDisk:
    """What lies on the disk of a model.

    Attributes:
        presence: complete is what can be loaded.
        folder: where its files are, if there are any.
        size_bytes: that they take up, unfinished downloads included.
    """

    presence: Presence
    folder: Path | None = None
    size_bytes: int = 0


def look_up(source: ModelSource) -> OnDisk:
    """Tell what lies on the disk of a model; reads headers, no weights."""
    if source.origin is Origin.HUB:
        return _look_up_hub(source.location)
    if source.origin is Origin.GGUF:
        parts = parts_of(Path(source.location))
        size = sum(path.stat().st_size for path in parts)
        return OnDisk(Presence.COMPLETE, parts[0], size)
    folder = Path(source.location)
    return _judged(folder, _size(folder))


def cache_folder() -> Path:
    """Return the folder of the hub's client, whether it exists or not."""
    return Path(constants.HF_HUB_CACHE)


def blobs_folder(repo_id: str) -> Path:
    """Return the folder that holds a repository's files under their hashes.

    Source:
        The hub client's description of its cache: blobs, refs and snapshots of each repository.
    """
    return cache_folder() / repo_folder_name(repo_id=repo_id, repo_type="model") / "blobs"


def _look_up_hub(repo_id: str) -> OnDisk:
    # Snapshots are links to blobs; newer clients keep blobs that repositories share elsewhere.
    blobs = blobs_folder(repo_id)
    size = _size(blobs)
    config = try_to_load_from_cache(repo_id, "config.json")
    if isinstance(config, str):
        return _judged(Path(config).parent, size)
    return OnDisk(Presence.PARTIAL, blobs.parent, size) if size else OnDisk(Presence.ABSENT)


def _judged(folder: Path, size_bytes: int) -> OnDisk:
    try:
        inspect_folder(folder)
    except (ModelError, OSError):
        return OnDisk(Presence.PARTIAL, folder, size_bytes)
    return OnDisk(Presence.COMPLETE, folder, size_bytes)


def _size(folder: Path) -> int:
    """Add up the sizes of a folder's files; 0 where it is not there, or changes meanwhile."""
    try:
        return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    except OSError:
        return 0
