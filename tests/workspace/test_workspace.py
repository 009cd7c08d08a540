"""A workspace: every change is answered, superseded or reported, once, whatever interrupts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pie_cli.cli.tally import Tally
from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.errors import CacheCapacityError, InputError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Prediction
from pie_cli.session import EditSession, OnProgress
from pie_cli.text.edit import Edit
from pie_cli.workspace.context import Context
from pie_cli.workspace.documents import Document, Documents
from pie_cli.workspace.events import Compared, Event, NotCompared, Noted, Predicted, Superseded
from pie_cli.workspace.pool import SessionPool
from pie_cli.workspace.workspace import Workspace
from tests.conftest import SOURCE
from tests.workspace.played import Played, documents_with, told

AREA = Path("area.py")
A, B, N = Path("a.py"), Path("b.py"), Path("n.py")
FIRST = "import math\n" + SOURCE
SECOND = FIRST.replace("size", "extent")


class Run:
    """A workspace over documents, and the events it has given."""

    def __init__(
        self,
        model: EditableModel,
        documents: Any,
        *,
        named: tuple[Path, ...] = (),
        several: bool = False,
        only_context: tuple[Path, ...] = (),
        progress: Any = None,
        effort: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        options = Settings(max_tokens=8, **settings)
        self.pool = SessionPool(model, options, 1 << 30)
        self.tally = Tally(options.strategy, options.compare)
        self.documents = documents
        self.events: list[Event] = []
        self.workspace = Workspace(
            documents,
            self.pool,
            Context(documents, named, keeps_changed=several, budget_tokens=9_999, show=str),
            only_context=only_context,
            progress=progress,
            **(effort or {}),
        )

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.tally.add(event)
        self.workspace.told(event)

    def follow(self, first: Document | None = None, **how: Any) -> "Run":
        """Answer until the end, with what is left then."""
        for event in self.workspace.events(first, **how):
            if event is not None:
                self.tell(event)
        for event in self.workspace.unanswered():
            self.tell(event)
        return self

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return [told(event) for event in self.events]

    @property
    def predictions(self) -> list[Prediction]:
        return [event.prediction for event in self.events if isinstance(event, Predicted)]


def followed(model: EditableModel, documents: Played, **settings: Any) -> Run:
    return Run(model, documents, **settings).follow(Document(AREA, 0, SOURCE))


def test_each_change_is_answered_and_compared(tiny_model: EditableModel) -> None:
    run = followed(tiny_model, Played(AREA, (FIRST,), (), (SECOND,)))
    assert run.told == [
        ("prediction", 0),
        ("prediction", 1),
        ("comparison",),
        ("prediction", 2),
        ("comparison",),
    ]
    summary = run.tally.summary()
    assert (summary.saves, summary.predictions, summary.comparisons) == (2, 2, 2)
    assert summary.agreement_pct in {0.0, 50.0, 100.0}
    assert summary.prediction_ms
    assert summary.comparison_ms


def test_a_line_cut_short_by_a_newer_change_is_superseded_and_nothing_is_lost(
    tiny_model: EditableModel,
) -> None:
    run = followed(tiny_model, Played(AREA, (FIRST,), (SECOND,), overtaken_after={1: 1}))
    assert run.told == [("prediction", 0), ("superseded", 1), ("prediction", 2), ("comparison",)]
    assert (run.tally.saves, run.tally.superseded) == (2, 1)
    assert run.pool.use("area.py").session.text == SECOND


def test_a_comparison_makes_way_for_a_newer_change(tiny_model: EditableModel) -> None:
    # More looks than a line has passes: the comparison's second chunk is not begun.
    documents = Played(AREA, (FIRST,), (SECOND,), overtaken_after={1: 9})
    run = followed(tiny_model, documents, chunk_tokens=64, strategy="full", at="end")
    assert run.told[1:4] == [("prediction", 1), ("comparison stopped",), ("prediction", 2)]
    assert len(run.tally.comparisons) == 1


def test_a_comparison_waits_for_a_pause_in_which_a_newer_change_takes_its_place(
    tiny_model: EditableModel,
) -> None:
    documents = Played(AREA, (FIRST,), (), (SECOND,), ())
    run = followed(tiny_model, documents, effort={"compare_pause_s": 60.0})
    assert run.told == [
        ("prediction", 0),
        ("prediction", 1),
        ("comparison stopped",),
        ("prediction", 2),
    ]
    assert documents.unsettled() == ()


def test_after_the_pause_it_is_compared(tiny_model: EditableModel) -> None:
    documents = documents_with(a=SOURCE)
    run = Run(tiny_model, documents, effort={"compare_pause_s": 0.01})
    documents.change(A, FIRST)
    for event in run.workspace.events(Document(A, 0, SOURCE)):
        if event is None:
            break
        run.tell(event)
    assert run.told == [("prediction", 0), ("prediction", 1), ("comparison",)]
    compared = run.events[-1]
    assert isinstance(compared, Compared)
    assert compared.full is not None
    assert compared.full.measured
    assert compared.full.line_ms == compared.comparison.timings_ms.line


def test_a_comparison_beyond_the_limit_is_estimated_instead(tiny_model: EditableModel) -> None:
    documents = Played(AREA, (FIRST,))
    run = followed(tiny_model, documents, effort={"compare_limit_s": 0})
    assert run.told == [("prediction", 0), ("prediction", 1), ("not compared",)]
    event = run.events[-1]
    assert isinstance(event, NotCompared)
    assert not event.full.measured
    assert event.full.line_ms > 0


def test_without_comparison_none_is_stopped(tiny_model: EditableModel) -> None:
    run = followed(tiny_model, Played(AREA, (FIRST,)), compare="none")
    assert run.told == [("prediction", 0), ("prediction", 1)]
    assert run.tally.summary().agreement_pct is None


def test_failures_are_reported_and_the_next_change_is_answered(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = EditSession.update

    def refusing(session: EditSession, text: str, *rest: Any, **named: Any) -> Prediction:
        if text == "refused":
            raise InputError("line 9 is outside the file")
        return update(session, text, *rest, **named)

    monkeypatch.setattr(EditSession, "update", refusing)
    gone = InputError("there is no file")
    documents = Played(AREA, (gone,), (FIRST, SECOND, "refused"), (FIRST,))
    run = followed(tiny_model, documents, compare="none")
    assert run.told == [
        ("prediction", 0),
        ("error", 1),
        ("superseded", 2, 3),
        ("error", 4),
        ("prediction", 5),
    ]
    assert (run.tally.saves, run.tally.superseded, run.tally.errors) == (4, 2, 2)


def test_a_cursor_survives_that_the_file_shrinks(tiny_model: EditableModel) -> None:
    line = SOURCE.count("\n")
    documents = Played(AREA, ("a = 1\n",), ("",), (SOURCE,))
    run = followed(tiny_model, documents, at=str(line))
    assert run.tally.errors == 0
    assert [prediction.at.line for prediction in run.predictions] == [line, 2, 1, line + 1]


def test_a_first_document_that_cannot_be_predicted_in_ends_it_only_where_it_must_open(
    tiny_model: EditableModel,
) -> None:
    first = Document(AREA, 0, "a = 1\n")
    run = Run(tiny_model, Played(AREA, (SOURCE,)), at="40").follow(first)
    assert [type(event) for event in run.events] == [Noted, Predicted]
    with pytest.raises(InputError, match="40"):
        Run(tiny_model, Played(AREA, (SOURCE,)), at="40").follow(first, must_open=True)


def test_without_anything_to_do_it_says_so_again_and_again(tiny_model: EditableModel) -> None:
    run = Run(tiny_model, Played(AREA, (), (), ()))
    assert list(run.workspace.events()) == [None, None, None]


def test_while_a_document_is_opened_a_change_of_another_breaks_that_off(
    tiny_model: EditableModel,
) -> None:
    documents, opened = documents_with(), []

    @contextmanager
    def progress(path: str) -> Iterator[OnProgress]:
        def show(done: int, total: int) -> None:
            opened.append(path)
            if opened == ["a.py"]:
                documents.change(A, SOURCE + "more = 1\n")
            elif opened == ["a.py", "a.py"]:
                documents.change(B, SOURCE)
            elif path == "b.py" and done == total:
                documents.close()

        yield show

    documents.change(A, SOURCE)
    run = Run(tiny_model, documents, progress=progress, chunk_tokens=64).follow()
    assert opened[:3] == ["a.py", "a.py", "b.py"], "a change of the same document waits"
    assert run.told[:2] == [("superseded", 1), ("superseded", 2)]
    assert run.tally.saves == 3


def test_an_edit_that_is_known_reaches_the_session_and_a_superseded_one_does_no_harm(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | Edit] = []
    update = EditSession.update

    def updating(session: EditSession, to: str | Edit, *rest: Any, **named: Any) -> Prediction:
        seen.append(to)
        return update(session, to, *rest, **named)

    monkeypatch.setattr(EditSession, "update", updating)
    documents = documents_with(a=SOURCE)
    run = Run(tiny_model, documents, compare="none")
    events = run.workspace.events(documents.get(A))
    assert isinstance(next(events), Predicted)
    texts = [SOURCE, FIRST, SECOND, SECOND + "x = 1\n"]
    edits = [Edit.between(*pair) for pair in pairwise(texts)]
    documents.change(A, edits[0])
    assert isinstance(next(events), Predicted)
    documents.change(A, edits[1])
    documents.change(A, edits[2])
    assert isinstance(next(events), Superseded)
    assert isinstance(next(events), Predicted)
    assert seen == [edits[0], edits[2]]
    assert run.pool.use("a.py").session.text == texts[-1]


class Interrupted(Exception):
    """What a signal raises, at any place."""


@pytest.mark.parametrize("method", ["update", "compare", "open"])
def test_an_interrupt_loses_no_change_and_tells_of_none_twice(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Also of those that came while the report stalled, and were never taken."""
    documents = documents_with()
    documents.change(A, SOURCE)
    run = Run(tiny_model, documents)

    def interrupted(*_: Any, **__: Any) -> None:
        documents.change(A, "newest = 1\n")
        documents.change(B, "newest = 2\n")
        documents.fail(N, InputError("there is no file"))
        raise Interrupted

    if method == "open":
        monkeypatch.setattr(EditSession, method, interrupted)

    def answer() -> None:
        for event in run.workspace.events():
            assert event is not None
            run.tell(event)
            if isinstance(event, Predicted):
                monkeypatch.setattr(EditSession, method, interrupted)
                documents.change(A, FIRST)

    with pytest.raises(Interrupted):
        answer()
    for event in run.workspace.unanswered():
        run.tell(event)
    numbers: list[int] = []
    for event in run.events:
        match event:
            case Superseded():
                numbers += [number for number, _ in event.changes]
            case _ if told(event)[0] in ("prediction", "error"):
                numbers.append(told(event)[1])
            case _:
                pass
    assert len(numbers) >= 4
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    last = run.events[-1]
    assert isinstance(last, Superseded)
    assert last.at_end


