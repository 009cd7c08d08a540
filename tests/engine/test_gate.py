"""The gate finds a model's rotation, and refuses what re-rotation would get wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from pie_cli.engine.attention import NAME, pie_attention
from pie_cli.engine.gate import key_fit, output_checks
from pie_cli.engine.gate.candidates import frequencies_of_table, list_candidates
from pie_cli.engine.gate.check import GateRefusal, UnusableModel, run_gate
from pie_cli.engine.gate.key_fit import N_TOKENS
from pie_cli.engine.gate.output_checks import choose_past
from pie_cli.engine.rope import LayerRotation, rotate
from tests.engine.families import build, rotating
from tests.engine.helpers import SCALINGS, make_llama

Rotate = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


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
    assert set(report.key_error) == {1, 37, 1_000, 4_096 - N_TOKENS}
    assert report.margin > 10
    assert report.cost_ms > 0
    assert report.limit is None
    assert not report.masked


def test_errors_are_roundings_and_a_wrong_rotation_is_100_times_off(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run_gate(model)
    assert max(report.key_error[1], report.key_error[37]) < 1e-5
    assert max(report.output_error.values()) < 1e-3
    spec = report.rotation.layers[0]
    assert spec.inv_freq is not None
    wrong = [LayerRotation(1.1 * spec.inv_freq), LayerRotation(spec.inv_freq, "interleaved")]
    monkeypatch.setattr(key_fit, "list_candidates", lambda _: wrong)
    with pytest.raises(GateRefusal, match="no known rotation explains layer 0"):
        run_gate(model)
    monkeypatch.setitem(key_fit._TOLERANCE, torch.float32, 1e9)
    monkeypatch.setattr(key_fit, "_MARGIN", 0.0)
    with pytest.raises(GateRefusal, match=r"outputs differ \(shifted by 37\)"):
        run_gate(model)


def test_two_rotations_that_fit_alike_are_refused(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = list_candidates(model)
    monkeypatch.setattr(key_fit, "list_candidates", lambda _: [*candidates, *candidates])
    with pytest.raises(GateRefusal, match="almost equally well"):
        run_gate(model)


class TestBrokenModels:
    """What was put together wrongly is refused, whatever it is that is wrong."""

    @pytest.fixture
    def llama(self) -> LlamaForCausalLM:
        return make_llama()

    @staticmethod
    def rotating_otherwise(
        monkeypatch: pytest.MonkeyPatch, layer: int, otherwise: Rotate, n_layers: int = 3
    ) -> None:
        """Let one layer of a Llama rotate in another way than the others."""
        calls: Iterator[int] = iter(range(10**9))
        usual = modeling_llama.apply_rotary_pos_emb

        def rotate_both(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, **_: Any) -> Any:
            chosen = otherwise if next(calls) % n_layers == layer else usual
            return chosen(q, k, cos, sin)

        monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", rotate_both)

    @staticmethod
    def with_theta(factor: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return cosines and sines of angles `factor` times as large."""

        def turned(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
            # Angles of the first pairs wrap around; those of sound positions do, too.
            angles = factor * torch.atan2(sin.double(), cos.double())
            return angles.cos().to(cos.dtype), angles.sin().to(sin.dtype)

        return turned

    @pytest.mark.parametrize("layer", [0, 1, 2])
    def test_another_theta_in_one_layer(
        self, llama: LlamaForCausalLM, layer: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usual, turned = modeling_llama.apply_rotary_pos_emb, self.with_theta(0.9)

        def otherwise(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Any:
            return usual(q, k, *turned(cos, sin))

        self.rotating_otherwise(monkeypatch, layer, otherwise)
        with pytest.raises(GateRefusal, match=f"no known rotation explains layer {layer}"):
            run_gate(llama)

    @pytest.mark.parametrize("layer", [0, 1])
    def test_another_theta_for_the_queries_of_one_layer(
        self, llama: LlamaForCausalLM, layer: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its keys move rightly, but its outputs are not the same elsewhere."""
        usual, turned = modeling_llama.apply_rotary_pos_emb, self.with_theta(0.9)

        def otherwise(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Any:
            return usual(q, k, *turned(cos, sin))[0], usual(q, k, cos, sin)[1]

        self.rotating_otherwise(monkeypatch, layer, otherwise)
        with pytest.raises(GateRefusal, match=f"no known rotation explains layer {layer + 1}"):
            run_gate(llama)

    @pytest.mark.parametrize("layer", [0, 1, 2])
    @pytest.mark.parametrize("keys_only", [False, True])
    def test_swapped_pairing_in_one_layer(
        self,
        llama: LlamaForCausalLM,
        layer: int,
        keys_only: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        usual = modeling_llama.apply_rotary_pos_emb

        def shuffled(states: Tensor) -> Tensor:
            return torch.cat([states[..., ::2], states[..., 1::2]], dim=-1)

        def unshuffled(states: Tensor) -> Tensor:
            return torch.stack(states.chunk(2, dim=-1), dim=-1).flatten(-2)

        def otherwise(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> Any:
            queries, keys = usual(shuffled(q), shuffled(k), cos, sin)
            if keys_only:
                return usual(q, k, cos, sin)[0], unshuffled(keys)
            return unshuffled(queries), unshuffled(keys)

        self.rotating_otherwise(monkeypatch, layer, otherwise)
        with pytest.raises(GateRefusal, match=r"layers differ in which|no known rotation"):
            run_gate(llama)

    @pytest.mark.parametrize("layer", [0, 1, 2])
    @pytest.mark.parametrize(
        ("window", "change"),
        [(32, "dropped"), (900, "dropped"), (32, "longer by one"), (32, "shorter by one")],
    )
    def test_a_window_that_differs_in_one_layer(
        self, window: int, layer: int, change: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Far longer than the sequence that the gate encodes, and seen nevertheless."""
        mistral = rotating("mistral")
        mistral.config.sliding_window = window
        report = run_gate(mistral)
        assert max(report.output_error.values()) < 1e-4
        assert f"behind {window + 64} tokens" in report.output_error
        changed = {"dropped": None, "longer by one": window + 1, "shorter by one": window - 1}

        def attend(module: Any, *inputs: Any, **options: Any) -> Any:
            if module.layer_idx == layer:
                options["sliding_window"] = changed[change]
            return pie_attention(module, *inputs, **options)

        monkeypatch.setitem(AttentionInterface._global_mapping, NAME, attend)
        with pytest.raises(GateRefusal, match=r"outputs differ \(behind"):
            run_gate(mistral)

    @pytest.mark.parametrize(("value", "named"), [("nan", "NaN"), ("inf", "infinite numbers")])
    def test_weights_that_are_no_numbers(
        self, llama: LlamaForCausalLM, value: str, named: str
    ) -> None:
        with torch.no_grad():
            llama.model.layers[1].mlp.up_proj.weight[3, 4] = float(value)
        with pytest.raises(UnusableModel, match=f"weights hold {named}, model.layers.1"):
            run_gate(llama)

    def test_outputs_that_are_no_numbers(self, llama: LlamaForCausalLM) -> None:
        llama.lm_head.register_forward_hook(lambda *_: torch.full((1, 1), float("nan")))
        with pytest.raises(UnusableModel, match="outputs are not finite in float32"):
            run_gate(llama)

    def test_a_forward_pass_that_fails(self, llama: LlamaForCausalLM) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("some kernel\nis missing")

        llama.model.layers[1].register_forward_pre_hook(fail)
        with pytest.raises(GateRefusal, match=r"fails in the gate: some kernel$"):
            run_gate(llama)

    def test_a_lack_of_memory_is_no_verdict(self, llama: LlamaForCausalLM) -> None:
        def fail(*_: Any) -> None:
            raise torch.OutOfMemoryError("no memory")

        llama.model.layers[1].register_forward_pre_hook(fail)
        with pytest.raises(torch.OutOfMemoryError):
            run_gate(llama)


def test_after_a_refusal_the_stock_attention_is_back() -> None:
    llama = make_llama()
    assert llama.config._attn_implementation == "sdpa"
    hook = llama.lm_head.register_forward_hook(lambda *_: torch.full((1, 1), float("nan")))
    for _ in range(2):
        with pytest.raises(GateRefusal):
            run_gate(llama)
        assert llama.config._attn_implementation == "sdpa"
        hook.remove()
        run_gate(llama)
        assert llama.config._attn_implementation == "pie"
        hook = llama.lm_head.register_forward_hook(lambda *_: torch.full((1, 1), float("nan")))


class TestRefusals:
    """Positions that enter elsewhere than in rotated keys; each with its reason."""

    @pytest.mark.parametrize(
        ("kind", "config", "reason"),
        [
            ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4}, "no known rotation"),
            ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}, "takes no position ids"),
            ("mamba", {"hidden_size": 64, "num_hidden_layers": 2}, "layer 0 keeps a running state"),
        ],
    )
    def test_reasons(self, kind: str, config: dict[str, Any], reason: str) -> None:
        tiny = build(kind, {**config, "vocab_size": 97, "initializer_range": 0.3})
        with pytest.raises(GateRefusal, match=reason):
            run_gate(tiny)

    def test_alibi_that_takes_position_ids_is_refused_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its keys are the same everywhere, so `no rotation` fits them."""
        config = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 97}
        tiny = build("bloom", {**config, "initializer_range": 0.3})
        stock = tiny.forward

        def forward(position_ids: Tensor | None = None, **inputs: Any) -> Any:
            return stock(**inputs)

        monkeypatch.setattr(tiny, "forward", forward)
        with pytest.raises(GateRefusal, match="no layer rotates its keys"):
            run_gate(tiny)

    def test_positions_in_the_cached_values(self) -> None:
        """Latent attention keeps its rotated part where other models keep values."""
        sizes = {
            "vocab_size": 97,
            "hidden_size": 64,
            "intermediate_size": 96,
            "moe_intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "v_head_dim": 16,
            "first_k_dense_replace": 1,
            "initializer_range": 0.3,
        }
        with pytest.raises(GateRefusal, match="enter the cached values of layer 0"):
            run_gate(build("deepseek_v3", sizes))

    def test_attention_that_is_not_the_engines(
        self, model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A model that attends by itself, whatever mask it is given, sees the wrong keys."""
        monkeypatch.setattr(output_checks, "install", lambda llama: None)
        monkeypatch.setattr(
            "pie_cli.engine.passes.ForwardPass.full_mask",
            lambda this, *_: torch.zeros(1, 1, len(this), this.stop - this.first_key),
        )
        llama = make_llama()
        with pytest.raises(GateRefusal, match="outputs differ"):
            run_gate(llama)


