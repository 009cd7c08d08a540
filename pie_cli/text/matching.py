"""Runs that two sequences have in common: the one search for changed lines and for kept tokens.

The common prefix and suffix go first, by slices compared in C. What is left is searched for blocks
of the old side that occur again on the new one, as rsync does (Tridgell, 1999): that takes linear
time and finds moved blocks as well. The gaps between such matches go to rapidfuzz's bit-parallel
LCS, whose cost is the product of the lengths, so only while that is small.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MIN_RUN = 4
"""Items below which a run is not taken: shorter matches are confetti out of unrelated code."""

MIN_MOVED = 16
"""Items from which a run may be taken out of order: short ones recur by chance all over a file."""

BLOCK = 8
"""Items of an indexed block. Every common run of at least 2 * BLOCK - 1 items holds one."""

_STEPS = (1 << 16, 1 << 12, 1 << 8, 1 << 4, 1)
_CANDIDATES = 4


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run of tokens found again, unchanged, in the new sequence.

    Attributes:
        old_start: first token in the old sequence.
        new_start: first token in the new sequence.
        length: tokens.
    """

    old_start: int
    new_start: int
    length: int

    @property
    def old_stop(self) -> int:
        """First old token after the run."""
        return self.old_start + self.length

    @property
    def new_stop(self) -> int:
        """First new token after the run."""
        return self.new_start + self.length

    @property
    def delta(self) -> int:
        """New minus old position, in tokens."""
        return self.new_start - self.old_start


@dataclass(frozen=True, slots=True)
class _Span:
    """The part of both sequences that is still unmatched."""

    old_start: int
    old_stop: int
    new_start: int
    new_stop: int

    @property
    def area(self) -> int:
        return (self.old_stop - self.old_start) * (self.new_stop - self.new_start)


def ordered_runs(old: list[int], new: list[int], max_area: int) -> list[KeptRun]:
    """Find the runs of a longest common subsequence.

    Args:
        old: items before, not negative.
        new: items after.
        max_area: old times new length up to which it is the longest; beyond, the runs are common
            and in order.

    Returns:
        Runs ascending on both sides, joined where they touch.
    """
    span = _trim(old, new)
    runs = _ends(span, len(old))
    if span.area > max_area:
        spine, _ = _spine(_block_matches(old, new, span), len(old), len(new))
        runs += spine + _fill_gaps(old, new, span, spine, [], max_area)
    else:
        runs += _common_subsequence(old, new, span)
    return _merged(runs)


def moved_runs(old: list[int], new: list[int], max_area: int) -> list[KeptRun]:
    """Find common runs, those included that are in another order than before.

    Args:
        old: items before, not negative.
        new: items after.
        max_area: old times new length up to which a gap between long runs is searched for short
            ones.

    Returns:
        Runs ascending on the new side; neither their old nor their new spans overlap.
    """
    span = _trim(old, new)
    runs = _ends(span, len(old))
    if span.area:
        spine, moved = _spine(_block_matches(old, new, span), len(old), len(new))
        runs += spine + moved + _fill_gaps(old, new, span, spine, moved, max_area)
    return _merged(runs)


def _trim(old: list[int], new: list[int]) -> _Span:
    """Take off the common prefix, then the common suffix of what is left."""
    prefix = common_prefix(old, new)
    limit = min(len(old), len(new)) - prefix
    suffix = common_suffix(old, new, limit)
    return _Span(prefix, len(old) - suffix, prefix, len(new) - suffix)


def _ends(span: _Span, old_length: int) -> list[KeptRun]:
    """Give the runs that `_trim` took off."""
    runs = []
    if span.old_start:
        runs.append(KeptRun(0, 0, span.old_start))
    if span.old_stop < old_length:
        runs.append(KeptRun(span.old_stop, span.new_stop, old_length - span.old_stop))
    return runs


