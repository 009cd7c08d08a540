"""Executing plans: exact where they promise it, exact in layer 0 always."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from pie_cli.engine.edited import execute
from pie_cli.engine.forward import encode
from pie_cli.engine.rope import LayerRotation, ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment, make_plan
from pie_cli.text.matching import KeptRun
from tests.engine.helpers import (
    EDITS,
    N_TOKENS,
    alignment_of,
    find_rotation,
    full_cache,
    kept_runs,
    make_llama,
    random_ids,
    relative_error,
    stock_logits,
    valid,
)

OLD = random_ids(N_TOKENS)
LAYER_0_TOLERANCE = 1e-5


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether logits differ by at most 1e-5 x max(1, largest logit)."""
    bound = 1e-5 * max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) <= bound


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("strategy", ["full", "prefix"])
def test_exact_plans_equal_the_stock_forward_pass(
    model: LlamaForCausalLM, strategy: str, edit: str
) -> None:
    """Its control, another last token, fails by 100 times."""
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    cache = full_cache(model, OLD)
    logits = execute(model, cache, make_plan(strategy, alignment), new_ids, None).logits
    expected = stock_logits(model, new_ids)[-1:]
    assert close(logits, expected)
    other = stock_logits(model, [*new_ids[:-1], (new_ids[-1] + 1) % 97])[-1:]
    assert float((other - expected).abs().max()) > 100 * 1e-5 * max(
        1.0, float(expected.abs().max())
    )
    cache.check_integrity()


def test_a_full_plan_is_bit_equal_to_the_stock_forward_pass(model: LlamaForCausalLM) -> None:
    cache = SlotCache.for_model(model)
    cache.splice((), N_TOKENS, None)
    logits = encode(model, cache, OLD, range(N_TOKENS), range(N_TOKENS))
    assert torch.equal(logits, stock_logits(model, OLD))


@pytest.mark.parametrize("edit", EDITS)
def test_layer_0_equals_full_recompute_after_any_edit(
    model: LlamaForCausalLM, rotation: ModelRotation, edit: str
) -> None:
    """Oracle 2; its controls, cfe (no rotation) and the wrong pairing, fail by 100 times."""
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    expected = valid(full_cache(model, new_ids), 0)
    cache = full_cache(model, OLD)
    plan = make_plan("pie", alignment)
    execute(model, cache, plan, new_ids, rotation)
    cache.check_integrity()
    for found, wanted in zip(valid(cache, 0), expected, strict=True):
        assert relative_error(found, wanted) < LAYER_0_TOLERANCE
    if not plan.shifted:
        return
    wrong = ModelRotation(
        tuple(LayerRotation(spec.inv_freq, "interleaved") for spec in rotation.layers)
    )
    for strategy, wrong_rotation in (("cfe", None), ("pie", wrong)):
        cache = full_cache(model, OLD)
        execute(model, cache, make_plan(strategy, alignment), new_ids, wrong_rotation)
        assert relative_error(valid(cache, 0)[0], expected[0]) > 100 * LAYER_0_TOLERANCE
        assert relative_error(valid(cache, 0)[1], expected[1]) < LAYER_0_TOLERANCE


@given(kept_runs(), st.integers(1, 3))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_layer_0_stays_exact_over_any_sequence_of_edits(
    model: LlamaForCausalLM,
    rotation: ModelRotation,
    edit: tuple[tuple[KeptRun, ...], int],
    rounds: int,
) -> None:
    runs, new_length = edit
    old_ids, cache = OLD, full_cache(model, OLD)
    for round_ in range(rounds):
        fresh = random_ids(max(new_length, 1), seed=round_ + 1)
        for run in runs:
            fresh[run.new_start : run.new_stop] = old_ids[run.old_start : run.old_stop]
        new_ids = fresh
        plan = make_plan("pie", Alignment(len(old_ids), len(new_ids), runs))
        execute(model, cache, plan, new_ids, rotation)
        cache.check_integrity()
        for found, wanted in zip(
            valid(cache, 0), valid(full_cache(model, new_ids), 0), strict=True
        ):
            assert relative_error(found, wanted) < LAYER_0_TOLERANCE
        old_ids = new_ids
        runs = tuple(run for run in runs if run.old_stop <= len(old_ids))
        runs = tuple(run for run in runs if run.new_stop <= new_length)


