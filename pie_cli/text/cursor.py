"""The cursor: where in a text the prediction begins, and how that place follows edits."""

import re
from dataclasses import dataclass, replace

from pie_cli.errors import InputError
from pie_cli.text.edit import Edit

BOM = "\ufeff"
"""A byte order mark: invisible, so no column of its first line; it stays the text's beginning."""

_CURSOR = re.compile(r"([1-9]\d{0,8})(?::([1-9]\d{0,8}))?")
_BLOCK = 1 << 16


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
        opening: the newline that is missing where a new line shall begin behind a last line
            without one; else empty.
        position: as people count; a byte order mark counts for nothing.
    """

    offset: int
    opening: str
    position: Position


@dataclass(frozen=True, slots=True)
class Cursor:
    """The end of the text, a place in a line, or the gap below the last edit.

    Attributes:
        line: 0-based; None stands for the end.
        column: characters of the line before the cursor.
        follows_edits: whether each edit puts the cursor on a new line right below its bottom-most
            hunk (`edit`).
    """

    line: int | None = None
    column: int = 0
    follows_edits: bool = False

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """Read `end`, `edit`, a line, or `LINE:COL`, both counted from 1; None stands for the end.

        Raises:
            InputError: on anything else.
        """
        if text is None or text in ("end", "edit"):
            return cls(follows_edits=text == "edit")
        found = _CURSOR.fullmatch(text)
        if found:
            return cls(int(found[1]) - 1, int(found[2] or 1) - 1)
        raise InputError(
            f"{text!r} is not a place in a file", 'use "edit", "end", LINE or LINE:COL, from 1 on'
        )

    @property
    def completes_line(self) -> bool:
        """Whether the prediction ends with the line that the cursor stands in."""
        return self.column > 0

    def moved(self, edit: Edit) -> "Cursor":
        """Follow an edit: lines that come or go above push the cursor; a replaced line clamps it.

        Within a replaced line the text after the cursor holds it, else the text before it.
        """
        hunks = edit.hunks
        if self.follows_edits:
            return replace(self, line=hunks[-1].new_stop) if hunks else self
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
        last = text.count("\n")
        if self.follows_edits:
            return replace(self, line=min(self.line, last + (not text.endswith("\n"))))
        line = min(self.line, last)
        return replace(self, line=line, column=min(self.column, len(_line(text, line))))

    def offset(self, text: str) -> int:
        """Return the characters before the cursor.

        Raises:
            InputError: when the text has no such place.
        """
        return self.place(text).offset

    def place(self, text: str) -> Place:
        """Find the cursor in a text.

        Raises:
            InputError: when the text has fewer lines, or the line fewer characters.
        """
        if self.line is None:
            return self._at_end(text)
        offset = line_offset(text, self.line)
        if offset is None:
            if self.follows_edits:
                return self._at_end(text)
            lines = text.count("\n") + (not text.endswith("\n"))
            raise InputError(
                f"line {self.line + 1} is outside the file, which has {lines}"
                f" line{'s' * (lines != 1)}",
                "use end, or a line of the file",
            )
        if self.line == 0 and text.startswith(BOM):
            offset += 1
        if self.column:
            length = len(_line(text, self.line))
            if self.column > length:
                raise InputError(
                    f"column {self.column + 1} is outside line {self.line + 1}, which has {length}"
                    f" character{'s' * (length != 1)}",
                    f"use a column from 1 to {length + 1}",
                )
        return Place(offset + self.column, "", Position(self.line + 1, self.column + 1))

    def _at_end(self, text: str) -> Place:
        position = position_at(text, len(text))
        begun = self.follows_edits and text.removeprefix(BOM) and not text.endswith("\n")
        if not begun:
            return Place(len(text), "", position)
        newline = text.rfind("\n")
        opening = "\r\n" if newline > 0 and text[newline - 1] == "\r" else "\n"
        return Place(len(text), opening, Position(position.line + 1, 1))


def line_offset(text: str, line: int) -> int | None:
    """Return where a 0-based line begins; the empty one behind the last newline counts.

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
    """Return where a column of a line stands in the line that replaced it."""
    before, behind = old[:column], old[column:]
    if new.endswith(behind):
        return len(new) - len(behind)
    if new.startswith(before):
        return column
    return min(column, len(new))
