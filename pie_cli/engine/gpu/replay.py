"""Which models have captured passes, and whether these give what the model gives."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from pie_cli.engine.attention import takes_mask
from pie_cli.engine.model import CausalModel, vocabulary
from pie_cli.engine.passes import ForwardPass
from pie_cli.engine.slots import SlotCache

if TYPE_CHECKING:
    from pie_cli.engine.gpu.captured import CapturedPasses

# Tokens of the passes that captured ones are compared in.
_TRIED = 160

# Relative error of the logits, by roundings in another order.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

_log = logging.getLogger(__name__)

_captured: "WeakKeyDictionary[Any, CapturedPasses]" = WeakKeyDictionary()


def capture(model: CausalModel) -> bool:
    """Capture a model's passes over few tokens, if it is on a CUDA GPU and they come out right.

    Returns:
        Whether passes are replayed from now on; without that they run as anywhere.
    """
    if model.device.type != "cuda" or takes_mask(model) or not isinstance(model, nn.Module):
        return False
    if len({weight.device for weight in model.parameters()}) > 1:
        return False
    try:
        from pie_cli.engine.gpu.captured import CapturedPasses

        passes = CapturedPasses(model)
        error = _error(model, passes)
    except (ImportError, RuntimeError) as failure:
        _log.debug("passes are not captured: %s", failure)
        return False
    if not error <= _TOLERANCE.get(model.dtype, 0.0):
        _log.debug("captured passes are not used: their logits are %.2g away", error)
        return False
    _captured[model] = passes
    return True


def replayed(
    model: CausalModel, cache: SlotCache, this: ForwardPass, token_ids: Sequence[int]
) -> tuple[Tensor, list[Tensor]] | None:
    """Run a pass with the kernels for few tokens, if there are; see `CapturedPasses.run`."""
    passes = _captured.get(model)
    return None if passes is None else passes.run(cache, this, token_ids)


@contextmanager
def uncaptured(model: CausalModel) -> Iterator[None]:
    """Let a model's passes run as anywhere in the body, to compare and to profile them."""
    passes = _captured.pop(model, None)
    try:
        yield
    finally:
        if passes is not None:
            _captured[model] = passes


@torch.inference_mode()
def _error(model: CausalModel, passes: "CapturedPasses") -> float:
    """Capture the passes; return the largest relative error of their logits."""
    from pie_cli.engine.forward import encode

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary(model), (_TRIED,), generator=generator).tolist()
    cache = SlotCache.for_model(model, _TRIED)
    cache.extend(_TRIED)
    expected = encode(model, cache, ids, range(_TRIED), range(_TRIED))
    passes.capture(cache.clone(), ids)
    errors = []
    # Some of them with a repeated last token, some with gaps.
    for rows, step in ((1, 1), (3, 7), (16, 5), (20, 1), (60, 2), (128, 1)):
        positions = range(_TRIED - 1 - (rows - 1) * step, _TRIED, step)
        replay = passes.run(cache, ForwardPass(positions), [ids[p] for p in positions])
        if replay is None:
            return float("inf")
        logits, _ = replay
        found, wanted = logits[:rows].float(), expected[list(positions)]
        errors.append(float((found - wanted).norm() / wanted.norm()))
    return max(errors)
