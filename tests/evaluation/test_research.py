"""Research strategies: what deviates most is found, an evicted cache keeps sinks and the end."""

import pytest
import torch

from pie_cli.editable import PreparedModel
from pie_cli.engine.edited import execute
from pie_cli.engine.forward import encode
from pie_cli.engine.slots import SlotCache
from pie_cli.evaluation.cases.case import Gap
from pie_cli.evaluation.runs.research import (
    LAYERS,
    deviating_positions,
    kept_after_eviction,
    served,
)
from pie_cli.evaluation.runs.trial import FULL, Laboratory, Trial
from pie_cli.plan.plan import align, make_plan
from pie_cli.plan.strategies import Budget, Evict, parse
from pie_cli.text.matching import KeptRun
from tests.conftest import SOURCE

EDITED = SOURCE.replace("size = width * height + 3", "size = height")


def cached(model: PreparedModel, ids: list[int]) -> SlotCache:
    cache = SlotCache.for_model(model.loaded.model, len(ids))
    cache.splice((), len(ids), None)
    encode(model.loaded.model, cache, ids, range(len(ids)), ())
    return cache


def tried(model: PreparedModel, name: str) -> tuple[Trial, SlotCache]:
    """Edit by a strategy; return the answer and the cache."""
    laboratory = Laboratory(model, [parse("full+evict:1+1")], 1_000, 8, "plain")
    session = laboratory.session("area.py")
    session.prime(SOURCE, at=Gap(SOURCE).cursor)
    twin = laboratory.fork(session, parse(name))
    trial = laboratory.try_out(twin, Gap(EDITED))
    cache: SlotCache = twin.engine.slots
    cache.check_integrity()
    return trial, cache


def test_a_session_does_of_a_strategy_what_it_can():
    assert served(parse("pie+seam:3+deviation:5%")).name == "pie+seam:3"
    assert served(parse("full+evict:4+16")) == FULL


@pytest.mark.parametrize(
    ("evict", "length", "runs"),
    [
        (Evict(4, 10), 100, (KeptRun(0, 0, 4), KeptRun(90, 4, 10))),
        (Evict(0, 10), 100, (KeptRun(90, 0, 10),)),
        (Evict(4, 10), 14, (KeptRun(0, 0, 4), KeptRun(4, 4, 10))),
        (Evict(4, 10), 12, (KeptRun(0, 0, 4), KeptRun(4, 4, 8))),
        (Evict(4, 10), 3, (KeptRun(0, 0, 3),)),
    ],
)
def test_sinks_and_recent_tokens_stay_and_close_up(evict, length, runs):
    alignment = kept_after_eviction(evict, length)
    assert alignment.runs == runs
    assert alignment.new_length == sum(run.length for run in runs)


def test_nothing_is_lost_where_all_fits(tiny_model: PreparedModel):
    reference = tried(tiny_model, "full")[0].logits
    assert torch.allclose(tried(tiny_model, "full+evict:4+2000")[0].logits, reference, atol=1e-4)
    control = tried(tiny_model, "full+evict:4+100")[0].logits
    assert not torch.allclose(control, reference, atol=1e-2)


def test_the_cache_is_short_and_so_is_its_memory(tiny_model: PreparedModel):
    _, whole = tried(tiny_model, "pie")
    _, short = tried(tiny_model, "pie+evict:4+60")
    assert short.length == 64
    assert short.memory_bytes == whole.memory_bytes * 64 // whole.capacity


def test_an_exact_cache_evicted_does_not_depend_on_how_it_came_about(tiny_model: PreparedModel):
    """Prefix encodes other tokens than full recompute and leaves the same cache; cfe does not."""
    full, prefix, cfe = (
        tried(tiny_model, f"{base}+evict:4+100")[0].logits for base in ("full", "prefix", "cfe")
    )
    assert torch.allclose(full, prefix, atol=1e-4)
    assert not torch.allclose(full, cfe, atol=1e-2)


def test_without_sinks_the_recent_tokens_see_themselves_only(tiny_model: PreparedModel):
    """The last token over r recent keys: moved to the beginning, they give what stayed in place."""
    trial, _ = tried(tiny_model, "full+evict:0+40")
    ids = trial.prompt.token_ids
    last = len(ids) - 1
    cache, model = cached(tiny_model, ids), tiny_model.loaded.model
    expected = encode(model, cache, ids[last:], [last], (0,), first_key=last - 39)
    assert torch.allclose(trial.logits, expected[0], atol=1e-3)


def test_the_largest_deviations_from_full_recompute_are_picked(tiny_model: PreparedModel):
    old, new = tiny_model.tokenizer.encode(SOURCE), tiny_model.tokenizer.encode(EDITED)
    alignment, slots = align(old, new), cached(tiny_model, old)
    before, plan = slots.clone(), make_plan("pie", alignment)
    model, rotation = tiny_model.loaded.model, tiny_model.rotation
    found = deviating_positions(model, rotation, slots, plan, new, Budget(12))
    assert len(found) == 12
    assert list(found) == sorted(found)
    assert slots.length == len(old)
    for kept, layer in zip(before.slot_layers, slots.slot_layers, strict=True):
        # Slots after the last token were never written: what they hold may be no number.
        assert torch.equal(kept.keys[:, :, : len(old)], layer.keys[:, :, : len(old)])
        assert torch.equal(kept.values[:, :, : len(old)], layer.values[:, :, : len(old)])

    spliced, full = slots.clone(), cached(tiny_model, new)
    spliced.splice(alignment.runs, len(new), rotation)
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
    model, rotation = tiny_model.loaded.model, tiny_model.rotation
    plan = make_plan("pie", alignment)
    chosen = deviating_positions(model, rotation, slots, plan, new, Budget(50, percent=True))

    def logits(strategy: str, repair: tuple[int, ...] = ()) -> torch.Tensor:
        plan = make_plan(strategy, alignment, repair)
        return execute(model, slots.clone(), plan, new, rotation).logits[0]

    full = logits("full")
    assert (logits("pie", chosen) - full).norm() < (logits("pie") - full).norm()


def test_an_append_has_nothing_to_repair(tiny_model: PreparedModel):
    old = tiny_model.tokenizer.encode(SOURCE)
    new = tiny_model.tokenizer.encode(SOURCE + "print(area_1)\n")
    model, rotation = tiny_model.loaded.model, tiny_model.rotation
    plan = make_plan("pie", align(old, new))
    slots = cached(tiny_model, old)
    assert deviating_positions(model, rotation, slots, plan, new, Budget(15)) == ()
