"""`pie watch`: a prediction on each save of a file, a recompute beside it."""

import select
import sys
import threading
from functools import partial
from pathlib import Path

from pie_cli.cli.files import read_source, shown_path
from pie_cli.cli.interrupts import Interrupts
from pie_cli.cli.models import open_model
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import JsonReport, Report, TextReport
from pie_cli.cli.saves import FailedSave, Save, Saves
from pie_cli.cli.tally import Tally
from pie_cli.config import Settings
from pie_cli.editing.spots import Spot
from pie_cli.editing.watcher import watch
from pie_cli.errors import PieError
from pie_cli.session import EditSession

_LOOK_UP_S = 1.0
"""How often a watch without saves looks whether anyone still reads its output."""


def run(path: Path, settings: Settings, *, as_json: bool) -> None:
    """Watch a file until Ctrl-C or SIGTERM.

    Raises:
        PieError: whatever the user can mend, before the first prediction.
        BrokenPipeError: when nobody reads the output any more.
    """
    renderer = Renderer()
    report: Report = JsonReport() if as_json else TextReport(renderer)
    with Interrupts() as interrupts:
        watch_file(path, settings, report, renderer, interrupts, threading.Event())


def watch_file(
    path: Path,
    settings: Settings,
    report: Report,
    renderer: Renderer,
    interrupts: Interrupts,
    stop: threading.Event,
    *,
    shown: str | None = None,
) -> None:
    """Load the model, open the file, answer each save; sum up when interrupted or stopped.

    Args:
        path: the file.
        settings: model, spot, strategy, comparison, limits.
        report: told of each event.
        renderer: shows the progress of what takes long.
        interrupts: the user's word to end, which is no failure.
        stop: ends the watch when set, from any thread.
        shown: what to call the file; by default its path.

    Raises:
        PieError: a file or model that cannot be used at the start, or a file that can no longer be
            watched.
        BrokenPipeError: when nobody reads the output any more.
    """
    tally = Tally(settings.strategy, settings.compare)
    try:
        with interrupts.allowed():
            # A wrong path or spot shows before a model is loaded or even fetched.
            Spot.parse(settings.at).offset(read_source(path))
            opened = open_model(settings, renderer)
        # The watch stands before the text is read, so that no save falls in between.
        with watch([path], stop=stop, debounce_ms=settings.debounce_ms) as changes:
            text = read_source(path)
            session = EditSession(opened.model, shown or shown_path(path), settings)
            report.started(session, opened.load_ms)
            with Saves(path, changes, text, stop) as saves:
                follower = Follower(session, saves, report, tally, interrupts)
                follower.first(text, renderer)
                follower.follow()
    except KeyboardInterrupt:
        pass
    report.stopped(tally.summary())


class Follower:
    """Answers the saves of one file, the newest first.

    Args:
        session: of the file.
        saves: the texts that come in.
        report: told of each event.
        tally: counts for the summary.
        interrupts: may end the waiting and computing, never a report.
    """

    def __init__(
        self,
        session: EditSession,
        saves: Saves,
        report: Report,
        tally: Tally,
        interrupts: Interrupts,
    ) -> None:
        self._session = session
        self._saves = saves
        self._report = report
        self._tally = tally
        self._interrupts = interrupts

    def first(self, text: str, renderer: Renderer) -> None:
        """Encode the first text and predict.

        Saves that come meanwhile wait: what they need builds on this.

        Raises:
            PieError: when the text cannot be predicted in.
            KeyboardInterrupt: when interrupted or stopped.
        """
        with self._interrupts.allowed(), renderer.progress("encoding") as progress:

            def report_chunk(done: int, total: int) -> None:
                if self._saves.stopped:
                    raise KeyboardInterrupt
                progress("tokens", done, total)

            prediction = self._session.open(text, report_chunk)
        self._report.predicted(self._session, Save(0, text), prediction)

    def follow(self) -> None:
        """Answer saves until they end.

        Raises:
            PieError: when the file can no longer be watched.
            BrokenPipeError: when nobody reads the output any more.
            KeyboardInterrupt: when interrupted.
        """
        while True:
            with self._interrupts.allowed():
                taken = self._saves.take(_LOOK_UP_S)
            if self._saves.ended:
                return
            if reader_is_gone():
                raise BrokenPipeError
            self._tally.saves += len(taken.superseded) + (taken.newest is not None)
            self._supersede(taken.superseded)
            for failed in taken.failed:
                self._fail(failed)
            if taken.newest:
                self._answer(taken.newest)

    def _answer(self, save: Save) -> None:
        """Predict in a saved text, then compare; both give way to a newer save."""
        try:
            if self._predict(save):
                self._compare(save)
        except PieError as error:
            # The session is as it was, or starts anew with the next text.
            self._fail(FailedSave(save.save_id, error))

    def _predict(self, save: Save) -> bool:
        """Update the session, and report the prediction unless a newer save cut it short."""
        with self._interrupts.allowed():
            overtaken = partial(self._saves.overtaken, save.save_id)
            prediction = self._session.update(save.text, overtaken)
        if prediction.stopped_by == "interrupted":
            if self._saves.newer_than(save.save_id):
                self._supersede((save.save_id,))
            return False
        self._tally.predictions.append(prediction)
        self._report.predicted(self._session, save, prediction)
        return True

    def _compare(self, save: Save) -> None:
        with self._interrupts.allowed():
            comparison = self._session.compare(partial(self._saves.overtaken, save.save_id))
        if comparison is not None:
            self._tally.comparisons.append(comparison)
            self._report.compared(comparison)
        elif self._saves.newer_than(save.save_id) and self._session.settings.compare != "none":
            self._report.given_up()

    def _supersede(self, save_ids: tuple[int, ...]) -> None:
        if save_ids:
            self._tally.superseded += len(save_ids)
            self._report.superseded(save_ids)

    def _fail(self, failed: FailedSave) -> None:
        self._tally.errors += 1
        self._report.failed(failed)


def reader_is_gone() -> bool:
    """Tell whether stdout is a pipe that nobody reads; a watch without saves would never notice."""
    if not hasattr(select, "poll"):
        return False
    try:
        descriptor = sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