def test_candidates_name_no_rotation_first_and_none_twice(model: LlamaForCausalLM) -> None:
    candidates = list_candidates(model)
    assert candidates[0].inv_freq is None
    assert [c.pairing for c in candidates[1:]] == ["half", "interleaved"]
    keys = torch.randn(2, 5, 16)
    half, interleaved = (rotate(keys, 7, c) for c in candidates[1:])
    assert not torch.allclose(half, interleaved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_frequencies_are_read_off_a_table_of_sines(dtype: torch.dtype) -> None:
    inv_freq = 1.0 / 10_000.0 ** (torch.arange(0, 16, 2).double() / 16)
    angles = torch.arange(3_000).double()[:, None] * inv_freq
    table = torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype)
    error = float((frequencies_of_table(table) - inv_freq).abs().max())
    # The last row used is at 2,048, and rounds by one part in 2^24 or 2^8 of a radian.
    assert error < {torch.float32: 1e-7, torch.bfloat16: 1e-5}[dtype]


def test_a_window_shorter_than_the_deltas_limits_them() -> None:
    llama = make_llama()
    llama.config.max_position_embeddings = 300
    assert set(run_gate(llama).key_error) == {1, 37, 300 - N_TOKENS}


@pytest.mark.parametrize("window", [1, N_TOKENS])
def test_a_window_too_short_to_move_in_is_refused(window: int) -> None:
    llama = make_llama()
    llama.config.max_position_embeddings = window
    with pytest.raises(GateRefusal, match=f"a window of {window} tokens is too short"):
        run_gate(llama)


