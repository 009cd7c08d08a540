"""One session for each document, within a bound of memory: the least recently used goes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.engine.protocol import ShouldStop
from pie_cli.errors import PieError
from pie_cli.keeping import KeptCaches
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Prediction
from pie_cli.session import EditSession
from pie_cli.text.cursor import Cursor
from pie_cli.text.edit import Edit
from pie_cli.workspace.documents import Document
from pie_cli.workspace.events import Dropped, Kept, NotKept


@dataclass(frozen=True)
class Task:
    """What a session is to be brought to.

    Attributes:
        document: whose text.
        number: of the newest change that was taken.
        before: what comes before the text.
        should_stop: ends the line early.
        edit: that leads there, if known.
        cursor: where to predict; None for where the session has it.
    """

    document: Document
    number: int
    before: tuple[ContextFile, ...]
    should_stop: ShouldStop
    edit: Edit | None
    cursor: Cursor | None


@dataclass
class OpenSession:
    """A session, and the version of its document that it was brought to.

    Attributes:
        session: of one document.
        document: None until a text has been encoded.
        context: what came before its text then.
        prediction: the last one, if it was finished and nothing has contradicted it since.
        resting: where the cursor was, in which text, before questions moved it elsewhere.
    """

    session: EditSession
    document: Document | None = None
    context: tuple[ContextFile, ...] = ()
    prediction: Prediction | None = None
    resting: tuple[Cursor, str] | None = None

    def prediction_for(
        self, text: str, cursor: Cursor | None, context: tuple[ContextFile, ...]
    ) -> Prediction | None:
        """Return what was predicted there already; None where that would be something else."""
        session = self.session
        same = session.text == text and self.context == context
        return self.prediction if same and cursor in (None, session.cursor) else None

    def lend(self) -> None:
        """Remember where the cursor is, which a question is about to move."""
        if self.resting is None and self.session.text is not None:
            self.resting = self.session.cursor, self.session.text

    def cursor_back(self, text: str) -> Cursor | None:
        """Return where a lent cursor is in a new text; None where it was not lent."""
        resting, self.resting = self.resting, None
        if resting is None:
            return None
        cursor, before = resting
        return cursor.moved(Edit.between(before, text)).within(text)


@final
class SessionPool:
    """Keeps the sessions of the documents that were predicted in last.

    Not thread-safe. The session used last always stays, even where it alone is beyond the bound.

    Args:
        model: prepared.
        settings: of every session.
        limit_bytes: for the caches of all sessions together.
        kept: where caches are kept between runs; None for nowhere.

    Attributes:
        model, settings, limit_bytes: as given.
    """

    def __init__(
        self,
        model: EditableModel,
        settings: Settings,
        limit_bytes: int,
        kept: KeptCaches | None = None,
    ) -> None:
        self.model = model
        self.settings = settings
        self.limit_bytes = limit_bytes
        self._kept = kept
        self._open: dict[str, OpenSession] = {}
        self._dropped: list[tuple[str, int]] = []

    @property
    def cache_bytes(self) -> int:
        """Memory that the caches take."""
        return sum(one.session.cache_bytes for one in self._open.values())

    def __contains__(self, path: str) -> bool:
        """Whether a document has a session."""
        return path in self._open

    def use(self, path: str, file: Path | None = None) -> OpenSession:
        """Return a document's session, a new one where there is none, and count it as used.

        Args:
            path: what the document is called.
            file: where it is, by which its cache is kept; None for where its name says.

        Raises:
            CacheCapacityError: when the settings leave no room for the document's text.
        """
        used = self._open.pop(path, None)
        if used is None:
            place = self._kept.of(file or Path(path)) if self._kept else None
            used = OpenSession(EditSession(self.model, path, self.settings, place))
        self._open[path] = used
        return used

    def drop_others(self) -> bool:
        """Drop all sessions but the one used last, and tell whether there were any."""
        others = list(self._open)[:-1]
        for path in others:
            self._drop(path)
        return bool(others)

    def keep(self) -> Iterator[Kept | NotKept]:
        """Keep on disk what caches are exact, for the next run; the one used last comes last.

        Yields:
            What became of each that was to be kept.
        """
        for path, used in self._open.items():
            try:
                size = used.session.keep()
            except PieError as error:
                # The others would fail as well.
                yield NotKept(path, error)
                return
            if size:
                yield Kept(path, size)
            elif self._kept and used.session.prompt and not used.session.exact:
                cause = f"the cache of {path} is not kept: it was not exact yet"
                yield NotKept(path, PieError(cause, "end after a comparison"))

    def trim(self) -> list[Dropped]:
        """Keep to the bound.

        Returns:
            The sessions that went since the last time.
        """
        total = self.cache_bytes
        for path in list(self._open)[:-1]:
            if total <= self.limit_bytes:
                break
            total -= self._open[path].session.cache_bytes
            self._drop(path)
        dropped, self._dropped = self._dropped, []
        return [Dropped(path, freed, total) for path, freed in dropped]

    def _drop(self, path: str) -> None:
        self._dropped.append((path, self._open.pop(path).session.cache_bytes))