def test_context_reaches_the_session_at_each_call(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, tuple[ContextFile, ...]]] = []
    open_session, update = EditSession.open, EditSession.update

    def opening(
        session: EditSession, text: str, progress: Any, context: Any, at: Any
    ) -> Prediction:
        seen.append(("open", session.path, context))
        return open_session(session, text, progress, context, at)

    def updating(
        session: EditSession, text: str, stop: Any, *, context: Any, at: Any
    ) -> Prediction:
        seen.append(("update", session.path, context))
        return update(session, text, stop, at, context)

    monkeypatch.setattr(EditSession, "open", opening)
    monkeypatch.setattr(EditSession, "update", updating)
    documents = documents_with(n="named = 1\n", a=SOURCE)
    run = Run(tiny_model, documents, named=(N,), several=True, only_context=(N,), compare="none")
    events = run.workspace.events(documents.get(A))
    assert isinstance(next(events), Predicted)
    for path, text in ((N, "named = 2\n"), (B, "y = 1\n"), (A, SOURCE + "\n")):
        documents.change(path, text)
        assert isinstance(next(events), Predicted)
    named, newer, other = (
        ContextFile("n.py", "named = 1\n"),
        ContextFile("n.py", "named = 2\n"),
        ContextFile("b.py", "y = 1\n"),
    )
    assert seen == [
        ("open", "a.py", (named,)),
        ("update", "a.py", (newer,)),
        ("open", "b.py", (newer,)),
        ("update", "a.py", (newer, other)),
    ]


