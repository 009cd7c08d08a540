"""Positions as editors count them, and characters as Python does."""

import re
from collections.abc import Callable
from typing import Final

from pie_cli.errors import InputError
from pie_cli.text.cursor import BOM, Cursor, line_offset

UTF_8: Final = "utf-8"
UTF_16: Final = "utf-16"
UTF_32: Final = "utf-32"

_LINE_END = re.compile("\r\n|\n|\r")
_LONE_RETURN = re.compile("\r(?!\n)")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Replace halves of surrogate pairs, which are no text, by as many characters of one unit."""
    return _SURROGATE.sub("\ufffd", text)


def _units_8(character: str) -> int:
    return len(character.encode("utf-8"))


def _units_16(character: str) -> int:
    return 1 + (character > "\uffff")


_UNITS: Final[dict[str, Callable[[str], int]]] = {UTF_8: _units_8, UTF_16: _units_16}


def offset_at(text: str, line: int, units: int, encoding: str = UTF_16) -> int:
    """Return the characters before a position.

    Beyond a line's end is its end, and beyond the last line is the text's end, as the protocol has
    it. Within a character is before it.

    Args:
        text: whole.
        line: from 0; a line ends at a newline, a carriage return, or both.
        units: from the line's beginning, from 0.
        encoding: that units are of.

    Raises:
        InputError: a negative position, or more than one line beyond the text's last one.
    """
    start, stop = _line_span(text, line)
    content = text[start:stop]
    if encoding == UTF_32 or content.isascii():
        return start + min(max(units, 0), len(content))
    width, at = _UNITS[encoding], 0
    for count, character in enumerate(content):
        at += width(character)
        if at > units:
            return start + count
    return stop


def position_of(text: str, offset: int, encoding: str = UTF_16) -> tuple[int, int]:
    """Return line and units of the place after so many characters."""
    before = text[:offset]
    ends = [end.end() for end in _LINE_END.finditer(before)] if _LONE_RETURN.search(before) else []
    line = len(ends) if ends else before.count("\n")
    start = ends[-1] if ends else before.rfind("\n") + 1
    content = before[start:]
    if encoding == UTF_32 or content.isascii():
        return line, len(content)
    return line, sum(map(_UNITS[encoding], content))


def cursor_at(text: str, offset: int) -> Cursor:
    """Return the cursor of a place.

    At the end of a line that has content the model says whether the line goes on or the next one
    comes; elsewhere the rest of the line is meant.
    """
    line, start = text.count("\n", 0, offset), text.rfind("\n", 0, offset) + 1
    stop = text.find("\n", offset)
    rest = text[offset:] if stop < 0 else text[offset:stop]
    is_end = bool(text[start:offset].strip()) and not rest.strip()
    marked = line == 0 and text.startswith(BOM)
    return Cursor(line, max(0, offset - start - marked), follows_edits=is_end)


def _line_span(text: str, line: int) -> tuple[int, int]:
    """Return where a line begins and where it ends, its line end not included."""
    if _LONE_RETURN.search(text):
        return _line_span_anyhow(text, line)
    start = line_offset(text, line) if line >= 0 else None
    if start is None:
        return _beyond(text, line, text.count("\n"))
    stop = text.find("\n", start)
    if stop < 0:
        return start, len(text)
    return start, stop - (stop > start and text[stop - 1] == "\r")


def _line_span_anyhow(text: str, line: int) -> tuple[int, int]:
    ends = list(_LINE_END.finditer(text))
    if not 0 <= line <= len(ends):
        return _beyond(text, line, len(ends))
    start = ends[line - 1].end() if line else 0
    return start, ends[line].start() if line < len(ends) else len(text)


def _beyond(text: str, line: int, last: int) -> tuple[int, int]:
    # Some clients name the line after the last one for the end of the text.
    if line == last + 1:
        return len(text), len(text)
    raise InputError(f"line {line} is outside the document, whose last is {last}", "open it again")
