"""`pie watch`: a prediction on each save of a file, a recompute beside it."""

import select
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pie_cli.cli.documents import Beginning
from pie_cli.cli.interrupts import Interrupts
from pie_cli.cli.memory import parse_size, share_of_free
from pie_cli.cli.models import Opened, open_model
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import JsonReport, Report, TextReport
from pie_cli.cli.tally import Tally
from pie_cli.cli.targets import Targets, find_targets
from pie_cli.config import Settings
from pie_cli.errors import InputError, PieError
from pie_cli.results import Prediction
from pie_cli.text.cursor import Spot
from pie_cli.watching.watcher import watch
from pie_cli.workspace.context import BUDGET_SHARE, Context
from pie_cli.workspace.files import read_source, shown_path
from pie_cli.workspace.pool import SessionPool
from pie_cli.workspace.queue import FailedSave, Save, Saves, Taken

_LOOK_UP_S = 1.0
"""How often a watch without saves looks whether anyone still reads its output."""


@dataclass(frozen=True)
class WatchOptions:
    """What a watch needs to know besides the sessions' settings.

    Attributes:
        context: files that stand before the prompt.
        context_budget: tokens for files that were saved recently; None for a share of the window.
        cache_memory: for the caches of all sessions, as people write it; None for a share of what
            the device has free.
    """

    context: tuple[Path, ...] = ()
    context_budget: int | None = None
    cache_memory: str | None = None

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if self.context_budget is not None and self.context_budget < 0:
            raise InputError(f"--context-budget is {self.context_budget}", "it must be at least 0")
        if self.cache_memory is not None:
            parse_size(self.cache_memory)


class _MovedOn(Exception):
    """A file that is being opened is not the one saved last any more."""


def run(paths: Sequence[Path], settings: Settings, options: WatchOptions, *, as_json: bool) -> None:
    """Watch files and folders until Ctrl-C or SIGTERM.

    Raises:
        PieError: whatever the user can mend, before the first prediction.
        BrokenPipeError: when nobody reads the output any more.
    """
    renderer = Renderer()
    report: Report = JsonReport() if as_json else TextReport(renderer)
    with Interrupts() as interrupts:
        watch_paths(paths, settings, options, report, renderer, interrupts, threading.Event())


def watch_paths(
    paths: Sequence[Path],
    settings: Settings,
    options: WatchOptions,
    report: Report,
    renderer: Renderer,
    interrupts: Interrupts,
    stop: threading.Event,
    *,
    show: Callable[[Path], str] = shown_path,
) -> None:
    """Load the model, open the first file, answer each save; sum up when interrupted or stopped.

    Args:
        paths: files and folders.
        settings: model, spot, strategy, comparison, limits.
        options: context, bounds.
        report: told of each event.
        renderer: shows the progress of what takes long.
        interrupts: the user's word to end, which is no failure.
        stop: ends the watch when set, from any thread.
        show: what to call a file; by default its path.

    Raises:
        PieError: a file or model that cannot be used at the start, or files that can no longer be
            watched.
        BrokenPipeError: when nobody reads the output any more.
    """
    tally = Tally(settings.strategy, settings.compare)
    try:
        with interrupts.allowed():
            # A wrong path or spot shows before a model is loaded or even fetched.
            targets = find_targets(paths, options.context)
            if targets.files:
                Spot.parse(settings.at).offset(read_source(targets.files[0]))
            opened = open_model(settings, renderer)
        _watch_targets(
            targets, opened, settings, options, report, renderer, interrupts, stop, tally, show
        )
    except KeyboardInterrupt:
        pass
    report.stopped(tally.summary())


