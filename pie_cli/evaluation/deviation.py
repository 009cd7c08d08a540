"""Repair by deviation: what CacheBlend recomputes, for comparison at equal budget.

Tokens whose keys and values deviate most in the first layers are computed anew in all of them. To
know the deviation these layers have to run over every token behind the edit, which is done here and
belongs to the strategy's time; it is what makes this choice too dear for a save.

Source:
    Yao et al., CacheBlend (arXiv 2405.16444): tokens of high KV deviation, 15 %. It selects anew
    layer by layer; here the second layer's selection serves all of them, for a plan has one set of
    fresh positions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pie_cli.editable import PreparedModel
from pie_cli.engine.forward import encode
from pie_cli.engine.model import CausalModel
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment
from pie_cli.plan.strategies import Budget

SHARE_PCT = 15
"""Tokens computed anew, in per cent of the prompt: CacheBlend's choice."""

LAYERS = 2
"""Layers that are computed to find it: the first one's keys depend on no other token."""


class _EnoughError(Exception):
    """The first layers are done."""


class _FirstLayers(SlotCache):
    """A cache of a model's first layers, which ends the pass behind them."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's states.

        Raises:
            _EnoughError: from the first layer on that is not kept.
        """
        if layer_idx == len(self.slot_layers):
            raise _EnoughError
        return super().update(key_states, value_states, layer_idx)


@torch.inference_mode()
def deviating_positions(
    model: PreparedModel,
    slots: SlotCache,
    alignment: Alignment,
    new_ids: Sequence[int],
    budget: Budget | None = None,
) -> tuple[int, ...]:
    """Pick the kept tokens whose keys and values deviate most from what they should be.

    Runs the first layers over everything behind the first change; the cache is not changed.

    Args:
        model: prepared.
        slots: holds the sequence before the edit.
        alignment: between the two sequences.
        new_ids: of the new prompt.
        budget: how many; None for CacheBlend's share.

    Returns:
        Positions in the new sequence, ascending.
    """
    wanted = budget or Budget(SHARE_PCT, percent=True)
    start, length = alignment.first_change, len(new_ids)
    stale = [
        position
        for run in alignment.runs
        for position in range(max(run.new_start, start), min(run.new_stop, length - 1))
    ]
    if not stale:
        return ()
    first = _FirstLayers(LAYERS, slots.capacity, slots.limit)
    slots.copy_into(first)
    first.splice(alignment.runs, length, ModelRotation(model.rotation.layers[:LAYERS]))
    layer = first.slot_layers[-1]
    keys, values = layer.keys[:, :, :length].clone(), layer.values[:, :, :length].clone()
    _encode_first_layers(model.loaded.model, first, new_ids, start)
    index = torch.tensor(stale, device=layer.keys.device)
    deviation = _deviation(keys, layer.keys, index) + _deviation(values, layer.values, index)
    chosen = torch.topk(deviation, min(len(stale), wanted.of(length))).indices.tolist()
    return tuple(sorted(stale[i] for i in chosen))


def _encode_first_layers(
    model: CausalModel, first: SlotCache, new_ids: Sequence[int], start: int
) -> None:
    try:
        encode(model, first, new_ids[start:], range(start, len(new_ids)), ())
    except _EnoughError:
        return


def _deviation(cached: Tensor, computed: Tensor, index: Tensor) -> Tensor:
    """Return each token's squared distance over the mean squared norm, [tokens]."""
    new = computed[0].index_select(1, index).float()
    distance = (cached[0].index_select(1, index).float() - new).pow(2).sum((0, 2))
    return distance / new.pow(2).sum((0, 2)).mean()
