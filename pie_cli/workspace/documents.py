"""Documents with versions: the one owner of each last text, and of the changes that wait.

Whoever sees a text change writes it here, from any thread: a watcher of files, an editor's
notifications. One worker takes what came and answers the newest change.
"""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeAlias, final

from pie_cli.errors import InputError, PieError
from pie_cli.text.cursor import Cursor
from pie_cli.text.edit import Edit
from pie_cli.workspace.requests import Request

_STOP_CHECK_S = 0.1

_MOST_WAITING = 256
"""Changes that wait before a watcher pauses: a switched branch may save thousands of files."""


@dataclass(frozen=True)
class Document:
    """One version of a text.

    Attributes:
        path: of the document.
        version: of this document alone; an editor's own, else counted from 0.
        text: whole.
    """

    path: Path
    version: int
    text: str


@dataclass(frozen=True)
class Change:
    """A document has a new text.

    Attributes:
        number: counts from 1, over all documents and failures.
        document: the new version.
        edit: what changed, where whoever saw it knows; else it is found when it is needed.
        cursor: where whoever changed it is, if known; else where the session's settings say.
        before: the text that it had, where that is still known.
    """

    number: int
    document: Document
    edit: Edit | None = None
    cursor: Cursor | None = None
    before: str | None = field(default=None, compare=False, repr=False)

    @property
    def path(self) -> Path:
        """The path of the document."""
        return self.document.path


@dataclass(frozen=True)
class Failure:
    """A document cannot be read any more.

    Attributes:
        number: counts with those of the changes.
        path: of the document.
        error: what is wrong with it.
    """

    number: int
    path: Path
    error: PieError


@dataclass(frozen=True)
class Gone:
    """A document went away, which is no failure."""

    path: Path


@dataclass(frozen=True)
class Note:
    """Something is wrong that no change is the cause of."""

    error: PieError


Item: TypeAlias = Change | Failure | Gone | Note | Request


@dataclass(frozen=True)
class Taken:
    """What came in since the last time.

    Attributes:
        items: everything, in the order in which it came.
        newest: the newest change of all; None if none came.
        superseded: the changes that came before the newest.
        requests: the questions, oldest first.
    """

    items: tuple[Item, ...] = ()
    newest: Change | None = None
    superseded: tuple[Change, ...] = ()
    requests: tuple[Request, ...] = ()

    @classmethod
    def of(cls, *items: Item) -> "Taken":
        """Find the newest of what came."""
        changes = [item for item in items if isinstance(item, Change)]
        requests = tuple(item for item in items if isinstance(item, Request))
        return cls(items, changes[-1] if changes else None, tuple(changes[:-1]), requests)

    def then(self, later: "Taken") -> "Taken":
        """Join what came with what came after it."""
        return Taken.of(*self.items, *later.items) if later.items else self


@dataclass
class _Known:
    """What is known of a document: its text or a digest of it, or else why it has none."""

    version: int
    text: str | None = None
    digest: bytes = b""
    fault: str = ""

    def has(self, text: str) -> bool:
        """Tell whether this is the text that it has."""
        if self.fault:
            return False
        return text == self.text if self.text is not None else _digest(text) == self.digest


