"""Tiny random Llama models: std 0.3 (at 0.02 attention is flat and hides position errors), grouped KV heads."""

from collections.abc import Callable, Sequence

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pie_cli.engine.attention import install
from pie_cli.engine.forward import encode
from pie_cli.engine.gate import find_rotation
from pie_cli.engine.kv_cache import SlotCache
from pie_cli.engine.rope import ModelRotation

VOCABULARY = 97
N_TOKENS = 240
SCALINGS = {
    "default": {"rope_type": "default", "rope_theta": 10_000.0},
    "linear": {"rope_type": "linear", "rope_theta": 100_000.0, "factor": 4.0},
}

MakeModel = Callable[..., LlamaForCausalLM]


def make_llama(
    scaling: str = "default", dtype: torch.dtype = torch.float32, seed: int = 0
) -> LlamaForCausalLM:
    """Build a Llama of 3 layers, 4 query heads on 2 KV heads."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4_096,
        rope_parameters=SCALINGS[scaling],
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    # Not `.to(dtype)`: casting a built model would round RoPE's frequencies, too.
    return LlamaForCausalLM._from_config(config, dtype=dtype).eval()


def stock_logits(model: LlamaForCausalLM, token_ids: Sequence[int]) -> torch.Tensor:
    """Run transformers' own forward pass, SDPA attention, no cache; float32 [S, vocabulary]."""
    from pie_cli.engine.attention import stock_attention

    with torch.inference_mode(), stock_attention(model):
        logits: torch.Tensor = model(torch.tensor([list(token_ids)]), use_cache=False).logits[0]
        return logits.float()


def full_cache(model: LlamaForCausalLM, token_ids: Sequence[int]) -> SlotCache:
    """Encode a prompt in one pass."""
    cache = SlotCache.for_model(model)
    cache.splice((), len(token_ids), None)
    encode(model, cache, token_ids, range(len(token_ids)), ())
    cache.check_integrity()
    return cache


def random_ids(count: int, seed: int = 0) -> list[int]:
    """Return token ids that repeat little."""
    generator = torch.Generator().manual_seed(seed)
    token_ids: list[int] = torch.randint(VOCABULARY, (count,), generator=generator).tolist()
    return token_ids


@pytest.fixture(scope="session", params=sorted(SCALINGS))
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    """A float32 model for each rope scaling, the engine's attention installed."""
    llama = make_llama(request.param)
    install(llama)
    return llama


@pytest.fixture(scope="session")
def rotation(model: LlamaForCausalLM) -> ModelRotation:
    """The model's rotation, found by the gate."""
    return find_rotation(model)
