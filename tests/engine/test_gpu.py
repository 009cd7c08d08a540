"""The engine on CUDA: the same plans, the same answers."""

import pytest
import torch

from pie_cli.engine.edited import EditedEngine, execute
from pie_cli.engine.gate.check import run_gate
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment, make_plan
from tests.engine.helpers import (
    EDITS,
    N_TOKENS,
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
