"""Saves of files, as a stream of change sets.

Editors save in many ways: into the file, by a rename over it, by moving the old one aside first, by
deleting and creating. So not files are watched but the folders that hold them, and the names on the
way there: symbolic links are followed to each place where a save can happen, and a folder that is
replaced is watched anew. What happens in quick succession is one change set.
"""

import errno
import logging
import os
import queue
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

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

DEBOUNCE_MS = 30
"""Quiet after which a save counts as done: an editor's events lie some milliseconds apart."""

MAX_WAIT_MS = 1_000
"""Longest wait for quiet, for a file that is written to without end."""

_STOP_CHECK_S = 0.1
_MAX_LINKS = 40
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


class Source(Protocol):
    """Where file events come from: the operating system, or a test."""

    def follow(self, folders: Mapping[Path, bool], renew: Callable[[Path], bool]) -> None:
        """Watch just these folders from now on.

        Args:
            folders: the folders; true where the files' contents matter, false for names only.
            renew: tells of which folder the watch is stale, for another stands in its place.
        """

    def next(self, timeout_s: float) -> FileEvent | None:
        """Wait for an event; None when none came in time."""

    def close(self) -> None:
        """Stop watching."""


@final
class Watcher(Iterator[set[Path]]):
    """The change sets of some files, from the moment of construction on.

    Iteration blocks. It ends when the stop event is set, at the latest a tenth of a second later.
    Iterate in one thread only, which need not be the one that constructed it. Also a context
    manager, for a loop that is left in another way.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        stop: threading.Event,
        debounce_ms: float = DEBOUNCE_MS,
        backend: "Callable[[], Source] | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to watch; see `watch`."""
        self._paths = {path: path.absolute() for path in paths}
        for path, place in self._paths.items():
            if place.is_dir():
                raise InputError(f"{path} is a folder", "name a file to watch")
        self._stop = stop
        self._debounce_s = debounce_ms / 1_000
        self._clock = clock
        self._touched_by: dict[Path, set[Path]] = {}
        self._source = (backend or WatchdogSource)()
        try:
            self._follow(lambda _: False)
        except BaseException:
            self.close()
            raise

    def __next__(self) -> set[Path]:
        """Wait for the next change set: the paths as given, of which files may have changed."""
        touched: set[Path] = set()
        while not touched:
            if self._stop.is_set():
                self.close()
                raise StopIteration
            touched = self._take(_STOP_CHECK_S) or set()
        deadline = self._clock() + MAX_WAIT_MS / 1_000
        while self._clock() < deadline and not self._stop.is_set():
            more = self._take(self._debounce_s)
            if more is None:
                break
            touched |= more
        return touched

    def __enter__(self) -> "Watcher":
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self.close()

    def close(self) -> None:
        """Stop watching; more than once does no harm."""
        self._source.close()

    def _take(self, timeout_s: float) -> set[Path] | None:
        """Take one event: the given paths that it touches, or None when none came in time."""
        event = self._source.next(timeout_s)
        if event is None:
            return None
        touched = self._touched_by.get(event.path, set())
        if touched and event.renamed:
            # Before the consumer reads a file: what changes later is an event of the new watch.
            self._follow(lambda folder: event.path == folder or event.path in folder.parents)
        return set(touched)

    def _follow(self, renew: Callable[[Path], bool]) -> None:
        """Find the names on the way to each file and watch the folders they stand in."""
        touched_by: defaultdict[Path, set[Path]] = defaultdict(set)
        folders: dict[Path, bool] = {}
        for path, place in self._paths.items():
            for name, holds_text in names_on_the_way(place):
                touched_by[name].add(path)
                folders[name.parent] = folders.get(name.parent, False) or holds_text
        self._touched_by = dict(touched_by)
        self._source.follow(folders, renew)


