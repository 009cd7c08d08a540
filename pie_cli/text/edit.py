"""Edits: what changed from one version of a document to the next, in lines."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pie_cli.text.matching import KeptRun, common_prefix, common_suffix, ordered_runs

MAX_LINE_AREA = 1 << 24
"""Old times new lines up to which a change is matched by LCS: about 4,000 on each side, 3 ms."""


@dataclass(frozen=True, slots=True)
class LineHunk:
    """A span of old lines replaced by a span of new lines; counted from 0, half-open.

    Attributes:
        old_start: first old line replaced; where nothing is, the line it is inserted before.
        old_stop: first old line after them.
        new_start: first new line.
        new_stop: first new line after them.
    """

    old_start: int
    old_stop: int
    new_start: int
    new_stop: int

    def reversed(self) -> "LineHunk":
        """Give the hunk that takes this one back."""
        return LineHunk(self.new_start, self.new_stop, self.old_start, self.old_stop)


@dataclass(frozen=True, slots=True)
class _Replaced:
    """A span of the text before that a span of the text after replaces, in characters."""

    old_start: int
    old_stop: int
    new_start: int
    new_stop: int

    @property
    def delta(self) -> int:
        """By how much what follows has moved."""
        return self.new_stop - self.old_stop


@dataclass(frozen=True)
class Edit:
    """What changed from one version of a document to the next, whoever found it.

    Found once, by a diff, a patch or an editor, and then used for all that follows an edit.

    Attributes:
        before: the whole text before.
        after: the whole text after.
        hunks: the changed lines, ascending, with at least one unchanged line between them.
    """

    before: str
    after: str
    hunks: tuple[LineHunk, ...]

    @classmethod
    def between(cls, before: str, after: str) -> "Edit":
        """Find what changed between two versions."""
        return cls(before, after, tuple(diff_lines(before, after)))

    @classmethod
    def of_ranges(cls, before: str, ranges: Iterable[tuple[int, int, str]]) -> "Edit":
        """Take in what an editor did: spans replaced one after the other, hunks without a diff.

        Args:
            before: the whole text.
            ranges: (start, stop, text), each about the text that the one before it left, in
                characters.

        Raises:
            ValueError: a span that the text does not have.
        """
        after, spans = before, list[_Replaced]()
        for start, stop, text in ranges:
            if not 0 <= start <= stop <= len(after):
                raise ValueError(f"no span [{start}, {stop}) in {len(after)} characters")
            after = after[:start] + text + after[stop:]
            spans = _replaced(spans, start, stop, len(text))
        return cls(before, after, tuple(_lines_of(before, after, spans)))

    @property
    def lowest(self) -> LineHunk | None:
        """The bottom-most hunk; None where nothing changed."""
        return self.hunks[-1] if self.hunks else None

    @property
    def lines_added(self) -> int:
        """New lines of the hunks."""
        return sum(hunk.new_stop - hunk.new_start for hunk in self.hunks)

    @property
    def lines_removed(self) -> int:
        """Old lines of the hunks."""
        return sum(hunk.old_stop - hunk.old_start for hunk in self.hunks)

    def reversed(self) -> "Edit":
        """Give the edit that takes this one back."""
        return Edit(self.after, self.before, tuple(hunk.reversed() for hunk in self.hunks))

    def moved_line(self, line: int) -> int:
        """Return where the beginning of a 0-based line is after the edit."""
        delta = 0
        for hunk in self.hunks:
            if hunk.old_stop <= line:
                delta = hunk.new_stop - hunk.old_stop
            elif hunk.old_start <= line:
                return hunk.new_start + min(line - hunk.old_start, hunk.new_stop - hunk.new_start)
            else:
                break
        return line + delta


def split_lines(text: str) -> list[str]:
    r"""Split a text after every "\n", as git does; the pieces joined give the text.

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


