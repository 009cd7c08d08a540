"""The queue of saves between the watcher and the model: the newest wins."""

import hashlib
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue
from types import TracebackType
from typing import TypeAlias, final

from pie_cli.errors import InputError, PieError
from pie_cli.workspace.files import NotText, read_watched

_JOIN_S = 5.0
_STOP_CHECK_S = 0.1

_MOST_WAITING = 256
"""Saves that wait unread at most: a switched branch may save thousands of files at once."""


@dataclass(frozen=True)
class Save:
    """A text that was saved.

    Attributes:
        save_id: counts from 1, over all files.
        path: of the file.
        text: the file's whole text.
    """

    save_id: int
    path: Path
    text: str


@dataclass(frozen=True)
class FailedSave:
    """A save that left nothing to read.

    Attributes:
        save_id: counts with those of the texts.
        path: of the file.
        error: what is wrong with the file.
    """

    save_id: int
    path: Path
    error: PieError


@dataclass(frozen=True)
class Gone:
    """A file of a folder went away: nothing was saved, but its text is no more."""

    path: Path


@dataclass(frozen=True)
class _End:
    """No more saves."""


Item: TypeAlias = Save | FailedSave | Gone


@dataclass(frozen=True)
class Taken:
    """What came in since the last time.

    Attributes:
        items: everything, in the order in which it came.
    """

    items: tuple[Item, ...] = ()

    @property
    def newest(self) -> Save | None:
        """The newest text of all; None if none came."""
        return next((item for item in reversed(self.items) if isinstance(item, Save)), None)

    @property
    def superseded(self) -> tuple[Save, ...]:
        """The texts that came before the newest."""
        return tuple(item for item in self.items if isinstance(item, Save))[:-1]

    @property
    def failed(self) -> tuple[FailedSave, ...]:
        """Saves that could not be read."""
        return tuple(item for item in self.items if isinstance(item, FailedSave))


@final
class Saves:
    """Reads files as they change, in a thread of its own, and hands the newest text over.

    Reading at once tells real saves from touches, so that only a new text gives up what is computed
    for an older one. A text equal to the last is no save, except behind a failure: there it says
    that all is well again. A failure that lasts is one failure.

    Files that the user did not name, but a folder of theirs, are treated with less ado: one that
    goes away is gone and no failure, and one that is no text and never was is passed over.

    As a context manager it starts the thread; leaving it waits for the thread, which ends with the
    change sets.

    Args:
        changes: blocks until files may have changed, and says which, the last one last.
        texts: those that are known already.
        stop: set on leaving; it has to end `changes`.
        named: the files that the user named; by default those whose texts are known.
        read: reads a file, which the user named or not.
    """

    def __init__(
        self,
        changes: Iterable[Collection[Path]],
        texts: Mapping[Path, str],
        stop: threading.Event,
        *,
        named: Collection[Path] | None = None,
        read: Callable[[Path, bool], str] = read_watched,
    ) -> None:
        self._changes = changes
        self._named = frozenset(texts if named is None else named)
        # What is known of each file: a digest of its text, or else why it has none.
        self._known: dict[Path, bytes | str] = {p: _digest(text) for p, text in texts.items()}
        self._stop = stop
        self._read = read
        self._queue: Queue[Item | _End] = Queue(_MOST_WAITING)
        self._last_id = 0
        self._newest: tuple[int, Path | None] = (0, None)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self.pump, name="pie-saves", daemon=True)
        self.ended = False

    def __enter__(self) -> "Saves":
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
        self._stop.set()
        self._thread.join(_JOIN_S)

    def pump(self) -> None:
        """Turn change sets into saves until they end; the thread's body."""
        try:
            for paths in self._changes:
                for path in paths:
                    self._look(path)
        except Exception as error:  # noqa: BLE001 - `take` raises it where it can be reported
            self._error = error
        self._stop.set()
        with suppress(Full):
            # Wakes who waits; a full queue has nobody waiting, who will look for the end.
            self._queue.put_nowait(_End())

    @property
    def stopped(self) -> bool:
        """Whether the end has come, though saves may be left to take."""
        return self._stop.is_set()

    def newer_than(self, save_id: int) -> bool:
        """Tell whether a newer text waits, of whichever file."""
        return self._newest[0] > save_id

    def overtaken(self, save_id: int) -> bool:
        """Tell whether to give a save up: a newer text waits, or the end has come."""
        return self.newer_than(save_id) or self.stopped

    def moved_on(self, save_id: int, path: Path) -> bool:
        """Tell whether the newest text that waits is newer and of another file."""
        newest_id, newest_path = self._newest
        return newest_id > save_id and newest_path != path

    def take(self, timeout_s: float) -> Taken:
        """Wait for saves and take all there are.

        Args:
            timeout_s: how long to wait for the first.

        Returns:
            What came, which is nothing after the timeout and at the end; then `ended` tells.

        Raises:
            PieError: when the files cannot be watched any longer.
        """
        items: list[Item] = []
        with suppress(Empty):
            item = self._queue.get(timeout=timeout_s)
            while True:
                if isinstance(item, _End):
                    self.ended = True
                else:
                    items.append(item)
                item = self._queue.get_nowait()
        # A queue that was full at the end has no word of it.
        self.ended |= self.stopped and not self._thread.is_alive()
        if self.ended and self._error is not None:
            raise self._error
        return Taken(tuple(items))

    def _look(self, path: Path) -> None:
        """Read a file, and queue what is new about it."""
        known = self._known.get(path)
        named = path in self._named
        try:
            text = self._read(path, named)
        except InputError as error:
            if named or not self._passed_over(path, error):
                self._fail(path, error)
            return
        digest = _digest(text)
        if digest == known:
            return
        self._known[path] = digest
        self._last_id += 1
        self._put(Save(self._last_id, path, text))
        # Behind the text itself: who sees the number finds the save in the queue.
        self._newest = (self._last_id, path)

    def _fail(self, path: Path, error: InputError) -> None:
        if self._known.get(path) != error.cause:
            self._known[path] = error.cause
            self._last_id += 1
            self._put(FailedSave(self._last_id, path, error))

    def _passed_over(self, path: Path, error: InputError) -> bool:
        """Deal with a file of a folder that is no failure: one that went, one that is no text."""
        if path.is_file():
            return isinstance(error, NotText) and path not in self._known
        # A folder that went takes its files along; named ones speak for themselves.
        below = [known for known in self._known if path in known.parents]
        for gone in {path, *below} & self._known.keys() - self._named:
            del self._known[gone]
            self._put(Gone(gone))
        return True

    def _put(self, item: Item) -> None:
        """Queue an item, waiting for room; behind the end nobody takes any more."""
        while not self._stop.is_set():
            with suppress(Full):
                self._queue.put(item, timeout=_STOP_CHECK_S)
                return


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
