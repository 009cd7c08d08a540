"""Eviction keeps sinks and recent tokens, whatever the strategy, and gives the memory back."""

import pytest
import torch

from pie_cli.editable import PreparedModel
from pie_cli.engine.forward import encode
from pie_cli.engine.slots import SlotCache
from pie_cli.evaluation.eviction import kept_runs, run
from pie_cli.plan.plan import align, make_plan
from pie_cli.plan.strategies import Evict, parse
from pie_cli.text.matching import KeptRun
from tests.conftest import SOURCE

EDITED = SOURCE.replace("size = width * height + 3", "size = height")


def cached(model: PreparedModel, ids: list[int]) -> SlotCache:
    cache = SlotCache.for_model(model.loaded.model, len(ids))
    cache.splice((), len(ids), None)
    encode(model.loaded.model, cache, ids, range(len(ids)), ())
    return cache


def evicted(model: PreparedModel, name: str) -> tuple[torch.Tensor, SlotCache]:
    """Edit, evict; return the logits and the cache."""
    old, new = model.tokenizer.encode(SOURCE), model.tokenizer.encode(EDITED)
    strategy, cache = parse(name), cached(model, old)
    plan = make_plan(strategy.base, align(old, new))
    logits = run(model, cache, strategy, plan, new).logits
    cache.check_integrity()
    return logits, cache


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
    alignment = kept_runs(evict, length)
    assert alignment.runs == runs
    assert alignment.new_length == sum(run.length for run in runs)


def test_nothing_is_lost_where_all_fits(tiny_model: PreparedModel):
    logits, _ = evicted(tiny_model, "full+evict:4+2000")
    reference, _ = evicted(tiny_model, "full")
    assert torch.allclose(logits, reference, atol=1e-4)
    control, _ = evicted(tiny_model, "full+evict:4+100")
    assert not torch.allclose(control, reference, atol=1e-2)


def test_the_cache_is_short_and_so_is_its_memory(tiny_model: PreparedModel):
    _, whole = evicted(tiny_model, "pie")
    _, short = evicted(tiny_model, "pie+evict:4+60")
    assert short.length == 64
    assert short.memory_bytes == whole.memory_bytes * 64 // whole.capacity


def test_an_exact_cache_evicted_does_not_depend_on_how_it_came_about(tiny_model: PreparedModel):
    """Prefix encodes other tokens than full recompute and leaves the same cache; cfe does not."""
    full, prefix, cfe = (
        evicted(tiny_model, f"{base}+evict:4+100")[0] for base in ("full", "prefix", "cfe")
    )
    assert torch.allclose(full, prefix, atol=1e-4)
    assert not torch.allclose(full, cfe, atol=1e-2)


def test_without_sinks_the_recent_tokens_see_themselves_only(tiny_model: PreparedModel):
    """The last token over r recent keys: moved to the beginning, they give what stayed in place."""
    model = tiny_model.loaded.model
    new = tiny_model.tokenizer.encode(EDITED)
    logits, _ = evicted(tiny_model, "full+evict:0+40")
    cache = cached(tiny_model, new)
    last = len(new) - 1
    expected = encode(model, cache, new[last:], [last], (0,), first_key=last - 39)
    assert torch.allclose(logits, expected, atol=1e-3)