def _diff_lines(old: str, new: str) -> list[LineHunk]:
    """Find the changed lines between two texts that differ in their first and last lines."""
    numbers: dict[str, int] = {}
    old_ids = _numbered(split_lines(old), numbers)
    new_ids = _numbered(split_lines(new), numbers)
    return _gaps_as_hunks(ordered_runs(old_ids, new_ids, MAX_LINE_AREA), len(old_ids), len(new_ids))


def _common_lines(old: str, new: str) -> tuple[int, int]:
    """Return the characters that the equal lines at both ends take up, compared in C.

    So a save of a long file costs what changed, not what it holds.
    """
    limit = min(len(old), len(new))
    above = common_prefix(old, new)
    above = old.rfind("\n", 0, above) + 1
    below = common_suffix(old, new, limit - above)
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


def _gaps_as_hunks(runs: list[KeptRun], old_length: int, new_length: int) -> list[LineHunk]:
    """Turn what lies between kept runs of lines into hunks."""
    hunks = []
    old_at = new_at = 0
    for run in [*runs, KeptRun(old_length, new_length, 0)]:
        if run.old_start > old_at or run.new_start > new_at:
            hunks.append(LineHunk(old_at, run.old_start, new_at, run.new_start))
        old_at, new_at = run.old_stop, run.new_stop
    return hunks


def _replaced(spans: list[_Replaced], start: int, stop: int, length: int) -> list[_Replaced]:
    """Add one more replaced span, of the text as it is by now, to those before it."""
    above = [span for span in spans if span.new_stop < start]
    below = [span for span in spans if span.new_start > stop]
    touched = spans[len(above) : len(spans) - len(below)]
    delta = above[-1].delta if above else 0
    old_start, old_stop, grown = start - delta, stop - delta, length - (stop - start)
    if touched:
        old_start = min(old_start, touched[0].old_start)
        old_stop = max(touched[-1].old_stop, stop - touched[-1].delta)
        start, stop = min(start, touched[0].new_start), max(stop, touched[-1].new_stop)
    new = _Replaced(old_start, old_stop, start, stop + grown)
    return [
        *above,
        new,
        *(
            _Replaced(s.old_start, s.old_stop, s.new_start + grown, s.new_stop + grown)
            for s in below
        ),
    ]


def _lines_of(before: str, after: str, spans: Iterable[_Replaced]) -> Iterator[LineHunk]:
    """Give the lines that replaced spans changed, ascending, joined where no line is between."""
    waiting: LineHunk | None = None
    for span in spans:
        hunk = _trimmed(before, after, _whole_lines(before, after, span))
        if hunk is None:
            continue
        if waiting is not None and hunk.old_start <= waiting.old_stop:
            hunk = LineHunk(waiting.old_start, hunk.old_stop, waiting.new_start, hunk.new_stop)
        elif waiting is not None:
            yield waiting
        waiting = hunk
    if waiting is not None:
        yield waiting


def _whole_lines(before: str, after: str, span: _Replaced) -> _Replaced:
    """Widen a span to whole lines on both sides."""
    old_stop, new_stop = before.find("\n", span.old_stop), after.find("\n", span.new_stop)
    return _Replaced(
        before.rfind("\n", 0, span.old_start) + 1,
        old_stop + 1 if old_stop >= 0 else len(before),
        after.rfind("\n", 0, span.new_start) + 1,
        new_stop + 1 if new_stop >= 0 else len(after),
    )


def _trimmed(before: str, after: str, span: _Replaced) -> LineHunk | None:
    """Return the lines of a span but for equal ones at its ends; None where all are equal."""
    old = split_lines(before[span.old_start : span.old_stop])
    new = split_lines(after[span.new_start : span.new_stop])
    limit = min(len(old), len(new))
    above = common_prefix(old, new)
    below = common_suffix(old, new, limit - above)
    if above == len(old) == len(new):
        return None
    old_line, new_line = before.count("\n", 0, span.old_start), after.count("\n", 0, span.new_start)
    return LineHunk(
        old_line + above, old_line + len(old) - below, new_line + above, new_line + len(new) - below
    )
