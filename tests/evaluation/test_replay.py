"""Sessions are replayed save by save; an exact cache has no drift, a refreshed one no memory."""

import pytest

from pie_cli.editable import PreparedModel
from pie_cli.evaluation.cases import EvalSession
from pie_cli.evaluation.outcomes import Record
from pie_cli.evaluation.replay import Policy, Replayer, count_saves, policies
from pie_cli.evaluation.trial import Laboratory
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


@pytest.fixture(scope="module")
def records(tiny_model: PreparedModel) -> list[Record]:
    replayed = policies([parse(name) for name in ("full", "prefix", "cfe", "pie")], (0, 1, 2))
    saves = []
    laboratory = Laboratory(tiny_model, max_tokens=8, seed=0)
    found = Replayer(laboratory, replayed, 900, lambda: saves.append(1)).run(SESSION)
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


def test_the_spot_stays_below_all_that_was_edited(records: list[Record]):
    assert [record.target for record in records] == [LINES[6][:-1], LINES[18][:-1], LINES[18][:-1]]
    assert [record.distance for record in records] == [1, 1, 9]


def test_full_and_prefix_do_not_drift(records: list[Record]):
    for record in records:
        for name in ("full", "prefix"):
            assert record.outcomes[name].agrees
            assert record.outcomes[name].kl < 1e-9


def test_without_refresh_errors_stay_and_with_it_the_next_save_starts_exact(
    tiny_model: PreparedModel, records: list[Record]
):
    """After a refresh a save is answered as if its session had begun there."""
    last = records[-1].outcomes
    assert last["pie"].kl != last["pie@1"].kl
    fresh = EvalSession("fresh", SESSION.path, "python", VERSIONS[-2:])
    laboratory = Laboratory(tiny_model, max_tokens=8, seed=0)

    class SameSpot(Replayer):
        """Begins with the prompt that the longer session held."""

        def _saves(self, session):
            yield from list(super()._saves(SESSION))[-2:]

    alone = SameSpot(laboratory, [Policy(parse("pie"))], 900).run(fresh)[0].outcomes["pie"]
    assert alone.kl == pytest.approx(last["pie@1"].kl, rel=1e-4)
    assert alone.key_cosine == pytest.approx(last["pie@1"].key_cosine, abs=1e-5)


def test_a_refresh_costs_a_full_recompute_and_comes_when_it_is_due(records: list[Record]):
    for record in records:
        full_ms = record.outcomes["full"].first_token_ms
        due = record.save % 2 == 0
        assert record.outcomes["pie@1"].refresh_ms == full_ms
        assert record.outcomes["pie@2"].refresh_ms == (full_ms if due else 0)
        assert record.outcomes["pie"].refresh_ms == 0
    assert records[1].outcomes["pie"].kl == records[1].outcomes["pie@2"].kl
    assert records[2].outcomes["pie"].kl != records[2].outcomes["pie@2"].kl


def test_a_save_above_the_window_is_counted_and_not_measured(tiny_model: PreparedModel):
    versions = (TEXT, lines_with((45, "    size = 1\n")))
    laboratory = Laboratory(tiny_model, max_tokens=8, seed=0)
    above = versions[1].replace("+ 0\n", "+ 99\n")
    session = EvalSession("s", "a.py", "python", (*versions, above))
    records = Replayer(laboratory, [Policy(parse("pie"))], 100).run(session)
    assert [record.outside for record in records] == [False, True]
    assert records[1].outcomes == {}
    assert records[0].truncated


def test_the_end_of_a_file_has_no_true_line(tiny_model: PreparedModel):
    laboratory = Laboratory(tiny_model, max_tokens=4, seed=0)
    session = EvalSession("s", "a.py", "python", ("a = 1\n", "a = 1\nb = 2\n"))
    (record,) = Replayer(laboratory, [Policy(parse("pie"))], 100).run(session)
    assert record.target is None
    assert record.outcomes["pie"].exact_match is None
    assert record.outcomes["pie"].edit_similarity is None
