"""The other documents before a prompt: which ones, and in what order."""

from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from pie_cli.prompt.assembly import ContextFile
from pie_cli.workspace.documents import Documents

BUDGET_SHARE = 0.25
"""Part of the window that recently saved files may take up: most of it is for the file itself."""

_CHARS_PER_TOKEN = 3
_ROOM_MADE = 0.75


class Context:
    """Chooses the documents before a prompt: those the user named, then those changed recently.

    The order is that in which they came in, and a document keeps its place as long as it stays.
    What moves costs little, since its keys are re-rotated, but what comes after a change is stale
    until the comparison is done. So those that the user named, which change least, come first; one
    that comes in takes the place nearest to the text, where nothing but the text comes after it;
    and when there are too many, several go at once, so that this happens seldom.

    Args:
        documents: own the texts; those of documents that go are released.
        named: what the user wants there; it is never left out here.
        keeps_changed: whether documents that change become context, as with several files.
        budget_tokens: for those changed, at three characters a token: to count exactly would cost
            as much as tokenizing them all, and the window has the last word anyway.
        show: what the path comment calls a document.
    """

    def __init__(
        self,
        documents: Documents,
        named: Iterable[Path],
        *,
        keeps_changed: bool,
        budget_tokens: int,
        show: Callable[[Path], str],
    ) -> None:
        self._documents = documents
        self._named = dict.fromkeys(named)
        self._keeps_changed = keeps_changed
        self._budget_chars = budget_tokens * _CHARS_PER_TOKEN
        self._show = show
        self._changed: dict[Path, None] = {}
        self._by_age: dict[Path, None] = {}

    def __bool__(self) -> bool:
        """Whether anything could ever come before a prompt."""
        return bool(self._named) or self._keeps_changed

    def changed(self, path: Path) -> None:
        """Take in that a document has a new text."""
        if path not in self._named and self._keeps_changed:
            self._changed[path] = None
            self._by_age.pop(path, None)
            self._by_age[path] = None
            self._make_room(but_for=path)

    def lost(self, path: Path) -> None:
        """Leave out a document that cannot be read; one that the user named may come back."""
        self._changed.pop(path, None)
        self._by_age.pop(path, None)

    def before(self, path: Path) -> tuple[ContextFile, ...]:
        """Return what comes before the prompt of a document, which is all but itself."""
        others = (self._documents.get(other) for other in chain(self._named, self._changed))
        return tuple(
            ContextFile(self._show(other.path), other.text)
            for other in others
            if other is not None and other.path != path
        )

    def _make_room(self, but_for: Path) -> None:
        """Keep to the budget, not counting the document changed now: it is predicted in."""
        sizes = {path: self._size(path) for path in self._changed if path != but_for}
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

    def _size(self, path: Path) -> int:
        document = self._documents.get(path)
        return len(document.text) if document else 0

    def _drop(self, path: Path) -> None:
        self.lost(path)
        self._documents.release(path)
