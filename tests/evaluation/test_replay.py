"""Sessions are replayed save by save; an exact cache has no drift, a refreshed one no memory."""

import pytest

from pie_cli.editable import PreparedModel
from pie_cli.evaluation.cases.case import EvalSession
from pie_cli.evaluation.runs.outcomes import Record
from pie_cli.evaluation.runs.sessions import Policy, Replayer, count_saves, policies
from pie_cli.evaluation.runs.trial import Laboratory
from pie_cli.plan.strategies import parse
from tests.evaluation.helpers import LINES, TEXT


def lines_with(*edits: tuple[int, str]) -> str:
    lines = list(LINES)
    for at, new in edits:
        lines[at] = new
    return "".join(lines)


FIRST = (5, "    size = width * height - 1\n    extra = size\n")
SECOND = (17, "    size = width + height\n")
THIRD = (9, "    size = height\n    other = width\n    more = other\n")
VERSIONS = (
    TEXT,
    lines_with(FIRST),
    lines_with(FIRST),
    lines_with(FIRST, SECOND),
    lines_with(FIRST, SECOND, THIRD),
)
SESSION = EvalSession("session-1", "shop/area.py", "python", VERSIONS)


def replay(
    model: PreparedModel, session: EvalSession, replayed: list[Policy], **options
) -> list[Record]:
    budget = options.pop("budget", 900)
    strategies = [policy.strategy for policy in replayed]
    laboratory = Laboratory(model, strategies, budget, 8, options.pop("layout", "plain"))
    return Replayer(laboratory, replayed, **options).run(session)


@pytest.fixture(scope="module", params=["plain", "auto"])
def records(request: pytest.FixtureRequest, tiny_model: PreparedModel) -> list[Record]:
    replayed = policies([parse(name) for name in ("full", "prefix", "cfe", "pie")], (0, 1, 2))
    saves: list[int] = []
    found = replay(
        tiny_model, SESSION, replayed, layout=request.param, on_save=lambda: saves.append(1)
    )
    assert len(saves) == 3
    return found


def test_exact_strategies_are_replayed_once_the_others_by_every_schedule():
    names = [policy.name for policy in policies([parse("prefix"), parse("pie+seam:3")], (1, 5))]
    assert names == ["prefix", "pie+seam:3", "pie+seam:3@1", "pie+seam:3@5"]
    assert policies([parse("pie+evict:4+16")], (1,)) == []
    assert Policy(parse("pie"), 3).name == "pie@3"


def test_a_version_that_changes_nothing_is_no_save(records: list[Record]):
    assert [(record.save, record.saves) for record in records] == [(1, 3), (2, 3), (3, 3)]
    assert count_saves(SESSION) == 3


def test_the_cursor_stays_below_all_that_was_edited(records: list[Record]):
    assert [record.target for record in records] == [LINES[6][:-1], LINES[18][:-1], LINES[18][:-1]]
    assert [record.distance for record in records] == [1, 1, 9]


def test_full_and_prefix_do_not_drift(records: list[Record]):
    for record in records:
        for name in ("full", "prefix"):
            assert record.outcomes[name].agrees
            assert record.outcomes[name].kl < 1e-9


def test_without_exact_runs_errors_stay_and_with_them_the_next_save_starts_exact(
    records: list[Record],
):
    """The first save has the same start under every schedule, the later ones have not."""
    first, *_, last = (record.outcomes for record in records)
    assert first["pie"].kl == first["pie@1"].kl == first["pie@2"].kl
    assert last["pie"].kl != last["pie@1"].kl
    assert last["pie"].stale >= last["pie@1"].stale
    assert records[1].outcomes["pie"].kl == records[1].outcomes["pie@2"].kl
    assert last["pie"].kl != last["pie@2"].kl


def test_after_an_exact_run_a_save_is_answered_as_if_its_session_had_begun_there(
    tiny_model: PreparedModel,
):
    """The session is cut before its last save; the one that was cut off had left the cursor."""
    whole = replay(tiny_model, SESSION, [Policy(parse("pie"), 1)])
    versions = (TEXT, *VERSIONS[3:])
    begun = replay(
        tiny_model,
        EvalSession("begun", SESSION.path, "python", versions),
        [Policy(parse("pie"), 1)],
    )
    one, other = whole[-1].outcomes["pie@1"], begun[-1].outcomes["pie@1"]
    assert other.kl == pytest.approx(one.kl, rel=1e-4)
    assert other.key_cosine == pytest.approx(one.key_cosine, abs=1e-5)


def test_an_exact_run_comes_when_it_is_due(records: list[Record]):
    for record in records:
        assert record.outcomes["pie@1"].refresh_ms > 0
        assert (record.outcomes["pie@2"].refresh_ms > 0) is (record.save % 2 == 0)
        assert record.outcomes["pie"].refresh_ms == 0


def test_a_save_outside_the_window_is_counted_and_not_measured(tiny_model: PreparedModel):
    versions = (TEXT, lines_with((45, "    size = 1\n")))
    above = versions[1].replace("+ 0\n", "+ 99\n")
    session = EvalSession("s", "a.py", "python", (*versions, above))
    records = replay(tiny_model, session, [Policy(parse("pie"))], budget=100)
    assert [record.outside for record in records] == [False, True]
    assert records[1].outcomes == {}
    assert records[0].truncated


def test_the_end_of_a_file_has_no_true_line(tiny_model: PreparedModel):
    session = EvalSession("s", "a.py", "python", ("a = 1\n", "a = 1\nb = 2\n"))
    (record,) = replay(tiny_model, session, [Policy(parse("pie"))], budget=100)
    assert record.target is None
    assert record.outcomes["pie"].exact_match is None
    assert record.outcomes["pie"].edit_similarity is None
