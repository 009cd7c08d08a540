"""Repair by deviation finds the tokens that differ most from full recompute in the second layer."""

import torch

from pie_cli.editable import PreparedModel
from pie_cli.engine.edited import execute
from pie_cli.evaluation.deviation import LAYERS, deviating_positions
from pie_cli.plan.plan import align, make_plan
from pie_cli.plan.strategies import Budget
from tests.conftest import SOURCE
from tests.evaluation.test_eviction import cached

EDITED = SOURCE.replace("size = width * height + 3", "size = height")


def test_the_largest_deviations_from_full_recompute_are_picked(tiny_model: PreparedModel):
    old, new = tiny_model.tokenizer.encode(SOURCE), tiny_model.tokenizer.encode(EDITED)
    alignment, slots = align(old, new), cached(tiny_model, old)
    before = slots.clone()
    found = deviating_positions(tiny_model, slots, alignment, new, Budget(12))
    assert len(found) == 12
    assert list(found) == sorted(found)
    assert slots.length == len(old)
    for kept, layer in zip(before.slot_layers, slots.slot_layers, strict=True):
        # Slots behind the last token were never written: whatever stands there may be no number.
        assert torch.equal(kept.keys[:, :, : len(old)], layer.keys[:, :, : len(old)])
        assert torch.equal(kept.values[:, :, : len(old)], layer.values[:, :, : len(old)])

    spliced, full = slots.clone(), cached(tiny_model, new)
    spliced.splice(alignment.runs, len(new), tiny_model.gate.rotation)
    reused = {p for run in alignment.runs for p in range(run.new_start, run.new_stop)}
    found_layer, wanted = spliced.slot_layers[LAYERS - 1], full.slot_layers[LAYERS - 1]
    length, deviation = len(new), torch.zeros(len(new))
    for a, b in ((found_layer.keys, wanted.keys), (found_layer.values, wanted.values)):
        norm = b[0, :, :length].pow(2).sum((0, 2))
        distance = (a[0, :, :length] - b[0, :, :length]).pow(2).sum((0, 2))
        stale = [p for p in reused if alignment.first_change <= p < length - 1]
        deviation += distance / norm[stale].mean()
    ranked = sorted(stale, key=lambda p: -float(deviation[p]))
    assert set(found) == set(ranked[:12])


def test_repairing_what_deviates_brings_the_prediction_closer(tiny_model: PreparedModel):
    old, new = tiny_model.tokenizer.encode(SOURCE), tiny_model.tokenizer.encode(EDITED)
    alignment, slots = align(old, new), cached(tiny_model, old)
    chosen = deviating_positions(tiny_model, slots, alignment, new, Budget(50, percent=True))

    def logits(strategy: str, refresh: tuple[int, ...] = ()) -> torch.Tensor:
        plan = make_plan(strategy, alignment, refresh)
        rotation = tiny_model.gate.rotation
        return execute(tiny_model.loaded.model, slots.clone(), plan, new, rotation).logits[0]

    full = logits("full")
    assert (logits("pie", chosen) - full).norm() < (logits("pie") - full).norm()


def test_an_append_has_nothing_to_repair(tiny_model: PreparedModel):
    old = tiny_model.tokenizer.encode(SOURCE)
    new = tiny_model.tokenizer.encode(SOURCE + "print(area_1)\n")
    slots = cached(tiny_model, old)
    assert deviating_positions(tiny_model, slots, align(old, new), new, Budget(15)) == ()
