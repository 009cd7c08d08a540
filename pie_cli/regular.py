"""Reading that comes to an end: regular files of a bounded size, no pipes and no devices."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

_PIPES: Final = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
"""How shells spell the output of a command that takes the place of a file."""


def is_regular(path: Path) -> bool:
    """Tell whether a path leads to a regular file; no name is too strange to ask about."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_named_pipe(path: Path) -> bool:
    """Tell whether a path leads to a pipe to which writing may wait for ever."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode) and not str(path).startswith(_PIPES)
    except (OSError, ValueError):
        return False


def read_regular(path: Path, max_bytes: int | None = None, *, pipes: bool = False) -> bytes:
    """Read a file whole, unless it is something that might never end.

    Args:
        path: the file; links are followed.
        max_bytes: more counts as a failure.
        pipes: whether what a shell puts in a file's place, as in `<(git diff)`, may be read.

    Raises:
        OSError: missing, unreadable, a folder, too large, no regular file, or a name that no file
            can have.
    """
    if pipes and str(path).startswith(_PIPES):
        return path.read_bytes()
    try:
        mode = path.stat().st_mode
        _require_regular(path, mode)
        # Should a pipe take its place right now, opening must not wait for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:
        raise OSError(errno.EINVAL, "no file can be called that", str(path)) from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        _require_regular(path, status.st_mode)
        if max_bytes is not None and status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"larger than {max_bytes >> 20} MiB", str(path))
        return file.read() if max_bytes is None else file.read(max_bytes)


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
