"""What an editor inserts for a predicted line."""

import re

from pie_cli.results import Prediction

_WORD_BEFORE = re.compile(r"\w*\Z")


def insertion(text: str, offset: int, prediction: Prediction) -> str | None:
    """Return what to insert at a place for a line predicted there; None where there is nothing.

    A line that ends with what follows the place already is cut there; one that is predicted before
    a whole line gets a line end.

    Args:
        text: of the document.
        offset: of the place, in characters.
        prediction: made for it.
    """
    line = prediction.text
    if not line.strip():
        return None
    stop = text.find("\n", offset)
    rest = (text[offset:] if stop < 0 else text[offset:stop]).rstrip()
    if not rest:
        return line
    if text.rfind("\n", 0, offset) + 1 == offset:
        return line + "\n"
    return line.removesuffix(rest) or None


def word_before(text: str, offset: int) -> str:
    """Return the part of a word that is right before a place."""
    start = text.rfind("\n", 0, offset) + 1
    found = _WORD_BEFORE.search(text[start:offset])
    return found.group() if found else ""
