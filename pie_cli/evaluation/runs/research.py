"""Strategies that only `pie eval` asks for: repair by deviation, a cache cut down after the edit.

Repair by deviation is what CacheBlend recomputes: tokens whose keys and values deviate most in the
first layers are computed again in all of them. To know the deviation these layers have to run over
every token after the edit, which is done here and belongs to the strategy's time; it is what makes
this choice too dear for a save.

Eviction asks whether an edited cache bears being cut down as well as a recomputed one. The plan is
executed over the whole prompt, whatever its strategy; then all but the first and the last tokens
are dropped, what stays closes up (positions are those in the cache, keys are re-rotated), and the
last token runs again over what is left. Compare `pie+evict` with `full+evict` for the method's part
of the difference, `full+evict` with `full` for the eviction's.

Source:
    Yao et al., CacheBlend (arXiv 2405.16444): tokens of high KV deviation, 15 %. It selects again
    layer by layer; here the second layer's selection serves all of them, for a plan has one set of
    fresh positions.
    Xiao et al., Efficient Streaming Language Models with Attention Sinks (arXiv 2309.17453).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pie_cli.editable import PreparedModel
from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.forward import encode
from pie_cli.engine.model import CausalModel
from pie_cli.engine.protocol import Decoding, Line
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment, Plan, make_plan
from pie_cli.plan.strategies import Budget, Evict, Strategy
from pie_cli.text.matching import KeptRun

LAYERS = 2
"""Layers that are computed to find deviations: the first one's keys depend on no other token."""


class ResearchEngine(EditedEngine):
    """An engine that does more with a plan than the product's.

    Attributes:
        strategy: whose further wishes are carried out; a copy begins without any.
        encoded: tokens of the last plan that ran through the model.
        held: token ids of the prompt that is held, a short one after an eviction.
    """

    strategy: Strategy | None = None
    encoded = 0
    held: Sequence[int] = ()

    @property
    def parked(self) -> Sequence[int]:
        """Offer nothing: plans are looked at here run by run."""
        return ()

    def predict(
        self, plan: Plan, token_ids: Sequence[int], decoding: Decoding, draft: Sequence[int] = ()
    ) -> Line:
        """Execute a plan, with further tokens or on to a shorter prompt, and predict the line."""
        strategy = self.strategy
        if strategy is None:
            return super().predict(plan, token_ids, decoding, draft)
        for repair in strategy.repairs:
            if repair.kind == "deviation":
                assert repair.budget is not None
                positions = deviating_positions(
                    self._model, self._rotation, self.slots, plan, token_ids, repair.budget
                )
                alignment = Alignment(self.slots.length, plan.length, plan.kept)
                plan = make_plan(plan.strategy, alignment, positions)
        self.encoded, self.held = plan.encoded, token_ids
        if strategy.evict is None:
            return super().predict(plan, token_ids, decoding, draft)
        whole = super().predict(plan, token_ids, replace(decoding, should_stop=lambda: True))
        short = kept_after_eviction(strategy.evict, plan.length)
        self.held = [t for run in short.runs for t in token_ids[run.old_start : run.old_stop]]
        line = super().predict(make_plan("pie", short), self.held, decoding, draft)
        self.slots.fit()
        # The time to the first token holds both.
        return replace(line, began_at=whole.began_at, spliced_at=whole.spliced_at)

    def clone(self) -> "ResearchEngine":
        """Copy the slots."""
        return ResearchEngine(self._model, self._rotation, self.slots.clone(), self._limit)


def with_research(model: PreparedModel) -> PreparedModel:
    """Return a model whose sessions can follow any strategy."""
    causal, rotation = model.loaded.model, model.rotation

    def make(capacity: int) -> ResearchEngine:
        return ResearchEngine(causal, rotation, SlotCache.for_model(causal, capacity))

    return replace(model, new_engine=make)


def served(strategy: Strategy) -> Strategy:
    """Return what a session does of a strategy; the engine does the rest."""
    repairs = tuple(repair for repair in strategy.repairs if repair.kind != "deviation")
    return Strategy(strategy.base, repairs, strategy.again if strategy.serves else None)


def kept_after_eviction(evict: Evict, length: int) -> Alignment:
    """Say which tokens of a prompt stay, and where they are then."""
    recent = max(evict.sinks, length - evict.recent)
    sinks = min(evict.sinks, length)
    runs = (KeptRun(0, 0, sinks), KeptRun(recent, sinks, length - recent))
    kept = tuple(run for run in runs if run.length > 0)
    return Alignment(length, sum(run.length for run in kept), kept)


class _EnoughError(Exception):
    """The first layers are done."""


class _FirstLayers(SlotCache):
    """A cache of a model's first layers, which ends the pass after them."""

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
    model: CausalModel,
    rotation: ModelRotation,
    slots: SlotCache,
    plan: Plan,
    token_ids: Sequence[int],
    budget: Budget,
) -> tuple[int, ...]:
    """Pick the kept tokens whose keys and values deviate most from what they should be.

    Runs the first layers over everything after the first change; the cache is not changed.

    Args:
        model: with the engine's attention installed.
        rotation: found by the gate.
        slots: hold the sequence before the edit.
        plan: for the new prompt, whose kept tokens are looked at.
        token_ids: of the new prompt.
        budget: how many.

    Returns:
        Positions in the new sequence, ascending.
    """
    start, length = unchanged_tokens(plan), len(token_ids)
    stale = [p for run in plan.kept for p in range(max(run.new_start, start), run.new_stop)]
    if not stale:
        return ()
    first = _FirstLayers(LAYERS, slots.capacity, slots.limit)
    slots.copy_into(first)
    first.splice(plan.kept, length, ModelRotation(rotation.layers[:LAYERS]))
    layer = first.slot_layers[-1]
    keys, values = layer.keys[:, :, :length].clone(), layer.values[:, :, :length].clone()
    with suppress(_EnoughError):
        encode(model, first, token_ids[start:], range(start, length), ())
    index = torch.tensor(stale, device=layer.keys.device)
    deviation = _deviation(keys, layer.keys, index) + _deviation(values, layer.values, index)
    chosen = torch.topk(deviation, min(len(stale), budget.of(length))).indices.tolist()
    return tuple(sorted(stale[i] for i in chosen))


def unchanged_tokens(plan: Plan) -> int:
    """Return the length of the prefix that a plan keeps in its place."""
    first = plan.kept[0] if plan.kept else None
    return first.length if first and first.old_start == first.new_start == 0 else 0


def _deviation(cached: Tensor, computed: Tensor, index: Tensor) -> Tensor:
    """Return each token's squared distance over the mean squared norm, [tokens]."""
    new = computed[0].index_select(1, index).float()
    distance = (cached[0].index_select(1, index).float() - new).pow(2).sum((0, 2))
    return distance / new.pow(2).sum((0, 2)).mean()
