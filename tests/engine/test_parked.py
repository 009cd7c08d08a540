"""What left a prompt's end comes back at another position as if it had been kept and moved."""

from dataclasses import replace

import pytest
import torch
from transformers import LlamaForCausalLM

from pie_cli.engine.attention import install
from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.parked import ParkedText
from pie_cli.engine.protocol import Decoding
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment, align, make_plan, parted
from pie_cli.text.matching import KeptRun
from tests.engine.helpers import (
    N_TOKENS,
    VOCABULARY,
    find_rotation,
    full_cache,
    make_llama,
    random_ids,
    valid,
)

OLD = random_ids(N_TOKENS)
JUMP = 90
ADDED = [VOCABULARY - 1 - token_id for token_id in OLD[:7]]
ONE = Decoding(str, max_tokens=1)


def holding(model: LlamaForCausalLM, rotation: ModelRotation, token_ids: list[int]) -> EditedEngine:
    engine = EditedEngine(model, rotation, SlotCache.for_model(model))
    engine.begin(len(token_ids))
    assert list(engine.recompute(token_ids, 0, 1_000))
    return engine


def step(engine: EditedEngine, old: list[int], new: list[int], *, parked: bool) -> None:
    """Go from one prompt to the next by pie's plan, with or without what is parked."""
    held = [*old, *engine.parked] if parked else old
    engine.predict(make_plan("pie", align(held, new)), new, ONE)
    engine.slots.check_integrity()


def close(one: SlotCache, other: SlotCache, tolerance: float) -> bool:
    return all(
        bool((a.float() - b.float()).norm() <= tolerance * b.float().norm())
        for layer in range(3)
        for a, b in zip(valid(one, layer), valid(other, layer), strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back_is_an_edit_in_place(dtype: torch.dtype) -> None:
    """Up, an edit there, down again: keys and values are those of the same edit without a jump.

    The control, the text that comes back without its rotation, is off by far more.
    """
    model = make_llama(dtype=dtype)
    install(model)
    rotation = find_rotation(model)
    edited = [*OLD[:JUMP], *ADDED, *OLD[JUMP:]]
    engine = holding(model, rotation, OLD)
    step(engine, OLD, OLD[:JUMP], parked=True)
    assert list(engine.parked) == OLD[JUMP:]
    step(engine, OLD[:JUMP], [*OLD[:JUMP], *ADDED], parked=True)
    plan = make_plan("pie", align([*OLD[:JUMP], *ADDED, *engine.parked], edited))
    assert plan.fresh == (len(edited) - 1,)
    assert plan.stale_from(JUMP + len(ADDED)) == JUMP + len(ADDED)
    engine.predict(plan, edited, ONE)
    engine.slots.check_integrity()
    stayed = holding(model, rotation, OLD)
    step(stayed, OLD, edited, parked=False)
    tolerance = 1e-4 if dtype == torch.float32 else 0.02
    assert close(engine.slots, stayed.slots, tolerance)
    assert engine.parked == ()
    still = holding(model, rotation, OLD)
    wrong = ParkedText.of(still.slots, OLD, JUMP)
    still.slots.splice((KeptRun(0, 0, JUMP),), len(edited), None)
    wrong.put_back(
        still.slots,
        (KeptRun(0, JUMP + len(ADDED), len(wrong.token_ids)),),
        ModelRotation(tuple(replace(layer, inv_freq=None) for layer in rotation.layers)),
    )
    keys, right = (
        cache.slot_layers[0].keys[0, :, JUMP + len(ADDED) : len(edited) - 1].float()
        for cache in (still.slots, stayed.slots)
    )
    assert float((keys - right).norm() / right.norm()) > 0.1


def test_half_way_down_the_rest_stays_parked(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    engine = holding(model, rotation, OLD)
    step(engine, OLD, OLD[:JUMP], parked=True)
    half = OLD[: JUMP + 80]
    step(engine, OLD[:JUMP], half, parked=True)
    assert list(engine.parked) == OLD[len(half) :]
    step(engine, half, OLD, parked=True)
    assert engine.parked == ()
    assert close(engine.slots, full_cache(model, OLD), 1e-4)


def test_typing_leaves_what_is_parked_alone(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    engine = holding(model, rotation, OLD)
    step(engine, OLD, OLD[:JUMP], parked=True)
    before, text = engine.parked, OLD[:JUMP]
    for end in (ADDED, ADDED[:3], ADDED[:4]):
        step(engine, text, [*OLD[:JUMP], *end], parked=False)
        text = [*OLD[:JUMP], *end]
    assert engine.parked == before
    twin = engine.clone()
    assert twin.parked == before
    assert twin.memory_bytes == engine.memory_bytes > engine.slots.memory_bytes
    engine.begin(10)
    assert engine.parked == ()


def test_no_more_is_parked_than_the_cache_has_slots_for(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    engine = holding(model, rotation, OLD)
    text = OLD
    for seed in range(4):
        step(engine, text, text[:100], parked=True)
        grown = [*text[:100], *random_ids(140, seed=10 + seed)]
        step(engine, text[:100], grown, parked=False)
        text = grown
    assert 0 < len(engine.parked) <= engine.slots.capacity


def test_runs_are_parted_where_the_cache_ends() -> None:
    runs = (KeptRun(0, 0, 12), KeptRun(20, 30, 5))
    assert parted(runs, 10) == ((KeptRun(0, 0, 10),), (KeptRun(0, 10, 2), KeptRun(10, 30, 5)))
    assert parted(runs, 25) == (runs, ())


def test_a_chance_match_does_not_count_as_reached() -> None:
    runs = (KeptRun(0, 0, 40), KeptRun(90, 40, 5))
    assert Alignment(100, 50, runs).reached == 40
