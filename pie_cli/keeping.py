"""Exact caches kept on disk between runs: one file a document, within a bound."""

import hashlib
import logging
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, final

from safetensors import SafetensorError, safe_open

from pie_cli.editable import EditableModel
from pie_cli.effort import Effort
from pie_cli.engine.protocol import Engine, FromDisk
from pie_cli.errors import InputError, PieError
from pie_cli.folders import cache_folder
from pie_cli.regular import is_regular
from pie_cli.storing import reason, remedy
from pie_cli.text.cursor import Cursor
from pie_cli.text.matching import common_prefix

LIMIT_BYTES: Final = 1 << 30
"""Of all kept caches together."""

_SUFFIX: Final = ".safetensors"
_TEMPORARY: Final = "tmp-"
_ABANDONED_S: Final = 3_600
_TOKENS: Final = "effort_tokens"
_MS: Final = "effort_ms"
_TEXT: Final = "text"
_CURSOR: Final = "cursor"

_log = logging.getLogger(__name__)


def kept_folder() -> Path:
    """Return the folder of kept caches, in the user's cache."""
    return cache_folder() / "kept"


def kept_caches(model: EditableModel, *, wanted: bool) -> "KeptCaches | None":
    """Return the kept caches of a model.

    None where they are not wanted, or where runs cannot tell the model from others.
    """
    return KeptCaches(model.identity) if wanted and model.identity is not None else None


@final
class KeptCaches:
    """The kept caches of one model; other models' are beside them, within the same bound.

    Args:
        model: its identity.
        limit_bytes: of all files together.
    """

    def __init__(self, model: str, limit_bytes: int = LIMIT_BYTES) -> None:
        self.model = model
        self._limit = limit_bytes

    def of(self, document: Path) -> "KeptCache":
        """Return the place for a document's cache."""
        key = f"{self.model}\n{document.absolute()}"
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        return KeptCache(self.model, kept_folder() / f"{digest[:32]}{_SUFFIX}", self._limit)


@final
class KeptCache:
    """The place of one document's cache.

    Args:
        model: identity of whose cache it is.
        path: of the file.
        limit_bytes: of all files of the folder together.

    Attributes:
        path: as given.
    """

    def __init__(self, model: str, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._model = model
        self._limit = limit_bytes
        self._found: FromDisk | None = None

    def fill(self, engine: Engine, token_ids: list[int]) -> int:
        """Fill the beginning of a prompt, of which nothing is encoded yet.

        Returns:
            Tokens that are in the engine's cache now, exactly.
        """
        self._found = None
        if is_regular(self.path):
            self._found = engine.read_states(self.path, token_ids, self._model)
        if self._found is None or not self._found.tokens:
            return 0
        self._touch()
        return self._found.tokens

    def cursor(self, text: str) -> Cursor | None:
        """Return where the last run followed edits to, if it ended with this very text."""
        if not is_regular(self.path):
            return None
        try:
            with safe_open(self.path, framework="np") as file:
                facts = file.metadata() or {}
            cursor = replace(Cursor.parse(facts[_CURSOR]), follows_edits=True)
            if facts[_TEXT] == _digest(text):
                return cursor.within(text)
        except (SafetensorError, OSError, LookupError, InputError) as error:
            _log.debug("no cursor in %s: %s", self.path, error)
        return None

    def effort(self) -> Effort:
        """Return what encoding took whoever wrote what was filled in."""
        facts = self._found.facts if self._found else {}
        with suppress(LookupError, ValueError):
            return Effort(int(facts[_TOKENS]), float(facts[_MS]))
        return Effort()

    def keep(
        self, engine: Engine, token_ids: list[int], effort: Effort, text: str, cursor: Cursor
    ) -> int:
        """Keep a prompt's cache, all of which is exact.

        What is there stays where it begins with this prompt: another look at a part of a text
        shall not cost the rest.

        Args:
            engine: holds the prompt.
            token_ids: of the prompt.
            effort: what encoding takes.
            text: that the prompt is of.
            cursor: in it.

        Returns:
            Bytes of the file; 0 where nothing is kept.

        Raises:
            PieError: it cannot be written.
        """
        try:
            facts = {_TOKENS: str(effort.tokens), _MS: str(effort.ms), _TEXT: _digest(text)}
            if cursor.follows_edits and cursor.line is not None:
                facts[_CURSOR] = f"{cursor.line + 1}:{cursor.column + 1}"
            return self._keep(engine, token_ids, facts)
        except OSError as error:
            folder = self.path.parent
            raise PieError(
                f"the cache cannot be kept in {folder}: {reason(error)}",
                f"{remedy(error)}, set XDG_CACHE_HOME to another folder, or leave --keep-cache out",
            ) from error

    def _keep(self, engine: Engine, token_ids: list[int], facts: dict[str, str]) -> int:
        if self._found and common_prefix(self._found.token_ids, token_ids) >= len(token_ids) - 1:
            with suppress(FileNotFoundError):
                size = self.path.stat().st_size
                self._touch()
                return size
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
        os.close(handle)
        temporary = Path(name)
        try:
            # Not waited for until it is on the disk: after a power cut its checksums tell.
            size = engine.write_states(temporary, token_ids, self._model, facts, self._limit)
            if size:
                self._make_room(size)
                temporary.replace(self.path)
            return size
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Remove what killed processes left, and what was used least recently."""
        others: list[tuple[float, int, Path]] = []
        for path in self.path.parent.iterdir():
            with suppress(OSError):
                status = path.stat()
                if path.name.startswith(_TEMPORARY):
                    if time.time() - status.st_mtime > _ABANDONED_S:
                        path.unlink()
                elif path.suffix == _SUFFIX and path != self.path:
                    others.append((status.st_mtime, status.st_size, path))
        total = size + sum(one for _, one, _ in others)
        for _, freed, path in sorted(others):
            if total <= self._limit:
                return
            _log.debug("%s goes, to keep to the bound", path)
            path.unlink(missing_ok=True)
            total -= freed

    def _touch(self) -> None:
        """Note that it was used: by this time the least recently used are found."""
        with suppress(OSError):
            os.utime(self.path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