@pytest.mark.parametrize(
    ("reaches", "limit", "chosen"),
    [
        ((), None, (0, 0, None)),
        ((), 4_096, (0, 0, 4_096)),
        ((32,), 4_096, (96, 65, 4_096)),
        ((32, 1_024), 4_096, (1_088, 65, 4_096)),
        ((4_096,), 4_096, (0, 0, 4_096)),  # never ends
        ((4_000,), 4_096, (4_064, 65, 4_096)),
        ((4_050,), 4_096, (4_072, 23, 4_096)),
        ((4_090,), 4_096, (0, 0, 4_090)),  # ends too near the limit to be tried
        ((32, 40_000), None, (96, 65, 40_000)),  # too long to be tried
    ],
)
def test_the_past_is_longer_than_each_window_that_matters(
    reaches: tuple[int, ...], limit: int | None, chosen: tuple[int, int, int | None]
) -> None:
    assert choose_past(reaches, limit) == chosen


@pytest.mark.parametrize(("kind", "limit"), [("dynamic", 255), ("longrope", 256)])
def test_frequencies_that_follow_the_length_limit_the_cache(kind: str, limit: int) -> None:
    scaling: dict[str, Any] = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 4.0}
    longest = 256
    if kind == "longrope":
        scaling |= {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
        scaling["original_max_position_embeddings"] = 256
        longest = 1_024
    sizes = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    heads = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = {**sizes, **heads, "initializer_range": 0.3, "rope_parameters": scaling}
    report = run_gate(build("llama", {**config, "max_position_embeddings": longest}))
    assert report.limit == limit
    assert max(report.key_error) == limit - N_TOKENS