def common_prefix(
    old: Sequence[Any], new: Sequence[Any], limit: int | None = None, at: tuple[int, int] = (0, 0)
) -> int:
    """Count equal items from two places onward; by slices, which compare in C.

    Args:
        old: items whose slices compare.
        new: likewise.
        limit: most items to count; None for all there are.
        at: the two places.
    """
    i, j = at
    limit = min(len(old) - i, len(new) - j) if limit is None else limit
    done = 0
    for step in _STEPS:
        while done + step <= limit and (
            old[i + done : i + done + step] == new[j + done : j + done + step]
        ):
            done += step
    return done


def common_suffix(
    old: Sequence[Any], new: Sequence[Any], limit: int, at: tuple[int, int] | None = None
) -> int:
    """Count equal items from two places backward; by default from both ends.

    Args:
        old: items whose slices compare.
        new: likewise.
        limit: most items to count.
        at: the two places.
    """
    i, j = at or (len(old), len(new))
    done = 0
    for step in _STEPS:
        while done + step <= limit and (
            old[i - done - step : i - done] == new[j - done - step : j - done]
        ):
            done += step
    return done


def _block_matches(old: list[int], new: list[int], span: _Span) -> list[KeptRun]:
    """Find maximal common runs that contain a block of the old side; they may overlap.

    Blocks of the old side are indexed end to end; every position of the new side is looked up that
    no match covers yet, the nearest few candidates are extended both ways and the longest is taken.
    """
    index: dict[tuple[int, ...], list[int]] = {}
    for start in range(span.old_start, span.old_stop - BLOCK + 1, BLOCK):
        index.setdefault(tuple(old[start : start + BLOCK]), []).append(start)
    matches: list[KeptRun] = []
    position = covered = span.new_start
    delta = 0
    while index and position + BLOCK <= span.new_stop:
        places = index.get(tuple(new[position : position + BLOCK]))
        if places is None:
            position += 1
            continue
        nearest = _nearest(places, position - delta)
        best = max(
            (_extended(old, new, place, position, span, covered) for place in nearest),
            key=lambda run: run.length,
        )
        matches.append(best)
        delta, covered = best.delta, best.new_stop
        position = max(position + 1, best.new_stop - BLOCK + 1)
    return matches


def _nearest(places: list[int], expected: int) -> Iterator[int]:
    """Give the few of the ascending places that lie nearest to the expected one, nearest first."""
    low = bisect_left(places, expected)
    window = places[max(0, low - _CANDIDATES) : low + _CANDIDATES]
    return iter(sorted(window, key=lambda place: abs(place - expected))[:_CANDIDATES])


def _extended(
    old: list[int], new: list[int], place: int, position: int, span: _Span, covered: int
) -> KeptRun:
    """Extend a matching block both ways; backward not into what the last match covers."""
    room = min(place - span.old_start, position - covered)
    back = common_suffix(old, new, max(0, room), (place, position))
    start, stop = place + BLOCK, position + BLOCK
    room = min(span.old_stop - start, span.new_stop - stop)
    ahead = common_prefix(old, new, room, (start, stop))
    return KeptRun(place - back, position - back, back + BLOCK + ahead)


def _spine(
    matches: list[KeptRun], old_length: int, new_length: int
) -> tuple[list[KeptRun], list[KeptRun]]:
    """Choose matches that do not overlap, the longest first.

    Returns:
        Those in the same order on both sides, ascending, then the moved ones.
    """
    old_used, new_used = bytearray(old_length), bytearray(new_length)
    spine: list[KeptRun] = []
    moved: list[KeptRun] = []
    for match in sorted(matches, key=lambda run: (-run.length, abs(run.delta))):
        run = _free_part(match, old_used, new_used)
        if run.length < MIN_RUN:
            continue
        place = bisect_right(spine, run.new_start, key=lambda other: other.new_start)
        before_fits = place == 0 or spine[place - 1].old_stop <= run.old_start
        behind_fits = place == len(spine) or run.old_stop <= spine[place].old_start
        if before_fits and behind_fits:
            spine.insert(place, run)
        elif run.length >= MIN_MOVED:
            moved.append(run)
        else:
            continue
        _mark(run, old_used, new_used)
    return spine, moved


