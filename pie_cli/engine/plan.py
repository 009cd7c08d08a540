"""The edit plan: which tokens are taken over from the cache, which run through the model."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from pie_cli.spans import Alignment, KeptRun
from pie_cli.strategies import parse


@dataclass(frozen=True)
class Plan:
    """What to do with the cache for one new sequence; every strategy is only another plan.

    Attributes:
        strategy: its name, repairs included.
        length: tokens of the new sequence.
        kept: runs taken over from the cache, ascending by `new_start`.
        fresh: positions to run through the model, ascending; `kept` and `fresh` cover the sequence
            exactly once.
        rotate: whether the keys of moved runs are re-rotated to their new positions.
    """

    strategy: str
    length: int
    kept: tuple[KeptRun, ...]
    fresh: tuple[int, ...]
    rotate: bool

    @cached_property
    def reused(self) -> int:
        """Tokens taken over from the cache."""
        return sum(run.length for run in self.kept)

    @cached_property
    def shifted(self) -> int:
        """Tokens taken over at another position than before; part of `reused`."""
        return sum(run.length for run in self.kept if run.delta)

    @property
    def encoded(self) -> int:
        """Tokens that run through the model; `reused + encoded == length`."""
        return len(self.fresh)


def make_plan(strategy: str, alignment: Alignment, refresh: Iterable[int] = ()) -> Plan:
    """Turn an alignment into the plan of one strategy.

    The last token is always fresh: its logits are what the prediction starts from.

    Args:
        strategy: `full` (full recompute: nothing kept), `prefix` (the run before the first change
            kept), `cfe` (every run kept, keys left as they are) or `pie` (every run kept, keys
            re-rotated). Repairs in the name change nothing here: `refresh` has their positions.
        alignment: the kept runs between the cached and the new sequence.
        refresh: positions in the new sequence that become fresh as well, ascending: a repair.

    Raises:
        InputError: for an unknown strategy.
        ValueError: for an empty sequence (a prompt always has its head token)
            or runs that overlap or leave the sequences.
    """
    base = parse(strategy).base
    if alignment.new_length < 1:
        raise ValueError("a plan needs at least one token: the prompt's head")
    _validate(alignment)
    kept = _clip(_candidates(base, alignment), alignment.new_length - 1)
    kept = _without(kept, refresh)
    return Plan(
        strategy=strategy,
        length=alignment.new_length,
        kept=kept,
        fresh=uncovered(kept, alignment.new_length),
        rotate=base == "pie",
    )


def uncovered(kept: Iterable[KeptRun], length: int) -> tuple[int, ...]:
    """List the positions below `length` that no run covers; runs ascend by `new_start`."""
    fresh: list[int] = []
    reached = 0
    for run in kept:
        fresh.extend(range(reached, run.new_start))
        reached = run.new_stop
    fresh.extend(range(reached, length))
    return tuple(fresh)


def _candidates(base: str, alignment: Alignment) -> tuple[KeptRun, ...]:
    if base == "full":
        return ()
    if base == "prefix":
        return (KeptRun(0, 0, alignment.first_change),)
    return alignment.runs


def _clip(runs: Iterable[KeptRun], stop: int) -> tuple[KeptRun, ...]:
    """Cut the runs off at the new position `stop`, drop what is empty, join what continues."""
    kept: list[KeptRun] = []
    for run in runs:
        length = min(run.length, stop - run.new_start)
        if length <= 0:
            continue
        last = kept[-1] if kept else None
        if last and last.new_stop == run.new_start and last.delta == run.delta:
            kept[-1] = KeptRun(last.old_start, last.new_start, last.length + length)
        else:
            kept.append(KeptRun(run.old_start, run.new_start, length))
    return tuple(kept)


def _without(kept: tuple[KeptRun, ...], positions: Iterable[int]) -> tuple[KeptRun, ...]:
    """Take ascending new positions out of the runs."""
    left: list[KeptRun] = []
    taken = iter(positions)
    position = next(taken, None)
    for run in kept:
        start = run.new_start
        while position is not None and position < run.new_stop:
            if position > start:
                left.append(KeptRun(start - run.delta, start, position - start))
            start = max(start, position + 1)
            position = next(taken, None)
        if start < run.new_stop:
            left.append(KeptRun(start - run.delta, start, run.new_stop - start))
    return tuple(left)


def _validate(alignment: Alignment) -> None:
    reached = 0
    for run in alignment.runs:
        if run.length < 0 or run.old_start < 0 or run.new_start < reached:
            raise ValueError(f"runs must ascend without overlap in the new sequence: {run}")
        if run.new_stop > alignment.new_length or run.old_stop > alignment.old_length:
            raise ValueError(
                f"{run} leaves sequences of {alignment.old_length} "
                f"and {alignment.new_length} tokens"
            )
        reached = run.new_stop
    reached = 0
    for run in sorted(alignment.runs, key=lambda run: run.old_start):
        if run.old_start < reached:
            raise ValueError(f"runs must not overlap in the old sequence: {run}")
        reached = run.old_stop