def _watch_targets(
    targets: Targets,
    opened: Opened,
    settings: Settings,
    options: WatchOptions,
    report: Report,
    renderer: Renderer,
    interrupts: Interrupts,
    stop: threading.Event,
    tally: Tally,
    show: Callable[[Path], str],
) -> None:
    """Answer saves; see `watch_paths`."""
    named = [*targets.files, *targets.only_context]
    # The watch stands before the texts are read, so that no save falls in between.
    with watch(named, stop=stop, trees=targets.trees, debounce_ms=settings.debounce_ms) as changes:
        texts, first = targets.texts(), targets.first()
        sessions = SessionPool(opened.model, settings, _cache_limit(options, opened))
        if first is not None:
            # Refuses settings that leave no room for text.
            sessions.session(show(first[0]))
        context = Context(
            {path: texts[path] for path in targets.context},
            keeps_saved=targets.several,
            budget_tokens=_context_budget(options, settings, opened),
            show=show,
        )
        watched = [*targets.files, *(tree.path for tree in targets.trees)]
        report.started(
            Beginning(
                tuple(map(show, watched)),
                tuple(map(show, targets.context)),
                sessions,
                changes.n_folders,
                opened.load_ms,
            )
        )
        known = texts | dict([first] if first else [])
        with Saves(changes, known, stop, named=texts.keys()) as saves:
            follower = Follower(
                sessions,
                saves,
                context,
                report,
                tally,
                interrupts,
                renderer,
                only_context=targets.only_context,
                shortfall=lambda: changes.shortfall,
                show=show,
            )
            if targets.files and first:
                follower.first(*first)
            elif first:
                follower.first_of_folder(*first)
            follower.follow()


