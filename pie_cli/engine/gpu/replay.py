"""Which models have captured passes, and whether these give what the model gives."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pie_cli.engine.attention import takes_mask
from pie_cli.engine.gpu.trying import working
from pie_cli.engine.model import CausalModel, vocabulary
from pie_cli.engine.passes import ForwardPass
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.text.matching import KeptRun

if TYPE_CHECKING:
    from pie_cli.engine.gpu.captured import CapturedPasses

# Tokens of the passes that captured ones are compared in.
_TRIED = 160

# Relative error of the logits, by roundings in another order.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

# Of the model itself: both go together.
_ATTRIBUTE = "captured_passes"

_log = logging.getLogger(__name__)


def capture(model: CausalModel, rotation: ModelRotation | None = None) -> bool:
    """Capture a model's passes over few tokens, if it is on one CUDA GPU and they come out right.

    Args:
        model: with the engine's attention installed.
        rotation: of its keys; with it a splice is tried as well, so that the first one of a user
            need not wait for a compiler.

    Returns:
        Whether passes are replayed from now on; without that they run as anywhere.
    """
    if model.device.type != "cuda" or takes_mask(model) or not isinstance(model, nn.Module):
        return False
    if len({weight.device for weight in model.parameters()}) > 1:
        return False
    with torch.cuda.device(model.device):
        passes = working(partial(_captured, model, rotation))
    if passes is not None:
        vars(model)[_ATTRIBUTE] = passes
    return passes is not None


def replayed(
    model: CausalModel, cache: SlotCache, this: ForwardPass, token_ids: Sequence[int]
) -> tuple[Tensor, list[Tensor]] | None:
    """Run a pass with the kernels for few tokens, if there are; see `CapturedPasses.run`."""
    passes: CapturedPasses | None = vars(model).get(_ATTRIBUTE)
    if passes is None:
        return None
    with torch.cuda.device(model.device):
        return passes.run(cache, this, token_ids)


@contextmanager
def uncaptured(model: CausalModel) -> Iterator[None]:
    """Let a model's passes run as anywhere in the body, to compare and to profile them."""
    passes = vars(model).pop(_ATTRIBUTE, None)
    try:
        yield
    finally:
        if passes is not None:
            vars(model)[_ATTRIBUTE] = passes


@torch.inference_mode()
def _captured(model: CausalModel, rotation: ModelRotation | None) -> "CapturedPasses | None":
    """Capture the passes; None where they give something else than the model."""
    from pie_cli.engine.forward import encode
    from pie_cli.engine.gpu.captured import CapturedPasses

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary(model), (_TRIED,), generator=generator).tolist()
    cache = SlotCache.for_model(model, _TRIED)
    cache.extend(_TRIED)
    expected = encode(model, cache, ids, range(_TRIED), range(_TRIED))
    passes = CapturedPasses(model)
    passes.capture(cache.clone(), ids)
    error = max(_errors(passes, cache, ids, expected))
    if not error <= _TOLERANCE.get(model.dtype, 0.0):
        _log.debug("captured passes are not used: their logits are %.2g away", error)
        return None
    if rotation is not None:
        half = _TRIED // 2
        cache.splice((KeptRun(0, 0, half), KeptRun(half, half + 1, half)), _TRIED + 1, rotation)
    return passes


def _errors(
    passes: "CapturedPasses", cache: SlotCache, ids: Sequence[int], expected: Tensor
) -> Iterator[float]:
    """Give the relative errors of the logits of passes with gaps and with a repeated last token."""
    for rows, step in ((1, 1), (3, 7), (16, 5), (20, 1), (60, 2), (128, 1)):
        positions = range(_TRIED - 1 - (rows - 1) * step, _TRIED, step)
        replay = passes.run(cache, ForwardPass(positions), [ids[p] for p in positions])
        if replay is None:
            yield float("inf")
            return
        found, wanted = replay[0][:rows].float(), expected[list(positions)]
        yield float((found - wanted).norm() / wanted.norm())
