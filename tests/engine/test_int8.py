"""Weights in eight bits: products of integers, the same whatever rows share a pass."""

import pytest
import torch
from torch import nn

from pie_cli.editable import prepare
from pie_cli.engine import packing
from pie_cli.engine.int8 import Int8Linear, Rows
from pie_cli.engine.packing import pack_int8
from pie_cli.errors import DeviceError
from pie_cli.models.loading import load
from tests.engine.helpers import make_llama, random_ids, relative_error, stock_logits

needs_kernels = pytest.mark.skipif(
    not Int8Linear.is_available(), reason="this torch has no kernels for weights of eight bits"
)


def layer_of(n_in: int, n_out: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(n_in, n_out, bias=bias)


def rounded(weight: torch.Tensor) -> torch.Tensor:
    scales = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scales).round() * scales


@needs_kernels
@torch.inference_mode()
@pytest.mark.parametrize("bias", [False, True])
def test_only_weights_are_rounded(bias: bool) -> None:
    layer = layer_of(200, 70, bias=bias)
    rows = torch.randn(1, 9, 200)
    rows[0, 3, 5] = 100.0  # an outlier, as activations have them
    expected = nn.functional.linear(rows, rounded(layer.weight), layer.bias)
    assert relative_error(Int8Linear(layer, Rows())(rows), expected) < 1e-3


@needs_kernels
@torch.inference_mode()
def test_a_row_does_not_depend_on_those_beside_it() -> None:
    product = Int8Linear(layer_of(96, 40), Rows())
    rows = torch.randn(7, 96) * torch.tensor([1.0, 50, 0.01, 1, 1, 3, 0])[:, None]
    together = product(rows)
    for index in range(len(rows)):
        assert torch.equal(product(rows[index : index + 1].clone())[0], together[index])


@needs_kernels
@torch.inference_mode()
def test_no_rows_give_none() -> None:
    """A chunk of a recompute asks the LM head for nothing."""
    product = Int8Linear(layer_of(96, 40, bias=True), Rows())
    assert product(torch.empty(1, 0, 96)).shape == (1, 0, 40)


@needs_kernels
@torch.inference_mode()
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_sums_do_not_overflow_in_the_kernel(sign: float) -> None:
    layer = layer_of(576, 8)
    layer.weight.fill_(sign)
    rows = torch.full((3, 576), 0.9999)
    assert torch.allclose(Int8Linear(layer, Rows())(rows), layer(rows), rtol=1e-3)


@needs_kernels
@torch.inference_mode()
def test_digits_are_taken_again_for_other_rows() -> None:
    rows, first, second = Rows(), torch.ones(1, 4), torch.full((1, 4), 2.0)
    unit = rows.digits(first)[1]
    assert rows.digits(first)[1] is unit
    assert torch.equal(rows.digits(second)[1], 2 * unit)


@needs_kernels
def test_a_model_of_eight_bits_says_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MIN_WEIGHTS", 1)
    ids = random_ids(80)
    plain, small = make_llama(), make_llama()
    assert pack_int8(small) == 3 * 7 + 1
    assert small.model.layers[0].mlp.up_proj.weight.numel() == 0
    assert 1e-4 < relative_error(stock_logits(small, ids), stock_logits(plain, ids)) < 0.1


def test_without_kernels_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Int8Linear, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="eight bits on cpu") as error:
        prepare(load("pie-nano", weights="int8"))
    assert "--weights" in error.value.remedy
