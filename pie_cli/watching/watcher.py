"""Saves of files, as a stream of change sets.

Editors save in many ways: into the file, by a rename over it, by moving the old one aside first, by
deleting and creating. So not files are watched but the folders that hold them, and the names on the
way there: symbolic links are followed to each place where a save can happen, and a folder that is
replaced is watched again. What happens in quick succession is one change set.

Of a whole tree, too, each folder has a watch of its own: one watch for all would have the system
watch vendored and hidden folders as well, which hold most of the files of many projects.
"""

import os
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, KeysView
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import final

from pie_cli.errors import InputError, PieError
from pie_cli.watching.system import FileEvent, Source, WatchdogSource
from pie_cli.watching.tree import MAX_FOLDERS, SourceTree

DEBOUNCE_MS = 30
"""Quiet after which a save counts as done: an editor's events lie some milliseconds apart."""

MAX_WAIT_MS = 1_000
"""Longest wait for quiet, for a file that is written to without end."""

_STOP_CHECK_S = 0.1
_CLOCK_SLACK_S = 2.0
_MAX_LINKS = 40


@final
class Watcher(Iterator[KeysView[Path]]):
    """The change sets of some files and trees, from the moment of construction on.

    Iteration blocks. It ends when the stop event is set, at the latest a tenth of a second later.
    Iterate in one thread only, which need not be the one that constructed it. Also a context
    manager, for a loop that is left in another way.

    Attributes:
        n_folders: folders of the trees that are watched.
        shortfall: why not all folders of the trees are watched; None where they are.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        *,
        stop: threading.Event,
        trees: Iterable[SourceTree] = (),
        debounce_ms: float = DEBOUNCE_MS,
        backend: Callable[[], Source] | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_folders: int = MAX_FOLDERS,
    ) -> None:
        """Begin to watch; see `watch`."""
        self._paths = {path: path.absolute() for path in paths}
        for path, place in self._paths.items():
            if place.is_dir():
                raise InputError(f"{path} is a folder", "name a file to watch")
        self._trees = tuple(trees)
        self._stop = stop
        self._debounce_s = debounce_ms / 1_000
        self._clock = clock
        self._began_s = time.time() - _CLOCK_SLACK_S
        self._max_folders = max_folders
        self._touched_by: dict[Path, set[Path]] = {}
        self._texts: set[Path] = set()
        self._roots_by: dict[Path, set[SourceTree]] = {}
        self._folders: dict[Path, SourceTree] = {}
        self._seen: dict[Path, Path] = {}
        self.shortfall: PieError | None = None
        self._source = (backend or WatchdogSource)()
        try:
            self._follow(_none)
            for tree in self._trees:
                self._take_up(tree, tree.real, _none)
        except BaseException:
            self.close()
            raise

    @property
    def n_folders(self) -> int:
        """Folders of the trees that are watched."""
        return len(self._folders)

    def __next__(self) -> KeysView[Path]:
        """Wait for the next change set: the paths as given, of which files may have changed.

        Files of a tree are named by the tree's path and their own below it, and so is a folder of
        a tree that went away with all its files. What was touched last comes last.
        """
        touched: dict[Path, None] = {}
        while not touched:
            if self._stop.is_set():
                self.close()
                raise StopIteration
            touched = dict.fromkeys(self._take(_STOP_CHECK_S) or ())
        deadline = self._clock() + MAX_WAIT_MS / 1_000
        while self._clock() < deadline and not self._stop.is_set():
            more = self._take(self._debounce_s)
            if more is None:
                break
            for path in more:
                touched.pop(path, None)
                touched[path] = None
        return touched.keys()

    def __enter__(self) -> "Watcher":
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self.close()

    def close(self) -> None:
        """Stop watching; more than once does no harm."""
        self._source.close()

    def _take(self, timeout_s: float) -> Collection[Path] | None:
        """Take one event: the given paths that it touches, or None when none came in time."""
        try:
            event = self._source.events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        named = self._touched_by.get(event.path, set())
        if named and event.renamed:
            # Before the consumer reads a file: what changes later is an event of the new watch.
            self._follow(_at_or_below(event.path))
        # A file that is named as well goes by that name.
        return [*named, *(() if event.path in self._texts else self._in_trees(event))]

    def _in_trees(self, event: FileEvent) -> Collection[Path]:
        """Find the files of trees that an event touches, and keep the watches up with it."""
        path = event.path
        if event.renamed and path in self._roots_by:
            return [file for tree in self._roots_by[path] for file in self._replant(tree, path)]
        tree = self._folders.get(path.parent)
        if tree is None:
            return ()
        if path.name == ".gitignore":
            return self._look_again(tree, path.parent) if tree.rules_changed(path.parent) else ()
        if event.renamed and (path in self._folders or _is_folder(path)):
            return self._look_again(tree, path, _at_or_below(path))
        if not tree.holds(path):
            return ()
        return (self._seen.setdefault(path, tree.given(path)),)

    def _replant(self, tree: SourceTree, changed: Path) -> list[Path]:
        """Follow a tree whose own folder came, went or lies elsewhere now; see `_look_again`."""
        tree.settle()
        self._folders = {folder: one for folder, one in self._folders.items() if one is not tree}
        outside, inside = _at_or_below(changed), _at_or_below(tree.real)
        return self._look_again(tree, tree.real, lambda folder: outside(folder) or inside(folder))

    def _look_again(
        self, tree: SourceTree, start: Path, renew: Callable[[Path], bool] | None = None
    ) -> list[Path]:
        """Watch what is now at and below a folder.

        Returns:
            Files below it that may have been saved unseen, or are gone; the folder itself where it
            is gone, for all that anyone may know of what it held.
        """
        inside = _at_or_below(start)
        self._folders = {folder: one for folder, one in self._folders.items() if not inside(folder)}
        if _is_folder(start) and tree.enters(start):
            self._take_up(tree, start, renew or _none)
        else:
            self._follow(renew or _none)
        touched = {file: given for file, given in self._seen.items() if inside(file)}
        for file in tree.saved_since(self._began_s, filter(inside, self._folders)):
            if file not in self._texts:
                touched.pop(file, None)
                touched[file] = tree.given(file)
        self._seen |= touched
        gone = [] if _is_folder(start) else [tree.given(start)]
        return [*gone, *touched.values()]

    def _take_up(self, tree: SourceTree, start: Path, renew: Callable[[Path], bool]) -> None:
        """Watch the folders at and below one, until all are: some may come while we look."""
        while True:
            found = (folder for folder in tree.folders(start) if folder not in self._folders)
            room = max(0, self._max_folders - len(self._folders))
            fresh = list(islice(found, room + 1))
            if len(fresh) > room:
                self._fall_short(
                    PieError(
                        f"of the folders below {tree.path} only the {len(self._folders) + room:,}"
                        " nearest are watched",
                        "name the folder that you work in",
                    )
                )
                del fresh[room:]
            self._folders |= dict.fromkeys(fresh, tree)
            self._follow(renew)
            if not fresh:
                return
            renew = _none

    def _follow(self, renew: Callable[[Path], bool]) -> None:
        """Find the names on the way to each file and tree, and watch the folders they stand in."""
        touched_by: defaultdict[Path, set[Path]] = defaultdict(set)
        roots_by: defaultdict[Path, set[SourceTree]] = defaultdict(set)
        folders: dict[Path, bool] = {}
        texts: set[Path] = set()
        for path, place in self._paths.items():
            for name, holds_text in names_on_the_way(place):
                touched_by[name].add(path)
                texts |= {name} if holds_text else set()
                folders[name.parent] = folders.get(name.parent, False) or holds_text
        for tree in self._trees:
            for name, _ in names_on_the_way(tree.path.absolute()):
                roots_by[name].add(tree)
                folders.setdefault(name.parent, False)
            if tree.real in self._folders:
                folders[tree.real] = True
        self._touched_by, self._roots_by = dict(touched_by), dict(roots_by)
        self._texts = texts
        must = {folder for folder, holds_text in folders.items() if holds_text}
        spare = self._folders.keys() - must
        shortfall = self._source.follow(
            folders | dict.fromkeys(self._folders, True), renew, frozenset(spare)
        )
        if shortfall is not None:
            for folder in shortfall.folders:
                del self._folders[folder]
            # To try again at each new folder would cost time and bring nothing.
            self._max_folders = len(self._folders)
            self._fall_short(shortfall.error)

    def _fall_short(self, error: PieError) -> None:
        self.shortfall = self.shortfall or error


def watch(
    paths: Iterable[Path],
    *,
    stop: threading.Event,
    trees: Iterable[SourceTree] = (),
    debounce_ms: float = DEBOUNCE_MS,
    backend: Callable[[], Source] | None = None,
) -> Watcher:
    """Watch files for saves. The watch is set when this returns, so no later save is missed.

    A change set says that something happened to a file, not that its text differs: it may be the
    same, unreadable for a moment, or gone. Opening and reading a file is no change.

    Args:
        paths: files, which need not exist yet.
        stop: ends the iteration when set, from any thread.
        trees: folders, all files of which that count are watched, also those that come later.
        debounce_ms: quiet that ends a change set.
        backend: makes the source of events; the operating system's where None.

    Returns:
        An iterator over sets of the paths as given.

    Raises:
        InputError: a path is a folder, or its folder cannot be read.
        PieError: the system's limit of watches is reached before the files and the trees' own
            folders are watched; where only folders inside of trees are left out, see
            `Watcher.shortfall`.
    """
    return Watcher(paths, stop=stop, trees=trees, debounce_ms=debounce_ms, backend=backend)


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


def _none(_: Path) -> bool:
    return False


def _at_or_below(place: Path) -> Callable[[Path], bool]:
    """Return a quick test of whether a path is a place or lies below it."""
    itself = str(place)
    below = itself.rstrip(os.sep) + os.sep
    return lambda path: str(path) == itself or str(path).startswith(below)


def _is_folder(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir() and not path.is_symlink()
    return False


def _link_target(name: Path) -> Path | None:
    with suppress(OSError, ValueError):
        return name.readlink()
    return None
