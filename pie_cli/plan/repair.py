"""Repair: kept tokens worth computing again, those most likely to be wrong after an edit."""

import random
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, islice
from typing import Final

from pie_cli.plan.plan import Alignment, Plan
from pie_cli.plan.strategies import Budget, Strategy
from pie_cli.text.matching import KeptRun

Pieces = Callable[[Sequence[int]], list[bytes]]
"""Gives the bytes of each token id, blanks included."""

FREE_TOKENS = 8
"""Tokens that lengthen the smallest pass by a few per cent only (docs/log.md)."""

FREE_SHARE = 8
"""For so many changed tokens one more costs next to nothing: a longer pass hides more."""

AGAIN_TOKENS = 128
"""Of a second look on a machine whose pace is not known: most have time for more."""

LEAST_AGAIN = 16
"""Of a second look at a finished line, which takes a pass more: fewer are not worth that."""

MOST_OF_STALE = 0.75
"""Share of the stale tokens that a second look must have room for to take them one by one."""

MAX_TOKENS = 512
"""Tokens of the repairs without a budget at most: more of them bring nothing (docs/results.md)."""

MIN_NAME = 3
"""Bytes of the shortest identifier that is looked for: shorter ones are loop variables."""

# In UTF-8: every byte beyond ASCII counts as a letter. A token may be a part of a name.
_NAME = re.compile(rb"[A-Za-z_\x80-\xff][\w\x80-\xff]*")


def repair_positions(
    strategy: Strategy,
    alignment: Alignment,
    old_ids: Sequence[int],
    new_ids: Sequence[int],
    pieces: Pieces,
    anchor: int | None = None,
    exact: int | None = None,
    room: int | None = None,
    seed: int = 0,
) -> tuple[int, ...]:
    """Pick the positions that a strategy's repairs compute again besides the changed tokens.

    Only kept tokens that are not exact are picked. Repairs take their turns in the order of the
    strategy's name, each with its own budget, none picking what another one picked. `deviation`
    is not a matter of ids: see `evaluation.deviation`.

    Args:
        strategy: with its repairs; one without gives nothing.
        alignment: between the two sequences.
        old_ids: of the cached prompt, parked text after it included.
        new_ids: of the new prompt.
        pieces: bytes of each token; asked by `names` only.
        anchor: position after which the prediction continues, where that is not the prompt's end.
        exact: every token before this position of the new prompt is as full recompute would have
            it; by default those before the first change.
        room: tokens that the pass has room for; repairs without a budget of their own share what
            the others leave. None where nothing is known of the machine: room for what costs next
            to nothing on any.
        seed: of `random`.

    Returns:
        Positions in the new sequence, ascending.
    """
    if not strategy.repairs or not new_ids:
        return ()
    edit = _Edit(alignment, old_ids, new_ids, pieces, anchor, exact, seed)
    repairs = [repair for repair in strategy.repairs if repair.kind in _PICKERS]
    free = FREE_TOKENS + alignment.fresh // FREE_SHARE if room is None else min(room, MAX_TOKENS)
    picked: list[int] = []
    for place, repair in enumerate(repairs):
        if repair.budget is None:
            left = max(0, free - len(picked))
            tokens = left // sum(other.budget is None for other in repairs[place:])
        else:
            tokens = _tokens(edit, repair.kind, repair.budget)
        for position in islice(_PICKERS[repair.kind](edit, tokens), tokens):
            edit.stale[position] = 0
            picked.append(position)
    return tuple(sorted(picked))


