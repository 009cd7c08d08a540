"""Packed weights give what the layers gave."""

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from pie_cli.engine import packing
from pie_cli.engine.packing import pack
from tests.engine.helpers import (
    full_cache,
    make_llama,
    random_ids,
    relative_error,
    stock_logits,
    valid,
)

IDS = random_ids(80)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models are packed as well."""
    monkeypatch.setattr(packing, "MIN_WEIGHTS", 1)
    if not packing._has_kernels(torch.float32):
        pytest.skip("this torch has no packed kernels")


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str
)
def test_outputs_and_cache_stay_what_they_are(dtype: torch.dtype, tolerance: float) -> None:
    if not packing._has_kernels(dtype):
        pytest.skip("this processor has no kernels for it")
    plain, packed = make_llama(dtype=dtype), make_llama(dtype=dtype)
    assert pack(packed) == 3 * 7 + 1
    assert relative_error(stock_logits(packed, IDS), stock_logits(plain, IDS)) < tolerance
    ours, theirs = full_cache(packed, IDS), full_cache(plain, IDS)
    assert relative_error(valid(ours, 2)[0], valid(theirs, 2)[0]) < tolerance


def test_weights_are_kept_once_and_those_that_are_shared_stay() -> None:
    torch.manual_seed(0)
    model = make_llama()
    config = model.config
    config.tie_word_embeddings = True
    tied: LlamaForCausalLM = LlamaForCausalLM._from_config(config).eval()
    embedding = tied.model.embed_tokens.weight.clone()
    pack(tied)
    assert tied.model.layers[0].mlp.up_proj.weight.numel() == 0
    assert torch.equal(tied.lm_head.weight, embedding)
    assert torch.equal(tied.model.embed_tokens.weight, embedding)


def test_packing_twice_packs_once() -> None:
    model = make_llama()
    expected = stock_logits(model, IDS)
    assert pack(model) > 0
    assert pack(model) == 0
    assert relative_error(stock_logits(model, IDS), expected) < 1e-5


def test_biases_and_batches() -> None:
    layer = nn.Linear(48, 32)
    rows = torch.randn(2, 5, 48)
    expected = layer(rows)
    model = make_llama()
    model.extra = nn.Sequential(layer)
    pack(model)
    assert "forward" in vars(layer)
    torch.testing.assert_close(layer(rows), expected)


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: products that are off leave the layers as they are."""
    call = packing._PackedLinear.__call__
    monkeypatch.setattr(
        packing._PackedLinear, "__call__", lambda self, rows: call(self, rows) * 1.1
    )
    model = make_llama()
    expected = stock_logits(model, IDS)
    assert pack(model) == 0
    assert torch.equal(stock_logits(model, IDS), expected)


def test_other_types_are_left_alone() -> None:
    assert pack(make_llama(dtype=torch.float16)) == 0


def test_a_processor_without_bfloat16_kernels_runs_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    model = make_llama(dtype=torch.bfloat16)
    expected = stock_logits(model, IDS)
    assert pack(model) == 0
    assert torch.equal(stock_logits(model, IDS), expected)
