"""Sharing an evaluation between processes that a launcher started. Alone imports accelerate."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pie_cli.errors import PieError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Team:
    """The processes that share the cases, seen from one of them.

    Attributes:
        rank: number of this process, from 0.
        size: processes in all.
        local_rank: number of this process on its machine: of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process reports for all."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> list[tuple[int, Item]]:
        """Return this process's items, each with its number among all."""
        return [
            (number, item) for number, item in enumerate(items) if number % self.size == self.rank
        ]

    def device(self, wanted: str) -> str:
        """Return the device that this process computes on, where several would take the same."""
        if self.size == 1 or wanted not in {"auto", "cuda"}:
            return wanted
        import torch

        return f"cuda:{self.local_rank}" if torch.cuda.is_available() else wanted

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            _state().wait_for_everyone()

    def gather(self, items: list[Item]) -> list[Item]:
        """Return the items of all processes; every process has to call it."""
        if self.size == 1:
            return items
        from accelerate.utils import gather_object

        gathered: list[Item] = gather_object(items)
        return gathered

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            _state().destroy_process_group()


def join_team(device: str) -> Team:
    """Join the processes that `accelerate launch` or `torchrun` started; alone without them.

    Args:
        device: as asked for: "cpu" keeps the processes off GPUs.

    Raises:
        PieError: several processes, but accelerate is not installed or does not join them.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started < 2:
        return Team()
    import torch

    try:
        # Without being told so, accelerate takes processes that share no GPU for single ones.
        state = _state(cpu=device == "cpu" or not torch.cuda.is_available())
    except ImportError as error:
        raise PieError(
            "sharing the cases between processes needs accelerate, which is not installed",
            "install pie with the extra: pip install 'pie-cli[eval]', or start one process",
        ) from error
    if state.num_processes != started:
        raise PieError(
            f"{started} processes were started, but only {state.num_processes} found each other",
            "start them by accelerate launch or torchrun, with --device cpu where GPUs are few",
        )
    return Team(state.process_index, state.num_processes, state.local_process_index)


def _state(*, cpu: bool = False) -> Any:
    """Return accelerate's view of the processes, which is one object however often it is made."""
    from accelerate import PartialState

    return PartialState(cpu=cpu)
