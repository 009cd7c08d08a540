"""Errors that a user can cause: each names a cause and a remedy and has its exit code.

PieError                 1
├── InputError           3   a file, cursor or option that cannot be used
├── PatchError           4   a patch that is malformed or does not apply
├── ModelError           5   a model that cannot be found, loaded or trusted
├── DeviceError          6   a device or dtype that is not there
└── CacheCapacityError   7   a prompt larger than the window or the memory
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every command; documented in docs/cli.md."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    INPUT = 3
    PATCH = 4
    MODEL = 5
    DEVICE = 6
    CAPACITY = 7


class PieError(Exception):
    """A failure that the user can mend.

    Attributes:
        cause: what went wrong, one sentence without a full stop at its end.
        remedy: what to do about it, likewise; empty where nothing can be done.
    """

    exit_code = ExitCode.FAILURE

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(f"{cause}; {remedy}" if remedy else cause)
        self.cause = cause
        self.remedy = remedy


class InputError(PieError):
    """A file, a cursor in it or an option's value cannot be used."""

    exit_code = ExitCode.INPUT


class PatchError(PieError):
    """A patch is malformed or does not apply; the cause names the hunk."""

    exit_code = ExitCode.PATCH


class ModelError(PieError):
    """A model cannot be found, loaded or trusted."""

    exit_code = ExitCode.MODEL


class DeviceError(PieError):
    """The device or dtype asked for is not available."""

    exit_code = ExitCode.DEVICE


class CacheCapacityError(PieError):
    """A prompt does not fit the model's window or the memory at hand."""

    exit_code = ExitCode.CAPACITY
