"""What the worker says in its thread, passed on to an event loop."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, final

from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.errors import PieError
from pie_cli.session import OnProgress
from pie_cli.workspace.events import Event

_log = logging.getLogger(__name__)


class InLoop(Protocol):
    """Who is told, in the loop."""

    def ready(self, model: EditableModel, settings: Settings) -> None:
        """The model answers from now on."""

    def tell(self, event: Event) -> None:
        """Something happened."""

    def failed(self, error: PieError, *, at_end: bool) -> None:
        """Something went wrong."""

    def begin_progress(self, title: str) -> str | None:
        """Begin to show progress; None where nobody wants to see it."""

    def show_progress(self, token: str | None, message: str, done: int, total: int) -> None:
        """Show how far it is."""

    def end_progress(self, token: str | None) -> None:
        """Show no more of it."""


@final
class FromThread:
    """Passes on to the event loop what the worker says in its thread."""

    def __init__(self, server: InLoop, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._token: str | None = None
        self._shown = -1

    def loading(self, stage: str, done: int, total: int) -> None:
        """Show it."""
        if self._shown < 0:
            self._soon(self._begin, "loading the model")
        percentage = 100 * done // total if total else 0
        if percentage != self._shown:
            self._shown = percentage
            self._soon(self._show, stage, done, total)

    @contextmanager
    def encoding(self, path: str) -> Iterator[OnProgress]:
        """Show it."""
        self._soon(self._begin, f"encoding {path}")
        try:
            yield lambda done, total: self._soon(self._show, f"{done} tokens", done, total)
        finally:
            self._soon(self._end)

    def ready(self, model: EditableModel, settings: Settings) -> None:
        """Pass it on."""
        self._soon(self._end)
        self._soon(self._server.ready, model, settings)

    def tell(self, event: Event) -> None:
        """Pass it on."""
        self._soon(self._server.tell, event)

    def failed(self, error: PieError, *, at_end: bool) -> None:
        """Pass it on."""
        self._soon(self._end)
        self._soon(partial(self._server.failed, error, at_end=at_end))

    def _begin(self, title: str) -> None:
        self._token = self._server.begin_progress(title)

    def _show(self, message: str, done: int, total: int) -> None:
        self._server.show_progress(self._token, message, done, total)

    def _end(self) -> None:
        self._server.end_progress(self._token)
        self._token = None

    def _soon(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            _log.debug("the loop has ended")
