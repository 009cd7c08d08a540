"""Lines of prose broken to fit a width, between phrases rather than within one."""

import re
from collections.abc import Iterator

from rich.cells import cell_len

_PHRASE_ENDS = re.compile(r"(?<=[,;:.]) ")


def folded(line: str, width: int) -> list[str]:
    """Break a line into rows; each begins as far to the right as the line does.

    A phrase that fits a row stays whole. A word that fits none is left as long as it is.

    Args:
        line: of words.
        width: of a row, in cells.
    """
    words = line.lstrip(" ")
    lead = line[: len(line) - len(words)]
    rows: list[str] = []
    for piece in _pieces(words, width - len(lead)):
        joined = f"{rows[-1]} {piece}" if rows else ""
        if rows and cell_len(joined) <= width:
            rows[-1] = joined
        else:
            rows.append(lead + piece)
    return rows


def _pieces(line: str, width: int) -> Iterator[str]:
    """Give the phrases of a line, and the words of those that are too long."""
    if cell_len(line) <= width:
        yield line
        return
    for phrase in _PHRASE_ENDS.split(line):
        if cell_len(phrase) <= width:
            yield phrase
        else:
            yield from phrase.split(" ")
