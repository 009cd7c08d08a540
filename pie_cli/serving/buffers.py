"""Open documents of an editor: versions in their order, changes as edits."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final
from urllib.parse import unquote, urlsplit

from pie_cli.errors import InputError
from pie_cli.serving.positions import UTF_16, clean, cursor_at, offset_at
from pie_cli.text.edit import Edit
from pie_cli.watching.tree import MAX_FILE_BYTES
from pie_cli.workspace.documents import Documents

Place: TypeAlias = tuple[int, int]
"""Line and units, from 0."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replacement:
    """What an editor did.

    Attributes:
        text: new.
        start, stop: what it replaces; None for the whole document.
    """

    text: str
    start: Place | None = None
    stop: Place | None = None


@dataclass(frozen=True)
class Buffer:
    """An open document.

    Attributes:
        path: what the workspace knows it by.
        version: the editor's, or the next one where that is no later one.
        text: None where it is not followed: too large, or out of step until it is opened again.
    """

    path: Path
    version: int
    text: str | None

    @property
    def digest(self) -> str | None:
        """SHA-256 of the text in UTF-8, to compare with the editor's."""
        if self.text is None:
            return None
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


@final
class Buffers:
    """Takes in what an editor says of its documents, and writes it to the workspace's.

    Used by one thread. A change that cannot be understood costs its document, which is not followed
    until the editor sends the whole text, and no other.

    Args:
        documents: written to.

    Attributes:
        encoding: of the editor's positions.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._open: dict[str, Buffer] = {}
        self.encoding = UTF_16

    def __len__(self) -> int:
        """How many documents are open."""
        return len(self._open)

    def __iter__(self) -> Iterator[Buffer]:
        """Give the open documents."""
        return iter(list(self._open.values()))

    def get(self, uri: str) -> Buffer | None:
        """Return an open document, or None."""
        return self._open.get(uri)

    def open(self, uri: str, version: int, text: str) -> None:
        """Take in a document, also one that was open."""
        path = path_of(uri)
        if uri in self._open:
            self._documents.remove(path)
        self._set(uri, Buffer(path, version, text))

    def change(self, uri: str, version: int, replacements: Sequence[Replacement]) -> None:
        """Take in a new version of a document.

        What comes later is newer, whatever its number says: some clients repeat one, and ranges
        are about the text after all that came before. A number that is no later one is replaced by
        the next.

        Raises:
            InputError: it is not open, or a range is outside.
        """
        buffer = self._open.get(uri)
        if buffer is None:
            raise InputError(f"{uri} is not open", "open it first")
        if version <= buffer.version:
            _log.info("version %d of %s came after %d", version, uri, buffer.version)
            version = buffer.version + 1
        whole = [i for i, one in enumerate(replacements) if one.start is None]
        if whole:
            text, replacements = clean(replacements[whole[-1]].text), replacements[whole[-1] + 1 :]
        elif buffer.text is None:
            self._open[uri] = Buffer(buffer.path, version, None)
            return
        else:
            text = buffer.text
        try:
            edit, caret = self._edit(text, replacements)
        except InputError:
            self._forget(uri, version)
            raise
        self._set(uri, Buffer(buffer.path, version, edit.after), None if whole else edit, caret)

    def close(self, uri: str) -> None:
        """Take in that a document is closed; one that was not open is no matter."""
        buffer = self._open.pop(uri, None)
        if buffer is not None:
            self._documents.remove(buffer.path)

    def lose(self, uri: str) -> bool:
        """Follow a document no further, until its whole text comes; tell whether it was open."""
        buffer = self._open.get(uri)
        if buffer is not None:
            self._forget(uri, buffer.version)
        return buffer is not None

    def _edit(self, text: str, replacements: Sequence[Replacement]) -> tuple[Edit, int | None]:
        """Return the edit, and where the editor's caret is after it."""
        ranges, now, caret = [], text, None
        for one in replacements:
            assert one.start is not None
            assert one.stop is not None
            start = offset_at(now, *one.start, self.encoding)
            stop = offset_at(now, *one.stop, self.encoding)
            if stop < start:
                raise InputError("a range ends before it begins", "open the document again")
            new = clean(one.text)
            ranges.append((start, stop, new))
            now = now[:start] + new + now[stop:]
            caret = start + len(new)
        return Edit.of_ranges(text, ranges), caret

    def _set(
        self, uri: str, buffer: Buffer, edit: Edit | None = None, caret: int | None = None
    ) -> None:
        text = clean(buffer.text or "")
        if len(text) > MAX_FILE_BYTES:
            _log.warning("%s is larger than %d bytes: not followed", uri, MAX_FILE_BYTES)
            self._open[uri] = buffer
            self._forget(uri, buffer.version)
            return
        self._open[uri] = Buffer(buffer.path, buffer.version, text)
        cursor = None if caret is None else cursor_at(text, caret)
        self._documents.change(buffer.path, edit or text, buffer.version, cursor)

    def _forget(self, uri: str, version: int) -> None:
        """Follow a document no further, until its whole text comes."""
        path = self._open[uri].path
        self._open[uri] = Buffer(path, version, None)
        self._documents.remove(path)


def path_of(uri: str) -> Path:
    """Return the path of a file's URI; of any other, what is not a file's."""
    parts = urlsplit(uri)
    if parts.scheme != "file":
        return Path(uri)
    path = unquote(parts.path)
    # A drive's letter comes after a slash.
    is_drive = len(path) > 2 and path[0] == "/" and path[2] == ":"
    return Path(path[1:] if is_drive else path)
