"""The engine's oracles on every family whose rotation the gate finds, each with its control.

Windows are 32 tokens, sequences 240. In bfloat16 the tolerances are those of its roundings.
"""

from functools import cache
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from pie_cli.engine.attention import NAME, pie_attention
from pie_cli.engine.edited import EditedEngine, execute
from pie_cli.engine.forward import encode
from pie_cli.engine.gate.check import GateReport, run_gate
from pie_cli.engine.protocol import Decoding
from pie_cli.engine.rope import LayerRotation, ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import make_plan
from pie_cli.text.matching import KeptRun
from tests.engine.families import ROTATING, rotating
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

DTYPES = [torch.float32, torch.bfloat16]
EDITED = ["mixed hunks", "moved block"]
OLD = random_ids(N_TOKENS)
WINDOWED = [
    name
    for name, (_, config) in ROTATING.items()
    if config.get("sliding_window") and name != "qwen2"
]

# Relative errors of a first layer, of all layers, and of logits. Rounding is amplified from layer
# to layer where weights have a deviation of 0.3.
FIRST = {torch.float32: 1e-5, torch.bfloat16: 0.01}
ALL = {torch.float32: 2e-4, torch.bfloat16: 0.12}


@cache
def passed(name: str, dtype: torch.dtype) -> tuple[Any, GateReport]:
    """Build a model and run the gate on it, once."""
    model = rotating(name, dtype)
    return model, run_gate(model)


@pytest.fixture(params=ROTATING)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=DTYPES, ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


def worst(found: SlotCache, wanted: SlotCache) -> float:
    return max(
        relative_error(a, b)
        for layer in range(len(found.slot_layers))
        for a, b in zip(valid(found, layer), valid(wanted, layer), strict=True)
    )


def misturned(rotation: ModelRotation) -> ModelRotation:
    """Turn by other frequencies."""
    return ModelRotation(
        tuple(
            LayerRotation(None if one.inv_freq is None else 1.1 * one.inv_freq, one.pairing)
            for one in rotation.layers
        )
    )


def test_the_gate_passes(name: str, dtype: torch.dtype) -> None:
    model, report = passed(name, dtype)
    assert len(report.rotation.layers) == model.config.num_hidden_layers
    assert report.margin > 20
    assert max(report.key_error.values()) < {torch.float32: 1e-3, torch.bfloat16: 0.06}[dtype]
    assert max(report.output_error.values()) < {torch.float32: 1e-3, torch.bfloat16: 0.06}[dtype]
    assert report.masked is (name in {"gptj", "codegen"})
    assert any("behind 96 tokens" in check for check in report.output_error) is (name in WINDOWED)


@pytest.mark.parametrize(
    ("name", "pairings"),
    [
        ("llama", ["half"] * 3),
        ("cohere", ["interleaved"] * 3),
        ("gptj", ["interleaved"] * 3),
        ("glm", ["interleaved"] * 3),
        ("cohere2", ["interleaved", None, "interleaved"]),
        ("smollm3", ["half", "half", "half", None]),
    ],
)
def test_pairings_and_layers_without_rotation(name: str, pairings: list[str | None]) -> None:
    _, report = passed(name, torch.float32)
    found = [one.pairing if one.inv_freq is not None else None for one in report.rotation.layers]
    assert found == pairings


def test_frequencies_per_layer_type() -> None:
    """Gemma 3's full layers turn by other frequencies than its sliding ones."""
    model, report = passed("gemma3_text", torch.float32)
    rotary = model.model.rotary_emb
    for layer, kind in zip(report.rotation.layers, model.config.layer_types, strict=True):
        assert layer.inv_freq is not None
        assert torch.equal(layer.inv_freq, getattr(rotary, f"{kind}_inv_freq"))


def test_re_rotating_equals_encoding_at_the_shifted_position(name: str, dtype: torch.dtype) -> None:
    """Oracle 1; its control turns by other frequencies."""
    model, report = passed(name, dtype)
    ids, delta = OLD[:60], 113
    shifted = SlotCache.for_model(model)
    shifted.splice((), delta + 60, None)
    encode(model, shifted, ids, range(delta, delta + 60), (), first_key=delta)
    errors = []
    for rotation in (report.rotation, misturned(report.rotation)):
        moved = full_cache(model, ids)
        moved.splice((KeptRun(0, delta, 60),), delta + 60, rotation)
        errors.append(
            max(
                relative_error(a[:, delta:], b[:, delta:])
                for layer in range(len(moved.slot_layers))
                for a, b in zip(valid(moved, layer), valid(shifted, layer), strict=True)
            )
        )
    assert errors[0] < ALL[dtype]
    assert errors[1] > (100 if dtype == torch.float32 else 5) * errors[0]