@pytest.mark.parametrize("edit", ["at the end", "no change", "end deleted"])
def test_an_append_only_edit_equals_full_recompute_in_every_layer(
    model: LlamaForCausalLM, rotation: ModelRotation, edit: str
) -> None:
    """Oracle 3; its control, an edit in the middle, fails by 100 times in the last layer."""
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    reference, cache = full_cache(model, new_ids), full_cache(model, OLD)
    logits = execute(model, cache, make_plan("pie", alignment), new_ids, rotation).logits
    assert close(logits, stock_logits(model, new_ids)[-1:])
    for layer in range(3):
        for found, wanted in zip(valid(cache, layer), valid(reference, layer), strict=True):
            assert relative_error(found, wanted) < 1e-5

    alignment, new_ids = alignment_of(OLD, EDITS["insert"])
    reference, cache = full_cache(model, new_ids), full_cache(model, OLD)
    execute(model, cache, make_plan("pie", alignment), new_ids, rotation)
    assert relative_error(valid(cache, 2)[0], valid(reference, 2)[0]) > 100 * 1e-5


@pytest.mark.parametrize("edit", ["insert", "mixed hunks"])
def test_pie_is_closer_to_full_recompute_than_cfe(
    model: LlamaForCausalLM, rotation: ModelRotation, edit: str
) -> None:
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    reference = full_cache(model, new_ids)
    errors = {}
    for strategy in ("pie", "cfe"):
        cache = full_cache(model, OLD)
        execute(model, cache, make_plan(strategy, alignment), new_ids, rotation)
        errors[strategy] = relative_error(valid(cache, 1)[0], valid(reference, 1)[0])
    assert errors["pie"] < errors["cfe"]


def test_only_wanted_rows_of_logits_are_computed(model: LlamaForCausalLM) -> None:
    expected = stock_logits(model, OLD)
    cache = full_cache(model, OLD)
    for wanted in ((), (0,), (3, 17, 200), (239,), (238, 239)):
        logits = encode(model, cache, OLD, range(N_TOKENS), wanted)
        assert logits.shape == (len(wanted), 97)
        assert close(logits, expected[list(wanted)]) if wanted else True


def test_rewriting_scattered_tokens_changes_nothing(model: LlamaForCausalLM) -> None:
    """One pass over scattered positions sees exactly what the stock pass sees there."""
    cache = full_cache(model, OLD)
    positions = [*range(5, 9), 60, 61, *range(100, 160), 239]
    logits = encode(model, cache, [OLD[p] for p in positions], positions, range(len(positions)))
    assert close(logits, stock_logits(model, OLD)[positions])


def test_plans_and_prompts_must_fit(model: LlamaForCausalLM) -> None:
    alignment, new_ids = alignment_of(OLD, EDITS["insert"])
    cache = full_cache(model, OLD)
    with pytest.raises(ValueError, match="a prompt of 240"):
        execute(model, cache, make_plan("pie", alignment), OLD, None)
    with pytest.raises(ValueError, match="needs the model's rotation"):
        execute(model, cache, make_plan("pie", alignment), new_ids, None)
    with pytest.raises(ValueError, match="2 tokens for 1 positions"):
        encode(model, cache, OLD[:2], [0], ())


@pytest.mark.parametrize("edit", EDITS)
def test_bfloat16_stays_within_rounding_in_layer_0(edit: str) -> None:
    llama = make_llama(dtype=torch.bfloat16)
    rotation = find_rotation(llama)
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    cache = full_cache(llama, OLD)
    execute(llama, cache, make_plan("pie", alignment), new_ids, rotation)
    cache.check_integrity()
    for found, wanted in zip(valid(cache, 0), valid(full_cache(llama, new_ids), 0), strict=True):
        assert relative_error(found, wanted) < 0.01


def test_tokens_right_behind_an_edit_are_exact_when_repaired(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    """All that they see is; without the repair they are off by 100 times."""
    alignment, new_ids = alignment_of(OLD, EDITS["insert"])
    reference = full_cache(model, new_ids)
    seam = range(63, 71)
    errors = {}
    for name, refresh in (("repaired", seam), ("plain", ())):
        cache = full_cache(model, OLD)
        execute(model, cache, make_plan("pie", alignment, refresh), new_ids, rotation)
        cache.check_integrity()
        errors[name] = max(
            relative_error(found[:, seam.start : seam.stop], wanted[:, seam.start : seam.stop])
            for layer in range(3)
            for found, wanted in zip(valid(cache, layer), valid(reference, layer), strict=True)
        )
    assert errors["repaired"] < 1e-5
    assert errors["plain"] > 100 * 1e-5


def test_repairing_everything_is_full_recompute(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    alignment, new_ids = alignment_of(OLD, EDITS["mixed hunks"])
    cache = full_cache(model, OLD)
    plan = make_plan("pie", alignment, range(len(new_ids)))
    logits = execute(model, cache, plan, new_ids, rotation).logits
    assert close(logits, stock_logits(model, new_ids)[-1:])
