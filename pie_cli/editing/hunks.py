"""What an edit keeps: changed lines of two texts, kept runs of two token sequences.

Both follow the same road. The common prefix and suffix go first, by slices compared in C. What is
left is searched for blocks of the old side that occur again on the new one, as rsync does
(Tridgell, 1999): that takes linear time and finds moved blocks as well. The gaps between such
matches go to rapidfuzz's bit-parallel LCS, whose cost is the product of the lengths, so only while
that is small.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Indel

from pie_cli.spans import Alignment, KeptRun

MIN_RUN = 4
"""Tokens below which a run is encoded anew: shorter matches are confetti out of unrelated code."""

MIN_MOVED = 16
"""Tokens from which a run may be kept out of order: short ones recur by chance all over a file."""

BLOCK = 8
"""Tokens of an indexed block. Every common run of at least 2 * BLOCK - 1 tokens holds one."""

MAX_GAP_AREA = 1 << 22
"""Old times new length up to which a gap is matched by LCS (0.5 MB of bits, some 1 ms)."""

MAX_LINE_AREA = 1 << 24
"""The same for lines: about 4,000 changed lines on each side (2 MB of bits, some 3 ms)."""

_STEP = 256
_TEXT_STEP = 4096
_CANDIDATES = 4


@dataclass(frozen=True, slots=True)
class LineHunk:
    """A span of old lines replaced by a span of new lines; counted from 0, half-open.

    Attributes:
        old_start: first old line replaced; where nothing is, the line it is inserted before.
        old_stop: first old line behind them.
        new_start: first new line.
        new_stop: first new line behind them.
    """

    old_start: int
    old_stop: int
    new_start: int
    new_stop: int

    def reversed(self) -> "LineHunk":
        """Give the hunk that takes this one back."""
        return LineHunk(self.new_start, self.new_stop, self.old_start, self.old_stop)


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


def split_lines(text: str) -> list[str]:
    r"""Split a text behind every "\n", as git does; the pieces joined give the text.

    `str.splitlines` would also split at a lone carriage return, a form feed and the like.
    """
    lines = text.split("\n")
    last = lines.pop()
    pieces = [line + "\n" for line in lines]
    if last:
        pieces.append(last)
    return pieces


def diff_lines(old: str, new: str) -> list[LineHunk]:
    """Find the changed lines between two texts.

    Args:
        old: text before.
        new: text after.

    Returns:
        Hunks in ascending order with at least one unchanged line between them; empty for equal
        texts. Beyond `MAX_LINE_AREA` the hunks need not be the smallest ones.
    """
    if old == new:
        return []
    above, below = _common_lines(old, new)
    skipped = old.count("\n", 0, above)
    hunks = _diff_lines(old[above : len(old) - below], new[above : len(new) - below])
    return [
        LineHunk(
            skipped + hunk.old_start,
            skipped + hunk.old_stop,
            skipped + hunk.new_start,
            skipped + hunk.new_stop,
        )
        for hunk in hunks
    ]


def similarity(one: str, other: str) -> float:
    """Return how much of two texts is common, 0 to 100: twice the LCS over both lengths."""
    return 100 * float(Indel.normalized_similarity(one, other))


def _diff_lines(old: str, new: str) -> list[LineHunk]:
    """Find the changed lines between two texts that differ in their first and last lines."""
    numbers: dict[str, int] = {}
    old_ids = _numbered(split_lines(old), numbers)
    new_ids = _numbered(split_lines(new), numbers)
    span = _trim(old_ids, new_ids)
    runs = _ends(span, len(old_ids))
    if span.area > MAX_LINE_AREA:
        spine = _spine(_block_matches(old_ids, new_ids, span), len(old_ids), len(new_ids))[0]
        runs += spine
        runs += _fill_gaps(old_ids, new_ids, span, spine, [], MAX_LINE_AREA)
    else:
        runs += _common_subsequence(old_ids, new_ids, span)
    return _gaps_as_hunks(_merged(runs), len(old_ids), len(new_ids))


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
    span = _trim(old, new)
    runs = _ends(span, len(old))
    if span.area:
        spine, moved = _spine(_block_matches(old, new, span), len(old), len(new))
        runs += spine + moved
        runs += _fill_gaps(old, new, span, spine, moved, MAX_GAP_AREA)
    kept = _without_confetti(_merged(runs), len(old), len(new))
    return Alignment(len(old), len(new), tuple(kept))


def _common_lines(old: str, new: str) -> tuple[int, int]:
    """Return the characters that the equal lines at both ends take up, compared in C.

    So a save of a long file costs what changed, not what it holds.
    """
    limit = min(len(old), len(new))
    above = _common_prefix(old, new, 0, 0, limit, _TEXT_STEP)
    above = old.rfind("\n", 0, above) + 1
    below = _common_suffix(old, new, len(old), len(new), limit - above, _TEXT_STEP)
    starts = [len(old) - below, len(new) - below]
    if not all(
        start == above or text[start - 1] == "\n"
        for start, text in zip(starts, (old, new), strict=True)
    ):
        newline = old.find("\n", starts[0])
        below = len(old) - newline - 1 if newline >= 0 else 0
    return above, below


def _numbered(lines: Iterable[str], numbers: dict[str, int]) -> list[int]:
    """Number equal lines equally: rapidfuzz compares hashes only, which ints make exact."""
    return [numbers.setdefault(line, len(numbers)) for line in lines]


def _trim(old: list[int], new: list[int]) -> _Span:
    """Take off the common prefix, then the common suffix of what is left."""
    prefix = _common_prefix(old, new, 0, 0, min(len(old), len(new)))
    limit = min(len(old), len(new)) - prefix
    suffix = _common_suffix(old, new, len(old), len(new), limit)
    return _Span(prefix, len(old) - suffix, prefix, len(new) - suffix)


def _ends(span: _Span, old_length: int) -> list[KeptRun]:
    """Give the runs that `_trim` took off."""
    runs = []
    if span.old_start:
        runs.append(KeptRun(0, 0, span.old_start))
    if span.old_stop < old_length:
        runs.append(KeptRun(span.old_stop, span.new_stop, old_length - span.old_stop))
    return runs


def _common_prefix(
    old: list[int] | str,
    new: list[int] | str,
    old_start: int,
    new_start: int,
    limit: int,
    largest_step: int = _STEP,
) -> int:
    """Count equal items from two places onward, `limit` at most; by slices, which compare in C."""
    done = 0
    while done < limit:
        step = min(largest_step, limit - done)
        i, j = old_start + done, new_start + done
        if old[i : i + step] != new[j : j + step]:
            return done + next(k for k in range(step) if old[i + k] != new[j + k])
        done += step
    return done


def _common_suffix(
    old: list[int] | str,
    new: list[int] | str,
    old_stop: int,
    new_stop: int,
    limit: int,
    largest_step: int = _STEP,
) -> int:
    """Count equal items from two places backward, `limit` at most."""
    done = 0
    while done < limit:
        step = min(largest_step, limit - done)
        i, j = old_stop - done, new_stop - done
        if old[i - step : i] != new[j - step : j]:
            return done + next(k for k in range(step) if old[i - 1 - k] != new[j - 1 - k])
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
    back = _common_suffix(old, new, place, position, max(0, room))
    start, stop = place + BLOCK, position + BLOCK
    ahead = _common_prefix(old, new, start, stop, min(span.old_stop - start, span.new_stop - stop))
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


def _without_confetti(runs: list[KeptRun], old_length: int, new_length: int) -> list[KeptRun]:
    """Drop short runs but for the untouched prefix and suffix."""

    def is_end(run: KeptRun) -> bool:
        starts = run.old_start == run.new_start == 0
        return starts or (run.old_stop == old_length and run.new_stop == new_length)

    return [run for run in runs if run.length >= MIN_RUN or is_end(run)]


def _gaps_as_hunks(runs: list[KeptRun], old_length: int, new_length: int) -> list[LineHunk]:
    """Turn what lies between kept runs of lines into hunks."""
    hunks = []
    old_at = new_at = 0
    for run in [*runs, KeptRun(old_length, new_length, 0)]:
        if run.old_start > old_at or run.new_start > new_at:
            hunks.append(LineHunk(old_at, run.old_start, new_at, run.new_start))
        old_at, new_at = run.old_stop, run.new_stop
    return hunks
