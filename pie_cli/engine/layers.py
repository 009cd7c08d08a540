"""One layer's keys and values in slots, and how runs of tokens move there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from pie_cli.engine.passes import ForwardPass
from pie_cli.engine.rope import Turn
from pie_cli.text.matching import KeptRun

LayerStates: TypeAlias = tuple[Tensor, Tensor] | None
"""A layer's keys and values, each [1, H, S, D], for S tokens; None for a layer without storage."""

# From so many runs on, one indexed gather beats a slice for each (measured on a CPU).
_MAX_SLICES = 12


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A run of tokens with copies of their keys and values, computed at these very positions.

    Attributes:
        start: first position.
        stop: first position after it.
        parts: the states of consecutive stretches that make the run up, each for every layer.
    """

    start: int
    stop: int
    parts: tuple[Iterable[LayerStates], ...]


class Moves:
    """The runs of a splice that change their position.

    Everything is gathered before anything is put, so a run may land on another run's source. Runs
    that stay where they are are no part of it: nothing of an unshifted prefix is copied.

    Shapes:
        C slots (the second last dimension of every tensor), S moved tokens.

    Attributes:
        runs: runs with a delta, ascending by `new_start`.
        count: S.
    """

    def __init__(self, kept: Sequence[KeptRun]) -> None:
        self.runs = tuple(run for run in kept if run.delta and run.length)
        self.count = sum(run.length for run in self.runs)
        self._indices: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __bool__(self) -> bool:
        return bool(self.runs)

    def sources(self) -> Tensor:
        """Old positions of the moved tokens, int64 [S] on the host."""
        return torch.cat([torch.arange(run.old_start, run.old_stop) for run in self.runs])

    def targets(self) -> Tensor:
        """New positions of the moved tokens, int64 [S] on the host."""
        return torch.cat([torch.arange(run.new_start, run.new_stop) for run in self.runs])

    def deltas(self) -> Tensor | int:
        """Return how far each token moves, int64 [S] on the host; one number where all alike."""
        if len({run.delta for run in self.runs}) == 1:
            return self.runs[0].delta
        return torch.cat([torch.full((run.length,), run.delta) for run in self.runs])

    def gather(self, slots: Tensor) -> Tensor:
        """Read the moved tokens [..., S, D] from `slots` [..., C, D]; a view for a single run."""
        if len(self.runs) == 1:
            run = self.runs[0]
            return slots[..., run.old_start : run.old_stop, :]
        if len(self.runs) <= _MAX_SLICES:
            return torch.cat(
                [slots[..., run.old_start : run.old_stop, :] for run in self.runs], dim=-2
            )
        return slots.index_select(-2, self.index(slots.device)[0])

    def put(self, slots: Tensor, tokens: Tensor) -> None:
        """Write the moved tokens [..., S, D], no view of `slots`, to their new slots."""
        if len(self.runs) > _MAX_SLICES:
            slots.index_copy_(-2, self.index(slots.device)[1], tokens)
            return
        done = 0
        for run in self.runs:
            slots[..., run.new_start : run.new_stop, :] = tokens[..., done : done + run.length, :]
            done += run.length

    def shift(self, slots: Tensor) -> Tensor:
        """Move the tokens in `slots` [..., C, D] as they are, in place; return them [..., S, D]."""
        tokens = self.gather(slots)
        if len(self.runs) == 1:
            tokens = tokens.clone()
        self.put(slots, tokens)
        return tokens

    def index(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return old and new positions of the moved tokens, int64 [S] each, on a device."""
        if device not in self._indices:
            self._indices[device] = (self.sources().to(device), self.targets().to(device))
        return self._indices[device]


class SlotLayer(CacheLayerMixin):
    """One layer's keys and values, in slots.

    Attributes:
        keys: [1, H, C, D], after RoPE.
        values: [1, H, C, D].
        homes: [1, H, C, D], keys as they were computed, or None where a shift may rotate them in
            place.
    """

    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, capacity: int = 0) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self.homes: Tensor | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate `capacity` slots shaped like the states [1, H, S, D]."""
        self.keys = _slots_like(key_states, self.capacity)
        self.values = _slots_like(value_states, self.capacity)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Refuse: slots are written through `SlotCache.update`, which knows the positions."""
        raise NotImplementedError("write through SlotCache.update")

    def write(self, this: ForwardPass, key_states: Tensor, value_states: Tensor) -> None:
        """Store the states [1, H, S, D] of a pass at its positions."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        pairs = [(self.keys, key_states), (self.values, value_states)]
        if self.homes is not None:
            pairs.append((self.homes, key_states))
        for slots, states in pairs:
            if this.contiguous:
                slots[:, :, this.positions[0] : this.stop] = states
            else:
                slots.index_copy_(2, this.index(states.device), states)

    def grow(self, capacity: int, length: int) -> None:
        """Reallocate to `capacity` slots, keeping the first `length`."""
        self.capacity = capacity
        if not self.is_initialized:
            return
        self.keys = grown(self.keys, capacity, length)
        self.values = grown(self.values, capacity, length)
        if self.homes is not None:
            self.homes = grown(self.homes, capacity, length)

    def settle(self, length: int) -> None:
        """Start keeping home copies: shifts rotate from these, with one rounding in all."""
        self.homes = grown(self.keys, self.capacity, length)

    def move(self, moves: Moves, turn: Turn | None) -> None:
        """Move runs to their new slots; `turn` re-rotates keys, from their homes if kept."""
        moves.shift(self.values)
        if self.homes is None:
            if turn is None:
                moves.shift(self.keys)
            else:
                moves.put(self.keys, turn.apply(moves.gather(self.keys)))
            return
        homes = moves.shift(self.homes)
        if turn is None:
            moves.shift(self.keys)
        else:
            moves.put(self.keys, turn.apply(homes))

    def fill(self, start: int, stop: int, parts: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Write keys and values as computed: parts [1, H, S, D] that add up to [start, stop)."""
        if not self.is_initialized:
            self.lazy_initialization(*parts[0])
        keys, values = ([part[side] for part in parts] for side in (0, 1))
        torch.cat(keys, dim=2, out=self.keys[:, :, start:stop])
        torch.cat(values, dim=2, out=self.values[:, :, start:stop])
        if self.homes is not None:
            torch.cat(keys, dim=2, out=self.homes[:, :, start:stop])

    def memory_bytes(self) -> int:
        """Return the bytes allocated."""
        tensors = (self.keys, self.values, self.homes) if self.is_initialized else ()
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002
        """Return the number of keys and the first; only masks ask, and we use none."""
        return self.capacity, 0

    def get_seq_length(self) -> int:
        """Return the slots allocated; the valid length is `SlotCache.length`."""
        return self.capacity

    def get_max_length(self) -> int:
        """Return -1: the cache grows."""
        return -1


def grown(slots: Tensor, capacity: int, length: int) -> Tensor:
    """Copy the first `length` slots of [1, H, C, D] into storage for `capacity`."""
    larger = _slots_like(slots, capacity)
    larger[:, :, :length] = slots[:, :, :length]
    return larger


def _slots_like(states: Tensor, capacity: int) -> Tensor:
    return states.new_empty(states.shape[0], states.shape[1], capacity, states.shape[3])