@pytest.mark.parametrize("edit", EDITED)
def test_layer_0_equals_full_recompute_after_any_edit(
    name: str, dtype: torch.dtype, edit: str
) -> None:
    """Oracle 2; its control, cfe, leaves keys as they were."""
    model, report = passed(name, dtype)
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    expected = valid(full_cache(model, new_ids), 0)
    cache = full_cache(model, OLD)
    execute(model, cache, make_plan("pie", alignment), new_ids, report.rotation)
    cache.check_integrity()
    for found, wanted in zip(valid(cache, 0), expected, strict=True):
        assert relative_error(found, wanted) < FIRST[dtype]
    control = full_cache(model, OLD)
    execute(model, control, make_plan("cfe", alignment), new_ids, None)
    bound = 100 * FIRST[dtype] if dtype == torch.float32 else 10 * FIRST[dtype]
    assert relative_error(valid(control, 0)[0], expected[0]) > bound


def test_an_append_equals_full_recompute_in_every_layer(name: str, dtype: torch.dtype) -> None:
    """Oracle 3; its control, an insertion, is stale behind it."""
    model, report = passed(name, dtype)
    errors = []
    for edit in ("at the end", "insert"):
        alignment, new_ids = alignment_of(OLD, EDITS[edit])
        cache, reference = full_cache(model, OLD), full_cache(model, new_ids)
        execute(model, cache, make_plan("pie", alignment), new_ids, report.rotation)
        errors.append(worst(cache, reference))
    assert errors[0] < ALL[dtype]
    assert errors[1] > (100 if dtype == torch.float32 else 3) * errors[0]


def test_after_a_refresh_every_layer_equals_full_recompute(name: str, dtype: torch.dtype) -> None:
    """Oracle 6; its control is the cache before."""
    model, report = passed(name, dtype)
    alignment, new_ids = alignment_of(OLD, EDITS["mixed hunks"])
    cache, reference = full_cache(model, OLD), full_cache(model, new_ids)
    execute(model, cache, make_plan("pie", alignment), new_ids, report.rotation)
    before = worst(cache, reference)
    list(EditedEngine(model, report.rotation, cache).recompute(new_ids, 0, 100))
    cache.check_integrity()
    after = worst(cache, reference)
    assert after < ALL[dtype]
    assert before > (100 if dtype == torch.float32 else 3) * after


def test_one_pass_equals_the_stock_forward_pass(name: str, dtype: torch.dtype) -> None:
    """The whole prompt, then scattered tokens of it again, beyond every window."""
    model, _ = passed(name, dtype)
    expected = stock_logits(model, OLD)
    cache = SlotCache.for_model(model)
    cache.splice((), N_TOKENS, None)
    logits = encode(model, cache, OLD, range(N_TOKENS), range(N_TOKENS))
    assert relative_error(logits, expected) < ALL[dtype]
    rows = [*range(5, 9), 60, 61, *range(100, 160), N_TOKENS - 1]
    logits = encode(model, cache, [OLD[row] for row in rows], rows, range(len(rows)))
    assert relative_error(logits, expected[rows]) < ALL[dtype]


@pytest.mark.parametrize("name", WINDOWED)
def test_without_its_window_a_model_says_something_else(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above for sliding windows."""
    model, _ = passed(name, torch.float32)

    def attend(*inputs: Any, **options: Any) -> Any:
        return pie_attention(*inputs, **{**options, "sliding_window": None})

    monkeypatch.setitem(AttentionInterface._global_mapping, NAME, attend)
    cache = SlotCache.for_model(model)
    cache.splice((), N_TOKENS, None)
    logits = encode(model, cache, OLD, range(N_TOKENS), range(N_TOKENS))
    assert relative_error(logits, stock_logits(model, OLD)) > 100 * ALL[torch.float32]


def words(token_ids: Any) -> str:
    return "".join(f"<{token_id}>" for token_id in token_ids)


def test_greedy_output_equals_the_stock_models_with_and_without_a_draft(
    name: str, dtype: torch.dtype
) -> None:
    """Oracle 7. In bfloat16 each token is within 0.125 of the stock model's top logit."""
    model, report = passed(name, dtype)
    alignment, new_ids = alignment_of(OLD, EDITS["insert"])
    options = Decoding(words, max_tokens=8)
    lines = []
    for draft in ((), None, (1, 2, 3)):
        cache = full_cache(model, OLD)
        drafted = lines[0].token_ids[:5] if draft is None else draft
        plan = make_plan("full", alignment)
        engine = EditedEngine(model, report.rotation, cache)
        lines.append(engine.predict(plan, new_ids, options, drafted))
    # One pass of the stock model over prompt and line judges every token of the line.
    for line in lines:
        rows = stock_logits(model, [*new_ids, *line.token_ids])[len(new_ids) - 1 : -1]
        chosen = rows[torch.arange(len(rows)), list(line.token_ids)]
        gap = float((rows.max(-1).values - chosen).max())
        assert gap <= (1e-3 if dtype == torch.float32 else 0.125)
    if dtype == torch.float32:
        assert lines[0].token_ids == lines[1].token_ids == lines[2].token_ids
        assert lines[1].passes < lines[0].passes
