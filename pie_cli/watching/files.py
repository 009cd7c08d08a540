"""The user's files, read and never written; as they change, documents."""

import errno
import os
import stat
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, final

from pie_cli.errors import InputError, PieError
from pie_cli.regular import read_regular
from pie_cli.watching.tree import MAX_FILE_BYTES
from pie_cli.workspace.documents import Documents

_JOIN_S = 5.0
_NO_SUCH_PATH = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


class NotText(InputError):
    """A file holds something else than text."""


class MissingFile(InputError):
    """There is no such file."""


def read_source(path: Path) -> str:
    """Read a source file whole, its line ends as they are.

    Raises:
        InputError: missing, unreadable, binary or not UTF-8.
    """
    return source_text(read_bytes(path), str(path))


def source_text(data: bytes, name: str) -> str:
    """Return source text that came as bytes.

    Args:
        data: all of it.
        name: what an error calls it.

    Raises:
        NotText: binary or not UTF-8.
    """
    if b"\x00" in data:
        raise NotText(f"{name} is binary", "pie completes source text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotText(
            f"{name} is not UTF-8 (byte {error.start})", "convert it to UTF-8 first"
        ) from None


def read_bytes(path: Path) -> bytes:
    """Read a file whole, or what a shell put in its place, as in `<(git diff)`.

    Raises:
        InputError: missing or unreadable, a pipe with a name or a device.
    """
    try:
        return read_regular(path, pipes=True)
    except FileNotFoundError:
        raise MissingFile(f"there is no file {path}", "check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder", "name a file in it") from None
    except OSError as error:
        if error.errno in _NO_SUCH_PATH:
            raise InputError(f"cannot read {path}: {error.strerror}", "check the path") from None
        raise InputError(f"cannot read {path}: {error.strerror}", "check its permissions") from None


def read_watched(path: Path, named: bool) -> str:
    """Read a file that is being watched, which may be anything by now.

    Args:
        path: the file.
        named: by the user; else it came with a folder, and a huge one counts as data.

    Raises:
        InputError: as `read_source`, and where it is no regular file or too large.
    """
    with suppress(OSError):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            # A pipe, to read from which would never end.
            raise InputError(f"{path} is neither a file nor a folder", "name a file of text")
        if not named and status.st_size > MAX_FILE_BYTES:
            raise InputError(
                f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, which counts as data",
                "name the file itself to have it watched all the same",
            )
    return read_source(path)


def is_folder(path: Path) -> bool:
    """Tell whether a path is a folder; one that cannot be looked at is none."""
    with suppress(OSError):
        return path.is_dir()
    return False


def real_path(path: Path) -> Path:
    """Return a path without symbolic links, as far as it can be followed: also one in a circle."""
    return Path(os.path.realpath(path))


def shown_path(path: Path) -> str:
    """Return the path as results name it: relative below the working directory, else absolute."""
    absolute = path.absolute()
    try:
        return absolute.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return absolute.as_posix()


class ChangeSets(Protocol):
    """What a watcher gives."""

    @property
    def shortfall(self) -> PieError | None:
        """Why something is not being watched; None where all is."""

    def __iter__(self) -> Iterator[Collection[Path]]:
        """Block until files may have changed, and say which, the last one last."""


@final
class FileDocuments:
    """Reads files as they change, in a thread of its own, and writes their texts to the documents.

    Reading at once tells real saves from touches, so that only a new text overtakes an older one.

    Files that the user did not name, but a folder of theirs, are treated with less ado: one that
    goes away is gone and no failure, and one that is no text and never was is passed over.

    As a context manager it starts the thread; leaving it stops the work and waits for the thread,
    which ends with the change sets.

    Args:
        changes: from a watcher; they end when the documents' stop is set.
        documents: written to; they know the texts from the start.
        named: the files that the user named.
        read: reads a file, which the user named or not.
    """

    def __init__(
        self,
        changes: ChangeSets,
        documents: Documents,
        *,
        named: Collection[Path] = (),
        read: Callable[[Path, bool], str] = read_watched,
    ) -> None:
        self._changes = changes
        self._documents = documents
        self._named = frozenset(named)
        self._read = read
        self._noted: PieError | None = None
        self._thread = threading.Thread(target=self._follow, name="pie-files", daemon=True)

    def __enter__(self) -> "FileDocuments":
        """Start to read."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and wait for the thread."""
        self._documents.stop.set()
        self._thread.join(_JOIN_S)

    def look(self, path: Path) -> None:
        """Read a file that may have changed."""
        named = path in self._named
        try:
            text = self._read(path, named)
        except InputError as error:
            if named or not self._passed_over(path, error):
                self._documents.fail(path, error)
        else:
            self._documents.change(path, text)

    def _follow(self) -> None:
        """Look at all that changes until the end; the thread's body."""
        try:
            self._note_shortfall()
            for paths in self._changes:
                self._look_at(paths)
                self._note_shortfall()
        except Exception as error:  # noqa: BLE001 - raised where it can be reported
            self._documents.close(error)
        else:
            self._documents.close()

    def _look_at(self, paths: Collection[Path]) -> None:
        for path in paths:
            self.look(path)
            if not self._documents.wait_for_room():
                return

    def _passed_over(self, path: Path, error: InputError) -> bool:
        """Deal with a file of a folder that is no failure: one that went, one that is no text."""
        known = set(self._documents.paths())
        if path.is_file():
            return isinstance(error, NotText) and path not in known
        # A folder that went takes its files along; named ones speak for themselves.
        for gone in known - self._named:
            if gone == path or path in gone.parents:
                self._documents.remove(gone)
        return True

    def _note_shortfall(self) -> None:
        """Pass on what is not watched, once."""
        error = self._changes.shortfall
        if error is not None and error is not self._noted:
            self._noted = error
            self._documents.note(error)
