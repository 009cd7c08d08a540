"""Spots: where in a text the prediction stands, and how that place follows edits."""

from collections.abc import Sequence
from dataclasses import dataclass

from pie_cli.editing.hunks import LineHunk
from pie_cli.errors import InputError


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text, both counted from 1, columns in characters."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Spot:
    """The end of the text, or the beginning of a line.

    Attributes:
        line: 0-based; None stands for the end.
    """

    line: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Spot":
        """Read `end` or a line number counted from 1.

        Raises:
            InputError: on anything else.
        """
        if text == "end":
            return cls()
        if text.isdecimal() and int(text) > 0:
            return cls(int(text) - 1)
        raise InputError(f"{text!r} is no spot in a file", "use end, or a line number from 1 on")

    def moved(self, hunks: Sequence[LineHunk]) -> "Spot":
        """Follow an edit: lines that come or go above push the spot; a replaced line clamps it.

        Args:
            hunks: of the edit, ascending.
        """
        if self.line is None:
            return self
        return Spot(moved_line(self.line, hunks))

    def __str__(self) -> str:
        """Spell the spot as `parse` reads it."""
        return "end" if self.line is None else str(self.line + 1)

    def within(self, text: str) -> "Spot":
        """Return the nearest spot that the text has: a final newline that goes takes a line along.

        Args:
            text: that the spot shall stand in.
        """
        return self if self.line is None else Spot(min(self.line, text.count("\n")))

    def offset(self, text: str) -> int:
        """Return the character offset of the spot; the prompt is the text before it.

        Raises:
            InputError: when the text has fewer lines.
        """
        if self.line is None:
            return len(text)
        offset = line_offset(text, self.line)
        if offset is None:
            lines = text.count("\n") + (not text.endswith("\n"))
            raise InputError(
                f"line {self.line + 1} is outside the file, which has {lines}"
                f" line{'s' * (lines != 1)}",
                "use end, or a line of the file",
            )
        return offset


def moved_line(line: int, hunks: Sequence[LineHunk]) -> int:
    """Return where the beginning of a 0-based line stands after an edit."""
    delta = 0
    for hunk in hunks:
        if hunk.old_stop <= line:
            delta = hunk.new_stop - hunk.old_stop
        elif hunk.old_start <= line:
            return hunk.new_start + min(line - hunk.old_start, hunk.new_stop - hunk.new_start)
        else:
            break
    return line + delta


def moved_edge(edge: int, hunks: Sequence[LineHunk]) -> int:
    """Return where the window's upper edge stands after an edit; the top stays the top."""
    return moved_line(edge, hunks) if edge else 0


def line_offset(text: str, line: int) -> int | None:
    """Return where a 0-based line begins; the empty one behind the last newline counts."""
    offset = 0
    for _ in range(line):
        offset = text.find("\n", offset) + 1
        if offset == 0:
            return None
    return offset


def position_at(text: str, offset: int) -> Position:
    """Return line and column, from 1, of a character offset."""
    return Position(text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1)