def again_positions(
    plan: Plan, stale_from: int, tokens: int, anchor: int | None = None
) -> tuple[int, ...]:
    """Pick what a second look computes again.

    Where there is room for most of the stale tokens they are taken from the first one on: what
    these see is exact, so they are exact, and often the prompt is, then. Else the last ones before
    the cursor are, which the line looks at most, as far as the first look has not computed them.

    Args:
        plan: of the first look.
        stale_from: every token of the prompt before it is as full recompute would have it.
        tokens: that there is room for.
        anchor: position after which the prediction continues, where that is not the prompt's end.

    Returns:
        Positions of the prompt, ascending; never its last one, which is computed in any case.
    """
    stale = range(stale_from, plan.length - 1)
    restored = {position for span in plan.snapshots for position in span}
    if tokens >= MOST_OF_STALE * len(stale):
        return tuple(position for position in stale[:tokens] if position not in restored)
    cursor = stale.stop if anchor is None else min(anchor + 1, stale.stop)
    order = (*reversed(range(stale_from, cursor)), *range(max(cursor, stale_from), stale.stop))
    computed = restored.union(plan.fresh)
    return tuple(sorted(islice((one for one in order if one not in computed), tokens)))


class _Edit:
    """One edit, as the pickers see it.

    Attributes:
        stale: a byte for each new position: 1 where the token is kept and not exact.
        first: first position that may be stale.
        cursor: position after which the prediction continues.
        seed: of a random choice.
    """

    def __init__(
        self,
        alignment: Alignment,
        old_ids: Sequence[int],
        new_ids: Sequence[int],
        pieces: Pieces,
        anchor: int | None,
        exact: int | None,
        seed: int,
    ) -> None:
        self.alignment, self._old_ids, self._new_ids = alignment, old_ids, new_ids
        self._pieces = pieces
        self.seed = seed
        self.length = len(new_ids)
        last = self.length - 1
        self.cursor = last if anchor is None else min(anchor, last)
        change = alignment.first_change
        self.first = change if exact is None else min(exact, change)
        self.stale = bytearray(self.length)
        for run in alignment.runs:
            start = max(run.new_start, self.first)
            if start < run.new_stop:
                self.stale[start : run.new_stop] = b"\x01" * (run.new_stop - start)
        # The last token is fresh in every plan.
        self.stale[last] = 0

    @cached_property
    def seams(self) -> list[tuple[int, int]]:
        """Kept spans that begin after a change, the last one first."""
        spans = []
        reached, delta = 0, 0  # the prompt's beginning is continued by what stayed in its place
        for run in self.alignment.runs:
            if run.length and (run.new_start, run.delta) != (reached, delta):
                spans.append((run.new_start, run.new_stop))
            reached, delta = run.new_stop, run.delta
        return spans[::-1]

    @cached_property
    def text(self) -> "_Text":
        """The new prompt as text."""
        return _Text(self._pieces(self._new_ids))

    def changed_names(self) -> set[bytes]:
        """Collect the identifiers of lines that the edit changed, on both sides."""
        runs = self.alignment.runs
        new_gaps = _gaps([(run.new_start, run.new_stop) for run in runs], self.length)
        old_spans = sorted((run.old_start, run.old_stop) for run in runs)
        old_gaps = _gaps(old_spans, self.alignment.old_length)
        old_text = _Text(self._pieces(self._old_ids))
        return self.text.names_in(new_gaps) | old_text.names_in(old_gaps)

    def uses(self, names: set[bytes]) -> Iterator[int]:
        """Give the stale tokens of lines that use one of the names, nearest to the cursor first."""
        text = self.text
        ends = text.starts[self.cursor + 1]
        found = _NAME.finditer(text.text, text.starts[self.first], ends)
        places = [match.start() for match in found if match.group() in names]
        done = len(text.text) + 1
        for place in reversed(places):
            if place >= done:
                continue
            start, stop = text.line_at(place)
            done = start
            yield from (p for p in text.tokens_of(start, stop) if self.stale[p])


