"""Answers to changed documents: the newest first, then a comparison while nothing newer waits."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeAlias, final

from pie_cli.errors import CacheCapacityError, InputError, PieError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Comparison, Prediction, Recompute
from pie_cli.session import OnProgress
from pie_cli.text.cursor import around
from pie_cli.text.edit import Edit
from pie_cli.workspace.context import Context
from pie_cli.workspace.documents import Change, Document, Documents, Failure, Gone, Note, Taken
from pie_cli.workspace.events import (
    Answered,
    Compared,
    ComparisonStopped,
    Event,
    Failed,
    MadeExact,
    NotCompared,
    Noted,
    Predicted,
    Superseded,
)
from pie_cli.workspace.pool import OpenSession, SessionPool, Task
from pie_cli.workspace.requests import Answer, Request

LOOK_UP_S = 1.0
"""How often a workspace in which nothing happens says so."""

_LONGEST_PAUSE_S = 0.5
_FOREIGN = -1
"""The version of a text that somebody brings along with a question."""

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
        asked: shows that of a text which a question brought along; by default as `progress` does.
        comparing: shows the comparison of a document's prediction.
        pause_s: how long it must be quiet after a change before the cache follows, unless a
            question comes first.
        compare_pause_s: how long it must be quiet after an answer before it is compared.
        compare_limit_s: of work, beyond which an answer is not compared, or more cheaply; None for
            any.
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
        asked: Progress | None = None,
        comparing: Progress | None = None,
        pause_s: float = 0.0,
        compare_pause_s: float = 0.0,
        compare_limit_s: float | None = None,
    ) -> None:
        self._documents = documents
        self._pool = pool
        # None where nothing can ever come before a prompt.
        self._context = context or None
        self._only_context = frozenset(only_context)
        self._show = show
        self._progress = progress or _unseen
        self._asked = asked or self._progress
        self._comparing = comparing or _unseen
        self._pause_s = pause_s
        self._compare_pause_s = compare_pause_s
        self._compare_limit_s = compare_limit_s
        # What came while an answer waited to be compared.
        self._early = Taken()
        self._number = 0
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
        try:
            if first is not None:
                yield from self._first(first, must_open=must_open)
            while not self._documents.stopped:
                yield from self._dealt_with(self._taken())
        finally:
            self._documents.drop_requests()
            for request in self._early.requests:
                request.drop()

    def told(self, event: Event) -> None:
        """Note that an event has reached whoever is told: its changes are settled."""
        match event:
            case Predicted() | Answered() | Failed():
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
            yield Superseded.of(changes, at_end=True)

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

    def _taken(self) -> Taken:
        """Wait for something to happen; after a change alone until it is quiet."""
        early, self._early = self._early, Taken()
        taken = early.then(self._documents.take(0.0 if early.items else LOOK_UP_S))
        latest = monotonic() + _LONGEST_PAUSE_S
        while self._pause_s and taken.newest and not taken.requests and monotonic() < latest:
            later = self._documents.take(self._pause_s)
            if not later.items:
                break
            taken = taken.then(later)
        return taken

    def _dealt_with(self, taken: Taken) -> Iterator[Event | None]:
        """Answer questions, then the newest change; what is left approximate is made exact."""
        try:
            if not self._documents.stopped:
                yield from self._each(taken)
        finally:
            for request in taken.requests:
                request.drop()

    def _each(self, taken: Taken) -> Iterator[Event | None]:
        if not taken.items:
            yield None
        yield from self._take_in(taken)
        newest, answered = taken.newest, 0
        for request in taken.requests:
            for event in self._respond(request, newest):
                if isinstance(event, Answered):
                    answered = max(answered, event.number)
                yield event
        if newest is not None and newest.number != answered:
            yield from self._answer(newest)
        elif taken.requests:
            yield from self._make_exact()

    def _take_in(self, taken: Taken) -> Iterator[Event]:
        """Note every text, also of those changes that are not answered."""
        for item in taken.items:
            if isinstance(item, Change):
                self._changed(item)
            elif isinstance(item, Failure | Gone):
                self._lost(item.path)
        if taken.superseded:
            yield Superseded.of(taken.superseded)
        for item in taken.items:
            if isinstance(item, Failure):
                yield self._failed(item)
            elif isinstance(item, Note):
                yield Noted(item.error)

    def _changed(self, change: Change) -> None:
        self._number = change.number
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
            yield Superseded.of((change,))
            return
        try:
            yield from self._predict(change, document)
        except _MovedOn:
            if not self._documents.stopped:
                yield Superseded.of((change,))
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
        cursor = used.cursor_back(document.text)
        edit = None
        if change.document is document:
            edit, cursor = change.edit, change.cursor or cursor
            if opened and cursor is None and change.before is not None:
                # Nothing is encoded yet, but where it changed is known.
                whole = Edit.between(change.before, document.text)
                _, cursor = around(used.session.cursor, whole)
        should_stop = partial(self._documents.overtaken, change.number)
        task = Task(document, change.number, self._before(document), should_stop, edit, cursor)
        prediction = self._brought(used, task)
        if prediction.stopped_by == "interrupted":
            raise _MovedOn
        yield Predicted(change.number, change.path, document, used.session.path, prediction, opened)
        yield from self._pool.trim()
        # What was encoded from scratch just now has nothing to be compared with.
        if opened:
            return
        yield from self._compare(change, used)

    def _compare(self, change: Change, used: OpenSession) -> Iterator[Event]:
        """Compare a prediction once it is quiet, if that is worth the work."""
        session = used.session
        if self._pool.settings.compare == "none":
            return
        limit = None if self._compare_limit_s is None else 1e3 * self._compare_limit_s
        how, estimate = session.comparison_within(limit), session.full_recompute_ms()
        full = None if estimate is None else Recompute(estimate, measured=False)
        if how == "none":
            if full is not None:
                yield NotCompared(change.number, session.path, full)
            return
        prediction, asked = used.prediction, False
        while (comparison := self._compared(used, how) if self._is_quiet() else None) is None:
            questions = self._questions(change)
            yield from self._respond_to(questions)
            asked = bool(questions)
            if self._documents.stopped:
                return
            if not asked or used.prediction is not prediction:
                break
        if comparison is None:
            yield ComparisonStopped(change.number)
        else:
            if comparison.strategy == "full":
                full = Recompute(comparison.timings_ms.line, measured=True)
            yield Compared(change.number, session.path, comparison, full)
        if asked:
            yield from self._make_exact()

    def _questions(self, change: Change) -> tuple[Request, ...]:
        """Take the questions that a comparison made way for; none where anything else came, too."""
        if self._documents.newer_than(change.number):
            return ()
        if not self._early.items:
            self._early = self._documents.take(0.0)
        early = self._early
        if len(early.requests) < len(early.items):
            return ()
        self._early = Taken()
        return early.requests

    def _respond_to(self, questions: Sequence[Request]) -> Iterator[Event]:
        try:
            for request in questions:
                yield from self._respond(request, None)
        finally:
            for request in questions:
                request.drop()

    def _is_quiet(self) -> bool:
        """Wait whether anything comes that is to be answered."""
        until = monotonic() + self._compare_pause_s
        while (left := until - monotonic()) > 0 and not self._documents.stopped:
            self._early = self._early.then(self._documents.take(left))
            if self._early.newest or self._early.requests:
                return False
        return not self._documents.stopped

    def _respond(self, request: Request, newest: Change | None) -> Iterator[Event]:
        """Answer a question, unless it is out of date; whatever happens, nobody waits for ever."""
        try:
            if not self._out_of_date(request):
                yield from self._responded(request, newest)
        except _MovedOn:
            pass
        except PieError as error:
            request.fail(error)
        finally:
            request.drop()

    def _responded(self, request: Request, newest: Change | None) -> Iterator[Event]:
        """Bring a document's session to what is asked about, and predict there.

        Args:
            request: the question.
            newest: the change that came with it, which it may be about.

        Raises:
            _MovedOn: when another document changed while this one was encoded, or at the end.
            PieError: when the text cannot be predicted in.
        """
        document = self._asked_about(request)
        before = self._before(document) if request.context is None else request.context
        used = self._used(document)
        opened = used.document is None
        prediction = used.prediction_for(document.text, request.cursor, before)
        waited = prediction is not None
        edit, number = None, 0
        if newest is not None and newest.document == document:
            edit, number = newest.edit, newest.number
        if prediction is None:
            if request.version is None:
                used.lend()

            def should_stop() -> bool:
                return self._out_of_date(request) or request.enough()

            task = Task(document, self._number, before, should_stop, edit, request.cursor)
            prediction = self._brought(used, task)
        if self._out_of_date(request) and prediction.stopped_by == "interrupted":
            return
        # Told first: who has the answer finds what is told of it, too.
        yield Answered(number, document, used.session.path, prediction, opened, waited)
        if not self._out_of_date(request):
            request.finish(Answer(prediction, waited))
        yield from self._pool.trim()

    def _make_exact(self) -> Iterator[Event]:
        """Recompute what answers left approximate, while nothing else is to do."""
        used = self._session
        if used is None or used.document is None or used.session.exact:
            return
        try:
            comparison = self._compared(used)
        except PieError as error:
            yield Noted(error)
            return
        if comparison is not None:
            yield MadeExact(used.document, used.session.path, comparison)

    def _compared(self, used: OpenSession, how: str | None = None) -> Comparison | None:
        should_stop = partial(self._documents.overtaken, self._number)
        with self._comparing(used.session.path) as show:
            comparison = used.session.compare(should_stop, show, how)
        if comparison is not None and not comparison.agrees:
            used.prediction = None
        return comparison

    def _asked_about(self, request: Request) -> Document:
        if request.text is not None:
            version = _FOREIGN if request.version is None else request.version
            return Document(request.path, version, request.text)
        document = self._documents.get(request.path)
        if document is None:
            raise InputError(f"{self._show(request.path)} is not open", "open it first")
        return document

    def _out_of_date(self, request: Request) -> bool:
        """Tell whether an answer would come too late."""
        version = request.version
        is_old = version is not None and version != self._documents.version(request.path)
        return is_old or request.over or self._documents.stopped

    def _used(self, document: Document) -> OpenSession:
        """Return the session of a document: the one at hand, or one of the pool."""
        used = self._session
        if used is None or used.document is None or used.document.path != document.path:
            used = self._session = self._pool.use(self._show(document.path), document.path)
        return used

    def _before(self, document: Document) -> tuple[ContextFile, ...]:
        return self._context.before(document.path) if self._context is not None else ()

    def _brought(self, used: OpenSession, task: "Task") -> Prediction:
        """Bring a session to a document's version; where memory runs out, all others go."""
        try:
            return self._predicted(used, task)
        except CacheCapacityError as error:
            # Without a cause in the machine it is the settings that leave no room.
            if error.__cause__ is None or not self._pool.drop_others():
                raise
        return self._predicted(used, task)

    def _predicted(self, used: OpenSession, task: "Task") -> Prediction:
        """Update a session, or open it, which another document's change breaks off."""
        document, session = task.document, used.session
        used.prediction = None
        if used.document is not None:
            to = task.edit or document.text
            prediction = session.update(to, task.should_stop, context=task.before, at=task.cursor)
        else:
            progress = self._asked if document.version == _FOREIGN else self._progress
            with progress(session.path) as show:

                def encoded(done: int, total: int) -> None:
                    moved_on = self._documents.moved_on(task.number, document.path)
                    if moved_on or self._documents.stopped:
                        raise _MovedOn
                    show(done, total)

                at = task.cursor or session.resumed(document.text)
                prediction = session.open(document.text, encoded, task.before, at=at)
        used.document, used.context = document, task.before
        if prediction.stopped_by != "interrupted":
            used.prediction = prediction
        return prediction

    def _failed(self, failure: Failure) -> Failed:
        error = failure.error
        if failure.path in self._only_context:
            error = InputError(error.cause, "it is left out of the context until it can be read")
        return Failed(failure.number, failure.path, error)


def _unseen(_path: str) -> AbstractContextManager[OnProgress]:
    return nullcontext(lambda _done, _total: None)
