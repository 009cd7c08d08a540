"""Drafts by look-up: the tokens that followed the last ones elsewhere in the prompt.

A draft costs nothing where it is right, for it is verified in a pass that runs anyway, and little
where it is wrong. So the length that is proposed follows what was accepted.
"""

from array import array
from collections.abc import Sequence
from typing import Final

MOST: Final = 16
"""Tokens proposed at most: a pass over so many rows costs little more than one over one."""

_FIRST = 4
_LONGEST = 4
_SHORTEST = 2
_TYPE = "q"


class LookUp:
    """Proposes tokens for one line.

    Source:
        Prompt look-up decoding (Saxena, 2023), after the drafts of speculative decoding (Leviathan
        et al., arXiv 2211.17192).

    Args:
        prompt: token ids to look in, other files included.
        tail: the last tokens of the text that the line continues.
    """

    def __init__(self, prompt: Sequence[int], tail: Sequence[int]) -> None:
        self._prompt = array(_TYPE, prompt)
        self._bytes = self._prompt.tobytes()
        self._tail = list(tail[-_LONGEST:])
        self._length = _FIRST

    def propose(self, generated: Sequence[int]) -> tuple[int, ...]:
        """Return what may follow the tokens generated so far; nothing where nothing is known.

        The longest end of the text that occurs in the prompt decides, where it occurs last.
        """
        text = [*self._tail, *generated]
        for size in range(min(_LONGEST, len(text)), _SHORTEST - 1, -1):
            after = self._last_after(text[-size:])
            if after is not None:
                return tuple(self._prompt[after : after + self._length])
        return ()

    def learn(self, proposed: int, accepted: int) -> None:
        """Propose more after a draft that was right, less after one that was wrong at once."""
        if proposed and accepted == proposed:
            self._length = min(MOST, 2 * self._length)
        elif accepted < proposed // 2:
            self._length = max(2, self._length // 2)

    def _last_after(self, needle: Sequence[int]) -> int | None:
        """Return the position after the last occurrence that something follows."""
        wanted, width = array(_TYPE, needle).tobytes(), self._prompt.itemsize
        stop = len(self._bytes) - width
        while (found := self._bytes.rfind(wanted, 0, stop)) >= 0:
            if found % width == 0:
                return found // width + len(needle)
            stop = found + len(wanted) - 1
        return None
