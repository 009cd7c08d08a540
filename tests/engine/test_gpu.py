"""The engine on CUDA: the same plans, the same answers."""

import pytest
import torch

from pie_cli.engine import slots
from pie_cli.engine.attention import install, takes_mask
from pie_cli.engine.edited import EditedEngine, execute
from pie_cli.engine.forward import encode
from pie_cli.engine.gate.check import run_gate
from pie_cli.engine.gpu.replay import capture, uncaptured
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment, make_plan
from pie_cli.text.matching import KeptRun
from tests.engine.families import ROTATING, rotating
from tests.engine.helpers import (
    EDITS,
    N_TOKENS,
    VOCABULARY,
    alignment_of,
    full_cache,
    make_llama,
    random_ids,
    relative_error,
    valid,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

OLD = random_ids(N_TOKENS)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_agrees_with_itself_and_with_the_cpu(edit: str, dtype: torch.dtype) -> None:
    llama = make_llama(dtype=dtype)
    torch.nn.Module.to(llama, "cuda")
    rotation = run_gate(llama).rotation
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    cache = SlotCache.for_model(llama)
    execute(llama, cache, make_plan("full", Alignment(0, N_TOKENS, ())), OLD, None)
    execute(llama, cache, make_plan("pie", alignment), new_ids, rotation)
    cache.check_integrity()
    reference = full_cache(llama, new_ids)
    tolerance = 1e-4 if dtype == torch.float32 else 0.02
    for found, wanted in zip(valid(cache, 0), valid(reference, 0), strict=True):
        assert relative_error(found, wanted) < tolerance
    engine = EditedEngine(llama, rotation, cache)
    list(engine.recompute(new_ids, 0, 64))
    for found, wanted in zip(valid(cache, 1), valid(reference, 1), strict=True):
        assert relative_error(found, wanted) < 5 * tolerance
    host = make_llama(dtype=dtype)
    on_host = full_cache(host, new_ids)
    assert relative_error(valid(cache, 0)[0].cpu(), valid(on_host, 0)[0]) < 5 * tolerance


@pytest.mark.parametrize("name", sorted(ROTATING))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_captured_passes_give_what_the_model_gives(name: str, dtype: torch.dtype) -> None:
    with torch.device("cuda"):
        model = rotating(name, dtype)
    install(model)
    captured = capture(model)
    # Frequencies that depend on the longest position are asked for on the host.
    assert captured == (not takes_mask(model) and name != "llama dynamic")
    if not captured:
        return
    cache, plain = (SlotCache.for_model(model) for _ in range(2))
    for storage in (cache, plain):
        storage.splice((), N_TOKENS, None)
        encode(model, storage, OLD, range(N_TOKENS), ())
    changed = [*range(3, 12), 40, *range(90, 99), N_TOKENS - 1]
    ids = [(OLD[position] + 1) % VOCABULARY for position in changed]
    rows = [0, 5, len(changed) - 1]
    found = encode(model, cache, ids, changed, rows)
    with uncaptured(model):
        wanted = encode(model, plain, ids, changed, rows)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    assert relative_error(found, wanted) < tolerance
    for layer in (0, 2):
        for ours, theirs in zip(valid(cache, layer), valid(plain, layer), strict=True):
            assert relative_error(ours, theirs) < tolerance


def test_a_captured_pass_serves_every_cache_of_its_model() -> None:
    with torch.device("cuda"):
        model = make_llama()
    install(model)
    assert capture(model)
    first = full_cache(model, OLD)
    second = first.clone()
    second.reserve(4 * N_TOKENS)
    for cache in (first, second, first):
        cache.extend(N_TOKENS + 1)
        encode(model, cache, [5], range(N_TOKENS, N_TOKENS + 1), [0])
        cache.check_integrity()
        cache.truncate(N_TOKENS)
    for ours, theirs in zip(valid(first, 2), valid(second, 2), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("edit", EDITS)
def test_a_splice_of_all_layers_is_that_of_each(
    edit: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("cuda"):
        model = make_llama(dtype=dtype)
    rotation = run_gate(model).rotation
    alignment, _ = alignment_of(OLD, EDITS[edit])
    at_once = full_cache(model, OLD)
    by_layer = at_once.clone()
    # The second time keys are turned from their homes, each by its own delta.
    again = [KeptRun(run.new_start, run.new_start + 2, run.length) for run in alignment.runs]
    for kept, length in ((alignment.runs, alignment.new_length), (again, alignment.new_length + 2)):
        at_once.splice(kept, length, rotation)
        with monkeypatch.context() as patch:
            patch.setattr(slots, "move_at_once", lambda *_: False)
            by_layer.splice(kept, length, rotation)
        held = [position for run in kept for position in range(run.new_start, run.new_stop)]
        for layer in range(3):
            for ours, theirs in zip(valid(at_once, layer), valid(by_layer, layer), strict=True):
                torch.testing.assert_close(ours[:, held], theirs[:, held])


LONG = {
    "with a gap": [*range(3, 100), *range(120, 200)],
    "behind cached tokens": [*range(40, N_TOKENS)],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize("where", LONG)
def test_a_long_pass_gives_what_a_whole_one_gives(
    where: str, name: str, dtype: torch.dtype
) -> None:
    with torch.device("cuda"):
        model = rotating(name, dtype)
    install(model)
    assert capture(model)
    cache = full_cache(model, OLD)
    positions = LONG[where]
    rows = range(0, len(positions), 7)
    found = encode(model, cache, [OLD[p] for p in positions], positions, rows)
    whole = SlotCache.for_model(model)
    whole.splice((), N_TOKENS, None)
    wanted = encode(model, whole, OLD, range(N_TOKENS), [positions[row] for row in rows])
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    assert relative_error(found, wanted) < tolerance