class _Text:
    """Text of a token sequence, and where its tokens are in it."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.text = b"".join(pieces)
        # The first byte of each token, then the end.
        self.starts = [0, *accumulate(map(len, pieces))]

    def line_at(self, start: int, stop: int | None = None) -> tuple[int, int]:
        """Return the span of the lines that hold bytes [start, stop), newline excluded."""
        first = self.text.rfind(b"\n", 0, start) + 1
        last = self.text.find(b"\n", start if stop is None else max(start, stop - 1))
        return first, len(self.text) if last < 0 else last

    def names_in(self, token_spans: Sequence[tuple[int, int]]) -> set[bytes]:
        """Collect the identifiers of the lines that hold these tokens."""
        names: set[bytes] = set()
        for start, stop in token_spans:
            lines = self.line_at(self.starts[start], self.starts[stop])
            names.update(_NAME.findall(self.text, *lines))
        return {name for name in names if len(name) >= MIN_NAME}

    def tokens_of(self, start: int, stop: int) -> range:
        """Return the tokens that hold bytes [start, stop)."""
        return range(bisect_right(self.starts, start) - 1, bisect_left(self.starts, stop))


def _gaps(spans: Sequence[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    """List what lies between ascending spans, before the first and after the last one."""
    gaps = []
    at = 0
    for start, stop in [*spans, (length, length)]:
        if start > at:
            gaps.append((at, start))
        at = max(at, stop)
    return gaps


def _tokens(edit: _Edit, kind: str, budget: Budget) -> int:
    """Return how many tokens a budget is; one in tokens counts after each hunk for `seam`."""
    each = kind == "seam" and not budget.percent
    return budget.of(edit.length) * (len(edit.seams) if each else 1)


def _seam(edit: _Edit, tokens: int) -> Iterator[int]:
    """Give the first tokens after each hunk, as many after each, the last hunk's first."""
    each = -(-tokens // max(1, len(edit.seams)))
    for start, stop in edit.seams:
        yield from (p for p in range(start, min(start + each, stop)) if edit.stale[p])


def _tail(edit: _Edit, _: int) -> Iterator[int]:
    """Give the tokens before the cursor, the last one first."""
    return (p for p in range(edit.cursor, edit.first - 1, -1) if edit.stale[p])


def _names(edit: _Edit, _: int) -> Iterator[int]:
    """Give lines that use a name of those that the edit changed, nearest to the cursor first."""
    return edit.uses(edit.changed_names())


def _random(edit: _Edit, tokens: int) -> Iterator[int]:
    """Give tokens from anywhere."""
    stale = [p for p in range(edit.first, edit.length) if edit.stale[p]]
    return iter(random.Random(edit.seed).sample(stale, min(len(stale), tokens)))


_PICKERS: dict[str, Callable[[_Edit, int], Iterator[int]]] = {
    "seam": _seam,
    "tail": _tail,
    "names": _names,
    "random": _random,
}


FRESH_BETWEEN_HOLES: Final = 64
"""Tokens between an old and a new hole up to which they are encoded again.

Their states were computed as text after the hole, now they are before it, or the other way
round. A pass over so many tokens costs little more than one over ten, for what it reads is the
weights; beyond that they stay stale until the exact run.
"""


@dataclass(frozen=True, slots=True)
class Sides:
    """Where the text on both sides of a hole is in a prompt.

    Attributes:
        prefix: token positions of the text before it.
        suffix: of the text after it; empty in a prompt without.
    """

    prefix: range = range(0)
    suffix: range = range(0)


def settled(alignment: Alignment, old: Sides, new: Sides) -> Alignment:
    """Leave out the kept runs that changed sides, if they are short together.

    Args:
        alignment: between the two prompts' ids.
        old: of the cached prompt.
        new: of the new one, laid out the same way.
    """
    crossing = [run for run in alignment.runs if _crosses(run, old, new)]
    if not 0 < sum(run.length for run in crossing) <= FRESH_BETWEEN_HOLES:
        return alignment
    runs = tuple(run for run in alignment.runs if run not in crossing)
    return Alignment(alignment.old_length, alignment.new_length, runs)


def _crosses(run: KeptRun, old: Sides, new: Sides) -> bool:
    """Tell whether a run is of the prefix on one side and of the suffix on the other.

    Between the two is a control token, so no run is of both, unless it holds that token: then
    it has not changed sides.
    """
    before, after = range(run.old_start, run.old_stop), range(run.new_start, run.new_stop)
    if _overlap(before, old.prefix) and _overlap(before, old.suffix):
        return False
    return (_overlap(before, old.prefix) and _overlap(after, new.suffix)) or (
        _overlap(before, old.suffix) and _overlap(after, new.prefix)
    )


def _overlap(one: range, other: range) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)
