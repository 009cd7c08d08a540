"""Brackets and quotes that one part of a line opens and another one closes."""

import re
from typing import Final

_OPENER_OF: Final = {")": "(", "]": "[", "}": "{"}
_OPENERS: Final = frozenset(_OPENER_OF.values())
_QUOTES: Final = frozenset("\"'`")

# An apostrophe within a word, as in "don't", but for the prefixes of Python's strings.
_APOSTROPHE: Final = re.compile(r"(?<=\w)(?<!\b[rbfuRBFU])(?<!\b[rbfRBF][rbfRBF])'")

CLOSING: Final = frozenset(_OPENER_OF) | _QUOTES


def closed_by(typed: str, line: str) -> list[int]:
    """Find what closes, in a line's rest, something that was open before it.

    It knows of no language: a quote within quotes of another kind is text, and so are brackets.

    Args:
        typed: the line before the rest.
        line: the rest.

    Returns:
        Where in the rest the closing brackets and quotes are, ascending.
    """
    text = typed + line
    apostrophes = {found.start() for found in _APOSTROPHE.finditer(text)}
    open_now: list[str] = []
    n_before, found = 0, []
    is_escaped = False
    for place, character in enumerate(text, start=-len(typed)):
        if place == 0:
            n_before = len(open_now)
        if place + len(typed) in apostrophes and open_now[-1:] != ["'"]:
            continue
        inside = open_now[-1] if open_now and open_now[-1] in _QUOTES else None
        if is_escaped:
            is_escaped = False
        elif inside and character == "\\":
            is_escaped = True
        elif open_now and open_now[-1] == ((inside and character) or _OPENER_OF.get(character)):
            open_now.pop()
            if place >= 0 and len(open_now) < n_before:
                n_before = len(open_now)
                found.append(place)
        elif not inside and (character in _QUOTES or character in _OPENERS):
            open_now.append(character)
    return found


def written_again(typed: str, line: str, rest: str) -> int:
    """Tell how much of what follows a place a line written there says once more.

    Editors close brackets and quotes as soon as they are opened: what is written between them may
    close them, too, and go on.

    Args:
        typed: before the place, in its line.
        line: to be written there, or several.
        rest: after the place, in its line.

    Returns:
        Characters of the rest that the line takes the place of.
    """
    taken = 0
    last = -1
    for place in closed_by(typed, line):
        at = taken + len(rest[taken:]) - len(rest[taken:].lstrip())
        if rest[at : at + 1] != line[place]:
            break
        taken, last = at + 1, place
    tail = line[last + 1 :].partition("\n")[0]
    return taken + len(tail) * (taken > 0 and rest[taken:].startswith(tail))
