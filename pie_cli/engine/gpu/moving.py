"""A splice of all layers at once, where one kernel can do it."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache, partial
from itertools import pairwise

import torch
from torch import Tensor

from pie_cli.engine.gpu.trying import working
from pie_cli.engine.layers import Moves, SlotLayer
from pie_cli.engine.rope import LayerRotation, ModelRotation, Turn, make_turn
from pie_cli.text.matching import KeptRun


def move_at_once(
    layers: Sequence[SlotLayer],
    moves: Moves,
    rotation: ModelRotation | None,
    deltas: Tensor | int | None,
) -> bool:
    """Move the runs of a splice in every layer of a cache on one CUDA GPU.

    Not where layers rotate differently, nor where text was moved across other text.

    Args:
        layers: of a cache, the first of them on a CUDA GPU.
        moves: not empty.
        rotation: re-rotates the keys; None leaves them as they are.
        deltas: how far each moved key will be from where it is rotated to now, or from its home
            where homes are kept; None without a rotation.

    Returns:
        Whether it is done.
    """
    device = layers[0].keys.device
    if any(one.old_stop > other.old_start for one, other in pairwise(moves.runs)):
        return False
    turn = None
    if rotation is not None and deltas is not None:
        if len(rotation.distinct) > 1:
            return False
        turn = make_turn(deltas, rotation.layers[0], device)
        if turn.cos is None:
            return False
    with torch.cuda.device(device):
        return moves_rightly(device) and _shift(layers, moves, turn)


@cache
def moves_rightly(device: torch.device) -> bool:
    """Try the kernel on a device, once: whether it moves as each layer by itself does."""
    return bool(working(partial(_agrees, device)))


def _shift(layers: Sequence[SlotLayer], moves: Moves, turn: Turn | None) -> bool:
    """Move in all layers, if the kernel knows their layout; return whether it did."""
    from pie_cli.engine.gpu import launches

    addresses = launches.Addresses(len(layers), layers[0].keys.device)
    if len({layer.homes is None for layer in layers}) > 1 or not addresses.point_at(layers):
        return False
    launches.shift(addresses, layers, moves.runs, turn)
    return True


def _agrees(device: torch.device) -> bool:
    """Move runs up and down in two layers, by the kernel and without it."""
    generator = torch.Generator().manual_seed(0)
    layers = []
    for _ in range(2):
        layer = SlotLayer(256)
        states = torch.randn(3, 1, 2, 256, 64, generator=generator).to(device, torch.bfloat16)
        layer.lazy_initialization(states[0], states[1])
        layer.keys, layer.values, layer.homes = (one.contiguous() for one in states)
        layers.append(layer)
    expected = deepcopy(layers)
    moves = Moves((KeptRun(0, 3, 90), KeptRun(100, 95, 20), KeptRun(130, 131, 100)))
    inv_freq = torch.rand(32, generator=generator)
    turn = make_turn(moves.deltas(), LayerRotation(inv_freq), device)
    for layer in expected:
        layer.move(moves, turn)
    if not _shift(layers, moves, turn):
        return False
    return all(
        torch.allclose(ours, theirs, rtol=2e-2, atol=2e-2)
        for one, other in zip(layers, expected, strict=True)
        for ours, theirs in ((one.keys, other.keys), (one.values, other.values))
    )
