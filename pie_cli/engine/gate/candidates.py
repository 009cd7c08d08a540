"""Rotations that a model's layers might use, to be tried on real keys."""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pie_cli.engine.model import CausalModel, text_config
from pie_cli.engine.rope import LayerRotation, Pairing

_CLASSIC_THETA = 10_000.0
_PAIRINGS: tuple[Pairing, ...] = ("half", "interleaved")

# Frequencies closer than this are one: over 100,000 positions they part by a thousandth of a turn.
_SAME = 1e-6


def list_candidates(model: CausalModel) -> list[LayerRotation]:
    """List every rotation worth trying, no rotation first, none twice.

    Rather than a table of families: each frequency buffer that the model's rotary modules hold, or
    the table of sines that some hold instead; and the classic frequencies for a config that names
    only a rotary dimension. Each with both pairings.
    """
    candidates = [LayerRotation(None)]
    for inv_freq in _distinct(_frequencies(model)):
        # One pair is the same pair either way.
        pairings = _PAIRINGS if len(inv_freq) > 1 else _PAIRINGS[:1]
        candidates.extend(LayerRotation(inv_freq, pairing) for pairing in pairings)
    return candidates


def reversed_rotation(rotation: LayerRotation) -> LayerRotation:
    """Return the rotation that turns the other way."""
    if rotation.inv_freq is None:
        return rotation
    return LayerRotation(-rotation.inv_freq, rotation.pairing)


def _frequencies(model: CausalModel) -> Iterator[Tensor]:
    tables = []
    for name, buffer in model.named_buffers():
        if "inv_freq" in name and buffer.dim() == 1 and len(buffer):
            yield buffer.detach().float().cpu().clone()
        elif _is_sine_table(buffer):
            tables.append(buffer)
    if tables:
        # All layers hold the same table as a rule; reading frequencies off one takes a while.
        distinct = {_signature(table): table for table in tables}
        yield from map(frequencies_of_table, distinct.values())
    else:
        yield from _classic(model)


def _is_sine_table(buffer: Tensor) -> bool:
    """Whether a buffer's row p holds sin(p f) for all f, then cos(p f): so its first row tells."""
    if buffer.dim() != 2 or buffer.shape[0] < 2 or buffer.shape[1] % 2 or not buffer.shape[1]:
        return False
    if not buffer.is_floating_point():
        return False
    sines, cosines = buffer[0].float().chunk(2)
    return bool((sines == 0).all()) and bool((cosines == 1).all())


def _signature(table: Tensor) -> tuple[int, ...]:
    return (*table.shape, *table[1].float().mul(2**20).round().long().tolist())


def frequencies_of_table(table: Tensor) -> Tensor:
    """Read the frequencies off a table of sines and cosines.

    A row says each angle but for whole turns. The frequency known from row p tells the turns of row
    2 p, which gives it twice as exactly; the table's own rounding bounds the error of the last row.

    Shapes:
        P positions, R rotary dimensions.

    Args:
        table: [P, R]: row p holds the sines, then the cosines of p times the frequencies, which are
            at most 1.

    Returns:
        float32 [R/2].
    """
    sines, cosines = table.detach().double().cpu().chunk(2, dim=-1)
    position = 1
    found = torch.atan2(sines[1], cosines[1])
    while 2 * position < len(table):
        position *= 2
        angle = torch.atan2(sines[position], cosines[position])
        turns = torch.round((found * position - angle) / (2 * math.pi))
        found = (angle + 2 * math.pi * turns) / position
    return found.float()


def _classic(model: CausalModel) -> Iterator[Tensor]:
    config = text_config(model)
    rotary_dim = getattr(config, "rotary_dim", None)
    if rotary_dim:
        theta = float(getattr(config, "rope_theta", None) or _CLASSIC_THETA)
        yield 1.0 / theta ** (torch.arange(0, int(rotary_dim), 2).float() / int(rotary_dim))


def _distinct(frequencies: Iterable[Tensor]) -> list[Tensor]:
    found: list[Tensor] = []
    for inv_freq in frequencies:
        if not any(same_frequencies(inv_freq, other) for other in found):
            found.append(inv_freq)
    return found


def same_frequencies(one: Tensor, other: Tensor) -> bool:
    """Whether two lists of frequencies are the same to rounding."""
    return len(one) == len(other) and torch.allclose(one, other, rtol=_SAME, atol=1e-9)
