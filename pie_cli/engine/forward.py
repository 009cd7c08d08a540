"""One forward pass over chosen positions of a cached sequence."""

import inspect
from collections.abc import Iterator, Sequence
from functools import cache as memo
from typing import Any

import torch
from torch import Tensor

from pie_cli.engine.attention import attending, takes_mask
from pie_cli.engine.gpu.replay import replayed
from pie_cli.engine.head import rescored, watching_head
from pie_cli.engine.model import CausalModel
from pie_cli.engine.passes import ForwardPass
from pie_cli.engine.slots import SlotCache


@torch.inference_mode()
def encode(
    model: CausalModel,
    cache: SlotCache,
    token_ids: Sequence[int],
    positions: Sequence[int],
    logits_at: Sequence[int],
    first_key: int = 0,
) -> Tensor:
    """Run tokens through the model at their positions, keys and values into their slots.

    Each query sees the keys at positions up to its own, whether cached or computed in this pass.
    Mutates the cache.

    Args:
        model: with the engine's attention installed, or one that adds a mask it is given.
        cache: its length already covers the positions.
        token_ids: one a position.
        positions: absolute, strictly ascending.
        logits_at: rows of `token_ids` whose logits are wanted; the LM head runs for these only.
        first_key: lowest position to be seen.

    Returns:
        float32 [len(logits_at), vocabulary]; of 16-bit models the best ones are scored in float32.

    Raises:
        ValueError: when the numbers of tokens and positions differ.
        CacheIntegrityError: when a query would see a slot never written.
    """
    if len(token_ids) != len(positions):
        raise ValueError(f"{len(token_ids)} tokens for {len(positions)} positions")
    this = cache.prepare(positions, first_key)
    rows = torch.tensor(list(logits_at), dtype=torch.long, device=model.device)
    on_gpu = model.device.type == "cuda"
    replay = replayed(model, cache, this, token_ids) if on_gpu else None
    if replay is None:
        logits, states = _run(model, cache, this, token_ids, rows)
    else:
        cache.written()
        logits, states = replay[0][rows], [held[:, rows] for held in replay[1]]
    cache.commit()
    return rescored(model, logits.float(), states) if len(rows) else logits.float()


def _run(
    model: CausalModel,
    cache: SlotCache,
    this: ForwardPass,
    token_ids: Sequence[int],
    rows: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Run the model; return the logits of some rows [len(rows), vocabulary], and final states."""
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([list(token_ids)], device=model.device),
        "position_ids": this.index(model.device)[None],
        "past_key_values": cache,
        "use_cache": True,
    }
    if takes_mask(model):
        inputs["attention_mask"] = this.full_mask(model.dtype, model.device)
    keeps = keeps_logits(type(model))
    if keeps:
        # Never as a count, which makes a view: its strides send the LM head through a copy of the
        # whole matrix.
        inputs["logits_to_keep"] = rows
    with attending(this), watching_head(model) as states:
        logits: Tensor = model(**inputs).logits[0]
    return logits if keeps else logits[rows.to(logits.device)], states


@memo
def keeps_logits(model_type: type[CausalModel]) -> bool:
    """Whether a model can be asked for the logits of some rows only."""
    return "logits_to_keep" in inspect.signature(model_type.forward).parameters


def segments(start: int, stop: int, size: int) -> Iterator[range]:
    """Cut positions [start, stop) into ranges of `size`, the last one shorter."""
    for first in range(start, stop, size):
        yield range(first, min(first + size, stop))
