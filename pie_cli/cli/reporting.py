"""What goes wrong in a command, as a line or two and an exit code."""

import errno
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import typer

from pie_cli.cli.visible import visible_lines
from pie_cli.errors import ExitCode, PieError

_INTERRUPTED = 130
_NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


@contextmanager
def reporting(*, debug: bool) -> Iterator[None]:
    """Turn what goes wrong into one or two lines on stderr and the documented exit code."""
    try:
        yield
        # What waits in a buffer would fail when nobody is there any more to say so.
        sys.stdout.flush()
    except PieError as error:
        _fail(error.cause, error.remedy, error.exit_code, debug=debug)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output went away: nothing is left to say, nor anyone to say it to.
        _abandon_output()
        raise typer.Exit(ExitCode.FAILURE) from None
    except ImportError as error:
        _fail(
            f"a package is missing or broken: {error}".splitlines()[0],
            "install pie again in an environment of its own",
            ExitCode.FAILURE,
            debug=debug,
        )
    except Exception as error:  # noqa: BLE001 (the last resort, and it says so)
        if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
            _abandon_output()
            _fail(
                f"the output cannot be written: {error.strerror}",
                "make room, or send it elsewhere",
                ExitCode.FAILURE,
                debug=debug,
            )
        _fail(
            f"internal error: {type(error).__name__}: {error}".splitlines()[0],
            "please report it, with what --debug shows",
            ExitCode.FAILURE,
            debug=debug,
        )


def _abandon_output() -> None:
    """Let what waits in stdout's buffer go nowhere: Python would try again at the end, and fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(cause: str, remedy: str, code: ExitCode, *, debug: bool) -> NoReturn:
    from pie_cli.cli.render import Renderer

    if debug:
        sys.stderr.write(visible_lines(traceback.format_exc()))
    Renderer().error(cause, remedy)
    raise typer.Exit(code) from None


def leave(code: int) -> NoReturn:
    """End the process at once, with all that was said.

    For servers, whose model may be in the middle of a long pass, in a thread: what Python does at
    its end would abort there.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    logging.shutdown()
    os._exit(code)
