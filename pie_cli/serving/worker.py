"""The one thread of a server that runs the model: it loads, follows documents, answers."""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.errors import InputError, PieError
from pie_cli.keeping import kept_caches
from pie_cli.serving.offer import offering
from pie_cli.session import OnProgress
from pie_cli.watching.files import read_source, shown_path
from pie_cli.workspace.context import BUDGET_SHARE, Context
from pie_cli.workspace.documents import Documents
from pie_cli.workspace.events import Event, NotKept
from pie_cli.workspace.memory import parse_size, share_of_free
from pie_cli.workspace.pool import SessionPool
from pie_cli.workspace.workspace import Workspace

_STOP_S = 5.0
_KEEP_S = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Serving:
    """What a server needs to know besides the sessions' settings; validated on construction.

    Attributes:
        settings: of the sessions.
        context: files that come before the prompt.
        context_budget: tokens for other documents; None for a share of the window.
        cache_memory: for all caches, as people write it; None for a share of what is free.
        pause_s: quiet time after a change before the cache follows.
        keeps_changed: whether other documents come before the prompt.
        root: paths below it are shown from there on.
        keeps: keep exact caches on disk at the end, and begin with what is kept.

    Raises:
        InputError: a size of memory that is none.
    """

    settings: Settings
    context: tuple[Path, ...] = ()
    context_budget: int | None = None
    cache_memory: str | None = None
    pause_s: float = 0.04
    keeps_changed: bool = True
    root: Path | None = None
    keeps: bool = False

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.cache_memory is not None:
            parse_size(self.cache_memory)

    def show(self, path: Path) -> str:
        """Return what the prompt calls a document."""
        if self.root is not None and path.is_relative_to(self.root):
            return path.relative_to(self.root).as_posix()
        return shown_path(path) if self.root is None else path.as_posix()


class Listener(Protocol):
    """Who is told what the worker does, in its thread."""

    def loading(self, stage: str, done: int, total: int) -> None:
        """The model is on its way; total 0 is unknown."""

    def encoding(self, path: str) -> AbstractContextManager[OnProgress]:
        """A document is encoded from scratch while the context lasts."""

    def ready(self, model: EditableModel, settings: Settings) -> None:
        """The model answers from now on."""

    def tell(self, event: Event) -> None:
        """Something happened."""

    def failed(self, error: PieError, *, at_end: bool) -> None:
        """Something went wrong, and perhaps that was the end."""


@final
class Worker:
    """Answers in a thread of its own, until it is stopped or cannot go on.

    Args:
        documents: changed and asked about by others.
        serving: what to load, and how to follow.
        listener: told of all of it.
    """

    def __init__(self, documents: Documents, serving: Serving, listener: Listener) -> None:
        self._documents = documents
        self._serving = serving
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="pie-model", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def stop(self) -> None:
        """End, at the next place where nothing is left half done."""
        self._documents.close()
        if self._thread.is_alive():
            self._thread.join(_STOP_S + _KEEP_S * self._serving.keeps)

    def _run(self) -> None:
        try:
            settings = self._serving.settings
            model = _load(settings, self._listener.loading)
            pool = self._pool(model)
            workspace = self._workspace(model, pool)
            with offering(self._documents, model, settings):
                while not self._documents.stopped:
                    self._follow(workspace)
            self._keep(pool)
        except PieError as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - told where it can be shown
            _log.exception("the model's thread ends")
            self._end(PieError(f"internal error: {type(error).__name__}: {error}"))

    def _follow(self, workspace: Workspace) -> None:
        """Pass events on; what goes wrong in one place shall not end the others' work."""
        try:
            for event in workspace.events():
                if event is not None:
                    workspace.told(event)
                    self._listener.tell(event)
        except PieError:
            raise
        except Exception as error:  # noqa: BLE001 - told where it can be shown
            _log.exception("a document cannot be followed")
            cause = f"internal error: {type(error).__name__}: {error}".splitlines()[0]
            self._listener.failed(PieError(cause, "please report it"), at_end=False)

    def _end(self, error: PieError) -> None:
        self._documents.close(error)
        self._listener.failed(error, at_end=True)

    def _keep(self, pool: SessionPool) -> None:
        """Keep what is exact for the next run."""
        for event in pool.keep():
            if isinstance(event, NotKept):
                self._listener.failed(event.error, at_end=False)
            else:
                self._listener.tell(event)

    def _pool(self, model: EditableModel) -> SessionPool:
        serving = self._serving
        limit = (
            share_of_free(model.device)
            if serving.cache_memory is None
            else parse_size(serving.cache_memory)
        )
        kept = kept_caches(model, wanted=serving.keeps)
        return SessionPool(model, serving.settings, limit, kept)

    def _workspace(self, model: EditableModel, pool: SessionPool) -> Workspace:
        serving, documents = self._serving, self._documents
        settings = serving.settings
        for path in serving.context:
            documents.open(path, read_source(path))
        window = min(settings.context_tokens or model.window, model.window)
        budget = serving.context_budget
        context = Context(
            documents,
            serving.context,
            keeps_changed=serving.keeps_changed,
            budget_tokens=int(BUDGET_SHARE * window) if budget is None else budget,
            show=serving.show,
        )
        self._listener.ready(model, settings)
        return Workspace(
            documents,
            pool,
            context,
            only_context=serving.context,
            show=serving.show,
            progress=self._listener.encoding,
            pause_s=serving.pause_s,
        )


def _load(settings: Settings, report: Callable[[str, int, int], None]) -> EditableModel:
    """Load a model; heavy modules are imported here, in the thread that needs them."""
    report("start", 0, 0)
    from pie_cli.editable import prepare
    from pie_cli.engine.crew import engage
    from pie_cli.models.loading import load

    engage(settings.threads)
    try:
        loaded = load(
            settings.model,
            settings.device,
            settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            weights=settings.weights,
            on_progress=report,
        )
        return prepare(loaded)
    except ImportError as error:
        raise InputError(
            f"a package is missing or broken: {error}".splitlines()[0],
            "install pie again in an environment of its own",
        ) from error
