"""Plans: every strategy covers the new sequence exactly once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.errors import InputError
from pie_cli.plan.plan import Alignment, make_plan
from pie_cli.plan.strategies import BASES
from pie_cli.text.matching import KeptRun
from tests.engine.helpers import EDITS, N_TOKENS, alignment_of, random_ids

OLD = random_ids(N_TOKENS)


@pytest.mark.parametrize("strategy", BASES)
@pytest.mark.parametrize("edit", EDITS)
def test_kept_and_fresh_cover_every_position_once(strategy: str, edit: str) -> None:
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    plan = make_plan(strategy, alignment)
    kept = [p for run in plan.kept for p in range(run.new_start, run.new_stop)]
    assert sorted([*kept, *plan.fresh]) == list(range(len(new_ids)))
    assert plan.reused + plan.encoded == plan.length == len(new_ids)
    assert 0 <= plan.shifted <= plan.reused
    assert list(plan.fresh) == sorted(plan.fresh)
    assert all(
        OLD[r.old_start : r.old_stop] == new_ids[r.new_start : r.new_stop] for r in plan.kept
    )


@pytest.mark.parametrize("strategy", BASES)
@pytest.mark.parametrize("edit", EDITS)
def test_the_last_token_is_always_fresh(strategy: str, edit: str) -> None:
    plan = make_plan(strategy, alignment_of(OLD, EDITS[edit])[0])
    assert plan.fresh[-1] == plan.length - 1


def test_strategies_differ_in_what_they_keep() -> None:
    alignment, _ = alignment_of(OLD, EDITS["insert"])
    plans = {strategy: make_plan(strategy, alignment) for strategy in BASES}
    assert [plans[s].encoded for s in BASES] == [243, 183, 4, 4]
    assert plans["prefix"].kept == (KeptRun(0, 0, 60),)
    assert plans["pie"].kept == plans["cfe"].kept == (KeptRun(0, 0, 60), KeptRun(60, 63, 179))
    assert plans["pie"].rotate
    assert not plans["cfe"].rotate
    assert plans["pie"].shifted == 179


def test_runs_that_continue_each_other_are_joined() -> None:
    runs = (KeptRun(0, 0, 4), KeptRun(4, 4, 3), KeptRun(8, 7, 2), KeptRun(10, 9, 2))
    plan = make_plan("pie", Alignment(12, 12, runs))
    assert plan.kept == (KeptRun(0, 0, 7), KeptRun(8, 7, 4))


@given(st.integers(1, 30), st.integers(0, 30))
def test_an_unrelated_sequence_is_encoded_whole(new_length: int, old_length: int) -> None:
    for strategy in BASES:
        plan = make_plan(strategy, Alignment(old_length, new_length, ()))
        assert plan.fresh == tuple(range(new_length))
        assert plan.kept == ()


@pytest.mark.parametrize("edit", EDITS)
def test_positions_to_refresh_become_fresh_and_nothing_else_changes(edit: str) -> None:
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    plain = make_plan("pie", alignment)
    refresh = tuple(range(0, len(new_ids), 7))
    plan = make_plan("pie+random", alignment, refresh)
    assert set(plan.fresh) == set(plain.fresh) | set(refresh)
    kept = {p: run.delta for run in plan.kept for p in range(run.new_start, run.new_stop)}
    before = {p: run.delta for run in plain.kept for p in range(run.new_start, run.new_stop)}
    assert kept == {p: delta for p, delta in before.items() if p not in refresh}
    assert sorted([*kept, *plan.fresh]) == list(range(len(new_ids)))
    assert plan.strategy == "pie+random"
    assert plan.rotate


@given(st.sets(st.integers(0, 30)))
def test_refreshing_cuts_runs_at_their_very_ends_too(refresh: set[int]) -> None:
    alignment = Alignment(30, 31, (KeptRun(0, 0, 10), KeptRun(10, 12, 19)))
    plan = make_plan("pie", alignment, sorted(refresh))
    assert set(plan.fresh) == refresh | {10, 11, 30}
    assert all(run.length > 0 for run in plan.kept)


@pytest.mark.parametrize(
    "alignment",
    [
        Alignment(5, 0, ()),
        Alignment(5, 5, (KeptRun(0, 0, 6),)),
        Alignment(5, 5, (KeptRun(0, 2, 2), KeptRun(2, 0, 2))),
        Alignment(5, 5, (KeptRun(0, 0, 2), KeptRun(2, 1, 2))),
        Alignment(5, 5, (KeptRun(0, 0, 2), KeptRun(1, 2, 2))),
        Alignment(2, 5, (KeptRun(1, 0, 2),)),
    ],
)
def test_impossible_alignments_are_refused(alignment: Alignment) -> None:
    with pytest.raises(ValueError, match=r"at least one token|must|leaves"):
        make_plan("pie", alignment)


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(InputError, match="unknown strategy 'cfr'"):
        make_plan("cfr", Alignment(1, 1, ()))
