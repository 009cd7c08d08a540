"""The edit plan: which tokens are taken over from the cache, which run through the model."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pie_cli.plan.strategies import parse
from pie_cli.text.matching import MIN_MOVED, MIN_RUN, KeptRun, moved_runs

MIN_PARKED = 64
"""Tokens at the least that are worth keeping when they leave a prompt, or asking for again."""

MAX_GAP_AREA = 1 << 22
"""Old times new length up to which a gap is matched by LCS (0.5 MB of bits, some 1 ms)."""


@dataclass(frozen=True)
class Alignment:
    """Which tokens of a new sequence are in the old one.

    Runs ascend by `new_start`; neither their new nor their old spans overlap. A moved block makes
    the old spans a permutation.

    Attributes:
        old_length: tokens of the old sequence.
        new_length: tokens of the new sequence.
        runs: the kept runs.
    """

    old_length: int
    new_length: int
    runs: tuple[KeptRun, ...]

    @property
    def fresh(self) -> int:
        """Tokens of the new sequence that are not in the old one."""
        return self.new_length - sum(run.length for run in self.runs)

    @property
    def reached(self) -> int:
        """Old position after the last run that is no chance match of a few tokens."""
        return max((run.old_stop for run in self.runs if run.length >= MIN_MOVED), default=0)

    @property
    def first_change(self) -> int:
        """Length of the common prefix in tokens: every token before it is where it was."""
        if self.runs and self.runs[0].old_start == self.runs[0].new_start == 0:
            return self.runs[0].length
        return 0


def align(old_ids: Sequence[int], new_ids: Sequence[int]) -> Alignment:
    """Find which tokens of a new sequence can be taken over from an old one.

    Not a smallest edit: a run of fewer than `MIN_RUN` tokens is left fresh unless it is the whole
    untouched prefix or suffix, and a block of `MIN_MOVED` tokens or more is found again where it
    was moved to. Every old token is used at most once.

    Args:
        old_ids: token ids before the edit, not negative.
        new_ids: token ids after it.

    Returns:
        The kept runs, ascending in the new sequence.
    """
    old = old_ids if isinstance(old_ids, list) else list(old_ids)
    new = new_ids if isinstance(new_ids, list) else list(new_ids)
    kept = _without_confetti(moved_runs(old, new, MAX_GAP_AREA), len(old), len(new))
    return Alignment(len(old), len(new), tuple(kept))


def _without_confetti(runs: list[KeptRun], old_length: int, new_length: int) -> list[KeptRun]:
    """Drop short runs but for the untouched prefix and suffix."""

    def is_end(run: KeptRun) -> bool:
        starts = run.old_start == run.new_start == 0
        return starts or (run.old_stop == old_length and run.new_stop == new_length)

    return [run for run in runs if run.length >= MIN_RUN or is_end(run)]


@dataclass(frozen=True)
class Plan:
    """What to do with the cache for one new sequence; every strategy is only another plan.

    Attributes:
        strategy: its name, repairs included.
        length: tokens of the new sequence.
        kept: runs taken over from the cache, or from the parked text after it (see `parted`),
            ascending by `new_start`.
        fresh: positions to run through the model, ascending; `kept`, `snapshots` and `fresh` cover
            the sequence exactly once.
        rotate: whether the keys of moved runs are re-rotated to their new positions.
        snapshots: spans taken over from exact copies of keys and values, ascending.
        repaired: those of `fresh` that could have been kept, ascending.
        reached: old position from which on nothing is in the new sequence.
    """

    strategy: str
    length: int
    kept: tuple[KeptRun, ...]
    fresh: tuple[int, ...]
    rotate: bool
    snapshots: tuple[range, ...] = ()
    repaired: tuple[int, ...] = ()
    reached: int = 0

    @cached_property
    def reused(self) -> int:
        """Tokens taken over, from the cache or from copies."""
        return sum(run.length for run in self.kept) + self.restored

    @cached_property
    def restored(self) -> int:
        """Tokens taken over from copies, exactly; part of `reused`."""
        return sum(map(len, self.snapshots))

    @cached_property
    def shifted(self) -> int:
        """Tokens taken over at another position than before; part of `reused`."""
        return sum(run.length for run in self.kept if run.delta)

    @property
    def changed_from(self) -> int:
        """First position that is not kept as it was cached."""
        return min([self.fresh[0], *(span.start for span in self.snapshots)])

    def stale_from(self, before: int) -> int:
        """Return the first token that may not be as full recompute would have it, once executed.

        A kept token is exact where nothing before it changed and it was exact itself; a fresh one
        where everything that it saw is. So this is the old value inside the common prefix, else
        the first token kept after a change.

        Args:
            before: the same for the sequence that the plan was made from.
        """
        prefix = [run.length for run in self.kept if run.old_start == run.new_start == 0]
        if prefix and before < prefix[0]:
            return before
        after = [run.new_start for run in self.kept if run.new_start or run.delta]
        return min(after, default=self.length)

    @property
    def encoded(self) -> int:
        """Tokens that run through the model; `reused + encoded == length`."""
        return len(self.fresh)


def make_plan(strategy: str, alignment: Alignment, repair: Iterable[int] = ()) -> Plan:
    """Turn an alignment into the plan of one strategy.

    The last token is always fresh: its logits are what the prediction starts from.

    Args:
        strategy: `full` (full recompute: nothing kept), `prefix` (the run before the first change
            kept), `cfe` (every run kept, keys left as they are) or `pie` (every run kept, keys
            re-rotated). Repairs in the name change nothing here: `repair` has their positions.
        alignment: the kept runs between the cached and the new sequence.
        repair: positions in the new sequence that become fresh as well, ascending: a repair.

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
    needed = uncovered(kept, alignment.new_length)
    kept = _without(kept, [(position, position + 1) for position in repair])
    fresh = uncovered(kept, alignment.new_length)
    return Plan(
        strategy=strategy,
        length=alignment.new_length,
        kept=kept,
        fresh=fresh,
        rotate=base == "pie",
        repaired=_besides(fresh, needed),
        reached=alignment.reached,
    )


