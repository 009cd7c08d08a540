"""Complaints about the command line, which repeat what was typed or what a shell found to match."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from pie_cli.cli.visible import visible_lines


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
        message = getattr(error, "message", None)
        if isinstance(message, str):
            error.message = visible_lines(message)  # type: ignore[attr-defined]
        raise
