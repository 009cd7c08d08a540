"""Rotations that a model's layers might use, to be tried on real keys."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pie_cli.engine.model import CausalModel
from pie_cli.engine.rope import LayerRotation, Pairing

_CLASSIC_THETA = 10_000.0
_PAIRINGS: tuple[Pairing, ...] = ("half", "interleaved")


def list_candidates(model: CausalModel) -> list[LayerRotation]:
    """List every rotation worth trying, no rotation first, none twice.

    Rather than a table of families: each frequency buffer that the model's rotary modules hold and
    the classic one for a config that names only a rotary dimension, with both pairings.
    """
    candidates = [LayerRotation(None)]
    for inv_freq in _distinct(_frequencies(model)):
        # One pair is the same pair either way.
        pairings = _PAIRINGS if len(inv_freq) > 1 else _PAIRINGS[:1]
        candidates.extend(LayerRotation(inv_freq, pairing) for pairing in pairings)
    return candidates


def _frequencies(model: CausalModel) -> Iterator[Tensor]:
    for name, buffer in model.named_buffers():
        if "inv_freq" in name and buffer.dim() == 1 and len(buffer):
            yield buffer.detach().float().cpu().clone()
    yield from _classic(model)


def _classic(model: CausalModel) -> Iterator[Tensor]:
    config = (
        model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    )
    rotary_dim = getattr(config, "rotary_dim", None)
    if rotary_dim:
        theta = float(getattr(config, "rope_theta", None) or _CLASSIC_THETA)
        yield 1.0 / theta ** (torch.arange(0, int(rotary_dim), 2).float() / int(rotary_dim))


def _distinct(frequencies: Iterator[Tensor]) -> list[Tensor]:
    found: list[Tensor] = []
    for inv_freq in frequencies:
        if not any(
            len(inv_freq) == len(other) and torch.allclose(inv_freq, other, rtol=1e-6)
            for other in found
        ):
            found.append(inv_freq)
    return found
