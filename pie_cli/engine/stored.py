"""Keys and values of tokens outside of any cache: a copy that slots can be filled from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

LayerStates: TypeAlias = tuple[Tensor, Tensor] | None
"""A layer's keys and values, each [1, H, S, D], for S tokens; None for a layer without storage."""


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A run of tokens with its keys and values, computed at the very positions it is for.

    Attributes:
        start: first position.
        stop: first position behind it.
        parts: the states of consecutive stretches that make the run up, each for every layer.
    """

    start: int
    stop: int
    parts: tuple[Sequence[LayerStates], ...]