@final
class Documents:
    """The texts that are being edited, and what happened to them that nobody has taken yet.

    A text equal to the last is no change, except after a failure: there it says that all is well
    again. A failure that lasts is one failure.

    Every change and every failure has a number and is unsettled until whoever answers says that it
    was told of: so none is lost, whatever interrupts the work.

    Args:
        stop: ends the work when set, from any thread.
        most_waiting: unsettled changes from which on `wait_for_room` waits.

    Attributes:
        stop: as given.
    """

    def __init__(
        self, stop: threading.Event | None = None, *, most_waiting: int = _MOST_WAITING
    ) -> None:
        self.stop = stop or threading.Event()
        self._most_waiting = most_waiting
        self._known: dict[Path, _Known] = {}
        self._last_number = 0
        self._newest: tuple[int, Path | None] = (0, None)
        self._unsettled: dict[int, Change | Failure] = {}
        # Written in C, so that a signal's exception leaves no lock behind in whoever takes.
        self._stream: SimpleQueue[Item | None] = SimpleQueue()
        self._writing = threading.Lock()
        self._room = threading.Event()
        self._error: Exception | None = None
        # Changed by single calls into C only, as the stream.
        self._waiting: set[Request] = set()

    # --- who writes --------------------------------------------------------------------------

    def open(self, path: Path, text: str) -> Document:
        """Take in a text that was there before anything happened: no change."""
        with self._writing:
            return self._next_version(path, text)

    def change(
        self,
        path: Path,
        to: str | Edit,
        version: int | None = None,
        cursor: Cursor | None = None,
    ) -> Change | None:
        """Take in what a document has become; None where it is the text that it had.

        Args:
            path: of the document.
            to: the whole text, or the edit that leads to it.
            version: the editor's; by default the last one and 1.
            cursor: where in the new text whoever changed it is, if known.

        Raises:
            InputError: the edit is of another text than the last, or the version no later one.
        """
        text, edit = (to.after, to) if isinstance(to, Edit) else (to, None)
        with self._writing:
            known = self._known.get(path)
            if edit is not None and (known is None or not known.has(edit.before)):
                raise InputError(f"an edit of {path} is of another text", "send the whole text")
            if known is not None and version is not None and version <= known.version:
                raise InputError(
                    f"version {version} of {path} came after {known.version}",
                    "send versions in their order",
                )
            if known is not None and known.has(text):
                known.version = version or known.version
                return None
            self._last_number += 1
            document = self._next_version(path, text, version)
            before = None if known is None else known.text
            change = Change(self._last_number, document, edit, cursor, before)
            self._put(change)
            # After the change itself: who sees the number finds the change in the stream.
            self._newest = (change.number, path)
            return change

    def fail(self, path: Path, error: PieError) -> None:
        """Take in that a document cannot be read, and why."""
        with self._writing:
            known = self._known.setdefault(path, _Known(-1))
            if known.fault != error.cause:
                self._known[path] = _Known(known.version, fault=error.cause)
                self._last_number += 1
                self._put(Failure(self._last_number, path, error))

    def remove(self, path: Path) -> None:
        """Take in that a document is no more."""
        with self._writing:
            if self._known.pop(path, None) is not None:
                self._put(Gone(path))

    def ask(self, request: Request) -> None:
        """Put a question; whoever answers breaks off other work for it."""
        self._waiting.add(request)
        self._stream.put(request)
        if self.stopped:
            request.drop()

    def note(self, error: PieError) -> None:
        """Pass on what is wrong, though no document is the cause."""
        self._put(Note(error))

    def close(self, error: Exception | None = None) -> None:
        """End the work: nothing more will come, because of an error or not."""
        self._error = error
        self.stop.set()
        self.drop_requests()
        self._stream.put(None)

    def drop_requests(self) -> None:
        """Answer by nothing what was asked and never taken, at the end."""
        with suppress(KeyError):
            while True:
                self._waiting.pop().drop()

    def wait_for_room(self) -> bool:
        """Wait while very many changes are unsettled.

        Returns:
            Whether to go on; false when the end has come.
        """
        while len(self._unsettled) >= self._most_waiting and not self.stop.is_set():
            self._room.wait(_STOP_CHECK_S)
            self._room.clear()
        return not self.stop.is_set()

    # --- who asks ----------------------------------------------------------------------------

    def get(self, path: Path) -> Document | None:
        """Return a document's last version; None where its text is not known, or not any more."""
        known = self._known.get(path)
        if known is None or known.text is None:
            return None
        return Document(path, known.version, known.text)

    def version(self, path: Path) -> int | None:
        """Return a document's last version; None where it is not known."""
        known = self._known.get(path)
        return None if known is None else known.version

    def paths(self) -> Iterator[Path]:
        """Give the documents that are known, also those that cannot be read."""
        return iter(list(self._known))

    def release(self, path: Path) -> None:
        """Forget a text that nobody needs any more, but not which one it was."""
        with self._writing:
            known = self._known.get(path)
            if known is not None and known.text is not None:
                known.digest, known.text = _digest(known.text), None

    # --- who answers -------------------------------------------------------------------------

    @property
    def stopped(self) -> bool:
        """Whether the end has come."""
        return self.stop.is_set()

    def take(self, timeout_s: float) -> Taken:
        """Wait for something to happen and take all there is.

        Args:
            timeout_s: how long to wait for the first.

        Returns:
            What came, which is nothing after the timeout and at the end.

        Raises:
            PieError: when the documents cannot be followed any longer.
        """
        items: list[Item] = []
        with suppress(Empty):
            item = self._stream.get(timeout=timeout_s)
            while True:
                if item is not None:
                    items.append(item)
                item = self._stream.get_nowait()
        if self.stopped and self._error is not None:
            raise self._error
        taken = Taken.of(*items)
        self._waiting.difference_update(taken.requests)
        return taken

    def settle(self, number: int) -> None:
        """Note that a change or a failure was told of."""
        self._unsettled.pop(number, None)
        self._room.set()

    def unsettled(self) -> tuple[Change | Failure, ...]:
        """Return the changes and failures that were not told of, oldest first."""
        return tuple(self._unsettled.values())

    def newer_than(self, number: int) -> bool:
        """Tell whether a newer text waits, of whichever document."""
        return self._newest[0] > number

    def overtaken(self, number: int) -> bool:
        """Tell whether to stop working on a change: something else waits, or the end has come."""
        return self.newer_than(number) or self.asked or self.stopped

    @property
    def asked(self) -> bool:
        """Whether a question waits."""
        return bool(self._waiting)

    def moved_on(self, number: int, path: Path) -> bool:
        """Tell whether the newest text that waits is newer and of another document."""
        newest, newest_path = self._newest
        return newest > number and newest_path != path

    def _next_version(self, path: Path, text: str, version: int | None = None) -> Document:
        known = self._known.get(path)
        if version is None:
            version = known.version + 1 if known else 0
        self._known[path] = _Known(version, text)
        return Document(path, version, text)

    def _put(self, item: Item) -> None:
        if isinstance(item, Change | Failure):
            self._unsettled[item.number] = item
        self._stream.put(item)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
