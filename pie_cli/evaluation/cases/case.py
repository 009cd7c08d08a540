"""Evaluation cases: an edit, the cursor after it, and the line that is asked for there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pie_cli.text.cursor import Cursor
from pie_cli.text.edit import split_lines

Task = Literal["real", "insertion", "deletion", "multi", "adversarial", "prose", "short"]

TASKS: Final = (
    "real",
    "insertion",
    "deletion",
    "multi",
    "adversarial",
    "prose",
    "short",
    "session",
    "all",
)
"""What `sources.load` takes as a task."""


@dataclass(frozen=True)
class Gap:
    """A text that a line was taken out of; the cursor is in its place.

    Attributes:
        above: whole lines before the cursor.
        below: the text after it; None for a text that ends where it is to be continued.
    """

    above: str
    below: str | None = None

    @classmethod
    def at(cls, text: str, line: int) -> "Gap":
        """Take a line out of a text, 0-based; one after the last leaves the whole text above."""
        lines = split_lines(text)
        return cls("".join(lines[:line]), "".join(lines[line + 1 :]))

    def within(self, top: int, bottom: int | None) -> "Gap":
        """Return the lines from `top` to `bottom`, as lines of the text with the gap closed."""
        above = "".join(split_lines(self.above)[top:])
        if self.below is None or bottom is None:
            return Gap(above, self.below)
        return Gap(above, "".join(split_lines(self.below)[: bottom - self.line]))

    @property
    def text(self) -> str:
        """The whole text, as a session is given it."""
        return self.above + (self.below or "")

    @property
    def line(self) -> int:
        """The cursor's line, 0-based."""
        return self.above.count("\n")

    @property
    def cursor(self) -> Cursor:
        """The cursor, as a session is given it: a line, or the end of the text."""
        return Cursor() if self.below is None else Cursor(self.line)


@dataclass(frozen=True)
class EvalCase:
    """One edit and the line to predict after it.

    Attributes:
        id: unique within its set.
        task: what kind of case it is.
        path: of the file, for the prompt's head.
        language: "python", "java" and so on.
        before, after: the file before and after the edit, without the line that is asked for.
        target: that line, without its newline.
        distance: lines from the last hunk above the cursor to it; 1 is directly below the hunk.
        shares_identifier: whether the target has an identifier that a changed line has too.
        kind: finer than the task: insert, delete, replace, multi; for adversarial cases the class
            (names, values, signatures, control flow, data structure, algorithm).
        obsolete: names and values that the edit took out of the text; predicting one of them, where
            full recompute does not, is a stale echo.
    """

    id: str
    task: Task
    path: str
    language: str
    before: Gap
    after: Gap
    target: str
    distance: int
    shares_identifier: bool
    kind: str = ""
    obsolete: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvalSession:
    """Many versions of one file, to be replayed save by save.

    Attributes:
        id: unique within its set.
        path: of the file.
        language: of the file.
        versions: whole texts, oldest first, at least two.
    """

    id: str
    path: str
    language: str
    versions: Sequence[str]
