"""Cases run as they should: exact strategies agree exactly, nothing depends on the order."""

import json
from dataclasses import replace

import pytest
import torch

from pie_cli.editable import PreparedModel
from pie_cli.engine.probe import Probe
from pie_cli.errors import CacheCapacityError, InputError, ModelError
from pie_cli.evaluation.cases.case import Gap
from pie_cli.evaluation.runs.cases import (
    CaseRunner,
    changed_tokens,
    kept_after_change,
    moved_tokens,
)
from pie_cli.evaluation.runs.metrics import next_token_kl
from pie_cli.evaluation.runs.outcomes import Outcome, Record, record_from_json, record_to_json
from pie_cli.evaluation.runs.trial import FULL, LAYOUTS, Laboratory
from pie_cli.plan.plan import Alignment, align
from pie_cli.plan.strategies import parse
from pie_cli.prompt.fim import PSM, SPM
from pie_cli.text.matching import KeptRun
from tests.evaluation.helpers import TEXT, case

NAMES = ("full", "prefix", "cfe", "pie", "pie+seam:3", "pie+random:20%", "pie+deviation:20%")
BUDGET = 900


def untimed(outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    return {name: replace(one, first_token_ms=0.0, line_ms=0.0) for name, one in outcomes.items()}


def laboratory(
    model: PreparedModel, names=NAMES, budget: int = BUDGET, layout: str = "auto"
) -> Laboratory:
    return Laboratory(model, [parse(name) for name in names], budget, 12, layout)


def run(
    model: PreparedModel, cases, names=NAMES, budget: int = BUDGET, layout: str = "auto"
) -> list[Record]:
    strategies = [parse(name) for name in names]
    runner = CaseRunner(laboratory(model, names, budget, layout), strategies)
    runner.warm_up(cases)
    return [runner.run(one, turn) for turn, one in enumerate(cases)]


@pytest.fixture(scope="module")
def records(tiny_model: PreparedModel) -> list[Record]:
    cases = [case(n, at=4 * n + 1, removed=n % 2 * 3, added=2 - n % 2 * 2) for n in range(6)]
    return run(tiny_model, cases)


def test_full_and_prefix_agree_always_and_are_exact(records: list[Record]):
    for record in records:
        for name in ("full", "prefix"):
            assert record.outcomes[name].agrees
            assert record.outcomes[name].exact
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
        assert record.outcomes["pie"].stale > 0
        assert not record.outcomes["pie"].exact


def test_neither_order_nor_company_change_an_outcome(
    tiny_model: PreparedModel, records: list[Record]
):
    runner = CaseRunner(laboratory(tiny_model), [parse(name) for name in reversed(NAMES[2:4])])
    again = runner.run(case(2, at=9), turn=1).outcomes
    first = records[2].outcomes
    assert set(again) == {"full", "cfe", "pie"}
    assert untimed(again) == untimed({name: first[name] for name in again})


def test_what_a_model_sees_below_the_cursor_is_a_matter_of_layout(tiny_model: PreparedModel):
    one = case(0, at=9, below=TEXT)
    tokens = {}
    for layout in LAYOUTS:
        (record,) = run(tiny_model, [one], ("full", "pie"), layout=layout)
        tokens[layout] = record.prompt_tokens
        assert record.outcomes["full"].agrees
    assert tokens["auto"] == tokens[SPM] == tokens[PSM] > tokens["plain"] + 100
    # With the suffix first, an edit above the cursor leaves it as it was; else all of it moves.
    exact = [run(tiny_model, [case(0, at=46, below=TEXT)], ("pie",), layout=x) for x in (SPM, PSM)]
    suffix_first, prefix_first = (record[0].outcomes["pie"].stale for record in exact)
    assert suffix_first < prefix_first
    with pytest.raises(InputError, match="fills in no middle"):
        Laboratory(replace(tiny_model, fim=None), [FULL], BUDGET, 12, PSM)


def test_the_longest_texts_are_cut_and_edits_out_of_sight_not_measured(tiny_model: PreparedModel):
    near, far = case(0, at=47), case(1, at=2)
    records = run(tiny_model, [near, far], ("full", "pie"), budget=120)
    assert [record.truncated for record in records] == [True, True]
    assert [record.outside for record in records] == [False, True]
    assert records[0].prompt_tokens <= 120
    assert records[1].outcomes == {}


def test_stale_echo_is_asked_only_where_something_became_obsolete(tiny_model: PreparedModel):
    record = run(tiny_model, [case(0), case(1, obsolete=())], ("full", "pie"))
    assert record[0].outcomes["pie"].stale_echo is not None
    assert record[1].outcomes["pie"].stale_echo is None


def test_an_evicted_cache_is_smaller_and_has_no_cosines(tiny_model: PreparedModel):
    names = ("full", "full+evict:4+64", "pie+evict:4+64")
    outcomes = run(tiny_model, [case(0)], names)[0].outcomes
    for name in names[1:]:
        assert outcomes[name].key_cosine is None
        assert outcomes[name].cache_bytes < outcomes["full"].cache_bytes / 2


def test_moves_and_changes_are_counted_in_tokens():
    alignment = Alignment(100, 103, (KeptRun(0, 0, 50), KeptRun(52, 55, 48)))
    assert moved_tokens(alignment) == 3
    assert changed_tokens(alignment) == (103 - 98) + (100 - 98)
    assert moved_tokens(Alignment(3, 2, ())) == 0
    assert kept_after_change(alignment) == list(range(55, 102))


def test_a_record_survives_json(records: list[Record]):
    for record in records:
        assert record_from_json(json.loads(json.dumps(record_to_json(record)))) == record


def test_a_model_that_is_never_edited_is_refused(tiny_model: PreparedModel):
    exact = replace(tiny_model, capability=replace(tiny_model.capability, edits=False))
    with pytest.raises(ModelError, match="nothing to evaluate"):
        laboratory(exact)
    limited = replace(tiny_model, capability=replace(tiny_model.capability, limit=512))
    with pytest.raises(CacheCapacityError, match="up to 512 tokens"):
        laboratory(limited)


def test_a_context_has_to_fit_the_window_and_a_line_as_well(tiny_model: PreparedModel):
    with pytest.raises(CacheCapacityError, match="exceeds the window"):
        laboratory(tiny_model, budget=tiny_model.window + 1)
    with pytest.raises(CacheCapacityError, match="no room for text"):
        Laboratory(tiny_model, [FULL], 32, tiny_model.window)


def test_a_cache_that_is_wrong_would_show(tiny_model: PreparedModel):
    """Negative control: values kept at the wrong place give another distribution."""
    one, lab = case(0, at=5), laboratory(tiny_model, ("full", "pie"))
    session = lab.session(one.path)
    session.prime(one.before.text, at=one.before.cursor)
    full = lab.try_out(lab.fork(session, FULL), one.after)
    twin = lab.fork(session, parse("pie"))
    right = lab.try_out(twin, one.after)
    kept = kept_after_change(align(session.prompt.token_ids, right.prompt.token_ids))
    with torch.inference_mode():
        for layer in twin.engine.slots.slot_layers:
            layer.values[:, :, kept] = layer.values[:, :, kept].roll(1, dims=2)
    probe = Probe(tiny_model.loaded.model, twin.engine, right.prompt.token_ids)
    assert next_token_kl(full.logits, probe.next_logits()) > 5 * next_token_kl(
        full.logits, right.logits
    )


def test_a_gap_is_cut_to_a_window_around_its_cursor():
    gap = Gap.at("a\nb\nc\nd\ne\n", 2)
    assert (gap.text, gap.line) == ("a\nb\nd\ne\n", 2)
    assert gap.within(1, 3) == Gap("b\n", "d\n")
    assert gap.within(0, None) == gap
    assert Gap("a\nb\n").within(1, None) == Gap("b\n")
