"""Snapshots: a text that comes back finds its keys and values, bit for bit, and no other does."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from pie_cli.engine.attention import install
from pie_cli.engine.edited import execute
from pie_cli.engine.layers import StoredRun
from pie_cli.engine.prefix_cache import PrefixCache
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import CacheIntegrityError, SlotCache
from pie_cli.plan.plan import Alignment, Plan, make_plan, restoring
from pie_cli.text.matching import KeptRun
from tests.engine.helpers import (
    EDITS,
    N_TOKENS,
    alignment_of,
    find_rotation,
    full_cache,
    make_llama,
    random_ids,
    recompute,
    relative_error,
    valid,
)

OLD = random_ids(N_TOKENS)
BLOCK = 16
PLENTY = 1 << 28
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def back(alignment: Alignment) -> Alignment:
    """Return the alignment of the way back."""
    runs = (KeptRun(run.new_start, run.old_start, run.length) for run in alignment.runs)
    return Alignment(
        alignment.new_length,
        alignment.old_length,
        tuple(sorted(runs, key=lambda run: run.new_start)),
    )


def spans(runs: tuple[StoredRun, ...]) -> list[range]:
    return [range(run.start, run.stop) for run in runs]


def differing(found: SlotCache, wanted: SlotCache, start: int = 0) -> int:
    """Count the positions behind `start` at which any layer's key or value has another bit.

    The last token is left out: it always runs through the model again, in a pass of another shape.
    """
    different = torch.zeros(wanted.length, dtype=torch.bool)
    for layer in range(3):
        for a, b in zip(valid(found, layer), valid(wanted, layer), strict=True):
            different |= (a != b).any(-1).any(0)
    return int(different[start:-1].sum())


def error(found: SlotCache, wanted: SlotCache) -> float:
    """Return the largest relative error of any layer's keys or values."""
    return max(
        relative_error(a, b)
        for layer in range(3)
        for a, b in zip(valid(found, layer), valid(wanted, layer), strict=True)
    )


def fake_cache(length: int) -> SlotCache:
    """A cache of one layer, one head of size 2, float32: 16 bytes a token."""
    cache = SlotCache(1)
    cache.splice((), length, None)
    states = torch.arange(2.0 * length).reshape(1, 1, length, 2)
    cache.prepare(range(length))
    cache.update(states, -states, 0)
    cache.commit()
    return cache


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def editable(request: pytest.FixtureRequest) -> tuple[LlamaForCausalLM, ModelRotation]:
    llama = make_llama(dtype=request.param)
    install(llama)
    return llama, find_rotation(llama)


@pytest.mark.parametrize("edit", EDITS)
def test_undo_restores_every_bit(
    editable: tuple[LlamaForCausalLM, ModelRotation], edit: str
) -> None:
    """Edit, recompute, undo with the snapshots; the control, undo without, leaves stale tokens."""
    model, rotation = editable
    alignment, new = alignment_of(OLD, EDITS[edit])
    original, cache = full_cache(model, OLD), full_cache(model, OLD)
    snapshots = PrefixCache(PLENTY, BLOCK)
    assert snapshots.keep(cache, OLD, N_TOKENS) == N_TOKENS
    execute(model, cache, make_plan("pie", alignment), new, rotation)
    recompute(model, cache, new)

    undo = make_plan("pie", back(alignment))
    control = cache.clone()
    execute(model, control, undo, OLD, rotation)
    found = snapshots.find(OLD, alignment.first_change)
    plan = restoring(undo, spans(found))
    execute(model, cache, plan, OLD, rotation, (), found)

    cache.check_integrity()
    assert spans(found) in ([range(alignment.first_change, N_TOKENS - 1)], [])
    assert plan.reused + plan.encoded == plan.length
    assert differing(cache, original, alignment.first_change) == 0
    assert error(cache, original) < TOLERANCES[model.dtype]
    if any(run.new_start >= alignment.first_change for run in undo.kept):
        assert error(control, original) > 20 * error(cache, original)
        assert differing(control, original, alignment.first_change) > 20


def test_a_restored_token_is_rotated_like_any_other(
    editable: tuple[LlamaForCausalLM, ModelRotation],
) -> None:
    """Its home copy comes with it: what follows in 16-bit types rotates from there."""
    model, rotation = editable
    alignment, new = alignment_of(OLD, EDITS["mixed hunks"])
    snapshots = PrefixCache(PLENTY, BLOCK)
    cache = full_cache(model, OLD)
    snapshots.keep(cache, OLD, N_TOKENS)
    for ids, way in ((new, alignment), (OLD, back(alignment)), (new, alignment)):
        found = snapshots.find(ids, way.first_change)
        plan = restoring(make_plan("pie", way), spans(found))
        execute(model, cache, plan, ids, rotation, (), found)
        cache.check_integrity()
    straight = full_cache(model, OLD)
    execute(model, straight, make_plan("pie", alignment), new, rotation)
    assert error(cache, straight) < TOLERANCES[model.dtype]


