"""Reading the user's files, never writing them."""

import errno
import stat
from contextlib import suppress
from pathlib import Path

from pie_cli.errors import InputError
from pie_cli.watching.tree import MAX_FILE_BYTES

_NO_SUCH_PATH = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


class NotText(InputError):
    """A file holds something else than text."""


def read_source(path: Path) -> str:
    """Read a source file whole, its line ends as they are.

    Raises:
        InputError: missing, unreadable, binary or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", "check the path") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder", "name a file in it") from None
    except OSError as error:
        if error.errno in _NO_SUCH_PATH:
            raise InputError(f"cannot read {path}: {error.strerror}", "check the path") from None
        raise InputError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
    if b"\x00" in data:
        raise NotText(f"{path} is binary", "pie completes source text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotText(
            f"{path} is not UTF-8 (byte {error.start})", "convert it to UTF-8 first"
        ) from None


def read_watched(path: Path, named: bool) -> str:
    """Read a file that is being watched, which may be anything by now.

    Args:
        path: the file.
        named: by the user; else it came with a folder, and a huge one counts as data.

    Raises:
        InputError: as `read_source`, and where it is no regular file or too large.
    """
    with suppress(OSError):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            # A pipe, to read from which would never end.
            raise InputError(f"{path} is neither a file nor a folder", "name a file of text")
        if not named and status.st_size > MAX_FILE_BYTES:
            raise InputError(
                f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB, which counts as data",
                "name the file itself to have it watched all the same",
            )
    return read_source(path)


def shown_path(path: Path) -> str:
    """Return the path as results name it: relative below the working directory, else absolute."""
    absolute = path.absolute()
    try:
        return absolute.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return absolute.as_posix()
