"""Places as people paste them, such as FILE:LINE[:COL], as a path or with `--at`."""

import re
from contextlib import suppress
from pathlib import Path

from pie_cli.config import Settings
from pie_cli.errors import InputError
from pie_cli.text.cursor import Cursor
from pie_cli.watching.files import real_path

# What compilers, linters and grep print, with what they say there or without; then MSVC and tsc,
# links to hosted repositories, Python's tracebacks.
_PLACES = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?!\d+:)(.+?):(\d{1,9})(?::(\d{1,9}))?(?::.*)?",
        r"(.+?)\((\d{1,9})(?:, ?(\d{1,9}))?\)(?::.*)?",
        r"(.+?)#L(\d{1,9})(?:C(\d{1,9}))?",
        r"(?:File )?\"(.+?)\", line (\d{1,9})()(?:,.*)?",
    )
)


def place_of(path: Path | None, at: str) -> tuple[Path | None, str]:
    """Take a file and a place apart, however they are written.

    Args:
        path: the file, or a place in one, where no file is called so.
        at: a place, with its file or without.

    Returns:
        The file and the place in it.

    Raises:
        InputError: two places, or two files.
    """
    file, place = _taken_apart(at)
    if path is not None and not _exists(path):
        named, line = _taken_apart(str(path))
        if named is not None:
            if at != Settings.at:
                raise InputError(
                    f"{path} and --at {at} are two places", "give the place once: leave one out"
                )
            path, place = named, line
    if file is None:
        return path, place
    if path is not None and real_path(path) != real_path(file):
        raise InputError(f"--at {at} is about another file than {path}", "name the same file")
    return path or file, place


def _exists(path: Path) -> bool:
    with suppress(OSError, ValueError):
        return path.exists()
    return False


def _taken_apart(text: str) -> tuple[Path | None, str]:
    """Return the file, if one is named, and the rest."""
    text = text.strip()
    with suppress(InputError):
        Cursor.parse(text)
        return None, text
    for pattern in _PLACES:
        found = pattern.fullmatch(text)
        if found:
            column = f":{found[3]}" if found[3] else ""
            return Path(found[1]), found[2] + column
    return None, text