def _free_part(run: KeptRun, old_used: bytearray, new_used: bytearray) -> KeptRun:
    """Cut a run to the longest part that no chosen run covers on either side."""
    old_part = old_used[run.old_start : run.old_stop]
    new_part = new_used[run.new_start : run.new_stop]
    if 1 not in old_part and 1 not in new_part:
        return run
    free = bytes(a | b for a, b in zip(old_part, new_part, strict=True))
    start, length, offset = 0, 0, 0
    for piece in free.split(b"\x01"):
        if len(piece) > length:
            start, length = offset, len(piece)
        offset += len(piece) + 1
    return KeptRun(run.old_start + start, run.new_start + start, length)


def _mark(run: KeptRun, old_used: bytearray, new_used: bytearray) -> None:
    old_used[run.old_start : run.old_stop] = b"\x01" * run.length
    new_used[run.new_start : run.new_stop] = b"\x01" * run.length


def _fill_gaps(
    old: list[int],
    new: list[int],
    span: _Span,
    spine: list[KeptRun],
    moved: list[KeptRun],
    max_area: int,
) -> list[KeptRun]:
    """Match what lies between the runs of the spine.

    A moved run cuts its gap into pieces, of which only the longest of each side are matched with
    each other: enough for what is rare, and still in order.
    """
    old_taken = sorted((run.old_start, run.old_stop) for run in moved)
    new_taken = sorted((run.new_start, run.new_stop) for run in moved)
    runs: list[KeptRun] = []
    old_at, new_at = span.old_start, span.new_start
    for edge in [*spine, KeptRun(span.old_stop, span.new_stop, 0)]:
        old_gap = _longest_free(old_at, edge.old_start, old_taken)
        new_gap = _longest_free(new_at, edge.new_start, new_taken)
        gap = _Span(*old_gap, *new_gap)
        if gap.area <= max_area:
            runs += _common_subsequence(old, new, gap)
        old_at, new_at = edge.old_stop, edge.new_stop
    return runs


def _longest_free(start: int, stop: int, taken: list[tuple[int, int]]) -> tuple[int, int]:
    """Find the longest part of a span outside the taken spans, which ascend."""
    longest, at = (start, start), start
    for taken_start, taken_stop in [*taken[bisect_left(taken, (start, start)) :], (stop, stop)]:
        end = min(taken_start, stop)
        if end - at > longest[1] - longest[0]:
            longest = (at, end)
        if taken_start >= stop:
            break
        at = taken_stop
    return longest


def _common_subsequence(old: list[int], new: list[int], span: _Span) -> list[KeptRun]:
    """Give the runs of a longest common subsequence of one span."""
    if not span.area:
        return []
    old_part: list[Hashable] = list(old[span.old_start : span.old_stop])
    new_part: list[Hashable] = list(new[span.new_start : span.new_stop])
    # Imported where it is used: a warm call never is here.
    from rapidfuzz.distance import Indel

    blocks = Indel.opcodes(old_part, new_part).as_matching_blocks()
    return [
        KeptRun(span.old_start + block.a, span.new_start + block.b, block.size)
        for block in blocks
        if block.size
    ]


def _merged(runs: list[KeptRun]) -> list[KeptRun]:
    """Sort runs by new position and join those that touch on both sides."""
    joined: list[KeptRun] = []
    for run in sorted(runs, key=lambda item: item.new_start):
        last = joined[-1] if joined else None
        if last and last.new_stop == run.new_start and last.old_stop == run.old_start:
            joined[-1] = KeptRun(last.old_start, last.new_start, last.length + run.length)
        else:
            joined.append(run)
    return joined


def similarity(one: str, other: str) -> float:
    """Return how much of two texts is common, 0 to 100: twice the LCS over both lengths."""
    from rapidfuzz.distance import Indel

    return 100 * float(Indel.normalized_similarity(one, other))
