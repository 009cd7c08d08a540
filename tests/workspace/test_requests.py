"""Questions: answered once for the version they are about, before all else, or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.errors import InputError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Comparison, Prediction
from pie_cli.session import EditSession, OnProgress
from pie_cli.text.cursor import Cursor
from pie_cli.text.edit import Edit
from pie_cli.workspace.context import Context
from pie_cli.workspace.documents import Documents
from pie_cli.workspace.events import (
    Answered,
    Compared,
    ComparisonStopped,
    Event,
    MadeExact,
    Predicted,
    Superseded,
)
from pie_cli.workspace.pool import SessionPool
from pie_cli.workspace.requests import Request
from pie_cli.workspace.workspace import Progress, Workspace
from tests.conftest import SOURCE

A, B = Path("a.py"), Path("b.py")
HERE = Cursor(5, 4)


class Desk:
    """A workspace, step by step."""

    def __init__(self, model: EditableModel, pause_s: float = 0.0, **settings: Any) -> None:
        self.documents = Documents()
        # With a budget of its own: a tiny model computes all again within milliseconds.
        named = {"compare": "prefix", "strategy": "pie+seam:8", **settings}
        options = Settings(max_tokens=6, **named)
        self.pool = SessionPool(model, options, 1 << 30)
        context = Context(
            self.documents, (), keeps_changed=False, budget_tokens=0, show=lambda path: path.name
        )
        self.workspace = Workspace(
            self.documents, self.pool, context, show=lambda path: path.name, pause_s=pause_s
        )
        self.events = self.workspace.events()
        self.seen: list[Event] = []

    def until_idle(self) -> list[type]:
        """Work until nothing is left, and return the kinds of what happened."""
        seen: list[Event] = []
        for event in self.events:
            if event is None:
                break
            self.workspace.told(event)
            seen.append(event)
        self.seen += seen
        return [type(event) for event in seen]

    def ask(self, path: Path = A, **about: Any) -> Request:
        request = Request(
            path, **{"cursor": HERE, "version": self.documents.version(path), **about}
        )
        self.documents.ask(request)
        return request


def test_the_encoding_of_a_text_that_is_brought_along_is_told_from_a_document_s(
    tiny_model: EditableModel,
) -> None:
    shown: list[tuple[str, str]] = []

    def showing(why: str) -> Progress:
        @contextmanager
        def show(path: str) -> Iterator[OnProgress]:
            shown.append((why, path))
            yield lambda _done, _total: None

        return show

    documents = Documents()
    pool = SessionPool(tiny_model, Settings(max_tokens=4, compare="none"), 1 << 30)
    context = Context(documents, (), keeps_changed=False, budget_tokens=0, show=str)
    workspace = Workspace(
        documents, pool, context, progress=showing("saved"), asked=showing("asked")
    )
    documents.change(A, SOURCE)
    documents.ask(Request(B, HERE, SOURCE))
    for event in workspace.events():
        if event is None:
            break
        workspace.told(event)
    assert sorted(shown) == [("asked", "b.py"), ("saved", "a.py")]


@pytest.fixture
def desk(tiny_model: EditableModel) -> Desk:
    return Desk(tiny_model)


def said(request: Request) -> Prediction | None:
    answer = request.answer.result(timeout=0)
    return answer.prediction if answer else None


def from_scratch(model: EditableModel, text: str, cursor: Cursor = HERE) -> str:
    session = EditSession(model, "a.py", Settings(max_tokens=6))
    return session.open(text, at=cursor).text


def test_a_question_about_a_document_never_seen_is_answered_exactly(
    desk: Desk, tiny_model: EditableModel
) -> None:
    desk.documents.change(A, SOURCE, 7)
    request = desk.ask()
    assert desk.until_idle() == [Answered]
    prediction = said(request)
    assert prediction is not None
    assert prediction.exact
    assert prediction.text == from_scratch(tiny_model, SOURCE)
    assert desk.documents.unsettled() == ()


def test_an_answer_after_an_edit_encodes_what_changed_and_is_made_exact_afterwards(
    desk: Desk,
) -> None:
    desk.documents.change(A, SOURCE, 1)
    desk.until_idle()
    edit = Edit.of_ranges(SOURCE, [(40, 40, "x")])
    desk.documents.change(A, edit, 2, HERE)
    request = desk.ask()
    assert desk.until_idle() == [Answered, MadeExact]
    prediction = said(request)
    assert prediction is not None
    assert prediction.tokens.encoded < prediction.tokens.total / 2
    assert desk.pool.use("a.py").session.exact


def test_a_prediction_made_before_it_is_asked_for_is_the_answer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.documents.change(A, SOURCE, 1)
    desk.until_idle()
    desk.documents.change(A, Edit.of_ranges(SOURCE, [(40, 40, "x")]), 2, HERE)
    monkeypatch.setattr(EditSession, "compare", lambda *_: None)
    assert desk.until_idle() == [Predicted, ComparisonStopped]
    predicted = desk.seen[-2]
    monkeypatch.setattr(EditSession, "update", lambda *_: pytest.fail("computed again"))
    request = desk.ask()
    desk.until_idle()
    answer = request.answer.result(timeout=0)
    assert answer is not None
    assert answer.waited
    assert isinstance(predicted, Predicted)
    assert answer.prediction == predicted.prediction


def test_what_the_recompute_contradicts_is_no_answer_any_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = EditSession.compare

    def contradicting(*rest: Any) -> Comparison | None:
        comparison = compare(*rest)
        assert comparison is not None
        return replace(comparison, text="", agrees=False)

    monkeypatch.setattr(EditSession, "compare", contradicting)
    desk.documents.change(A, SOURCE, 1)
    desk.until_idle()
    desk.documents.change(A, Edit.of_ranges(SOURCE, [(40, 40, "x")]), 2, HERE)
    desk.until_idle()
    request = desk.ask()
    desk.until_idle()
    answer = request.answer.result(timeout=0)
    assert answer is not None
    assert not answer.waited
    assert answer.prediction.exact


@pytest.mark.parametrize("version", [0, 2])
def test_a_question_about_another_version_is_answered_by_nothing(desk: Desk, version: int) -> None:
    desk.documents.change(A, SOURCE, 1)
    request = desk.ask(version=version)
    assert Answered not in desk.until_idle()
    assert said(request) is None


def test_a_change_while_a_question_is_computed_makes_it_out_of_date(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.documents.change(A, SOURCE, 1)
    desk.until_idle()
    update = EditSession.update

    def changed_meanwhile(session: EditSession, *rest: Any, **named: Any) -> Prediction:
        desk.documents.change(A, SOURCE + "more = 1\n", 2)
        monkeypatch.setattr(EditSession, "update", update)
        return update(session, *rest, **named)

    monkeypatch.setattr(EditSession, "update", changed_meanwhile)
    request = desk.ask()
    assert Answered not in desk.until_idle()[:1]
    assert said(request) is None
    assert desk.pool.use("a.py").session.text == SOURCE + "more = 1\n"


def test_a_dropped_question_costs_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.documents.change(A, SOURCE, 1)
    desk.until_idle()
    monkeypatch.setattr(EditSession, "update", lambda *_: pytest.fail("computed"))
    request = desk.ask()
    request.answer.cancel()
    desk.until_idle()
    assert request.over


def test_questions_break_a_comparison_off_and_it_goes_on_afterwards(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tiny_model, chunk_tokens=32)
    desk.documents.change(A, SOURCE, 1)
    desk.until_idle()
    compare, requests = EditSession.compare, []

    def asked_meanwhile(session: EditSession, *rest: Any) -> Comparison | None:
        if not requests:
            requests.append(desk.ask(cursor=Cursor(8, 4)))
        return compare(session, *rest)

    monkeypatch.setattr(EditSession, "compare", asked_meanwhile)
    desk.documents.change(A, Edit.of_ranges(SOURCE, [(40, 40, "x")]), 2, HERE)
    assert desk.until_idle() == [Predicted, Answered, ComparisonStopped, MadeExact]
    assert said(requests[0]) is not None
    assert desk.pool.use("a.py").session.exact


def test_a_text_brought_along_moves_no_cursor_for_good(
    desk: Desk, tiny_model: EditableModel
) -> None:
    after = SOURCE.replace("width", "breadth", 1)
    for asks in (False, True):
        own = Desk(tiny_model, at="9:5", compare="none")
        own.documents.change(A, SOURCE)
        own.until_idle()
        if asks:
            request = own.ask(version=None, text=SOURCE[:200], cursor=Cursor())
            own.until_idle()
            assert said(request) is not None
        own.documents.change(A, "# first\n" + after)
        own.until_idle()
        assert own.pool.use("a.py").session.cursor == Cursor(9, 4), asks


def test_context_that_is_brought_along_counts(desk: Desk) -> None:
    other = ContextFile("other.py", SOURCE)
    request = desk.ask(version=None, text=SOURCE, context=(other,))
    desk.until_idle()
    prediction = said(request)
    assert prediction is not None
    assert prediction.context == ("other.py",)


def test_enough_ends_the_line_and_is_an_answer(tiny_model: EditableModel) -> None:
    desk = Desk(tiny_model, compare="none")
    desk.documents.change(A, SOURCE, 1)
    desk.until_idle()
    place = Cursor(len(SOURCE.splitlines()) - 2, 4)  # near the first cursor: few stale tokens
    request = desk.ask(cursor=place, enough=lambda: True)
    desk.until_idle()
    prediction = said(request)
    assert prediction is not None
    assert prediction.stopped_by == "interrupted"
    again = desk.ask(cursor=place)
    desk.until_idle()
    whole = said(again)
    assert whole is not None
    assert whole.text.startswith(prediction.text)
    assert len(whole.token_ids) > len(prediction.token_ids)


def test_what_cannot_be_answered_says_why_and_work_goes_on(desk: Desk) -> None:
    desk.documents.change(A, SOURCE, 1)
    outside = desk.ask(cursor=Cursor(4000, 0))
    unknown = desk.ask(B, version=None)
    desk.until_idle()
    for request, cause in ((outside, "outside the file"), (unknown, "not open")):
        with pytest.raises(InputError, match=cause):
            request.answer.result(timeout=0)
    request = desk.ask()
    desk.until_idle()
    assert said(request) is not None


def test_at_the_end_nobody_waits(desk: Desk) -> None:
    before = desk.ask()
    desk.documents.close()
    after = desk.ask()
    assert list(desk.events) == []
    assert said(before) is None
    assert said(after) is None


def test_an_interrupt_leaves_no_question_open(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.documents.change(A, SOURCE, 1)
    desk.until_idle()
    requests = [desk.ask(), desk.ask()]

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(EditSession, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        desk.until_idle()
    requests.append(desk.ask())
    desk.documents.close()
    assert [said(request) for request in requests] == [None] * 3


def test_after_a_change_alone_it_is_quiet_first(tiny_model: EditableModel) -> None:
    desk = Desk(tiny_model, pause_s=0.05, compare="none")
    desk.documents.change(A, SOURCE, 1)
    take, late = desk.documents.take, iter([SOURCE + "a = 1\n"])

    def taking(timeout_s: float) -> Any:
        for text in late:
            taken = take(timeout_s)
            desk.documents.change(A, text, 2)
            return taken
        return take(timeout_s)

    desk.documents.take = taking  # type: ignore[method-assign]
    assert desk.until_idle() == [Superseded, Predicted]
    assert desk.pool.use("a.py").session.text == SOURCE + "a = 1\n"


def test_the_first_save_of_a_text_that_was_there_is_answered_where_it_changed(desk: Desk):
    lines = SOURCE.splitlines(keepends=True)
    desk.documents.open(A, SOURCE)
    desk.documents.open(B, SOURCE)
    desk.documents.change(A, SOURCE + "x = 1\n")
    desk.until_idle()
    desk.documents.change(B, "".join([*lines[:3], "width = 2\n", *lines[3:]]))
    desk.until_idle()
    answer = next(event for event in reversed(desk.seen) if isinstance(event, Predicted))
    assert (answer.document.path, answer.opened) == (B, True)
    assert answer.prediction.at.line in (4, 5)


def asked_after(desk: Desk, **about: Any) -> tuple[list[type], Request]:
    """Save twice and ask as soon as the second save is answered; return what came from then on."""
    desk.documents.change(A, SOURCE, 1)
    desk.until_idle()
    desk.documents.change(A, "import os\n" + SOURCE, 2)
    kinds, question = [], None
    for event in desk.events:
        if event is None:
            break
        desk.workspace.told(event)
        kinds.append(type(event))
        if isinstance(event, Predicted):
            question = desk.ask(**about)
    assert question is not None
    return kinds, question


@pytest.mark.parametrize("pause_s", [0.0, 0.2])
def test_a_comparison_goes_on_after_a_question_about_another_document(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    desk = Desk(tiny_model, strategy="pie", compare="full", chunk_tokens=64)
    monkeypatch.setattr(desk.workspace, "_compare_pause_s", pause_s)
    kinds, question = asked_after(desk, path=B, text="x = 1\ny = ", cursor=None, version=None)
    assert kinds == [Predicted, Answered, Compared]
    assert said(question) is not None
    assert desk.pool.use("a.py").session.exact


def test_a_comparison_goes_on_after_the_question_that_has_been_answered(
    tiny_model: EditableModel,
) -> None:
    desk = Desk(tiny_model, strategy="pie", compare="full", chunk_tokens=64)
    kinds, question = asked_after(desk, cursor=None)
    assert kinds == [Predicted, Answered, Compared]
    assert said(question) is not None


def test_a_question_elsewhere_in_the_document_ends_its_comparison(
    tiny_model: EditableModel,
) -> None:
    desk = Desk(tiny_model, strategy="pie", compare="full", chunk_tokens=64)
    kinds, _ = asked_after(desk, cursor=Cursor(9, 1))
    assert kinds == [Predicted, Answered, ComparisonStopped, MadeExact]
