"""Moving kept runs inside one tensor of slots, safe for runs that overlap or change order."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pie_cli.text.matching import KeptRun

# From so many runs on, one indexed gather beats a slice for each (measured on a CPU).
_MAX_SLICES = 12


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

    def gather(self, slots: Tensor) -> Tensor:
        """Read the moved tokens [..., S, D] from `slots` [..., C, D]; a view for a single run."""
        if len(self.runs) == 1:
            run = self.runs[0]
            return slots[..., run.old_start : run.old_stop, :]
        if len(self.runs) <= _MAX_SLICES:
            return torch.cat(
                [slots[..., run.old_start : run.old_stop, :] for run in self.runs], dim=-2
            )
        return slots.index_select(-2, self._index(slots.device)[0])

    def put(self, slots: Tensor, tokens: Tensor) -> None:
        """Write the moved tokens [..., S, D], no view of `slots`, to their new slots."""
        if len(self.runs) > _MAX_SLICES:
            slots.index_copy_(-2, self._index(slots.device)[1], tokens)
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

    def _index(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._indices:
            self._indices[device] = (self.sources().to(device), self.targets().to(device))
        return self._indices[device]