def test_where_memory_runs_out_the_others_go_and_it_is_tried_again(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = documents_with()
    run = Run(tiny_model, documents)
    events = run.workspace.events()
    for path in (A, B):
        documents.change(path, SOURCE)
        assert isinstance(next(events), Predicted)
    open_session = EditSession.open

    def short(session: EditSession, *arguments: Any, **named: Any) -> Prediction:
        if "a.py" in run.pool:
            raise CacheCapacityError("no memory left") from MemoryError()
        return open_session(session, *arguments, **named)

    monkeypatch.setattr(EditSession, "open", short)
    documents.change(N, SOURCE)
    assert [told(next(events) or Noted(InputError(""))) for _ in range(3)] == [
        ("prediction", 3),
        ("dropped", "a.py"),
        ("dropped", "b.py"),
    ]


def test_where_settings_leave_no_room_nothing_goes(tiny_model: EditableModel) -> None:
    documents = documents_with()
    run = Run(tiny_model, documents)
    events = run.workspace.events()
    documents.change(A, SOURCE)
    assert isinstance(next(events), Predicted)
    run.pool.settings = Settings(max_tokens=4, context_tokens=16)
    documents.change(Path("a/very/long/path/that/leaves/no/room/after/it.py"), SOURCE)
    assert told(next(events) or Noted(InputError(""))) == ("error", 2)
    assert "a.py" in run.pool


def test_only_what_could_come_before_a_prompt_is_kept(tiny_model: EditableModel) -> None:
    """A document that context has no room for is known by a digest, not by its text."""
    documents: Documents = documents_with()
    context = Context(documents, (), keeps_changed=True, budget_tokens=10, show=str)
    for path in (A, B):
        documents.change(path, SOURCE)
        context.changed(path)
    assert documents.get(A) is None
    assert documents.get(B) is not None
    assert documents.change(A, SOURCE) is None
