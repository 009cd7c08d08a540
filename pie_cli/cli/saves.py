"""The queue of saves between the watcher and the model: the newest wins."""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import final

from pie_cli.cli.files import read_source
from pie_cli.errors import InputError, PieError

_JOIN_S = 5.0


@dataclass(frozen=True)
class Save:
    """A text that was saved.

    Attributes:
        save_id: counts from 1.
        text: the file's whole text.
    """

    save_id: int
    text: str


@dataclass(frozen=True)
class FailedSave:
    """A save that left nothing to read.

    Attributes:
        save_id: counts with those of the texts.
        error: what is wrong with the file.
    """

    save_id: int
    error: PieError


@dataclass(frozen=True)
class Taken:
    """What came in since the last time.

    Attributes:
        newest: the newest text; None if none came.
        superseded: ids of the texts that came before it and were never looked at, ascending.
        failed: saves that could not be read, ascending.
    """

    newest: Save | None = None
    superseded: tuple[int, ...] = ()
    failed: tuple[FailedSave, ...] = ()


@dataclass(frozen=True)
class _End:
    """No more saves: why, if that is a failure."""

    error: Exception | None = None


@final
class Saves:
    """Reads a file at each change set, in a thread of its own, and hands the newest text over.

    Reading at once tells real saves from touches, so that only a new text gives up what is computed
    for an older one. A text equal to the last is no save, except behind a failure: there it says
    that all is well again. A failure that lasts is one failure.

    As a context manager it starts the thread; leaving it waits for the thread, which ends with the
    change sets.

    Args:
        path: the file.
        changes: blocks until the file may have changed; the elements themselves are not looked at.
        text: the text that is known already.
        stop: set on leaving; it has to end `changes`.
        read: reads the file.
    """

    def __init__(
        self,
        path: Path,
        changes: Iterable[object],
        text: str,
        stop: threading.Event,
        read: Callable[[Path], str] = read_source,
    ) -> None:
        self._path = path
        self._changes = changes
        self._last: str | None = text
        self._last_cause = ""
        self._stop = stop
        self._read = read
        self._queue: SimpleQueue[Save | FailedSave | _End] = SimpleQueue()
        self._last_id = 0
        self._newest_id = 0
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
        end = _End()
        try:
            for _ in self._changes:
                self._look()
        except Exception as error:  # noqa: BLE001 - `take` raises it where it can be reported
            end = _End(error)
        self._stop.set()
        self._queue.put(end)

    @property
    def stopped(self) -> bool:
        """Whether the end has come, though saves may be left to take."""
        return self._stop.is_set()

    def newer_than(self, save_id: int) -> bool:
        """Tell whether a newer text waits."""
        return self._newest_id > save_id

    def overtaken(self, save_id: int) -> bool:
        """Tell whether to give a save up: a newer text waits, or the end has come."""
        return self.newer_than(save_id) or self.stopped

    def take(self, timeout_s: float) -> Taken:
        """Wait for saves and take all there are.

        Args:
            timeout_s: how long to wait for the first.

        Returns:
            What came, which is nothing after the timeout and at the end; then `ended` tells.

        Raises:
            PieError: when the file cannot be watched any longer.
        """
        texts: list[Save] = []
        failed: list[FailedSave] = []
        with suppress(Empty):
            item = self._queue.get(timeout=timeout_s)
            while True:
                if isinstance(item, _End):
                    self.ended = True
                    if item.error is not None:
                        raise item.error
                elif isinstance(item, Save):
                    texts.append(item)
                else:
                    failed.append(item)
                item = self._queue.get_nowait()
        return Taken(
            newest=texts[-1] if texts else None,
            superseded=tuple(save.save_id for save in texts[:-1]),
            failed=tuple(failed),
        )

    def _look(self) -> None:
        """Read the file, and queue what is new about it."""
        try:
            text = self._read(self._path)
        except InputError as error:
            if error.cause != self._last_cause:
                self._last, self._last_cause = None, error.cause
                self._last_id += 1
                self._queue.put(FailedSave(self._last_id, error))
            return
        if text == self._last:
            return
        self._last, self._last_cause = text, ""
        self._last_id += 1
        self._queue.put(Save(self._last_id, text))
        # Behind the text itself: who sees the number finds the save in the queue.
        self._newest_id = self._last_id
