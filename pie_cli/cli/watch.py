"""`pie watch`: a prediction on each save of a file, a recompute beside it."""

import select
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pie_cli.cli.documents import Beginning
from pie_cli.cli.interrupts import Interrupts
from pie_cli.cli.models import Opened, open_model
from pie_cli.cli.render import PROGRESS_AFTER_S, Renderer
from pie_cli.cli.reports import JsonReport, Report, TextReport
from pie_cli.cli.starting import import_ms
from pie_cli.cli.tally import Tally
from pie_cli.cli.targets import Targets, find_targets
from pie_cli.config import COMPARE_LIMIT_S, COMPARE_PAUSE_MS, Settings
from pie_cli.errors import InputError
from pie_cli.keeping import kept_caches
from pie_cli.serving.offer import offering
from pie_cli.session import OnProgress
from pie_cli.text.cursor import Cursor
from pie_cli.watching.files import FileDocuments, shown_path
from pie_cli.watching.watcher import Watcher, watch
from pie_cli.workspace.context import BUDGET_SHARE, Context
from pie_cli.workspace.documents import Document, Documents
from pie_cli.workspace.events import Event, Noted
from pie_cli.workspace.memory import parse_size, share_of_free
from pie_cli.workspace.pool import SessionPool
from pie_cli.workspace.workspace import Workspace


@dataclass(frozen=True)
class WatchOptions:
    """What a watch needs to know besides the sessions' settings.

    Attributes:
        context: files that come before the prompt.
        context_budget: tokens for files that were saved recently; None for a share of the window.
        cache_memory: for the caches of all sessions, as people write it; None for a share of what
            the device has free.
        compare_pause_ms: how long no save may come before an answer is compared.
        compare_limit_s: of work, beyond which an answer is not compared with full recompute.
        explains: tell of predictions in the method's vocabulary as well.
        keeps: keep exact caches on disk at the end, and begin with what is kept.
    """

    context: tuple[Path, ...] = ()
    context_budget: int | None = None
    cache_memory: str | None = None
    compare_pause_ms: int = COMPARE_PAUSE_MS
    compare_limit_s: int = COMPARE_LIMIT_S
    explains: bool = False
    keeps: bool = False

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        if self.context_budget is not None and self.context_budget < 0:
            raise InputError(f"--context-budget is {self.context_budget}", "it must be at least 0")
        for name, value in (
            ("--compare-pause", self.compare_pause_ms),
            ("--compare-limit", self.compare_limit_s),
        ):
            if value < 0:
                raise InputError(f"{name} is {value}", "it must be at least 0")
        if self.cache_memory is not None:
            parse_size(self.cache_memory)


def run(paths: Sequence[Path], settings: Settings, options: WatchOptions, *, as_json: bool) -> None:
    """Watch files and folders until Ctrl-C, SIGTERM or SIGHUP.

    Raises:
        PieError: whatever the user can mend, before the first prediction.
        BrokenPipeError: when nobody reads the output any more.
    """
    renderer = Renderer(explains=options.explains)
    report: Report = JsonReport() if as_json else TextReport(renderer)
    with Interrupts(ends_process=True) as interrupts:
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
        settings: model, cursor, strategy, comparison, limits.
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
            # A wrong path or cursor shows before a model is loaded or even fetched.
            targets = find_targets(paths, options.context)
            named = targets.first_named()
            if named is not None:
                Cursor.parse(settings.at).offset(named[1])
            opened = open_model(settings, renderer)
        # The watch is set before the texts are read, so that no save falls in between.
        with watch(
            [*targets.files, *targets.only_context],
            stop=stop,
            trees=targets.trees,
            debounce_ms=settings.debounce_ms,
        ) as changes:
            documents = Documents(stop)
            kept = kept_caches(opened.model, wanted=options.keeps)
            pool = SessionPool(opened.model, settings, _cache_limit(options, opened), kept)
            budget = _context_budget(options, settings, opened)
            first = _read_all(targets, documents)
            if first is not None:
                # Refuses settings that leave no room for text.
                pool.use(show(first.path), first.path)
            context = Context(
                documents,
                targets.context,
                keeps_changed=targets.several,
                budget_tokens=budget,
                show=show,
            )
            workspace = Workspace(
                documents,
                pool,
                context,
                only_context=targets.only_context,
                show=show,
                progress=partial(_reading, report, renderer, asked=False),
                asked=partial(_reading, report, renderer, asked=True),
                comparing=partial(_comparing, renderer),
                compare_pause_s=options.compare_pause_ms / 1e3,
                compare_limit_s=options.compare_limit_s,
            )
            report.started(_beginning(targets, opened, pool, changes, show))
            tell = partial(_tell, workspace, tally, report)
            for path in targets.awaited:
                what, then = f"{show(path)} is not there yet", "its first save will be answered"
                tell(Noted(InputError(what, then)))
            must_open = first is not None and first.path in targets.files
            events = workspace.events(first, must_open=must_open)
            try:
                named_files = [*targets.files, *targets.context]
                files = FileDocuments(changes, documents, named=named_files)
                with files, offering(documents, opened.model, settings):
                    _follow(events, tell, interrupts)
            except KeyboardInterrupt:
                pass
            finally:
                # Before anything is said: the terminal may be gone.
                outcomes = list(pool.keep())
            # The thread has ended, so that nothing comes after these.
            for event in (*workspace.unanswered(), *outcomes):
                tell(event)
    except KeyboardInterrupt:
        pass
    report.stopped(tally.summary())


def _follow(
    events: Iterator[Event | None], tell: Callable[[Event], None], interrupts: Interrupts
) -> None:
    """Pass events on until they end; a signal ends the work on one, never its report."""
    while True:
        with interrupts.allowed():
            try:
                event = next(events)
            except StopIteration:
                return
        if event is not None:
            tell(event)
        elif reader_is_gone():
            raise BrokenPipeError


def _tell(workspace: Workspace, tally: Tally, report: Report, event: Event) -> None:
    tally.add(event)
    report.tell(event)
    workspace.told(event)


def _read_all(targets: Targets, documents: Documents) -> Document | None:
    """Read all files that the user named, and return what to predict in first."""
    opened = {path: documents.open(path, text) for path, text in targets.texts().items()}
    first = targets.first()
    return first and (opened.get(first[0]) or documents.open(*first))


def _beginning(
    targets: Targets,
    opened: Opened,
    pool: SessionPool,
    changes: Watcher,
    show: Callable[[Path], str],
) -> Beginning:
    watched = [*targets.files, *(tree.path for tree in targets.trees)]
    return Beginning(
        tuple(map(show, watched)),
        tuple(map(show, targets.context)),
        pool,
        changes.n_folders,
        import_ms(),
        opened.load_ms,
    )


@contextmanager
def _reading(report: Report, renderer: Renderer, path: str, *, asked: bool) -> Iterator[OnProgress]:
    """Show how far a document's encoding is, which is read for the first time."""
    report.reading(path, asked=asked)
    with renderer.progress("reading") as shown:
        yield lambda done, total: shown("", done, total)


@contextmanager
def _comparing(renderer: Renderer, _path: str) -> Iterator[OnProgress]:
    """Show how far a comparison is, if it takes long."""
    with renderer.progress("comparing", after_s=PROGRESS_AFTER_S) as shown:
        yield lambda done, total: shown("", done, total)


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
