"""Answers: what of a model's words is the prediction, the rest of a line, a new one or several."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, TypeAlias

from pie_cli.text.brackets import CLOSING, closed_by

Begins: TypeAlias = Literal["line", "rest", "either"]
"""Whether a prediction is a new line, the rest of one that was begun, or as the model says."""

_CLOSERS = ("}", ")", "]", "end", "fi", "done", "esac")
_OPENERS = (":", "{", "(", "[", "do", "then", "=>", "->")
_KNOWN_AGAIN = 10
"""Characters of a line that is not written twice in a row by chance."""

_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
TAB = 8
"""Columns of a tab."""


@dataclass(frozen=True)
class Answer:
    """What was said so far, as far as it counts.

    Attributes:
        text: the prediction; blank lines before a new line kept, no newline at its end.
        complete: whether it is over: nothing that follows can change it.
        completes_line: whether it goes on with the line of the cursor rather than below it.
    """

    text: str
    complete: bool
    completes_line: bool


@dataclass(frozen=True)
class Extent:
    """How far a prediction goes.

    A prediction of several lines ends before a line that leaves the block of the cursor, that was
    said before, or that follows in the file anyway. Of what follows anyway nothing is ever said
    again, not even a first line.

    Attributes:
        begins: what the first line is.
        lines: with content, at most; the rest of a begun line counts as one.
        typed: the line before the cursor, or the last one with content above it.
        below: the first line with content below the cursor, without its end; None without one.
        further: the next ones below that.
        is_top: whether nothing with content is above the cursor.
        headers: lines that no file has but a prompt, above each file in it: where one is said, the
            file is over.
        rest: what is after the cursor in its line.
    """

    begins: Begins = "line"
    lines: int = 1
    typed: str = ""
    below: str | None = None
    rest: str = ""
    further: tuple[str, ...] = ()
    is_top: bool = False
    headers: frozenset[str] = frozenset()

    def read(self, said: str) -> Answer:
        """Find the prediction in what a model has said so far, or in all that it will say.

        Args:
            said: what follows the cursor; whole lines end with a newline.
        """
        head, newline, tail = said.partition("\n")
        completes = self.begins == "rest" or (self.begins == "either" and bool(head.strip()))
        if completes:
            if not newline:
                return Answer(self._without_rest(said), complete=False, completes_line=True)
            first = self._without_rest(head.removesuffix("\r"))
            if self.lines == 1:
                return Answer(first, complete=True, completes_line=True)
            answer = self._lines(tail, self.typed + first, self.lines - 1)
            more = f"\n{answer.text}" if answer.text.strip() else ""
            return Answer(first + more, answer.complete, completes_line=True)
        if self.begins == "either":
            if not newline:
                return Answer("", complete=False, completes_line=False)
            said = tail
        if self.is_top:
            # No blank line parts anything here.
            said = _BLANK_LINES.sub("", said)
        return self._lines(said, None, self.lines)

    def _lines(self, said: str, completed: str | None, wanted: int) -> Answer:
        """Take whole lines as long as they belong to the prediction.

        Args:
            said: from the beginning of a line on.
            completed: the line of the cursor, if the prediction went on with it.
            wanted: lines with content.
        """
        *whole, begun = said.split("\n")
        block = _Block(self.typed if completed is None else completed)
        found: list[str] = []
        kept = 0
        for number, line in enumerate(whole, start=1):
            content = line.rstrip()
            if not content:
                continue
            # What a model says first is its answer, wherever it belongs.
            free = not found and completed is None
            said_before = content in (*found, block.first)
            is_over = content in self.headers or self._stands_below(content)
            if is_over or (not free and (said_before or block.ends_before(content))):
                return _answer(whole[:kept], complete=True)
            found.append(content)
            block.take(content)
            kept = number
            if len(found) == wanted:
                return _answer(whole[:kept], complete=True)
        return _answer([*whole, begun] if begun.strip() or not kept else whole[:kept])

    def _stands_below(self, line: str) -> bool:
        """Tell whether a line follows anyway: at once, or soon in the same block.

        What closes a block, and what is too short to be known again, may well come twice.
        """
        if self.below is None or line == self.below:
            return line == self.below
        begins = line.lstrip()
        if len(begins) < _KNOWN_AGAIN or begins.startswith(_CLOSERS):
            return False
        depth = columns(line)
        block = takewhile(lambda one: columns(one) >= depth, (self.below, *self.further))
        return line in block

    def _without_rest(self, text: str) -> str:
        """Leave out at the end what the line goes on with anyway.

        What closes nothing but what the text itself has opened is the text's.
        """
        if not self.rest.strip() or not text.endswith(self.rest):
            return text
        closes = closed_by(self.typed, text)
        first = len(text) - len(self.rest.lstrip())
        return text if text[first] in CLOSING and first not in closes else text[: -len(self.rest)]


class _Block:
    """The block of the cursor, line by line.

    Below a line that opens a block that block is meant, with what closes it; else the lines that
    are at least as deep as the cursor's.

    Args:
        first: the line of the cursor.
    """

    def __init__(self, first: str) -> None:
        self.first = first.rstrip()
        self._base = columns(first)
        self._opens = opens_block(first)
        self._is_over = False

    def ends_before(self, line: str) -> bool:
        """Tell whether the next line is no part of it."""
        return self._is_over or (self._is_outside(line) and not self._is_closed_by(line))

    def take(self, line: str) -> None:
        """Go on to the next line, part of it or not."""
        self._is_over = self._is_over or self._is_outside(line)

    def _is_outside(self, line: str) -> bool:
        return columns(line) < self._base + self._opens

    def _is_closed_by(self, line: str) -> bool:
        closes = line.lstrip().startswith(_CLOSERS)
        return self._opens and columns(line) == self._base and closes


def columns(line: str) -> int:
    """Return the width of a line's indentation."""
    expanded = line.expandtabs(TAB)
    return len(expanded) - len(expanded.lstrip())


def opens_block(line: str) -> bool:
    """Tell whether a line opens a block, by its last characters."""
    return line.rstrip().endswith(_OPENERS)


def _answer(lines: Sequence[str], *, complete: bool = False) -> Answer:
    text = "\n".join(lines)
    return Answer(text.removesuffix("\r") if complete else text, complete, completes_line=False)
