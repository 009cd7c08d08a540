"""Tiny random Llama models and edits to try the engine on.

Initialised with std 0.3: at 0.02 attention is flat and hides position errors.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from pie_cli.engine.attention import stock_attention
from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.forward import encode
from pie_cli.engine.gate.check import run_gate
from pie_cli.engine.protocol import RecomputeStep
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment
from pie_cli.text.matching import KeptRun

VOCABULARY = 97
N_TOKENS = 240
SCALINGS = {
    "default": {"rope_type": "default", "rope_theta": 10_000.0},
    "linear": {"rope_type": "linear", "rope_theta": 100_000.0, "factor": 4.0},
}


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
    llama: LlamaForCausalLM = LlamaForCausalLM._from_config(config, dtype=dtype).eval()
    return llama


def find_rotation(model: LlamaForCausalLM) -> ModelRotation:
    """Return what the gate finds."""
    return run_gate(model).rotation


def recompute(
    model: LlamaForCausalLM, cache: SlotCache, token_ids: Sequence[int], start: int = 0
) -> list[RecomputeStep]:
    """Encode a cached prompt again, in place."""
    engine = EditedEngine(model, ModelRotation(()), cache)
    return list(engine.recompute(token_ids, start, 1_000))


def stock_logits(model: LlamaForCausalLM, token_ids: Sequence[int]) -> torch.Tensor:
    """Run transformers' own forward pass, SDPA attention, no cache; float32 [S, vocabulary]."""
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


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return |found - expected| / |expected| in Euclidean norms."""
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def valid(cache: SlotCache, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one layer's keys and values [H, length, D]."""
    slots = cache.slot_layers[layer]
    return slots.keys[0, :, : cache.length], slots.values[0, :, : cache.length]


def random_ids(count: int, seed: int = 0) -> list[int]:
    """Return token ids that repeat little."""
    generator = torch.Generator().manual_seed(seed)
    token_ids: list[int] = torch.randint(VOCABULARY, (count,), generator=generator).tolist()
    return token_ids


def alignment_of(
    old_ids: Sequence[int], pieces: Sequence[tuple[int, int] | Sequence[int]]
) -> tuple[Alignment, list[int]]:
    """Build an edit from its pieces in order: (start, stop) of old tokens, or a list of new ids."""
    runs: list[KeptRun] = []
    new_ids: list[int] = []
    for piece in pieces:
        if isinstance(piece, tuple):
            runs.append(KeptRun(piece[0], len(new_ids), piece[1] - piece[0]))
            new_ids.extend(old_ids[piece[0] : piece[1]])
        else:
            new_ids.extend(piece)
    return Alignment(len(old_ids), len(new_ids), tuple(runs)), new_ids


@st.composite
def kept_runs(draw: st.DrawFn) -> tuple[tuple[KeptRun, ...], int]:
    """Draw runs of N_TOKENS old tokens in any order, gaps between them, and a new length."""
    cuts = sorted(draw(st.sets(st.integers(0, N_TOKENS), min_size=2, max_size=12)))
    spans = [(a, b) for a, b in pairwise(cuts) if draw(st.booleans())]
    if draw(st.booleans()):
        spans = draw(st.permutations(spans))
    runs, reached = [], 0
    for start, stop in spans:
        reached += draw(st.integers(0, 3))
        runs.append(KeptRun(start, reached, stop - start))
        reached += stop - start
    return tuple(runs), reached + draw(st.integers(0, 3))


# Edits of a sequence of N_TOKENS, by name: the pieces of `alignment_of`.
EDITS: dict[str, list[tuple[int, int] | list[int]]] = {
    "insert": [(0, 60), [5, 6, 7], (60, 240)],
    "delete": [(0, 60), (75, 240)],
    "replace": [(0, 60), [1, 2], (70, 240)],
    "mixed hunks": [(0, 20), [9], (20, 90), (99, 150), [8, 8, 8, 8, 8], (160, 240)],
    "moved block": [(0, 30), (120, 170), (30, 120), (170, 240)],
    "swapped halves": [(120, 240), (0, 120)],
    "at token 0": [[3, 1, 4], (0, 240)],
    "first token replaced": [[3], (1, 240)],
    "at the end": [(0, 240), [2, 7, 1]],
    "end deleted": [(0, 180)],
    "many hunks": [piece for k in range(20) for piece in ([k, k + 1], (12 * k, 12 * k + 11))],
    "everything replaced": [[11, 12, 13]],
    "everything deleted but the head": [(0, 1)],
    "no change": [(0, 240)],
}
