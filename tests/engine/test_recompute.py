"""The recompute: in place, ascending, stopped without loss."""

import pytest
from transformers import LlamaForCausalLM

from pie_cli.engine.edited import EditedEngine, execute
from pie_cli.engine.probe import Probe
from pie_cli.engine.protocol import Decoding
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import make_plan
from tests.engine.helpers import (
    EDITS,
    N_TOKENS,
    alignment_of,
    full_cache,
    random_ids,
    relative_error,
    stock_logits,
    valid,
)

OLD = random_ids(N_TOKENS)
ALIGNMENT, NEW = alignment_of(OLD, EDITS["mixed hunks"])
TOLERANCE = 1e-5


def edited(model: LlamaForCausalLM, rotation: ModelRotation) -> EditedEngine:
    cache = full_cache(model, OLD)
    execute(model, cache, make_plan("pie", ALIGNMENT), NEW, rotation)
    return EditedEngine(model, rotation, cache)


def worst(found: SlotCache, wanted: SlotCache, stop: int | None = None) -> float:
    """Return the largest relative error of any layer's keys or values, up to a position."""
    return max(
        relative_error(a[:, :stop], b[:, :stop])
        for layer in range(3)
        for a, b in zip(valid(found, layer), valid(wanted, layer), strict=True)
    )


@pytest.mark.parametrize("start", [0, 20])
@pytest.mark.parametrize("chunk_tokens", [17, 64, 1_000])
def test_after_a_recompute_every_layer_equals_full_recompute(
    model: LlamaForCausalLM, rotation: ModelRotation, start: int, chunk_tokens: int
) -> None:
    """Oracle 6; its control, the cache before it, fails by 100 times."""
    engine, reference = edited(model, rotation), full_cache(model, NEW)
    cache = engine.slots
    assert worst(cache, reference) > 100 * TOLERANCE
    steps = list(engine.recompute(NEW, start, chunk_tokens))
    cache.check_integrity()
    assert cache.length == len(NEW)
    assert worst(cache, reference) < TOLERANCE
    assert [step.reached for step in steps][-1] == len(NEW)
    expected = stock_logits(model, NEW)[-1:]
    logits = Probe(model, engine, NEW).next_logits()[None]
    assert float((logits - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_stopping_keeps_the_chunks_that_are_done(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    engine, reference = edited(model, rotation), full_cache(model, NEW)
    cache = engine.slots
    answers = iter([False, False, False, True])
    steps = engine.recompute(NEW, 0, 50, should_stop=lambda: next(answers))
    assert [step.reached for step in steps] == [50, 100, 150]
    cache.check_integrity()
    assert worst(cache, reference, 150) < TOLERANCE < worst(cache, reference)
    list(engine.recompute(NEW, 150, 50))
    assert worst(cache, reference) < TOLERANCE


def test_a_first_encoding_may_come_in_chunks(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    cache = SlotCache.for_model(model)
    engine = EditedEngine(model, rotation, cache)
    engine.begin(len(NEW))
    assert [step.reached for step in engine.recompute(NEW, 0, 100)][:2] == [100, 200]
    cache.check_integrity()
    assert worst(cache, full_cache(model, NEW)) < TOLERANCE


def test_a_draft_rides_in_the_last_chunk(model: LlamaForCausalLM, rotation: ModelRotation) -> None:
    options = Decoding(lambda ids: "".join(f"<{i}>" for i in ids), max_tokens=8)
    fresh = EditedEngine(model, rotation, full_cache(model, OLD))
    full = fresh.predict(make_plan("full", ALIGNMENT), NEW, options)
    for draft in ((), full.token_ids[:5], (1, 2, 3)):
        engine = edited(model, rotation)
        list(engine.recompute(NEW, 0, 64, draft=draft))
        line = engine.predict_after(NEW, options, draft)
        assert line.token_ids == full.token_ids
        assert engine.slots.length == len(NEW)
        engine.slots.check_integrity()


def test_prompt_and_start_must_fit(model: LlamaForCausalLM, rotation: ModelRotation) -> None:
    engine = EditedEngine(model, rotation, full_cache(model, OLD))
    with pytest.raises(ValueError, match="but 240 in the cache"):
        next(engine.recompute(OLD[:-1], 0, 100))
    with pytest.raises(ValueError, match="token 240 of 240"):
        next(engine.recompute(OLD, 240, 100))
