"""A source of file events that plays a script."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from pie_cli.watching.system import FileEvent, Shortfall

QUIET = None
"""Between events: a pause as long as the debounce."""


def changed(path: Path) -> FileEvent:
    return FileEvent(path, renamed=False)


def renamed(path: Path) -> FileEvent:
    return FileEvent(path, renamed=True)


class Script:
    """A source that plays events; each may come with something that happens on disk before it."""

    def __init__(
        self, stop: threading.Event, *steps: FileEvent | Callable[[], object] | None
    ) -> None:
        self.stop = stop
        self.steps = deque(steps)
        self.folders: list[dict[Path, bool]] = []
        self.renewed: list[set[Path]] = []
        self.spare: list[set[Path]] = []
        self.on_follow: Callable[[], object] = lambda: None
        self.closed = 0

    @property
    def events(self) -> "Script":
        return self

    def get(self, *, timeout: float) -> FileEvent:
        while self.steps:
            step = self.steps.popleft()
            if step is QUIET:
                raise queue.Empty
            if isinstance(step, FileEvent):
                return step
            step()
        self.stop.set()
        raise queue.Empty

    def follow(
        self,
        folders: Mapping[Path, bool],
        renew: Callable[[Path], bool],
        spare: Collection[Path] = (),
    ) -> Shortfall | None:
        self.renewed.append({folder for folder in folders if renew(folder)})
        self.folders.append(dict(folders))
        self.spare.append(set(spare))
        self.on_follow()
        return None

    def close(self) -> None:
        self.closed += 1
