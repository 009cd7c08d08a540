"""What the tests of `pie watch` share: a report that keeps everything, and a watch that ends."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pie_cli.cli.documents import Beginning
from pie_cli.cli.interrupts import Interrupts
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import Report
from pie_cli.cli.tally import Summary
from pie_cli.cli.watch import WatchOptions, watch_paths
from pie_cli.config import Settings
from pie_cli.errors import PieError
from pie_cli.results import Comparison, Prediction
from pie_cli.session import EditSession
from pie_cli.workspace.files import shown_path
from pie_cli.workspace.pool import Dropped
from pie_cli.workspace.queue import FailedSave, Save

LONGEST_S = 60


class Recorder:
    """A report that keeps the events' names and ids, and may act on them."""

    def __init__(self, on: Callable[[str], None] = lambda event: None) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.on = on
        self.summary: Summary | None = None
        self.predictions: list[Prediction] = []
        self.answered: list[tuple[Save, EditSession]] = []
        self.lost: list[Save | FailedSave] = []

    def _note(self, *event: Any) -> None:
        self.events.append(event)
        self.on(" ".join(str(part) for part in event))

    def started(self, beginning: Beginning) -> None:
        self._note("start")

    def predicted(self, session: EditSession, save: Save, prediction: Prediction) -> None:
        assert session.text == save.text or session.path != shown_path(save.path)
        self.predictions.append(prediction)
        self.answered.append((save, session))
        self._note("prediction", save.save_id)

    def compared(self, comparison: Comparison) -> None:
        self._note("comparison")

    def given_up(self) -> None:
        self._note("given up")

    def superseded(self, saves: Sequence[Save]) -> None:
        self.lost += saves
        self._note("superseded", *(save.save_id for save in saves))

    def failed(self, failed: FailedSave) -> None:
        self.lost.append(failed)
        self._note("error", failed.save_id)

    def dropped(self, dropped: Sequence[Dropped], cache_bytes: int) -> None:
        self._note("dropped", *(one.path for one in dropped))

    def noted(self, error: PieError) -> None:
        self._note("note", error.cause)

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
    """Watch, with an end in any case."""
    timer = threading.Timer(LONGEST_S, stop.set)
    timer.start()
    try:
        with Interrupts() as interrupts:
            watch_paths(paths, settings, options, report, Renderer(), interrupts, stop)
    finally:
        timer.cancel()
        timer.join()
