"""Answers to changed documents: the newest first, then a comparison while nothing newer waits."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeAlias, final

from pie_cli.errors import CacheCapacityError, InputError, PieError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Prediction
from pie_cli.session import OnProgress
from pie_cli.workspace.context import Context
from pie_cli.workspace.documents import Change, Document, Documents, Failure, Note, Taken
from pie_cli.workspace.events import (
    Compared,
    ComparisonStopped,
    Event,
    Failed,
    Noted,
    Predicted,
    Superseded,
)
from pie_cli.workspace.pool import OpenSession, SessionPool

LOOK_UP_S = 1.0
"""How often a workspace in which nothing happens says so."""

Progress: TypeAlias = Callable[[str], AbstractContextManager[OnProgress]]
"""Given what a document is called: shows how far its encoding is while the context lasts."""


class _MovedOn(Exception):
    """What is being encoded is not the document changed last any more, or the end has come."""


@final
class Workspace:
    """Answers changes of documents, one at a time: whoever iterates over the events is the worker.

    Args:
        documents: written to by others, from other threads.
        pool: the sessions.
        context: chooses what comes before a prompt.
        only_context: documents that are not predicted in; a change of theirs changes what comes
            before the document that was changed last, which is predicted in again.
        show: what to call a document.
        progress: shows the encoding of a document that has no session.
    """

    def __init__(
        self,
        documents: Documents,
        pool: SessionPool,
        context: Context,
        *,
        only_context: Collection[Path] = (),
        show: Callable[[Path], str] = str,
        progress: Progress | None = None,
    ) -> None:
        self._documents = documents
        self._pool = pool
        # None where nothing can ever come before a prompt.
        self._context = context or None
        self._only_context = frozenset(only_context)
        self._show = show
        self._progress = progress or _unseen
        self._active: Document | None = None
        self._session: OpenSession | None = None

    def events(
        self, first: Document | None = None, *, must_open: bool = False
    ) -> Iterator[Event | None]:
        """Answer changes until the end; nothing is computed but in `next`.

        An exception in `next`, an interrupt say, ends the iterator; what it leaves unanswered is
        in `unanswered`.

        Args:
            first: predicted in before anything changes.
            must_open: whether it is an error that the first one cannot be predicted in.

        Yields:
            What happened, in order, to be passed to `told`; None when nothing has for a while.

        Raises:
            PieError: the first document cannot be predicted in though it must, or the documents
                can no longer be followed.
        """
        if first is not None:
            yield from self._first(first, must_open=must_open)
        while True:
            taken = self._documents.take(LOOK_UP_S)
            if self._documents.stopped:
                return
            if not taken.items:
                yield None
            yield from self._take_in(taken)
            if taken.newest is not None:
                yield from self._answer(taken.newest)

    def told(self, event: Event) -> None:
        """Note that an event has reached whoever is told: its changes are settled."""
        match event:
            case Predicted() | Failed():
                self._documents.settle(event.number)
            case Superseded():
                for number, _ in event.changes:
                    self._documents.settle(number)
            case _:
                pass

    def unanswered(self) -> Iterator[Event]:
        """Give the events of what nobody was told of when the end came."""
        left = self._documents.unsettled()
        for item in left:
            if isinstance(item, Failure):
                yield self._failed(item)
        changes = [item for item in left if isinstance(item, Change)]
        if changes:
            yield _superseded(changes, at_end=True)

    def _first(self, document: Document, *, must_open: bool) -> Iterator[Event]:
        """Encode a first text and predict.

        Changes of the document that come meanwhile wait: what they need builds on this.
        """
        self._active = document
        try:
            yield from self._predict(Change(0, document), document)
        except _MovedOn:
            return
        except PieError as error:
            if must_open:
                raise
            yield Noted(error)

    def _take_in(self, taken: Taken) -> Iterator[Event]:
        """Note every text, also of those changes that are not answered."""
        for item in taken.items:
            if isinstance(item, Change):
                self._changed(item)
            elif not isinstance(item, Note):
                self._lost(item.path)
        if taken.superseded:
            yield _superseded(taken.superseded)
        for item in taken.items:
            if isinstance(item, Failure):
                yield self._failed(item)
            elif isinstance(item, Note):
                yield Noted(item.error)

    def _changed(self, change: Change) -> None:
        path = change.document.path
        if self._context is not None:
            self._context.changed(path)
        if path not in self._only_context:
            self._active = change.document

    def _lost(self, path: Path) -> None:
        if self._context is not None:
            self._context.lost(path)
        if self._active and self._active.path == path:
            self._active = None

    def _answer(self, change: Change) -> Iterator[Event]:
        """Predict after a change, then compare; both make way for a newer change."""
        document = self._active
        if document is None:
            # Context, and nothing to predict in.
            yield _superseded((change,))
            return
        try:
            yield from self._predict(change, document)
        except _MovedOn:
            if not self._documents.stopped:
                yield _superseded((change,))
        except PieError as error:
            # The session is as it was, or starts again with the next text.
            yield Failed(change.number, change.path, error, was_read=True)

    def _predict(self, change: Change, document: Document) -> Iterator[Event]:
        """Bring a document's session up to date, predict and compare.

        Raises:
            _MovedOn: when a newer change cut the prediction short, or the end.
            PieError: when the text cannot be predicted in.
        """
        used = self._used(document)
        opened = used.document is None
        prediction = self._brought(used, change, document)
        if prediction.stopped_by == "interrupted":
            raise _MovedOn
        yield Predicted(change.number, change.path, document, used.session.path, prediction, opened)
        yield from self._pool.trim()
        # What was encoded from scratch just now has nothing to be compared with.
        if opened:
            return
        comparison = used.session.compare(partial(self._documents.overtaken, change.number))
        if comparison is not None:
            yield Compared(change.number, used.session.path, comparison)
        elif self._documents.newer_than(change.number) and self._pool.settings.compare != "none":
            yield ComparisonStopped(change.number)

    def _used(self, document: Document) -> OpenSession:
        """Return the session of a document: the one at hand, or one of the pool."""
        used = self._session
        if used is None or used.document is None or used.document.path != document.path:
            used = self._session = self._pool.use(self._show(document.path))
        return used

    def _brought(self, used: OpenSession, change: Change, document: Document) -> Prediction:
        """Bring a session to a document's version; where memory runs out, all others go."""
        before = self._context.before(document.path) if self._context is not None else ()
        try:
            return self._predicted(used, change, document, before)
        except CacheCapacityError as error:
            # Without a cause in the machine it is the settings that leave no room.
            if error.__cause__ is None or not self._pool.drop_others():
                raise
        return self._predicted(used, change, document, before)

    def _predicted(
        self, used: OpenSession, change: Change, document: Document, before: tuple[ContextFile, ...]
    ) -> Prediction:
        """Update a session, or open it, which another document's change breaks off."""
        if used.document is not None:
            should_stop = partial(self._documents.overtaken, change.number)
            known = change.edit if change.document is document else None
            prediction = used.session.update(known or document.text, should_stop, context=before)
        else:
            with self._progress(used.session.path) as show:

                def encoded(done: int, total: int) -> None:
                    moved_on = self._documents.moved_on(change.number, document.path)
                    if moved_on or self._documents.stopped:
                        raise _MovedOn
                    show(done, total)

                prediction = used.session.open(document.text, encoded, before)
        used.document = document
        return prediction

    def _failed(self, failure: Failure) -> Failed:
        error = failure.error
        if failure.path in self._only_context:
            error = InputError(error.cause, "it is left out of the context until it can be read")
        return Failed(failure.number, failure.path, error)


def _superseded(changes: Sequence[Change], *, at_end: bool = False) -> Superseded:
    return Superseded(tuple((change.number, change.path) for change in changes), at_end)


def _unseen(_path: str) -> AbstractContextManager[OnProgress]:
    return nullcontext(lambda _done, _total: None)