def looked_again(plan: Plan, look: Plan) -> Plan:
    """Return what a plan and that of a second look at its prompt add up to.

    It tells what was taken over and what ran, not what is exact: that is each plan's own to say.
    """
    again = [(position, position + 1) for position in look.repaired]
    return replace(
        plan,
        kept=_without(plan.kept, again),
        fresh=tuple(sorted({*plan.fresh, *look.repaired})),
        repaired=tuple(sorted({*plan.repaired, *_besides(look.repaired, plan.fresh)})),
    )


def restoring(plan: Plan, snapshots: Sequence[range]) -> Plan:
    """Return a plan that takes what copies there are instead of keeping or encoding it.

    Args:
        plan: of any strategy.
        snapshots: spans of positions with exact copies, ascending without overlap; none covers the
            last token, which must be fresh.

    Raises:
        ValueError: when a span covers the last token, or none of the sequence.
    """
    if not snapshots:
        return plan
    if snapshots[0].start < 0 or snapshots[-1].stop >= plan.length:
        raise ValueError(f"copies up to {snapshots[-1].stop} for a plan of {plan.length} tokens")
    restored = {position for span in snapshots for position in span}
    return replace(
        plan,
        kept=_without(plan.kept, [(span.start, span.stop) for span in snapshots]),
        fresh=_besides(plan.fresh, restored),
        snapshots=tuple(snapshots),
        repaired=_besides(plan.repaired, restored),
    )


def parted(kept: Iterable[KeptRun], length: int) -> tuple[tuple[KeptRun, ...], tuple[KeptRun, ...]]:
    """Part the runs of a sequence that goes on with parked text after what is cached.

    Args:
        kept: runs whose old positions count on from the cached sequence into the parked text.
        length: tokens of the cached sequence.

    Returns:
        The runs of cached tokens, and those of parked ones, whose old positions count from 0.
    """
    cached: list[KeptRun] = []
    parked: list[KeptRun] = []
    for run in kept:
        inside = min(max(length - run.old_start, 0), run.length)
        if inside:
            cached.append(KeptRun(run.old_start, run.new_start, inside))
        if inside < run.length:
            start = run.old_start + inside - length
            parked.append(KeptRun(start, run.new_start + inside, run.length - inside))
    return tuple(cached), tuple(parked)


def uncovered(kept: Iterable[KeptRun], length: int) -> tuple[int, ...]:
    """List the positions below `length` that no run covers; runs ascend by `new_start`."""
    fresh: list[int] = []
    reached = 0
    for run in kept:
        fresh.extend(range(reached, run.new_start))
        reached = run.new_stop
    fresh.extend(range(reached, length))
    return tuple(fresh)


def _besides(positions: Iterable[int], others: Collection[int]) -> tuple[int, ...]:
    """Leave out the positions that are among others."""
    left_out = others if isinstance(others, set) else set(others)
    return tuple(position for position in positions if position not in left_out)


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


def _without(kept: Iterable[KeptRun], spans: Sequence[tuple[int, int]]) -> tuple[KeptRun, ...]:
    """Take ascending spans of new positions out of the runs."""
    left: list[KeptRun] = []
    index = 0
    for run in kept:
        start = run.new_start
        while index < len(spans) and spans[index][0] < run.new_stop:
            low, high = spans[index]
            if start < low:
                left.append(KeptRun(start - run.delta, start, low - start))
            start = max(start, high)
            if high > run.new_stop:
                # It reaches into the next run.
                break
            index += 1
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
