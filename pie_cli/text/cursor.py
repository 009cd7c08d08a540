"""The cursor: where in a text the prediction begins, and how that place follows edits."""

import re
from dataclasses import dataclass, replace
from itertools import islice

from pie_cli.errors import InputError
from pie_cli.text.answer import Begins, Extent
from pie_cli.text.edit import Edit

BOM = "\ufeff"
"""A byte order mark: invisible, so no column of its first line; it stays the text's beginning."""

_CURSOR = re.compile(r"([1-9]\d{0,8})(?::(\d{1,9}))?")
_BLOCK = 1 << 16
_FOLLOWING = 12
"""Lines below the cursor that are never said again."""

_CONTENT = re.compile(r"^([^\S\n]*\S[^\n]*)", re.MULTILINE)
_BLANKS = " \t\r\n\f\v" + BOM


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text, both counted from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Place:
    """A cursor found in a text.

    Attributes:
        offset: characters before it.
        resumes: characters before what is below the prediction: after the line end of a line that
            the model may go on with or not, else the offset.
        begins: what a prediction there begins with.
        position: as people count; a byte order mark counts for nothing.
    """

    offset: int
    resumes: int
    begins: Begins
    position: Position


@dataclass(frozen=True, slots=True)
class Cursor:
    """The end of the text, a place in a line, or the end of what was edited last.

    Attributes:
        line: 0-based; None is the end.
        column: characters of the line before the cursor.
        follows_edits: whether each edit puts the cursor at the end of the last line that it changed
            (`edit`): the model says whether it goes on with that line or below it.
    """

    line: int | None = None
    column: int = 0
    follows_edits: bool = False

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Read `end`, `edit`, a line, or `LINE:COL`, both counted from 1.

        Some linters count columns from 0: column 0 is the line's beginning as well.

        Raises:
            InputError: on anything else.
        """
        if text in ("end", "edit"):
            return cls(follows_edits=text == "edit")
        found = _CURSOR.fullmatch(text)
        if found:
            return cls(int(found[1]) - 1, max(0, int(found[2] or 1) - 1))
        raise InputError(
            f"{text!r} is not a place in a file", 'use "edit", "end", LINE or LINE:COL, from 1 on'
        )

    def moved(self, edit: Edit) -> "Cursor":
        """Follow an edit: lines that come or go above push the cursor; a replaced line clamps it.

        Within a replaced line the text after the cursor holds it, else the text before it.
        """
        hunks = edit.hunks
        if self.follows_edits:
            if not hunks:
                return self
            line, column = edited_end(edit)
            return replace(self, line=line, column=column)
        if self.line is None:
            return self
        line = edit.moved_line(self.line)
        if not self.column or all(
            h.old_stop <= self.line or h.old_start > self.line for h in hunks
        ):
            return replace(self, line=line)
        column = _moved_column(_line(edit.before, self.line), _line(edit.after, line), self.column)
        return replace(self, line=line, column=column)

    def within(self, text: str) -> "Cursor":
        """Return the nearest cursor that the text has: a final newline that goes takes a line.

        Args:
            text: that the cursor shall stand in.
        """
        if self.line is None:
            return self
        line = min(self.line, text.count("\n"))
        return replace(self, line=line, column=min(self.column, len(_line(text, line))))

    def offset(self, text: str) -> int:
        """Return the characters before the cursor.

        Raises:
            InputError: when the text has no such place.
        """
        return self.place(text).offset

    def place(self, text: str) -> Place:
        """Find the cursor in a text; a column beyond the end of a blank line is that end.

        Raises:
            InputError: when the text has fewer lines, or the line fewer characters.
        """
        if self.line is None:
            if self.follows_edits:
                line = _last_content(text, len(text))
                if line is not None:
                    return replace(self, line=line, column=len(_line(text, line))).place(text)
            return Place(len(text), len(text), "line", position_at(text, len(text)))
        offset = line_offset(text, self.line)
        if offset is None:
            lines = text.count("\n") + (not text.endswith("\n"))
            raise InputError(
                f"line {self.line + 1} is outside the file, which has {lines}"
                f" line{'s' * (lines != 1)}",
                "use end, or a line of the file",
            )
        if self.line == 0 and text.startswith(BOM):
            offset += 1
        content = _line(text, self.line)
        column = self.column
        if column > len(content):
            if content.strip():
                raise InputError(
                    f"column {column + 1} is outside line {self.line + 1}, which has"
                    f" {len(content)} character{'s' * (len(content) != 1)}",
                    f"use a column from 1 to {len(content) + 1}",
                )
            column = len(content)
        offset += column
        position = Position(self.line + 1, column + 1)
        if not column:
            return Place(offset, offset, "line", position)
        if not self.follows_edits:
            return Place(offset, offset, "rest", position)
        end = text.find("\n", offset)
        return Place(offset, len(text) if end < 0 else end + 1, "either", position)


def extent_of(text: str, place: Place, lines: int) -> Extent:
    """Return how far a prediction goes at a place.

    Args:
        text: that the place is in.
        place: of the cursor.
        lines: of the prediction, at most.
    """
    begun = text.rfind("\n", 0, place.offset) + 1
    typed, rest, resumes = text[begun : place.offset], "", place.resumes
    is_top = False
    if place.begins == "line":
        above = text[:begun].rstrip()
        typed = above[above.rfind("\n") + 1 :]
        is_top = not above
    elif place.begins == "rest":
        end = text.find("\n", place.offset)
        resumes = len(text) if end < 0 else end + 1
        rest = text[place.offset : resumes].rstrip("\r\n")
    follows = [one[1].rstrip() for one in islice(_CONTENT.finditer(text, resumes), _FOLLOWING)]
    below = follows[0] if follows else None
    return Extent(place.begins, lines, typed, below, rest, tuple(follows[1:]), is_top)


def edited_end(edit: Edit) -> tuple[int, int]:
    """Return the line and the column, from 0, at the end of what an edit changed last in the text.

    That is the end of the last changed line with content; after a deletion, of the last such line
    above the gap. Changes of blank lines alone count where there are no others.
    """
    for hunk in reversed(edit.hunks):
        line = _last_content(edit.after, *_span(edit.after, hunk.new_start, hunk.new_stop))
        if line is not None:
            return line, len(_line(edit.after, line))
        start, stop = _span(edit.before, hunk.old_start, hunk.old_stop)[::-1]
        if edit.before[start:stop].strip():
            return _above(edit.after, hunk.new_start)
    return _above(edit.after, edit.hunks[-1].new_start)


def _above(text: str, gap: int) -> tuple[int, int]:
    """Return the end of the last line with content above a gap, the gap where there is none."""
    line = _last_content(text, _span(text, gap, gap)[0])
    return (gap, 0) if line is None else (line, len(_line(text, line)))


def _span(text: str, first: int, behind: int) -> tuple[int, int]:
    """Return where lines stop and where they start: beyond the last newline is the end."""
    stop, start = (line_offset(text, line) for line in (behind, first))
    return len(text) if stop is None else stop, len(text) if start is None else start


def _last_content(text: str, stop: int, start: int = 0) -> int | None:
    """Return the last line with content that begins between two offsets, None without any."""
    above = text[start:stop].rstrip(_BLANKS)
    return text.count("\n", 0, start) + above.count("\n") if above else None


def around(cursor: Cursor, edit: Edit) -> tuple[Cursor, Cursor]:
    """Return where a cursor was before an edit, and where it is after it.

    Args:
        cursor: as it is after the edit; one that follows edits is where this one ends.
        edit: the edit.
    """
    if cursor.follows_edits:
        return cursor.moved(edit.reversed()), cursor.moved(edit)
    return cursor.moved(edit.reversed()).within(edit.before), cursor


def line_offset(text: str, line: int) -> int | None:
    """Return where a 0-based line begins; the empty one after the last newline counts.

    Counts by blocks, in C: a line far down a long file costs a fraction of a millisecond.
    """
    block, left = 0, line
    while left > (newlines := text.count("\n", block, block + _BLOCK)):
        left -= newlines
        block += _BLOCK
        if block >= len(text):
            return None
    offset = block
    for _ in range(left):
        offset = text.find("\n", offset) + 1
        if offset == 0:
            return None
    return offset


def position_at(text: str, offset: int) -> Position:
    """Return line and column, from 1, of a character offset."""
    newlines = text.count("\n", 0, offset)
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    if newlines == 0 and text.startswith(BOM):
        column = max(1, column - 1)
    return Position(newlines + 1, column)


def _line(text: str, line: int) -> str:
    """Return a line without its line end and without a byte order mark; empty where it is none."""
    offset = line_offset(text, line)
    if offset is None:
        return ""
    stop = text.find("\n", offset)
    whole = text[offset:] if stop < 0 else text[offset:stop].removesuffix("\r")
    return whole.removeprefix(BOM) if line == 0 else whole


def _moved_column(old: str, new: str, column: int) -> int:
    """Return where a column of a line is in the line that replaced it."""
    before, behind = old[:column], old[column:]
    if new.endswith(behind):
        return len(new) - len(behind)
    if new.startswith(before):
        return column
    return min(column, len(new))
