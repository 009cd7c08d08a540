"""One session for each file, within a bound of memory: the least recently used goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from pie_cli.config import Settings
from pie_cli.errors import CacheCapacityError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Prediction
from pie_cli.session import EditableModel, EditSession, OnProgress, ShouldStop, never


@dataclass(frozen=True)
class Dropped:
    """A session that had to go.

    Attributes:
        path: its file.
        freed_bytes: what its cache took.
    """

    path: str
    freed_bytes: int


@final
class SessionPool:
    """Keeps the sessions of the files that were predicted in last.

    Not thread-safe. The session used last always stays, even where it alone is beyond the bound.

    Args:
        model: prepared.
        settings: of every session.
        limit_bytes: for the caches of all sessions together.

    Attributes:
        model, settings, limit_bytes: as given.
    """

    def __init__(self, model: EditableModel, settings: Settings, limit_bytes: int) -> None:
        self.model = model
        self.settings = settings
        self.limit_bytes = limit_bytes
        self._sessions: dict[str, EditSession] = {}
        self._dropped: list[Dropped] = []

    @property
    def cache_bytes(self) -> int:
        """Memory that the caches take."""
        return sum(session.cache_bytes for session in self._sessions.values())

    def text(self, path: str) -> str | None:
        """Return the text that a file had when it was predicted in last; None where forgotten."""
        session = self._sessions.get(path)
        return session.text if session else None

    def session(self, path: str) -> EditSession:
        """Return a file's session, a new one where there is none, and count it as used.

        Raises:
            CacheCapacityError: when the settings leave no room for the file's text.
        """
        session = self._sessions.pop(path, None) or EditSession(self.model, path, self.settings)
        self._sessions[path] = session
        return session

    def predict(
        self,
        path: str,
        text: str,
        context: Sequence[ContextFile] = (),
        should_stop: ShouldStop = never,
        on_progress: OnProgress | None = None,
    ) -> Prediction:
        """Predict in a file's new text, which opens its session if need be.

        Where memory runs out, all other sessions go.

        Args:
            path: of the file.
            text: whole.
            context: other files, in the order in which they stand before it.
            should_stop: asked between decoding passes of a session that was open.
            on_progress: told (tokens done, tokens in all) while a text is encoded from scratch;
                what it raises ends that.

        Raises:
            PieError: when the text cannot be predicted in.
        """
        session = self.session(path)
        try:
            return _brought(session, text, context, should_stop, on_progress)
        except CacheCapacityError as error:
            # Without a cause in the machine it is the settings that leave no room.
            if error.__cause__ is None or len(self._sessions) == 1:
                raise
            self._drop(list(self._sessions)[:-1])
        return _brought(session, text, context, should_stop, on_progress)

    def trim(self) -> list[Dropped]:
        """Keep to the bound.

        Returns:
            The sessions that went since the last time.
        """
        total = self.cache_bytes
        for path in list(self._sessions)[:-1]:
            if total <= self.limit_bytes:
                break
            total -= self._sessions[path].cache_bytes
            self._drop([path])
        dropped, self._dropped = self._dropped, []
        return dropped

    def _drop(self, paths: Sequence[str]) -> None:
        for path in paths:
            self._dropped.append(Dropped(path, self._sessions.pop(path).cache_bytes))


def _brought(
    session: EditSession,
    text: str,
    context: Sequence[ContextFile],
    should_stop: ShouldStop,
    on_progress: OnProgress | None,
) -> Prediction:
    if session.text is None:
        return session.open(text, on_progress, context)
    return session.update(text, should_stop, context=context)
