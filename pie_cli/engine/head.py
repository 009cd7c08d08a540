"""The LM head of 16-bit models: its best logits once more, in float32.

A 16-bit head answers in steps (0.125 at logits of 16 to 32), so that ties decide tokens. The final
state has more to say: its products with the rows of the best candidates are cheap in float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pie_cli.engine.model import CausalModel

CANDIDATES = 64
"""Best tokens of each row that are scored again."""

# A head whose output is scaled or bounded afterwards gives other numbers than these products.
_AGREEMENT = 0.02


@contextmanager
def watching_head(model: CausalModel) -> Iterator[list[Tensor]]:
    """Collect what the model's LM head is given in the body: final states [1, S, hidden].

    Nothing is collected of models in float32, nor of those whose head is not a linear layer.
    """
    states: list[Tensor] = []
    head = linear_head(model) if model.dtype != torch.float32 else None
    if head is None:
        yield states
        return
    hook = head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    try:
        yield states
    finally:
        hook.remove()


def rescored(model: CausalModel, logits: Tensor, states: list[Tensor]) -> Tensor:
    """Return logits whose best candidates have the float32 products of the final states.

    Args:
        model: that gave them.
        logits: float32 [S, vocabulary], changed in place.
        states: as `watching_head` collected them.
    """
    head = linear_head(model)
    if len(states) != 1 or head is None or states[0].shape[-2] != len(logits):
        return logits
    best = logits.topk(min(CANDIDATES, logits.shape[-1]), dim=-1)
    rows = head.weight.detach()[best.indices].float()
    scores = torch.einsum("sh,skh->sk", states[0][0].float(), rows)
    if head.bias is not None:
        scores += head.bias.detach()[best.indices].float()
    scale = best.values.abs().amax().clamp_min(1.0)
    if bool((scores - best.values).abs().amax() > _AGREEMENT * scale):
        return logits
    return logits.scatter_(-1, best.indices, scores)


def linear_head(model: CausalModel) -> nn.Linear | None:
    """Return the model's LM head, where it is a linear layer whose weights can be read."""
    getter: Any = getattr(model, "get_output_embeddings", None)
    head = getter() if getter is not None else None
    readable = type(head) is nn.Linear and head.weight.ndim == 2 and not head.weight.is_meta
    return head if readable else None