def test_fresh_tokens_between_restored_ones_are_exact(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    """A block was dropped: its tokens run through the model, the others are as they were."""
    alignment, new = alignment_of(OLD, EDITS["at token 0"])
    original, cache = full_cache(model, OLD), full_cache(model, OLD)
    snapshots = PrefixCache(PLENTY, BLOCK)
    snapshots.keep(cache, OLD, N_TOKENS)
    snapshots._drop(list(snapshots._blocks)[4])
    execute(model, cache, make_plan("pie", alignment), new, rotation)
    found = snapshots.find(OLD, 0)
    assert spans(found) == [range(64), range(80, N_TOKENS - 1)]
    plan = restoring(make_plan("prefix", back(alignment)), spans(found))
    assert plan.fresh == (*range(64, 80), N_TOKENS - 1)
    execute(model, cache, plan, OLD, rotation, (), found)
    assert error(cache, original) < TOLERANCES[torch.float32]


def test_a_new_cache_is_filled_from_the_stash(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    original = full_cache(model, OLD)
    snapshots = PrefixCache(PLENTY)
    snapshots.keep(original, OLD, N_TOKENS)
    cache = SlotCache.for_model(model)
    found = snapshots.find(OLD)
    plan = restoring(make_plan("full", Alignment(0, N_TOKENS, ())), spans(found))
    assert plan.fresh == (N_TOKENS - 1,)
    execute(model, cache, plan, OLD, rotation, (), found)
    cache.check_integrity()
    assert differing(cache, original) == 0


@settings(deadline=None)
@given(at=st.integers(0, 99), start=st.integers(0, 99), exact=st.integers(0, 100))
def test_only_tokens_with_the_same_left_context_come_back(at: int, start: int, exact: int) -> None:
    """One id differs: what is before it is found, the rest is not, whatever the blocks."""
    ids = random_ids(100)
    snapshots = PrefixCache(PLENTY, BLOCK)
    snapshots.keep(fake_cache(100), ids, exact)
    changed = [*ids[:at], ids[at] + 1, *ids[at + 1 :]]
    stop = min(at, exact, 99)
    assert spans(snapshots.find(changed, start)) == ([range(start, stop)] if start < stop else [])
    for run in snapshots.find(changed, start):
        keys = torch.cat([part[0][0] for part in run.parts if part[0]], dim=2)
        assert torch.equal(keys, fake_cache(100).slot_layers[0].keys[:, :, run.start : run.stop])


def test_equal_tokens_elsewhere_or_behind_another_text_are_not_found() -> None:
    ids = random_ids(64)
    snapshots = PrefixCache(PLENTY, BLOCK)
    snapshots.keep(fake_cache(64), ids, 64)
    assert snapshots.find([*ids[16:], 1]) == ()
    assert snapshots.find([7] * 16 + ids[16:]) == ()
    assert snapshots.find(random_ids(16, seed=1) + ids) == ()


def test_versions_share_their_common_beginning() -> None:
    ids = random_ids(96)
    other = [*ids[:70], *random_ids(26, seed=1)]
    snapshots = PrefixCache(PLENTY, BLOCK)
    assert snapshots.keep(fake_cache(96), ids, 96) == 96
    assert snapshots.keep(fake_cache(96), ids, 96) == 0
    assert snapshots.keep(fake_cache(96), other, 96) == 32
    assert snapshots.memory_bytes == (96 + 32) * 16
    assert spans(snapshots.find([*ids, 0])) == spans(snapshots.find([*other, 0])) == [range(96)]


def test_a_text_that_grows_replaces_its_own_end() -> None:
    ids = random_ids(40)
    snapshots = PrefixCache(PLENTY, BLOCK)
    for length in range(1, 41):
        snapshots.keep(fake_cache(length), ids[:length], length)
        assert snapshots.memory_bytes == length * 16
    assert snapshots.keep(fake_cache(37), ids[:37], 37) == 0


def test_memory_is_bounded_and_the_version_used_last_stays() -> None:
    versions = [random_ids(64, seed=seed) for seed in range(6)]
    snapshots = PrefixCache(limit_bytes=3 * 64 * 16, block_tokens=BLOCK)
    for ids in versions[:3]:
        snapshots.keep(fake_cache(64), ids, 64)
    snapshots.find([*versions[0], 0])
    for ids in versions[3:5]:
        snapshots.keep(fake_cache(64), ids, 64)
        assert snapshots.memory_bytes <= 3 * 64 * 16
    found = [bool(snapshots.find([*ids, 0])) for ids in versions]
    assert found == [True, False, False, True, True, False]
    assert len(snapshots._blocks) == sum(map(len, snapshots._children.values()))
    snapshots.clear()
    assert (snapshots.memory_bytes, snapshots.find(versions[0])) == (0, ())


def test_of_a_text_beyond_the_limit_the_end_is_kept() -> None:
    ids = random_ids(160)
    snapshots = PrefixCache(limit_bytes=64 * 16, block_tokens=BLOCK)
    assert snapshots.keep(fake_cache(160), ids, 160) == 64
    assert spans(snapshots.find([*ids, 0])) == [range(96, 160)]
    tiny = PrefixCache(limit_bytes=10)
    tiny.keep(fake_cache(160), ids, 160)
    assert (tiny.memory_bytes, tiny.find(ids)) == (0, ())


def test_copying_stops_when_asked_and_goes_on_where_it_was() -> None:
    ids = random_ids(160)
    snapshots = PrefixCache(PLENTY, BLOCK)
    answers = iter([False, False, True])
    assert snapshots.keep(fake_cache(160), ids, 160, lambda: next(answers)) == 32
    assert spans(snapshots.find(ids)) == [range(32)]
    assert snapshots.keep(fake_cache(160), ids, 160) == 128


def test_copies_do_not_follow_the_cache() -> None:
    ids = random_ids(40)
    cache = fake_cache(40)
    snapshots = PrefixCache(PLENTY, BLOCK)
    snapshots.keep(cache, ids, 40)
    cache.slot_layers[0].keys.fill_(7.0)
    (run,) = snapshots.find(ids)
    cache.put(run)
    assert torch.equal(
        cache.slot_layers[0].keys[:, :, :39], fake_cache(40).slot_layers[0].keys[:, :, :39]
    )


def test_what_is_not_exact_is_refused(editable: tuple[LlamaForCausalLM, ModelRotation]) -> None:
    """Moved keys in 16-bit types, slots never written, more tokens than there are."""
    model, rotation = editable
    alignment, new = alignment_of(OLD, EDITS["insert"])
    cache = full_cache(model, OLD)
    execute(model, cache, make_plan("pie", alignment), new, rotation)
    snapshots = PrefixCache(PLENTY, BLOCK)
    assert snapshots.keep(cache, new, 60) == 60
    if model.dtype == torch.bfloat16:
        with pytest.raises(CacheIntegrityError, match="moved"):
            snapshots.keep(cache, new, len(new))
    cache.extend(len(new) + 2)
    with pytest.raises(CacheIntegrityError, match="not written"):
        cache.take(len(new), len(new) + 1)
    with pytest.raises(ValueError, match="exact tokens"):
        snapshots.keep(cache, [*new, 1, 2, 3], len(new) + 3)


class TestPlans:
    """What is restored is neither kept nor fresh, and everything is covered once."""

    plan = make_plan("pie", Alignment(40, 40, (KeptRun(0, 0, 10), KeptRun(12, 14, 20))))

    @given(st.lists(st.integers(0, 39), max_size=6, unique=True).map(sorted))
    def test_each_position_is_covered_once(self, bounds: list[int]) -> None:
        runs = [range(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=False)]
        plan: Plan = restoring(self.plan, runs)
        covered = [
            *plan.fresh,
            *(p for run in plan.kept for p in range(run.new_start, run.new_stop)),
            *(p for span in plan.snapshots for p in span),
        ]
        assert sorted(covered) == list(range(40))
        assert {run.delta for run in plan.kept} <= {0, 2}
        assert plan.reused + plan.encoded == 40
        assert plan.restored == sum(map(len, runs))

    def test_without_copies_it_is_the_same_plan(self) -> None:
        assert restoring(self.plan, ()) is self.plan

    @pytest.mark.parametrize("span", [(0, 40), (39, 41), (-1, 3)])
    def test_the_last_token_stays_fresh(self, span: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="copies"):
            restoring(self.plan, [range(*span)])

    def test_copies_outside_the_sequence_are_refused(self) -> None:
        with pytest.raises(ValueError, match="leave"):
            fake_cache(4).put(StoredRun(0, 5, ()))
