"""The KV cache: splices move what they should, no unwritten slot is read, drift is bounded."""

import pytest
import torch
from hypothesis import given, settings
from transformers import LlamaForCausalLM

from pie_cli.engine.forward import encode
from pie_cli.engine.rope import ModelRotation, rotate
from pie_cli.engine.slots import CacheIntegrityError, SlotCache
from pie_cli.text.matching import KeptRun
from tests.engine.helpers import (
    EDITS,
    N_TOKENS,
    alignment_of,
    find_rotation,
    full_cache,
    kept_runs,
    make_llama,
    random_ids,
    relative_error,
    valid,
)

IDS = random_ids(N_TOKENS)


def fake_cache(dtype: torch.dtype = torch.float32) -> SlotCache:
    """A cache of two layers whose keys and values tell their layer and position."""
    cache = SlotCache(2)
    cache.splice((), N_TOKENS, None)
    cache.prepare(range(N_TOKENS))
    for layer in range(2):
        states = torch.arange(N_TOKENS).float()[None, None, :, None].expand(1, 2, -1, 4) + layer
        cache.update(states.to(dtype), -states.to(dtype), layer)
    cache.commit()
    return cache


@given(kept_runs())
@settings(max_examples=100, deadline=None)
def test_a_splice_moves_runs_in_any_order(edit: tuple[tuple[KeptRun, ...], int]) -> None:
    runs, new_length = edit
    cache = fake_cache()
    cache.splice(runs, new_length, None)
    expected = {
        n: o
        for r in runs
        for o, n in zip(range(r.old_start, r.old_stop), range(r.new_start, r.new_stop), strict=True)
    }
    assert cache.length == new_length
    assert set(cache.pending) == set(range(new_length)) - set(expected)
    for layer in range(2):
        keys, values = valid(cache, layer)
        for new, old in expected.items():
            assert keys[0, new, 0] == old + layer
            assert values[1, new, 3] == -old - layer


def test_a_splice_copies_nothing_of_an_unshifted_prefix() -> None:
    cache = fake_cache()
    slots = cache.slot_layers[0].keys
    with torch.inference_mode():
        slots[:, :, 7] = 555.0
    cache.splice((KeptRun(0, 0, 100), KeptRun(120, 100, 100)), 200, None)
    assert cache.slot_layers[0].keys is slots
    assert slots[0, 0, 7, 0] == 555.0


def test_capacity_grows_geometrically_and_keeps_the_content() -> None:
    cache = fake_cache()
    capacities = {cache.capacity}
    for extra in range(1, 400):
        cache.reserve(N_TOKENS + extra)
        capacities.add(cache.capacity)
    assert len(capacities) < 5
    assert torch.equal(valid(cache, 1)[0][0, :, 0], torch.arange(N_TOKENS) + 1.0)
    assert cache.slot_layers[0].keys.shape[2] == cache.capacity >= N_TOKENS + 399


def test_capacity_stops_at_the_window_unless_more_is_needed() -> None:
    cache = SlotCache(2, 3_000, limit=4_096)
    cache.reserve(3_100)
    assert cache.capacity == 4_096
    assert cache.clone().limit == 4_096
    cache.reserve(5_000)
    assert 5_000 <= cache.capacity < 5_064


def test_memory_is_reported_in_bytes() -> None:
    cache = fake_cache()
    assert cache.memory_bytes == 2 * 2 * (2 * cache.capacity * 4) * 4
    assert SlotCache(2, 64).memory_bytes == 0


def test_a_clone_shares_nothing() -> None:
    cache = fake_cache()
    copy = cache.clone()
    copy.splice((KeptRun(10, 0, 20),), 20, None)
    assert cache.length == N_TOKENS
    assert valid(cache, 0)[0][0, 0, 0] == 0
    assert copy.length == 20
    assert valid(copy, 0)[0][0, 0, 0] == 10
    cache.check_integrity()


def test_truncate_forgets_the_tail() -> None:
    cache = fake_cache()
    cache.extend(N_TOKENS + 5)
    assert cache.pending == tuple(range(N_TOKENS, N_TOKENS + 5))
    cache.truncate(N_TOKENS)
    cache.check_integrity()
    with pytest.raises(ValueError, match="cannot truncate 240 tokens to 241"):
        cache.truncate(N_TOKENS + 1)


