"""Which document a text without a name belongs to: the one with most lines in common."""

from collections import Counter
from pathlib import Path
from typing import final

_MOST_KNOWN = 16
_SHARE = 0.5


@final
class Finder:
    """Gives texts paths, so that a text that was edited finds its session again.

    A client of HTTP sends a window of its buffer, which moves with the cursor: lines come and go at
    both ends, besides the edit. What stays is most of the lines.
    """

    def __init__(self) -> None:
        self._known: dict[Path, Counter[str]] = {}
        self._named = 0

    def find(self, text: str) -> Path:
        """Return the path of the document that a text is a version of, or a new one.

        The text is its document's last version from now on. Documents looked for least recently are
        forgotten.
        """
        lines = Counter(text.split("\n"))
        path = self._nearest(lines, len(text)) or self._new_path()
        self._known.pop(path, None)
        self._known[path] = lines
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return path

    def _nearest(self, lines: Counter[str], length: int) -> Path | None:
        shares = {path: _common(lines, known) for path, known in self._known.items()}
        best = max(reversed(shares), key=lambda path: shares[path], default=None)
        if best is None or shares[best] < _SHARE * length:
            return None
        return best

    def _new_path(self) -> Path:
        self._named += 1
        return Path(f"buffer-{self._named}")


def _common(one: Counter[str], other: Counter[str]) -> int:
    """Return the characters of the lines that two texts have in common, line ends included."""
    return sum((len(line) + 1) * min(count, other[line]) for line, count in one.items())
