"""The edit plan: which tokens are taken over from the cache, which run through the model."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from pie_cli.config import STRATEGIES
from pie_cli.engine.stored import StoredRun
from pie_cli.spans import Alignment, KeptRun


@dataclass(frozen=True)
class Plan:
    """What to do with the cache for one new sequence; every strategy is only another plan.

    Attributes:
        strategy: one of `STRATEGIES`.
        length: tokens of the new sequence.
        kept: runs taken over from the cache, ascending by `new_start`.
        fresh: positions to run through the model, ascending; `kept`, `stored` and `fresh` cover the
            sequence exactly once.
        rotate: whether the keys of moved runs are re-rotated to their new positions.
        stored: runs taken over from copies of exact keys and values, ascending.
    """

    strategy: str
    length: int
    kept: tuple[KeptRun, ...]
    fresh: tuple[int, ...]
    rotate: bool
    stored: tuple[StoredRun, ...] = ()

    @cached_property
    def reused(self) -> int:
        """Tokens taken over, from the cache or from copies."""
        return sum(run.length for run in self.kept) + self.restored

    @cached_property
    def restored(self) -> int:
        """Tokens taken over from copies, exactly; part of `reused`."""
        return sum(run.stop - run.start for run in self.stored)

    @cached_property
    def shifted(self) -> int:
        """Tokens taken over at another position than before; part of `reused`."""
        return sum(run.length for run in self.kept if run.delta)

    @property
    def encoded(self) -> int:
        """Tokens that run through the model; `reused + encoded == length`."""
        return len(self.fresh)


def make_plan(strategy: str, alignment: Alignment) -> Plan:
    """Turn an alignment into the plan of one strategy.

    The last token is always fresh: its logits are what the prediction starts from.

    Args:
        strategy: `full` (full recompute: nothing kept), `prefix` (the run before the first change
            kept), `cfe` (every run kept, keys left as they are) or `pie` (every run kept, keys
            re-rotated).
        alignment: the kept runs between the cached and the new sequence.

    Raises:
        ValueError: for an unknown strategy, an empty sequence (a prompt always has its head token)
            or runs that overlap or leave the sequences.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")
    if alignment.new_length < 1:
        raise ValueError("a plan needs at least one token: the prompt's head")
    _validate(alignment)
    kept = _clip(_candidates(strategy, alignment), alignment.new_length - 1)
    return Plan(
        strategy=strategy,
        length=alignment.new_length,
        kept=kept,
        fresh=uncovered(kept, alignment.new_length),
        rotate=strategy == "pie",
    )


def restoring(plan: Plan, stored: Iterable[StoredRun]) -> Plan:
    """Return a plan that takes what copies there are instead of keeping or encoding it.

    Args:
        plan: of any strategy.
        stored: runs ascending without overlap; none covers the last token, which must be fresh.

    Raises:
        ValueError: when a run covers the last token, or none of the sequence.
    """
    runs = tuple(stored)
    if not runs:
        return plan
    if runs[0].start < 0 or runs[-1].stop >= plan.length:
        raise ValueError(f"copies up to {runs[-1].stop} for a plan of {plan.length} tokens")
    return replace(
        plan,
        kept=tuple(piece for run in plan.kept for piece in _outside(run, runs)),
        fresh=tuple(
            position
            for position in plan.fresh
            if not any(run.start <= position < run.stop for run in runs)
        ),
        stored=runs,
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


def _candidates(strategy: str, alignment: Alignment) -> tuple[KeptRun, ...]:
    if strategy == "full":
        return ()
    if strategy == "prefix":
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


def _outside(kept: KeptRun, stored: Iterable[StoredRun]) -> Iterator[KeptRun]:
    """Give the parts of a kept run that no stored run covers."""
    start = kept.new_start
    for run in stored:
        stop = min(run.start, kept.new_stop)
        if start < stop:
            yield KeptRun(start - kept.delta, start, stop - start)
        start = max(start, run.stop)
    if start < kept.new_stop:
        yield KeptRun(start - kept.delta, start, kept.new_stop - start)


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
