"""A splice of all layers at once, where one kernel can do it."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from pie_cli.engine.layers import Moves, SlotLayer
from pie_cli.engine.rope import ModelRotation, make_turn


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
    try:
        from pie_cli.engine.gpu import launches
    except ImportError:
        return False
    addresses = launches.Addresses(len(layers), device)
    if len({layer.homes is None for layer in layers}) > 1 or not addresses.point_at(layers):
        return False
    turn = None
    if rotation is not None and deltas is not None:
        turn = make_turn(deltas, rotation.layers[0], device)
        if len(rotation.distinct) > 1 or turn.cos is None:
            return False
    launches.shift(addresses, layers, moves.runs, turn)
    return True
