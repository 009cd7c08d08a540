"""Whether a line looks done: what its last characters say of it."""

import re
from typing import Final

_LAST: Final = (*")]}\"';{:,",)
_BRACKETS: Final = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
_WORD: Final = re.compile(r"\w+$")


def looks_done(line: str) -> bool:
    """Tell whether a line ends with what often ends one, no bracket in it open but the last.

    Args:
        line: up to the cursor.
    """
    line = line.rstrip()
    opened = sum(_BRACKETS.get(character, 0) for character in line)
    return line.endswith(_LAST) and (opened <= 0 or _BRACKETS.get(line[-1], 0) > 0)


def ends_with_known_word(line: str, *others: str) -> bool:
    """Tell whether the last word of a line is in other texts as well: then it is no half word.

    Args:
        line: up to the cursor.
        others: the texts beside it.
    """
    word = _WORD.search(line)
    if word is None:
        return False
    whole = re.compile(rf"(?<!\w){re.escape(word[0])}(?!\w)")
    return any(whole.search(other) for other in (line[: word.start()], *others))
