"""Cases run as they should: exact strategies agree exactly, nothing depends on the order."""

import json
from dataclasses import replace

import pytest

from pie_cli.editable import PreparedModel
from pie_cli.engine.edited import execute
from pie_cli.errors import ModelError
from pie_cli.evaluation.cutting import cut
from pie_cli.evaluation.metrics import next_token_kl
from pie_cli.evaluation.outcomes import Outcome, Record, record_from_json, record_to_json
from pie_cli.evaluation.runner import CaseRunner, changed_tokens, moved_tokens
from pie_cli.evaluation.trial import FULL, Laboratory
from pie_cli.plan.plan import Alignment, align, make_plan
from pie_cli.plan.strategies import parse
from pie_cli.session import EditSession, Settings
from pie_cli.text.matching import KeptRun
from tests.evaluation.helpers import case

NAMES = ("full", "prefix", "cfe", "pie", "pie+seam:3", "pie+random:20%", "pie+deviation:20%")
BUDGET = 900


def untimed(outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    return {name: replace(one, first_token_ms=0.0) for name, one in outcomes.items()}


@pytest.fixture(scope="module")
def laboratory(tiny_model: PreparedModel) -> Laboratory:
    return Laboratory(tiny_model, max_tokens=12, seed=0)


def run(laboratory: Laboratory, cases, names=NAMES, budget: int = BUDGET) -> list[Record]:
    runner = CaseRunner(laboratory, [parse(name) for name in names], budget)
    runner.warm_up(cases)
    return [runner.run(one, turn) for turn, one in enumerate(cases)]


@pytest.fixture(scope="module")
def records(laboratory: Laboratory) -> list[Record]:
    cases = [case(n, at=4 * n + 1, removed=n % 2 * 3, added=2 - n % 2 * 2) for n in range(6)]
    return run(laboratory, cases)


def test_full_and_prefix_agree_always_and_are_exact(records: list[Record]):
    for record in records:
        for name in ("full", "prefix"):
            assert record.outcomes[name].agrees
            assert record.outcomes[name].kl < 1e-9
            assert record.outcomes[name].stale == 0
            assert min(record.outcomes[name].key_cosine) > 1 - 1e-6


def test_pie_has_exact_keys_in_the_first_layer_and_cfe_has_not(records: list[Record]):
    for record in records:
        assert record.outcomes["pie"].key_cosine[0] == pytest.approx(1, abs=1e-6)
        assert record.outcomes["pie"].key_cosine[-1] < 1 - 1e-4
        assert record.outcomes["cfe"].key_cosine[0] < 0.9
        assert record.outcomes["cfe"].value_cosine[0] == pytest.approx(1, abs=1e-6)


def test_strategies_encode_what_their_plans_say(records: list[Record]):
    for record in records:
        encoded = {name: one.encoded for name, one in record.outcomes.items()}
        assert encoded["full"] == record.prompt_tokens
        assert encoded["cfe"] == encoded["pie"] < encoded["prefix"] < encoded["full"]
        assert encoded["pie"] < encoded["pie+seam:3"] <= encoded["pie"] + 3
        share = record.prompt_tokens // 5
        for name in ("pie+random:20%", "pie+deviation:20%"):
            assert encoded["pie"] < encoded[name] <= encoded["pie"] + share
        stale = record.outcomes["pie"].stale
        assert stale > 0
        assert stale - record.outcomes["pie+seam:3"].stale == encoded["pie+seam:3"] - encoded["pie"]


def test_the_line_is_that_of_a_session(tiny_model: PreparedModel, laboratory: Laboratory):
    one = case(1, at=9)
    settings = Settings(max_tokens=12, at="end")
    for name in ("full", "prefix", "pie"):
        session = EditSession(tiny_model, one.path, replace(settings, strategy=name))
        session.prime(one.before)
        prediction = session.update(one.after)
        outcome = run(laboratory, [one], ("full", name))[0].outcomes[name]
        assert (outcome.line, outcome.encoded) == (prediction.text, prediction.tokens.encoded)


def test_neither_order_nor_company_change_an_outcome(laboratory: Laboratory, records: list[Record]):
    runner = CaseRunner(laboratory, [parse(name) for name in reversed(NAMES[2:4])], BUDGET)
    again = runner.run(case(2, at=9), turn=1).outcomes
    first = records[2].outcomes
    assert set(again) == {"full", "cfe", "pie"}
    assert untimed(again) == untimed({name: first[name] for name in again})


def test_a_draft_changes_no_line(laboratory: Laboratory):
    one = case(0, at=5)
    pair = cut(laboratory.model, one.path, one.before, one.after, BUDGET)
    slots = laboratory.encode(pair.before, len(pair.after))
    alone = laboratory.try_out(FULL, slots.clone(), pair.before, pair.after)
    for draft in (alone.line_ids, (*alone.line_ids[:1], 5, 6, 7), (1, 2)):
        drafted = laboratory.try_out(FULL, slots.clone(), pair.before, pair.after, draft)
        assert (drafted.line, drafted.line_ids) == (alone.line, alone.line_ids)
        assert drafted.slots.length == len(pair.after)


def test_the_longest_texts_are_cut_and_edits_out_of_sight_not_measured(laboratory: Laboratory):
    near, far = case(0, at=47), case(1, at=2)
    records = run(laboratory, [near, far], ("full", "pie"), budget=120)
    assert [record.truncated for record in records] == [True, True]
    assert [record.outside for record in records] == [False, True]
    assert records[0].prompt_tokens <= 120
    assert records[1].outcomes == {}


def test_stale_echo_is_asked_only_where_something_became_obsolete(laboratory: Laboratory):
    record = run(laboratory, [case(0), case(1, obsolete=())], ("full", "pie"))
    assert record[0].outcomes["pie"].stale_echo is not None
    assert record[1].outcomes["pie"].stale_echo is None


def test_an_evicted_cache_is_smaller_and_has_no_cosines(laboratory: Laboratory):
    outcomes = run(laboratory, [case(0)], ("full", "full+evict:4+64", "pie+evict:4+64"))[0].outcomes
    for name in ("full+evict:4+64", "pie+evict:4+64"):
        assert outcomes[name].key_cosine is None
        assert outcomes[name].cache_bytes < outcomes["full"].cache_bytes / 2


def test_moves_and_changes_are_counted_in_tokens():
    alignment = Alignment(100, 103, (KeptRun(0, 0, 50), KeptRun(52, 55, 48)))
    assert moved_tokens(alignment) == 3
    assert changed_tokens(alignment) == (103 - 98) + (100 - 98)
    assert moved_tokens(Alignment(3, 2, ())) == 0


def test_a_record_survives_json(records: list[Record]):
    for record in records:
        assert record_from_json(json.loads(json.dumps(record_to_json(record)))) == record


def test_a_model_that_is_never_edited_is_refused(tiny_model: PreparedModel):
    exact = replace(tiny_model, new_engine=lambda _: object())
    with pytest.raises(ModelError, match="nothing to evaluate"):
        Laboratory(exact, 8, 0)


def test_the_plan_of_a_wrong_alignment_would_show(laboratory: Laboratory):
    """Negative control: tokens kept at the wrong place give another distribution."""
    one = case(0, at=5)
    pair = cut(laboratory.model, one.path, one.before, one.after, BUDGET)
    slots = laboratory.encode(pair.before, len(pair.after))
    full = laboratory.try_out(FULL, slots.clone(), pair.before, pair.after)
    right = align(pair.before, pair.after)
    last = right.runs[-1]
    wrong = KeptRun(last.old_start + 1, last.new_start, last.length - 1)
    model = laboratory.model
    divergences = []
    for runs in (right.runs, (*right.runs[:-1], wrong)):
        plan = make_plan("pie", Alignment(right.old_length, right.new_length, runs))
        trial = execute(model.loaded.model, slots.clone(), plan, pair.after, model.gate.rotation)
        divergences.append(next_token_kl(full.logits, trial.logits[0]))
    assert divergences[1] > 5 * divergences[0]
