"""Re-rotation: R(delta) on a key computed at p gives the key computed at p + delta."""

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pie_cli.engine.rope import LayerRotation, ModelRotation, Pairing, make_turn, rotate
from tests.engine.helpers import relative_error

TOLERANCE = 1e-5
INV_FREQ = 1.0 / 10_000 ** (torch.arange(0, 16, 2).float() / 16)
DELTAS = (1, -1, 37, -37, 1_000, 4_000)


def llama_keys(model: LlamaForCausalLM, raw: Tensor, start: int) -> Tensor:
    """Apply the model's own RoPE to raw keys [H, S, D] at positions start.."""
    positions = torch.arange(start, start + raw.shape[1])[None]
    cos, sin = model.model.rotary_emb(raw, positions)
    keys: Tensor = apply_rotary_pos_emb(raw[None], raw[None], cos, sin)[1][0]
    return keys


def exact_keys(raw: Tensor, start: int, pairing: Pairing) -> Tensor:
    """Rotate raw keys [..., S, D] pair by pair with complex numbers, in float64."""
    angles = (torch.arange(raw.shape[-2]) + start).double()[:, None] * INV_FREQ.double()
    half = len(INV_FREQ)
    pairs = (
        torch.stack((raw[..., :half], raw[..., half : 2 * half]), -1)
        if pairing == "half"
        else raw[..., : 2 * half].reshape(*raw.shape[:-1], half, 2)
    )
    turned = torch.view_as_real(
        torch.view_as_complex(pairs.double().contiguous()) * torch.polar(angles * 0 + 1, angles)
    )
    flat = turned.transpose(-1, -2).flatten(-2) if pairing == "half" else turned.flatten(-2)
    return torch.cat((flat, raw[..., 2 * half :].double()), -1).float()


@pytest.mark.parametrize("delta", [1, -1, 37, 1_000])
def test_rerotated_keys_equal_keys_at_the_shifted_position(
    model: LlamaForCausalLM, rotation: ModelRotation, delta: int
) -> None:
    """Oracle 1; its controls, a wrong delta and the wrong pairing, fail by 100 times."""
    raw = torch.randn(2, 40, 16)
    keys, shifted = llama_keys(model, raw, 50), llama_keys(model, raw, 50 + delta)
    spec = rotation.layers[0]
    tolerance = TOLERANCE if abs(delta) < 100 else 10 * TOLERANCE  # the model's own float32 angles
    assert relative_error(rotate(keys, delta, spec), shifted) < tolerance
    wrong_pairing = LayerRotation(spec.inv_freq, "interleaved")
    assert relative_error(rotate(keys, delta + 1, spec), shifted) > 100 * tolerance
    assert relative_error(rotate(keys, delta, wrong_pairing), shifted) > 100 * tolerance
    assert relative_error(rotate(keys, -delta, spec), shifted) > 100 * tolerance


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("head_dim", [16, 24])
@pytest.mark.parametrize("delta", DELTAS)
def test_both_pairings_turn_only_the_rotary_dimensions(
    pairing: Pairing, head_dim: int, delta: int
) -> None:
    raw = torch.randn(3, 20, head_dim)
    spec = LayerRotation(INV_FREQ, pairing)
    found = rotate(exact_keys(raw, 5_000, pairing), delta, spec)
    assert relative_error(found, exact_keys(raw, 5_000 + delta, pairing)) < TOLERANCE
    assert torch.equal(found[..., 16:], raw[..., 16:])


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_one_delta_a_key_equals_each_key_on_its_own(pairing: Pairing) -> None:
    keys, spec = torch.randn(2, 6, 16), LayerRotation(INV_FREQ, pairing)
    deltas = torch.tensor([0, 3, -8, 3, 700, 0])
    together = rotate(keys, deltas, spec)
    apart = torch.cat([rotate(keys[:, i : i + 1], int(d), spec) for i, d in enumerate(deltas)], 1)
    assert torch.allclose(together, apart, atol=1e-6)


def test_a_rotation_is_pure_and_leaves_its_input_alone() -> None:
    keys = torch.randn(2, 6, 16)
    before = keys.clone()
    turned = rotate(keys, 123, LayerRotation(INV_FREQ))
    assert torch.equal(keys, before)
    assert torch.allclose(turned.norm(dim=-1), keys.norm(dim=-1), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_shift_there_and_none_at_all_are_exact(dtype: torch.dtype) -> None:
    keys = torch.randn(2, 6, 16).to(dtype)
    for deltas in (0, torch.zeros(6, dtype=torch.long), torch.tensor([0, 0, 5, 0, 0, 0])):
        turned = rotate(keys, deltas, LayerRotation(INV_FREQ))
        assert turned.dtype == dtype
        assert torch.equal(turned[:, 3:], keys[:, 3:])


def test_a_layer_without_rope_keeps_its_keys() -> None:
    keys = torch.randn(2, 6, 16)
    assert torch.equal(rotate(keys, 9, LayerRotation(None)), keys)


def test_keys_are_rounded_once() -> None:
    keys = torch.randn(4, 64, 16).to(torch.bfloat16)
    turned = rotate(keys, 17, LayerRotation(INV_FREQ))
    exact = rotate(keys.float(), 17, LayerRotation(INV_FREQ))
    assert torch.equal(turned, exact.to(torch.bfloat16))


def test_equal_deltas_share_one_row() -> None:
    turn = make_turn(torch.full((9,), 4), LayerRotation(INV_FREQ), torch.device("cpu"))
    assert turn.cos is not None
    assert turn.cos.shape == (1, 8)
