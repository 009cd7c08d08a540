"""What the tests of `pie watch` share: a report that keeps everything, and a watch that ends."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pie_cli.cli.documents import Beginning
from pie_cli.cli.interrupts import Interrupts
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import Report
from pie_cli.cli.tally import Summary
from pie_cli.cli.watch import WatchOptions, watch_paths
from pie_cli.config import Settings
from pie_cli.workspace.events import Event, Failed, Predicted, Superseded
from tests.workspace.played import told

LONGEST_S = 60


class Recorder:
    """A report that keeps the events' names and numbers, and may act on them."""

    def __init__(self, on: Callable[[str], None] = lambda event: None) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.on = on
        self.summary: Summary | None = None
        self.answered: list[Predicted] = []
        self.failed: list[Failed] = []
        self.superseded: list[int] = []

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        self.on(" ".join(str(part) for part in event))

    def started(self, beginning: Beginning) -> None:
        self._note("start")

    def reading(self, path: str, *, asked: bool) -> None:
        pass

    def tell(self, event: Event) -> None:
        match event:
            case Predicted():
                self.answered.append(event)
            case Failed():
                self.failed.append(event)
            case Superseded():
                self.superseded += [number for number, _ in event.changes]
            case _:
                pass
        self._note(*told(event))

    def stopped(self, summary: Summary) -> None:
        self.summary = summary
        self._note("stop")


def watched(
    paths: Sequence[Path],
    settings: Settings,
    report: Report,
    stop: threading.Event,
    options: WatchOptions = WatchOptions(),  # noqa: B008 - frozen
) -> None:
    """Watch, with an end in any case; comparisons wait for nothing."""
    options = replace(options, compare_pause_ms=0)
    timer = threading.Timer(LONGEST_S, stop.set)
    timer.start()
    try:
        with Interrupts() as interrupts:
            watch_paths(paths, settings, options, report, Renderer(), interrupts, stop)
    finally:
        timer.cancel()
        timer.join()
