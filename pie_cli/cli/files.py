"""Reading the user's files, never writing them."""

import errno
from pathlib import Path

from pie_cli.errors import InputError

_NO_SUCH_PATH = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)


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
        raise InputError(f"{path} is binary", "pie completes source text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start})", "convert it to UTF-8 first"
        ) from None


def shown_path(path: Path) -> str:
    """Return the path as results name it: relative below the working directory, else absolute."""
    absolute = path.absolute()
    try:
        return absolute.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return absolute.as_posix()
