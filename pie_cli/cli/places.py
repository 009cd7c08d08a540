"""Places as people paste them: FILE:LINE[:COL], as a path or with `--at`."""

import re
from contextlib import suppress
from pathlib import Path

from pie_cli.config import Settings
from pie_cli.errors import InputError
from pie_cli.text.cursor import Cursor
from pie_cli.watching.files import real_path

# What compilers, linters and grep print; some end it with a colon.
_PLACE = re.compile(r"(?!\d+:)(.+?):(\d{1,9}(?::\d{1,9})?):?")


def place_of(path: Path | None, at: str) -> tuple[Path | None, str]:
    """Take a file and a place apart, however they are written.

    Args:
        path: the file, or FILE:LINE[:COL] where no file is called so.
        at: a place, or FILE:LINE[:COL].

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
    try:
        Cursor.parse(text)
    except InputError:
        found = _PLACE.fullmatch(text)
        return (Path(found[1]), found[2]) if found else (None, text)
    return None, text
