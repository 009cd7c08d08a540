"""The threads that compute: all of them while each has a processor, fewer beside other programs.

Threads that spin while they wait for each other make short passes a third quicker, and many times
slower where another program takes a processor: all then wait for the one that has none
(docs/log.md). Spinning threads take processor time as long as a pass runs, so the time that the
process got tells which of the two it is.
"""

import math
import time
from collections.abc import Callable

import torch
from torch import nn

from pie_cli.engine.model import CausalModel
from pie_cli.threads import threads_for, threads_spin

_LEAST_LACK_S = 0.008
"""Processor time that may be missing in a pass: threads sleep before it, or wait for a lock."""

_LEAST_TAKEN = 0.25
"""Processors taken by others from which on they are noticed."""

_RETRY_S = 1.0
_RETRY_TIMES = 10
"""All threads are tried again after a second, or so many times as long as it took to notice."""


class Crew:
    """The number of threads, followed through passes and splices.

    Args:
        size: threads that compute where nobody else is at work.
        take: called with the number of threads, whenever that changes.
        clock, used: seconds passed, and seconds of processor time that the process got.

    Attributes:
        most: threads that compute where nobody else is at work.
        size: threads that compute now.
    """

    def __init__(
        self,
        size: int,
        take: Callable[[int], None] = torch.set_num_threads,
        clock: Callable[[], float] = time.perf_counter,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self.size = self.most = size
        self._take, self._clock, self._used = take, clock, used
        self._retry_at = 0.0
        self._begin()

    def begin(self) -> None:
        """Begin a pass or a splice."""
        self._retry()
        self._begin()

    def give_way(self) -> None:
        """Between two layers: leave to other programs the processors that they have taken."""
        if self._retry() or self.size == 1:
            return
        passed = self._clock() - self._began
        lacking = self.size * passed - (self._used() - self._used_before)
        if lacking > max(_LEAST_LACK_S, _LEAST_TAKEN * passed):
            self._retry_at = self._clock() + max(_RETRY_S, _RETRY_TIMES * passed)
            self._resize(max(1, self.size - math.ceil(lacking / passed)))

    def _retry(self) -> bool:
        """Take all threads again when it is time to."""
        due = self.size < self.most and self._clock() >= self._retry_at
        if due:
            self._resize(self.most)
        return due

    def _resize(self, size: int) -> None:
        self.size = size
        self._take(size)
        self._begin()

    def _begin(self) -> None:
        self._began, self._used_before = self._clock(), self._used()


_crew: Crew | None = None


def engage(asked: int | None) -> None:
    """Compute with so many threads from now on, or all; fewer beside other programs.

    Where threads do not spin, or nobody can tell, that is settled once and for all.
    """
    global _crew  # noqa: PLW0603 - torch's number of threads is the process's, too
    cores = threads()
    _crew = Crew(asked or cores) if threads_spin() else None
    torch.set_num_threads(_crew.size if _crew else threads_for(cores, asked))


def threads() -> int:
    """Return how many threads compute where nobody else is at work."""
    return _crew.most if _crew else torch.get_num_threads()


def begin() -> None:
    """See `Crew.begin`; nothing where no crew is engaged."""
    if _crew is not None:
        _crew.begin()


def give_way() -> None:
    """See `Crew.give_way`; nothing where no crew is engaged."""
    if _crew is not None:
        _crew.give_way()


def follow(model: CausalModel) -> None:
    """Let the crew be asked in each of the model's passes, before each layer.

    All threads that torch has are engaged, where nobody has done so.
    """
    if _crew is None and threads_spin():
        engage(None)
    if _crew is None or model.device.type != "cpu" or not isinstance(model, nn.Module):
        return
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    model.register_forward_pre_hook(lambda *_: begin())
    for layer in max(stacks, key=len, default=()):
        layer.register_forward_pre_hook(lambda *_: give_way())
