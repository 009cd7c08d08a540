"""Events of the operating system's files, by watchdog, which is imported here alone."""

import errno
import logging
import os
import queue
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Protocol

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from pie_cli.errors import InputError, PieError

LINUX = sys.platform.startswith("linux")
_NAME_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
]
_CONTENT_EVENTS: list[type[FileSystemEvent]] = [FileModifiedEvent, FileClosedEvent]
_TOO_MANY = {
    errno.ENOSPC: "max_user_watches",
    errno.EMFILE: "max_user_instances",
    errno.ENFILE: "max_user_instances",
}

# Without a handler of its own, its warnings would reach stderr among our own output.
logging.getLogger("watchdog").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class FileEvent:
    """Something happened to a name in a folder.

    Attributes:
        path: the name, without symbolic links in front of it.
        renamed: the name came, went or now means another file; else its contents changed.
    """

    path: Path
    renamed: bool


@dataclass(frozen=True)
class Shortfall:
    """Folders that could not be watched though the rest is.

    Attributes:
        error: why not, and what the user can do.
        folders: those left out.
    """

    error: PieError
    folders: tuple[Path, ...] = ()


class Events(Protocol):
    """File events that wait to be taken."""

    def get(self, *, timeout: float) -> FileEvent:
        """Wait for an event, so many seconds.

        Raises:
            queue.Empty: when none came in time.
        """


class Source(Protocol):
    """Where file events come from: the operating system, or a test."""

    @property
    def events(self) -> Events:
        """What happened."""

    def follow(
        self,
        folders: Mapping[Path, bool],
        renew: Callable[[Path], bool],
        spare: Collection[Path] = (),
    ) -> Shortfall | None:
        """Watch just these folders from now on.

        Args:
            folders: the folders; true where the files' contents matter, false for names only.
            renew: tells of which folder the watch is stale, for another is in its place.
            spare: those of the folders that may be left out where the system sets a limit.

        Returns:
            What was left out.
        """

    def close(self) -> None:
        """Stop watching."""


class _Scope(Enum):
    """How much of a folder a watch takes in: names that come and go, saves as well, all below."""

    NAMES = auto()
    SAVES = auto()
    TREE = auto()


class WatchdogSource:
    """Events of the operating system, by watchdog; one watch for each folder."""

    def __init__(self, observer: Callable[[], BaseObserver] = Observer) -> None:
        """Start the observer, another one (a polling one, say) where the system's is of no use.

        Raises:
            PieError: the system's limit of watchers is reached.
        """
        self.events: queue.SimpleQueue[FileEvent] = queue.SimpleQueue()
        self._watches: dict[Path, tuple[_Scope, ObservedWatch]] = {}
        self._handler = _Handler(self.events)
        self._closed = False
        try:
            self._observer = observer()
            self._observer.start()
        except OSError as error:
            raise _limit_reached(error) from error

    def follow(
        self,
        folders: Mapping[Path, bool],
        renew: Callable[[Path], bool],
        spare: Collection[Path] = (),
    ) -> Shortfall | None:
        """Watch just these folders from now on; see `Source`."""
        wanted = _wanted(folders, spare)
        for folder, (scope, watch) in list(self._watches.items()):
            if wanted.get(folder) is not scope or renew(folder):
                del self._watches[folder]
                self._observer.unschedule(watch)
        missing = [folder for folder in wanted if folder not in self._watches]
        missing.sort(key=lambda folder: folder in spare)
        for index, folder in enumerate(missing):
            refusal = self._schedule(folder, wanted[folder])
            if refusal is not None and folder not in spare:
                raise refusal
            if refusal is not None and not isinstance(refusal, InputError):
                # The system's limit: what follows is spare, too.
                return Shortfall(refusal, tuple(missing[index:]))
        return None

    def close(self) -> None:
        """Stop the observer and wait for its threads."""
        if not self._closed:
            self._closed = True
            self._observer.stop()
            self._observer.join()

    def _schedule(self, folder: Path, scope: _Scope) -> PieError | None:
        """Watch one more folder if it is there, or return what is against it."""
        if not folder.is_dir():
            return None
        contents = scope is not _Scope.NAMES
        if not os.access(folder, os.R_OK | os.X_OK):
            refusal = InputError(f"the folder {folder} cannot be read", "change its permissions")
            return refusal if contents else None
        try:
            with _moves_reported_at_once():
                watch = self._observer.schedule(
                    self._handler,
                    str(folder),
                    recursive=scope is _Scope.TREE,
                    event_filter=_NAME_EVENTS + _CONTENT_EVENTS if contents else _NAME_EVENTS,
                )
        except (OSError, RuntimeError) as error:
            # A thread that cannot be started is a RuntimeError.
            return _limit_reached(error) if contents and folder.is_dir() else None
        self._watches[folder] = (scope, watch)
        return None


def _wanted(folders: Mapping[Path, bool], spare: Collection[Path]) -> dict[Path, _Scope]:
    """Say how much each watch has to take in.

    Elsewhere than on Linux a watch takes in all that lies below. So the folders above, there in
    case they are replaced, get none (the root's would see everything), and a tree needs only one.
    """
    if LINUX:
        return {f: _Scope.SAVES if saves else _Scope.NAMES for f, saves in folders.items()}
    scope = _Scope.TREE if spare else _Scope.SAVES
    return {folder: scope for folder, saves in folders.items() if saves and folder not in spare}


class _Handler(FileSystemEventHandler):
    """Turns watchdog's events into ours."""

    def __init__(self, events: "queue.SimpleQueue[FileEvent]") -> None:
        self._events = events

    def on_any_event(self, event: FileSystemEvent) -> None:
        renamed = any(isinstance(event, kind) for kind in _NAME_EVENTS)
        if not renamed and not any(isinstance(event, kind) for kind in _CONTENT_EVENTS):
            return
        for path in (event.src_path, event.dest_path):
            if path:
                self._events.put(FileEvent(Path(os.fsdecode(path)), renamed))


@contextmanager
def _moves_reported_at_once() -> Iterator[None]:
    """Have a new watch not wait for the other half of a rename; the module is there on Linux only.

    watchdog holds such an event, and all that follow, back for half a second to pair both halves.
    Emacs and others move the old file to another folder first, so that there is no other half.
    """
    try:
        from watchdog.observers.inotify_move_event_grouper import (
            InotifyMoveEventGrouper,
        )
    except ImportError:
        yield
        return
    delay = InotifyMoveEventGrouper.delay
    InotifyMoveEventGrouper.delay = 0.0
    try:
        yield
    finally:
        InotifyMoveEventGrouper.delay = delay


def _limit_reached(error: OSError | RuntimeError) -> PieError:
    """Turn a refusal of the operating system into an error with a remedy."""
    code = error.errno if isinstance(error, OSError) else None
    limit = _TOO_MANY.get(code or 0)
    reason = getattr(error, "strerror", None) or error
    if limit is None:
        return PieError(f"files cannot be watched here ({reason})")
    return PieError(
        f"the system's limit of file watches is reached ({reason})",
        f"close other programs that watch files, or raise the limit: "
        f"sudo sysctl fs.inotify.{limit}=524288",
    )
