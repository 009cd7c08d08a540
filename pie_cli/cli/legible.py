"""Complaints about the command line, in pie's words, and fit for a terminal whatever was typed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from pie_cli.cli.reporting import reporting
from pie_cli.cli.visible import visible_lines
from pie_cli.errors import InputError


class LegibleGroup(TyperGroup):
    """A group of commands whose complaints are fit for a terminal."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the arguments up to the command."""
        with _legible():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, having read its arguments."""
        with _legible():
            return super().invoke(ctx)


@contextmanager
def _legible() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # A missing argument is one as well, of a class of its own.
        if type(error) is typer.BadParameter and error.param is not None:
            with reporting(debug=False):
                raise _refused(error.param.opts[0]) from None
        message = getattr(error, "message", None)
        if isinstance(message, str):
            error.message = visible_lines(message)  # type: ignore[attr-defined]
        raise


def _refused(option: str) -> InputError:
    """Say what typer says in words that depend on its version: no option is of another type."""
    return InputError(f"the value of {option} is no number", "it must be a whole number")
