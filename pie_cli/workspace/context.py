"""The other files before a prompt: which ones, and in what order."""

from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

from pie_cli.prompt.assembly import ContextFile

BUDGET_SHARE = 0.25
"""Part of the window that recently saved files may take up: most of it is for the file itself."""

_CHARS_PER_TOKEN = 3
_ROOM_MADE = 0.75


class Context:
    """Keeps the texts of other files: those the user named, then those saved most recently.

    The order is that in which files came in, and a file keeps its place as long as it stays. What
    moves costs little, since its keys are re-rotated, but what stands behind a change is stale
    until the comparison is done. So the files that the user named, which change least, stand in
    front; a file that comes in takes the place nearest to the text, where nothing but the text is
    behind it; and when there are too many, several go at once, so that this happens seldom.

    Args:
        named: texts of the files that the user wants there; they are never left out here.
        keeps_saved: whether files that are saved become context, as with several files.
        budget_tokens: for those saved, at three characters a token: to count exactly would cost as
            much as tokenizing them all, and the window has the last word anyway.
        show: what the path comment calls a file.
    """

    def __init__(
        self,
        named: Mapping[Path, str],
        *,
        keeps_saved: bool,
        budget_tokens: int,
        show: Callable[[Path], str],
    ) -> None:
        self._named: dict[Path, str | None] = dict(named)
        self._keeps_saved = keeps_saved
        self._budget_chars = budget_tokens * _CHARS_PER_TOKEN
        self._show = show
        self._saved: dict[Path, str] = {}
        self._by_age: dict[Path, None] = {}

    def saved(self, path: Path, text: str) -> None:
        """Take in a text that was saved."""
        if path in self._named:
            self._named[path] = text
        elif self._keeps_saved:
            self._saved[path] = text
            self._by_age.pop(path, None)
            self._by_age[path] = None
            self._make_room(but_for=path)

    def lost(self, path: Path) -> None:
        """Leave out a file that cannot be read any more; one that the user named may come back."""
        if path in self._named:
            self._named[path] = None
        else:
            self._drop(path)

    def before(self, path: Path) -> tuple[ContextFile, ...]:
        """Return what stands before the prompt of a file, which is all but itself."""
        return tuple(
            ContextFile(self._show(other), text)
            for other, text in chain(self._named.items(), self._saved.items())
            if other != path and text is not None
        )

    def _make_room(self, but_for: Path) -> None:
        """Keep to the budget, the file left aside that was saved now: it is predicted in."""
        sizes = {path: len(text) for path, text in self._saved.items() if path != but_for}
        for path, size in sizes.items():
            if size > self._budget_chars:
                self._drop(path)
                sizes[path] = 0
        total = sum(sizes.values())
        if total <= self._budget_chars:
            return
        for path in list(self._by_age):
            if path != but_for and total > _ROOM_MADE * self._budget_chars:
                self._drop(path)
                total -= sizes[path]

    def _drop(self, path: Path) -> None:
        self._saved.pop(path, None)
        self._by_age.pop(path, None)