class TestIntegrity:
    """What must hold between passes is checked, and each break is named with its numbers."""

    def test_slots_never_written(self) -> None:
        cache = fake_cache()
        cache.splice((KeptRun(0, 0, 100),), 110, None)
        with pytest.raises(
            CacheIntegrityError, match="10 slots never written, the first of them 100"
        ):
            cache.check_integrity()

    def test_a_pass_that_would_read_them(self) -> None:
        cache = fake_cache()
        cache.splice((KeptRun(0, 0, 100),), 110, None)
        with pytest.raises(CacheIntegrityError, match="slot 100"):
            cache.prepare(range(101, 110))
        cache.prepare(range(100, 105))

    def test_a_splice_that_would_keep_them(self) -> None:
        cache = fake_cache()
        cache.splice((KeptRun(0, 0, 100),), 110, None)
        with pytest.raises(CacheIntegrityError, match="never written"):
            cache.splice((KeptRun(0, 0, 110),), 110, None)

    def test_a_broken_pass_leaves_its_slots_unwritten(self) -> None:
        cache = fake_cache()
        cache.prepare(range(50, 60))
        with pytest.raises(CacheIntegrityError, match="never committed"):
            cache.check_integrity()
        cache.truncate(N_TOKENS)
        assert cache.pending == tuple(range(50, 60))

    def test_a_layer_left_out(self) -> None:
        cache = fake_cache()
        cache.prepare([3])
        cache.update(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4), 0)
        with pytest.raises(CacheIntegrityError, match=r"layers \[1\]"):
            cache.commit()

    def test_values_that_are_not_finite(self) -> None:
        cache = fake_cache()
        cache.slot_layers[1].values[0, 1, 77, 2] = float("nan")
        with pytest.raises(CacheIntegrityError, match="layer 1: values of slot 77"):
            cache.check_integrity()

    def test_a_pass_beyond_the_length(self) -> None:
        with pytest.raises(CacheIntegrityError, match="240 tokens"):
            fake_cache().prepare([N_TOKENS])

    def test_a_run_beyond_the_length(self) -> None:
        with pytest.raises(ValueError, match="leaves sequences"):
            fake_cache().splice((KeptRun(200, 0, 41),), 300, None)

    def test_keys_away_from_their_homes(self) -> None:
        llama = make_llama(dtype=torch.bfloat16)
        rotation = find_rotation(llama)
        cache = full_cache(llama, IDS)
        cache.splice((KeptRun(5, 0, 200),), 200, rotation)
        cache.check_integrity()
        with torch.inference_mode():
            cache.slot_layers[2].keys[:, :, 40:80] += 1.0
        with pytest.raises(CacheIntegrityError, match="layer 2: keys are"):
            cache.check_integrity()


def test_positions_must_ascend() -> None:
    with pytest.raises(ValueError, match="ascend"):
        fake_cache().prepare([4, 3])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_drift_stays_bounded_over_a_thousand_shifts(dtype: torch.dtype) -> None:
    """Oracle 5; its control, rotating again and again, fails."""
    llama = make_llama(dtype=dtype)
    rotation = find_rotation(llama)
    cache = full_cache(llama, IDS)
    reference, repeated = (
        valid(cache, 1)[0][:, 100:200].clone(),
        valid(cache, 1)[0][:, 100:200].clone(),
    )
    generator = torch.Generator().manual_seed(0)
    at = previous = 100
    for target in torch.randint(80, 140, (1_000,), generator=generator).tolist():
        cache.splice((KeptRun(0, 0, 10), KeptRun(at, target, 100)), target + 100, rotation)
        cache.pending = ()  # the tokens between are of no interest here
        repeated = rotate(repeated, target - at, rotation.layers[1])
        previous, at = at, target
    exact = rotate(reference.float(), at - 100, rotation.layers[1])
    one_rounding = {torch.float16: 5e-4, torch.bfloat16: 4e-3}[dtype]
    assert relative_error(valid(cache, 1)[0][:, at:], exact) < one_rounding
    # Growth is the square root of the shifts; a forgotten home is off by a whole rotation.
    assert relative_error(repeated, exact) > 10 * one_rounding
    forgotten = rotate(reference, at - previous, rotation.layers[1])
    assert relative_error(forgotten, exact) > 100 * one_rounding


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_undone_shifts_restore_keys_bit_for_bit(dtype: torch.dtype) -> None:
    llama = make_llama(dtype=dtype)
    rotation = find_rotation(llama)
    cache = full_cache(llama, IDS)
    before = [tensor.clone() for layer in range(3) for tensor in valid(cache, layer)]
    for there, back in (((0, 17), (17, 0)), ((0, 3), (3, 0))):
        cache.splice((KeptRun(*there, N_TOKENS),), N_TOKENS + there[1], rotation)
        cache.splice((KeptRun(*back, N_TOKENS),), N_TOKENS, rotation)
    after = [tensor for layer in range(3) for tensor in valid(cache, layer)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_home_copies_appear_with_the_first_shift_and_cost_half_again() -> None:
    llama = make_llama(dtype=torch.bfloat16)
    rotation = find_rotation(llama)
    cache = full_cache(llama, IDS)
    plain = cache.memory_bytes
    cache.splice((KeptRun(0, 0, 100),), 100, rotation)
    assert cache.memory_bytes == plain
    cache.splice((KeptRun(10, 0, 90),), 90, rotation)
    assert cache.memory_bytes == plain * 3 // 2
    cache.clear()
    assert cache.memory_bytes == plain
    assert cache.length == 0


def test_float32_keeps_no_home_copies(model: LlamaForCausalLM, rotation: ModelRotation) -> None:
    cache = full_cache(model, IDS)
    plain = cache.memory_bytes
    cache.splice((KeptRun(10, 0, 90),), 90, rotation)
    assert cache.memory_bytes == plain


def test_a_move_without_rotation_leaves_homes_consistent() -> None:
    """The strategies cfe and pie may take turns on one cache."""
    llama = make_llama(dtype=torch.bfloat16)
    rotation = find_rotation(llama)
    cache = full_cache(llama, IDS)
    for chosen in (rotation, None, rotation, None):
        cache.splice((KeptRun(7, 0, cache.length - 7),), cache.length - 7, chosen)
        cache.check_integrity()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_written_after_shifts_rotate_from_their_own_home(dtype: torch.dtype) -> None:
    llama = make_llama(dtype=dtype)
    rotation = find_rotation(llama)
    cache = full_cache(llama, IDS)
    alignment, new_ids = alignment_of(IDS, EDITS["insert"])
    for _ in range(2):
        cache.splice(alignment.runs, len(new_ids), rotation)
        encode(llama, cache, new_ids[60:63], range(60, 63), ())
        cache.check_integrity()
        cache.splice((KeptRun(3, 0, N_TOKENS),), N_TOKENS, rotation)
        cache.check_integrity()
