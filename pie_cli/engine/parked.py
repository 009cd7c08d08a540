"""Parked text: keys and values of what left a prompt's end, for when it comes back elsewhere.

A cursor that jumps up leaves the text below it out of the prompt; one that jumps down wants it
again. In between the text above may have changed, so what comes back is as stale as what stays in
its place after an edit, and is moved and re-rotated the same way. (What comes back after the very
same text is exact and is a snapshot's: see `prefix_cache`.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_cli.engine.layers import LayerStates
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.text.matching import KeptRun


@dataclass(frozen=True, eq=False)
class ParkedText:
    """Consecutive tokens out of a cache; nothing changes their tensors.

    Shapes:
        S tokens.

    Attributes:
        token_ids: S of them.
        states: keys, as computed, and values of each layer, [1, H, S, D].
        computed_at: int64 [S] on the host, the positions that the keys are rotated to.
    """

    token_ids: tuple[int, ...]
    states: tuple[LayerStates, ...]
    computed_at: Tensor

    @classmethod
    def of(cls, slots: SlotCache, token_ids: Sequence[int], start: int) -> "ParkedText":
        """Copy the tokens from `start` on.

        Args:
            slots: hold them.
            token_ids: of all that they hold.
            start: first position.
        """
        return cls(tuple(token_ids[start:]), *slots.lift(start, len(token_ids)))

    @property
    def memory_bytes(self) -> int:
        """Bytes of keys and values."""
        tensors = [tensor for pair in self.states if pair for tensor in pair]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def part(self, start: int, stop: int) -> "ParkedText":
        """Copy some of the tokens, so that the others need no memory."""
        states = tuple(
            pair and (pair[0][:, :, start:stop].clone(), pair[1][:, :, start:stop].clone())
            for pair in self.states
        )
        return ParkedText(self.token_ids[start:stop], states, self.computed_at[start:stop].clone())

    def then(self, other: "ParkedText") -> "ParkedText":
        """Return these tokens and others after them."""
        states = tuple(
            one and two and (torch.cat((one[0], two[0]), dim=2), torch.cat((one[1], two[1]), dim=2))
            for one, two in zip(self.states, other.states, strict=True)
        )
        computed_at = torch.cat((self.computed_at, other.computed_at))
        return ParkedText(self.token_ids + other.token_ids, states, computed_at)

    def put_back(self, slots: SlotCache, runs: Sequence[KeptRun], rotation: ModelRotation) -> None:
        """Fill slots with tokens of this text, their keys re-rotated.

        Args:
            slots: long enough.
            runs: old spans are places in this text.
            rotation: of the model.
        """
        for run in runs:
            old = slice(run.old_start, run.old_stop)
            states = tuple(
                pair and (pair[0][:, :, old], pair[1][:, :, old]) for pair in self.states
            )
            slots.lower(run.new_start, states, self.computed_at[old], rotation)
