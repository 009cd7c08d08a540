"""Download a model's large files so that a broken download goes on where it stopped.

The hub's client starts a file again after each interruption, which for a weight file is gigabytes.
Here what has arrived stays in the client's cache beside its blobs, and is asked for no more. A
finished file is checked against the hub's SHA-256 and takes the place where the client looks for
it.
"""

import hashlib
import shutil
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, Final

from huggingface_hub import hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import (  # type: ignore[attr-defined, unused-ignore]
    WeakFileLock,
    build_hf_headers,
)

from pie_cli.errors import ModelError
from pie_cli.models.cache import blobs_folder, cache_folder
from pie_cli.models.quiet import Progress, reporting_bar

WORKERS: Final = 4
"""Files that come at the same time."""

PART: Final = ".pie-part"
"""The ending of a file that has not arrived whole."""

_BLOCK: Final = 1 << 20


@dataclass(frozen=True)
class LargeFile:
    """A file in a repository's large file storage.

    Attributes:
        name: within the repository.
        sha256: of its content, in hexadecimal; the client's cache keeps it under this name.
        size_bytes: of its content.
    """

    name: str
    sha256: str
    size_bytes: int


def bring(
    repo_id: str, revision: str, files: Iterable[LargeFile], on_progress: Progress | None = None
) -> None:
    """Download what the cache lacks of some files.

    An interruption reaches all files that are under way within their next chunk.

    Args:
        repo_id: owner/name.
        revision: the commit that the files belong to.
        files: to be there afterwards.
        on_progress: told about "download", in bytes of all files together.

    Raises:
        ModelError: a file arrived damaged, or the disk has no room for them.
        OSError: the disk is full, or the hub out of reach; so do the errors of its client.
    """
    blobs = blobs_folder(repo_id)
    missing = [file for file in files if not (blobs / file.sha256).exists()]
    if not missing:
        return
    blobs.mkdir(parents=True, exist_ok=True)
    _require_room(repo_id, blobs, missing)
    tally = _Tally(sum(file.size_bytes for file in missing), on_progress)
    # Taken from by several threads; a deque's methods are atomic.
    waiting = deque(missing)
    outcomes: Queue[BaseException | None] = Queue()

    def work() -> None:
        while not tally.stopped:
            try:
                file = waiting.popleft()
            except IndexError:
                return
            outcomes.put(_failure_of(repo_id, revision, file, tally))

    # Daemons: Ctrl-C ends the process without waiting for the chunks that are on their way.
    for _ in range(min(WORKERS, len(missing))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in missing:
            error = outcomes.get()
            if error is not None:
                raise error
    finally:
        tally.stop()


def _require_room(repo_id: str, blobs: Path, missing: Iterable[LargeFile]) -> None:
    """Refuse early what would fill the disk in an hour."""
    parts = [(file, blobs / (file.sha256 + PART)) for file in missing]
    needed = sum(
        file.size_bytes - (part.stat().st_size if part.is_file() else 0) for file, part in parts
    )
    free = shutil.disk_usage(blobs).free
    if needed > free:
        raise ModelError(
            f"{repo_id} needs {needed / 1e9:.1f} GB more in {cache_folder()}, "
            f"where {free / 1e9:.1f} GB are free",
            "make room in the cache, or point HF_HOME at another place",
        )


class _Tally:
    """Adds up what the files have received, and stops them all."""

    def __init__(self, total: int, on_progress: Progress | None) -> None:
        self._total = total
        self._received: dict[str, int] = {}
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether nothing more is to come."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let every file that is under way end at its next chunk."""
        self._stopped.set()

    def bar_for(self, file: LargeFile) -> type[Any]:
        """Return a progress bar's class that counts one file into the whole."""

        def count(stage: str, received: int, _total: int) -> None:
            if self.stopped:
                raise InterruptedError
            with self._lock:
                self._received[file.name] = received
                if self._on_progress is not None:
                    self._on_progress(stage, sum(self._received.values()), self._total)

        return reporting_bar("download", count)


def _failure_of(
    repo_id: str, revision: str, file: LargeFile, tally: _Tally
) -> BaseException | None:
    try:
        _bring_one(repo_id, revision, file, tally)
    except BaseException as error:  # noqa: BLE001 (the thread that waits raises it)
        return error
    return None


def _bring_one(repo_id: str, revision: str, file: LargeFile, tally: _Tally) -> None:
    blob = blobs_folder(repo_id) / file.sha256
    part = blob.with_name(blob.name + PART)
    lock = cache_folder() / ".locks" / blob.parents[1].name / f"{file.sha256}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    # The client's own lock: one process writes, another one waits, and finds the file there.
    with WeakFileLock(lock):
        if blob.exists():
            return
        part.touch()
        with part.open("r+b") as stream:
            received = stream.seek(0, 2)
            if received > file.size_bytes:
                received = stream.seek(stream.truncate(0))
            http_get(
                hf_hub_url(repo_id, file.name, revision=revision),
                stream,
                resume_size=received,
                expected_size=file.size_bytes,
                headers=build_hf_headers(),
                tqdm_class=tally.bar_for(file),
            )
        if _sha256(part) != file.sha256:
            part.unlink()
            raise ModelError(
                f"{file.name} of {repo_id} arrived damaged: its checksum does not match",
                "download it again",
            )
        part.replace(blob)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