def watch(
    paths: Iterable[Path],
    *,
    stop: threading.Event,
    debounce_ms: float = DEBOUNCE_MS,
    backend: "Callable[[], Source] | None" = None,
) -> Watcher:
    """Watch files for saves. The watch is set when this returns, so no later save is missed.

    A change set says that something happened to a file, not that its text differs: it may be the
    same, unreadable for a moment, or gone. Opening and reading a file is no change.

    Args:
        paths: files, which need not exist yet.
        stop: ends the iteration when set, from any thread.
        debounce_ms: quiet that ends a change set.
        backend: makes the source of events; the operating system's where None.

    Returns:
        An iterator over sets of the paths as given.

    Raises:
        InputError: a path is a folder, or its folder cannot be read.
        PieError: the system's limit of watches is reached.
    """
    return Watcher(paths, stop=stop, debounce_ms=debounce_ms, backend=backend)


def names_on_the_way(place: Path) -> Iterator[tuple[Path, bool]]:
    """Walk an absolute path as the system resolves it, through symbolic links.

    Yields:
        Each name met, in a folder without links, and whether it stands for the file itself: true
        for the file and for a link that is the path's last part.
    """
    root = Path(place.anchor)
    folder, ahead, links = root, list(place.parts[1:]), 0
    while ahead:
        part = ahead.pop(0)
        if part == "..":
            folder = folder.parent
            continue
        name = folder / part
        yield name, not ahead
        target = _link_target(name) if links < _MAX_LINKS else None
        if target is None:
            folder = name
            continue
        links += 1
        if target.is_absolute():
            folder = Path(target.anchor)
        ahead = [*(part for part in target.parts if part != target.anchor), *ahead]


def _link_target(name: Path) -> Path | None:
    with suppress(OSError, ValueError):
        return name.readlink()
    return None


class WatchdogSource:
    """Events of the operating system, by watchdog; one watch for each folder."""

    def __init__(self, observer: Callable[[], BaseObserver] = Observer) -> None:
        """Start the observer, another one (a polling one, say) where the system's is of no use.

        Raises:
            PieError: the system's limit of watchers is reached.
        """
        self._events: queue.SimpleQueue[FileEvent] = queue.SimpleQueue()
        self._watches: dict[Path, tuple[bool, ObservedWatch]] = {}
        self._handler = _Handler(self._events)
        self._closed = False
        try:
            self._observer = observer()
            self._observer.start()
        except OSError as error:
            raise _limit_reached(error) from error

    def follow(self, folders: Mapping[Path, bool], renew: Callable[[Path], bool]) -> None:
        """Watch just these folders from now on; see `Source`."""
        for folder, (contents, watch) in list(self._watches.items()):
            if folders.get(folder) != contents or renew(folder):
                del self._watches[folder]
                self._observer.unschedule(watch)
        for folder, contents in folders.items():
            # The folders above are watched in case they are replaced. Elsewhere than on Linux a
            # watch takes in all that lies below, so a watch on the root would see everything.
            if folder not in self._watches and (contents or sys.platform.startswith("linux")):
                self._schedule(folder, contents)

    def next(self, timeout_s: float) -> FileEvent | None:
        """Wait for an event; see `Source`."""
        with suppress(queue.Empty):
            return self._events.get(timeout=timeout_s)
        return None

    def close(self) -> None:
        """Stop the observer and wait for its threads."""
        if not self._closed:
            self._closed = True
            self._observer.stop()
            self._observer.join()

    def _schedule(self, folder: Path, contents: bool) -> None:
        if not folder.is_dir():
            return
        if not os.access(folder, os.R_OK | os.X_OK):
            if contents:
                raise InputError(f"the folder {folder} cannot be read", "change its permissions")
            return
        events = _NAME_EVENTS + _CONTENT_EVENTS if contents else _NAME_EVENTS
        try:
            with _moves_reported_at_once():
                watch = self._observer.schedule(self._handler, str(folder), event_filter=events)
        except OSError as error:
            if folder.is_dir() and contents:
                raise _limit_reached(error) from error
            return
        self._watches[folder] = (contents, watch)


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


def _limit_reached(error: OSError) -> PieError:
    """Turn a refusal of the operating system into an error with a remedy."""
    limit = _TOO_MANY.get(error.errno or 0)
    if limit is None:
        return PieError(f"files cannot be watched here ({error.strerror or error})")
    return PieError(
        f"the system's limit of file watches is reached ({error.strerror or error})",
        f"close other programs that watch files, or raise the limit: "
        f"sudo sysctl fs.inotify.{limit}=524288",
    )
