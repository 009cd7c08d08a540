"""What an editor inserts for a predicted line."""

import re

from pie_cli.results import Prediction
from pie_cli.text.answer import columns
from pie_cli.text.brackets import closed_by, written_again

_WORD_BEFORE = re.compile(r"\w*\Z")


def insertion(text: str, offset: int, prediction: Prediction) -> str | None:
    """Return what to insert at a place for what was predicted there; None where there is nothing.

    Lines of their own get a line end: before them after a line that is done, after them before a
    line that is there.

    Args:
        text: of the document.
        offset: of the place, in characters.
        prediction: made for it.
    """
    line = prediction.text
    if not line.strip():
        return None
    start = text.rfind("\n", 0, offset) + 1
    if prediction.completes_line:
        return line
    if start < offset:
        return "\n" + line
    stop = text.find("\n", offset)
    rest = text[offset:] if stop < 0 else text[offset:stop]
    return line + "\n" if rest.strip() else line


def replacement(text: str, offset: int, prediction: Prediction) -> tuple[str, int] | None:
    """Return what to write at a place, and in place of how many characters after it, if anything.

    What the editor has closed already is not closed again, and further lines come below the whole
    line of the place.

    Args:
        text: of the document.
        offset: of the place, in characters.
        prediction: made for it.
    """
    line = insertion(text, offset, prediction)
    if line is None:
        return None
    start, stop = text.rfind("\n", 0, offset) + 1, text.find("\n", offset)
    rest = (text[offset:] if stop < 0 else text[offset:stop]).removesuffix("\r")
    if not prediction.completes_line or not rest.strip():
        return line, 0
    first, newline, more = line.partition("\n")
    typed = text[start:offset]
    taken = written_again(typed, first, rest)
    if newline:
        again = written_again(typed, line, rest)
        is_deeper = columns(more.lstrip("\n")) > columns(typed)
        if again > taken or (is_deeper and closed_by(typed + first, rest[taken:])):
            # The lines below are within brackets that the editor has closed already.
            return line + rest[again:], len(rest)
        return f"{first}{rest[taken:]}\n{more}", len(rest)
    shorter = first[: len(first) - taken]
    if first.endswith(rest[:taken]) and not written_again(typed, shorter, rest):
        first, taken = shorter, 0
    return (first, taken) if first.strip() else None


def word_before(text: str, offset: int) -> str:
    """Return the part of a word that is right before a place."""
    start = text.rfind("\n", 0, offset) + 1
    found = _WORD_BEFORE.search(text[start:offset])
    return found.group() if found else ""
