"""Indentation: between which columns the next line may begin, by the lines above it."""

import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from pie_cli.text.answer import TAB, columns, opens_block

_LINES: Final = 200
"""Lines above the cursor that are looked at."""

_DEFAULT_STEP: Final = 4
_PYTHON: Final = (".py", ".pyi")
_PAIRS: Final = {")": "(", "]": "[", "}": "{"}
_BRACKET: Final = re.compile(r"[()\[\]{}]")
# Strings and comments, whose brackets and colons mean nothing.
_NO_CODE: Final = re.compile(
    r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`[^`\n]*`|(?<!\S)#.*|//.*|/\*.*?\*/"
)
_TRIPLE: Final = re.compile(r"\"\"\"|'''")


@dataclass(frozen=True, slots=True)
class Indent:
    """Columns from which the content of the next line may begin, both included."""

    lowest: int
    deepest: int

    def fits(self, begun: str) -> bool:
        """Tell whether a line that begins so may still begin between the columns.

        Args:
            begun: from a line's beginning on, with blank lines before it or not.
        """
        line = begun.rsplit("\n", 1)[-1]
        column = columns(line + ".")
        return column <= self.deepest and (not line.strip() or column >= self.lowest)


def next_indent(above: str, path: str, below: str | None = None) -> Indent:
    """Find between which columns the line after a text may begin.

    Never deeper than a level below the line above, or than the bracket that is open. In Python,
    where the language says it, not deeper than a line that opens nothing, and deeper than one that
    opens a block. The level is the one that the lines above use. Not less deep than the lines on
    both sides of it, which it would part from their block.

    Args:
        above: the text up to the end of a line.
        path: of the file.
        below: the next line with content; None without one, or where that may be part of what the
            line begins.
    """
    found = _after(above, path)
    if below is None or not above.strip():
        return found
    beside = min(columns(below), columns(above[above.rstrip().rfind("\n") + 1 :]))
    return replace(found, lowest=max(found.lowest, min(beside, found.deepest)))


def _after(above: str, path: str) -> Indent:
    """Find between which columns the line may begin by what is above it."""
    lines = [line for line in above.rstrip().rsplit("\n", _LINES)[-_LINES:] if line.strip()]
    if not lines:
        return Indent(0, 0)
    last = lines[-1].rstrip()
    base, step = columns(last), _step(lines)
    code = [_NO_CODE.sub(_blank, line.rstrip()) for line in lines]
    open_at = _open_bracket(code)
    if open_at is not None:
        return Indent(0, max(base + step, open_at))
    python = path.endswith(_PYTHON) and len(_TRIPLE.findall(above)) % 2 == 0
    if not python:
        return Indent(0, base + step)
    if code[-1].rstrip().endswith(":"):
        return Indent(base + 1, base + step)
    return Indent(0, base + step if last.endswith("\\") or opens_block(code[-1]) else base)


def _blank(found: re.Match[str]) -> str:
    """Replace what is no code by as many characters, a comment by blanks."""
    text = found.group()
    return " " * len(text) if text.startswith(("#", "/")) else "_" * len(text)


def _step(lines: list[str]) -> int:
    """Return the width of a level: that of a tab, or the most usual step to the right."""
    if any(line.startswith("\t") for line in lines):
        return TAB
    widths = [columns(line) for line in lines]
    steps = Counter(b - a for a, b in pairwise(widths) if b - a > 1)
    return max(steps, key=lambda step: (steps[step], step)) if steps else _DEFAULT_STEP


def _open_bracket(code: list[str]) -> int | None:
    """Return the column after the last bracket that is open at the end, None where none is.

    A bracket that ends its line allows what any line allows: its column counts for nothing. Where
    the first lines close what was opened above them, nobody knows: those are passed over.
    """
    stack: list[tuple[str, int]] = []
    for line in code:
        expanded = line.expandtabs(TAB)
        stripped = expanded.rstrip()
        for found in _BRACKET.finditer(stripped):
            bracket = found.group()
            if bracket not in _PAIRS:
                stack.append((bracket, 0 if found.end() == len(stripped) else found.end()))
            elif stack and stack[-1][0] == _PAIRS[bracket]:
                stack.pop()
    if not stack or stack[-1][0] == "{":
        return None
    return stack[-1][1]