class Follower:
    """Answers saves, the newest of all files first.

    Args:
        sessions: of the files.
        saves: the texts that come in.
        context: is told of every text, and gives what stands before a prompt.
        report: told of each event.
        tally: counts for the summary.
        interrupts: may end the waiting and computing, never a report.
        renderer: shows the progress of encoding.
        only_context: files that are not predicted in; a save of theirs changes what stands before
            the file that was saved last, which is predicted in again.
        shortfall: tells whether something is not being watched.
        show: what to call a file.
    """

    def __init__(
        self,
        sessions: SessionPool,
        saves: Saves,
        context: Context,
        report: Report,
        tally: Tally,
        interrupts: Interrupts,
        renderer: Renderer,
        *,
        only_context: Collection[Path] = (),
        shortfall: Callable[[], PieError | None] = lambda: None,
        show: Callable[[Path], str] = shown_path,
    ) -> None:
        self._sessions = sessions
        self._saves = saves
        self._context = context
        self._report = report
        self._tally = tally
        self._interrupts = interrupts
        self._renderer = renderer
        self._only_context = frozenset(only_context)
        self._shortfall = shortfall
        self._noted: PieError | None = None
        self._show = show
        self._saved_last: tuple[Path, str] | None = None

    def first(self, path: Path, text: str) -> None:
        """Encode a first text and predict.

        Saves of the file that come meanwhile wait: what they need builds on this.

        Raises:
            PieError: when the text cannot be predicted in.
            KeyboardInterrupt: when interrupted or stopped.
        """
        self._saved_last = (path, text)
        with suppress(_MovedOn):
            save = Save(0, path, text)
            self._tell(save, path, self._compute(save, path, text))

    def first_of_folder(self, path: Path, text: str) -> None:
        """Do the same for a file that nobody named: that it cannot be predicted in is no end."""
        try:
            self.first(path, text)
        except PieError as error:
            self._report.noted(error)

    def follow(self) -> None:
        """Answer saves until they end.

        Raises:
            PieError: when the files can no longer be watched.
            BrokenPipeError: when nobody reads the output any more.
            KeyboardInterrupt: when interrupted.
        """
        while True:
            self._note(self._shortfall())
            with self._interrupts.allowed():
                taken = self._saves.take(_LOOK_UP_S)
            if self._saves.ended:
                return
            if reader_is_gone():
                raise BrokenPipeError
            self._take_in(taken)
            if taken.newest:
                self._answer(taken.newest)

    def _take_in(self, taken: Taken) -> None:
        """Note every text, also of those saves that are not answered."""
        for item in taken.items:
            if isinstance(item, Save):
                self._context.saved(item.path, item.text)
                if item.path not in self._only_context:
                    self._saved_last = (item.path, item.text)
            else:
                self._context.lost(item.path)
                if self._saved_last and self._saved_last[0] == item.path:
                    self._saved_last = None
        self._supersede(taken.superseded)
        for failed in taken.failed:
            if failed.path in self._only_context:
                left_out = InputError(
                    failed.error.cause, "it is left out of the context until it can be read"
                )
                self._fail(replace(failed, error=left_out))
            else:
                self._fail(failed)

    def _answer(self, save: Save) -> None:
        """Predict after a save, then compare; both give way to a newer save."""
        if self._saved_last is None:
            # Context, and nothing to predict in.
            self._supersede((save,))
            return
        path, text = self._saved_last
        opens = self._sessions.text(self._show(path)) is None
        try:
            # What was encoded from scratch just now has nothing to be compared with.
            if self._predict(save, path, text, opens=opens) and not opens:
                self._compare(save, path)
        except PieError as error:
            # The session is as it was, or starts anew with the next text.
            self._tally.saves += 1
            self._fail(FailedSave(save.save_id, save.path, error))

    def _predict(self, save: Save, path: Path, text: str, *, opens: bool) -> bool:
        """Update the session, and report the prediction unless a newer save cut it short."""
        try:
            prediction = self._compute(save, path, text)
        except _MovedOn:
            self._supersede((save,))
            return False
        if prediction.stopped_by == "interrupted":
            if self._saves.newer_than(save.save_id):
                self._supersede((save,))
            return False
        self._tally.saves += 1
        if opens:
            self._tally.opened += 1
        else:
            self._tally.predictions.append(prediction)
        self._tell(save, path, prediction)
        return True

    def _compute(self, save: Save, path: Path, text: str) -> Prediction:
        """Predict in a file, showing progress where it is opened.

        Raises:
            _MovedOn: when another file is saved while this one is being opened.
        """
        shown = self._show(path)
        opens = self._sessions.text(shown) is None
        bar = self._renderer.progress("encoding") if opens else nullcontext(_unseen)
        with self._interrupts.allowed(), bar as progress:

            def report_chunk(done: int, total: int) -> None:
                if self._saves.stopped:
                    raise KeyboardInterrupt
                if self._saves.moved_on(save.save_id, path):
                    raise _MovedOn
                progress("tokens", done, total)

            return self._sessions.predict(
                shown,
                text,
                self._context.before(path),
                partial(self._saves.overtaken, save.save_id),
                report_chunk,
            )

    def _tell(self, save: Save, path: Path, prediction: Prediction) -> None:
        self._report.predicted(self._sessions.session(self._show(path)), save, prediction)
        dropped = self._sessions.trim()
        if dropped:
            self._report.dropped(dropped, self._sessions.cache_bytes)

    def _compare(self, save: Save, path: Path) -> None:
        session = self._sessions.session(self._show(path))
        with self._interrupts.allowed():
            comparison = session.compare(partial(self._saves.overtaken, save.save_id))
        if comparison is not None:
            self._tally.comparisons.append(comparison)
            self._report.compared(comparison)
        elif self._saves.newer_than(save.save_id) and session.settings.compare != "none":
            self._report.given_up()

    def _supersede(self, saves: Sequence[Save]) -> None:
        if saves:
            self._tally.saves += len(saves)
            self._tally.superseded += len(saves)
            self._report.superseded(saves)

    def _fail(self, failed: FailedSave) -> None:
        self._tally.errors += 1
        self._report.failed(failed)

    def _note(self, error: PieError | None) -> None:
        """Pass on what is not watched, once."""
        if error is not None and error is not self._noted:
            self._noted = error
            self._report.noted(error)


def _unseen(_stage: str, _done: int, _total: int) -> None:
    """Show no progress."""


def _cache_limit(options: WatchOptions, opened: Opened) -> int:
    if options.cache_memory is not None:
        return parse_size(options.cache_memory)
    return share_of_free(opened.model.loaded.device)


def _context_budget(options: WatchOptions, settings: Settings, opened: Opened) -> int:
    if options.context_budget is not None:
        return options.context_budget
    window = opened.model.loaded.window
    return int(BUDGET_SHARE * min(settings.context_tokens or window, window))


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
