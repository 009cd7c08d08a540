"""How much a command says besides its results: less, more, or to a file."""

import logging
import sys
from pathlib import Path

from pie_cli.cli.visible import visible, visible_lines
from pie_cli.errors import InputError
from pie_cli.regular import is_named_pipe

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LOGGERS = ("pie_cli", "pygls", "uvicorn")

_state = {"quiet": False}


def is_quiet() -> bool:
    """Tell whether notes and progress are not shown; errors always are."""
    return _state["quiet"]


def reset() -> None:
    """Begin as if nothing had been asked for."""
    _state["quiet"] = False
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.addHandler(logging.NullHandler())
        logger.propagate = False


def quiet(wanted: bool) -> None:
    """Show no notes and no progress."""
    _state["quiet"] |= wanted


def verbose(wanted: bool) -> None:
    """Tell on stderr what is being done."""
    if wanted:
        _log_to(logging.StreamHandler(sys.stderr), logging.INFO)


def log_file(path: Path | None) -> None:
    """Write all that is logged to the end of a file.

    Raises:
        InputError: it cannot be written.
    """
    if path is None:
        return
    if is_named_pipe(path):
        raise InputError(f"cannot write {path}: it is a pipe", "name another file")
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", "name another file") from None
    _log_to(handler, logging.DEBUG)


class _Formatter(logging.Formatter):
    """Writes what may hold anything so that a terminal can show it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as lines that are fit to be seen."""
        return visible_lines(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        """Return a record's message, always one line."""
        return visible(super().formatMessage(record))


def _log_to(handler: logging.Handler, level: int) -> None:
    handler.setFormatter(_Formatter(_FORMAT))
    handler.setLevel(level)
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        # Below warnings the others log whole messages, the user's texts in them.
        wanted = level if name == "pie_cli" else logging.WARNING
        logger.setLevel(min(wanted, logger.level or wanted))
