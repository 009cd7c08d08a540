"""The gate finds Llama's rotation, and refuses what cannot be re-rotated."""

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from pie_cli.engine import gate
from pie_cli.engine.candidates import list_candidates
from pie_cli.engine.gate import GateRefusal, run_gate
from pie_cli.engine.model import CausalModel
from pie_cli.engine.rope import LayerRotation, rotate
from tests.engine.helpers import SCALINGS, make_llama

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 97}


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_llamas_rotation_is_found(scaling: str, dtype: torch.dtype) -> None:
    llama = make_llama(scaling, dtype)
    report = run_gate(llama)
    assert len(report.rotation.layers) == 3
    assert len(report.rotation.distinct) == 1
    for layer in report.rotation.layers:
        assert layer.pairing == "half"
        assert layer.inv_freq is not None
        assert torch.equal(layer.inv_freq, llama.model.rotary_emb.inv_freq)
    assert set(report.key_error) == {1, 37, 1_000, 4_096 - gate.N_TOKENS}
    assert report.margin > 10
    assert report.cost_ms > 0


def test_errors_are_roundings_and_a_wrong_rotation_is_100_times_off(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run_gate(model)
    assert max(report.key_error[1], report.key_error[37]) < 1e-5
    assert max(report.output_error.values()) < 1e-3
    spec = report.rotation.layers[0]
    assert spec.inv_freq is not None
    wrong = [LayerRotation(1.1 * spec.inv_freq), LayerRotation(spec.inv_freq, "interleaved")]
    monkeypatch.setattr(gate, "list_candidates", lambda _: wrong)
    with pytest.raises(GateRefusal, match="no known rotation explains layer 0"):
        run_gate(model)
    monkeypatch.setitem(gate._KEY_TOLERANCE, torch.float32, 1e9)
    monkeypatch.setattr(gate, "_MARGIN", 0.0)
    with pytest.raises(GateRefusal, match=r"outputs differ \(shifted by 37\)"):
        run_gate(model)


def test_two_rotations_that_fit_alike_are_refused(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = list_candidates(model)
    monkeypatch.setattr(gate, "list_candidates", lambda _: [*candidates, *candidates])
    with pytest.raises(GateRefusal, match="almost equally well"):
        run_gate(model)


def test_attention_without_positions_is_refused(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that ignores the engine's attention sees the wrong keys; outputs tell."""

    def ignored(llama: LlamaForCausalLM) -> None:
        llama.config._attn_implementation = "eager"

    before = model.config._attn_implementation
    monkeypatch.setattr(gate, "install", ignored)
    with pytest.raises(GateRefusal, match="does not let its attention be replaced"):
        run_gate(model)
    monkeypatch.setattr(gate, "NAME", "eager")
    with pytest.raises((GateRefusal, RuntimeError)):
        run_gate(model)
    model.set_attn_implementation(before)


def test_learned_positions_are_refused() -> None:
    torch.manual_seed(0)
    config = GPT2Config(
        n_embd=64, n_layer=2, n_head=4, vocab_size=97, n_positions=512, initializer_range=0.3
    )
    with pytest.raises(GateRefusal, match="no known rotation"):
        run_gate(GPT2LMHeadModel(config).eval())


def test_alibi_is_refused() -> None:
    torch.manual_seed(0)
    config = BloomConfig(hidden_size=64, n_layer=2, n_head=4, vocab_size=97, initializer_range=0.3)
    with pytest.raises(GateRefusal, match="takes no position ids"):
        run_gate(BloomForCausalLM(config).eval())


def other_families() -> dict[str, CausalModel]:
    torch.manual_seed(0)
    common: dict[str, Any] = {**SIZES, "initializer_range": 0.3, "intermediate_size": 96}
    mistral = MistralConfig(**common, num_key_value_heads=2, sliding_window=16, head_dim=16)
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.25}
    neox = GPTNeoXConfig(**common, rope_parameters=rope)
    return {
        "sliding window": MistralForCausalLM(mistral).eval(),
        "partial rotary": GPTNeoXForCausalLM(neox).eval(),
    }


@pytest.mark.parametrize("name", ["sliding window", "partial rotary"])
def test_other_families_need_no_table(name: str) -> None:
    frequencies = {"sliding window": 8, "partial rotary": 2}[name]
    for layer in run_gate(other_families()[name]).rotation.layers:
        assert layer.pairing == "half"
        assert layer.inv_freq is not None
        assert len(layer.inv_freq) == frequencies


def test_candidates_name_no_rotation_first_and_none_twice(model: LlamaForCausalLM) -> None:
    candidates = list_candidates(model)
    assert candidates[0].inv_freq is None
    assert [c.pairing for c in candidates[1:]] == ["half", "interleaved"]
    keys = torch.randn(2, 5, 16)
    half, interleaved = (rotate(keys, 7, c) for c in candidates[1:])
    assert not torch.allclose(half, interleaved)


def test_a_window_shorter_than_the_deltas_limits_them() -> None:
    llama = make_llama()
    llama.config.max_position_embeddings = 300
    assert set(run_gate(llama).key_error) == {1, 37, 300 - gate.N_TOKENS}


@pytest.mark.parametrize("window", [1, gate.N_TOKENS])
def test_a_window_too_short_to_move_in_is_refused(window: int) -> None:
    llama = make_llama()
    llama.config.max_position_embeddings = window
    with pytest.raises(GateRefusal, match=f"a window of {window} tokens is too short"):
        run_gate(llama)
