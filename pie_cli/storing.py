"""What cannot be written: why, in plain words, and what mends it, told from the system's error."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

_IN_THE_WAY: Final = "a file is in the way"

NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of errors that say that a disk, a quota or a limit of files is reached."""

_REASONS: Final = MappingProxyType({errno.EEXIST: _IN_THE_WAY, errno.ENOTDIR: _IN_THE_WAY})
_REMEDIES: Final = MappingProxyType(
    {
        **dict.fromkeys(NO_ROOM, "make room there"),
        **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "move it away"),
        **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable"),
    }
)
_NUMBER: Final = re.compile(r"os error (\d+)|\[Errno (\d+)\]")


def reason(error: OSError) -> str:
    """Return why something cannot be written, without a full stop."""
    return _REASONS.get(error.errno or 0, error.strerror or str(error))


def remedy(error: OSError, otherwise: str = "check it") -> str:
    """Return what mends it.

    Args:
        error: from writing.
        otherwise: for errors that are not about a disk or a folder.
    """
    return _REMEDIES.get(error.errno or 0, otherwise)


def storage_error(said: str) -> OSError | None:
    """Find the system's error in what a library says of it, in words of its own.

    Returns:
        None where it names none, or one that says nothing about a disk or a folder.
    """
    numbers = (int(found[1] or found[2]) for found in _NUMBER.finditer(said))
    number = next((number for number in numbers if number in _REMEDIES), None)
    return None if number is None else OSError(number, os.strerror(number))


@contextmanager
def system_errors() -> Iterator[None]:
    """Let the body's libraries raise the system's error rather than words of their own about it.

    Raises:
        OSError: in place of what names one.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        found = storage_error(str(error))
        if found is None:
            raise
        raise found from error
