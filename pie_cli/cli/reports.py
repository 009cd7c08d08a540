"""The events of a watch, told to a person or to a program."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pie_cli.cli.documents import (
    Beginning,
    comparison_document,
    dump,
    error_document,
    prediction_document,
    start_document,
    summary_document,
)
from pie_cli.cli.render import Renderer
from pie_cli.cli.tally import Summary
from pie_cli.errors import PieError
from pie_cli.session import Comparison, EditSession, Prediction
from pie_cli.workspace.files import shown_path
from pie_cli.workspace.pool import Dropped
from pie_cli.workspace.queue import FailedSave, Save

_NAMED = 3
"""Paths that are named where there may be hundreds."""


class Report(Protocol):
    """Who is told what happens in a watch; one call an event, in order."""

    def started(self, beginning: Beginning) -> None:
        """The model is loaded and the files watched."""

    def predicted(self, session: EditSession, save: Save, prediction: Prediction) -> None:
        """A save was answered; the first text has the id 0.

        The session is not the saved file's where that is context of another.
        """

    def compared(self, comparison: Comparison) -> None:
        """The prediction before was compared."""

    def given_up(self) -> None:
        """The comparison was given up for a newer save."""

    def superseded(self, saves: Sequence[Save]) -> None:
        """Saves were overtaken by newer ones and not answered."""

    def failed(self, failed: FailedSave) -> None:
        """A save could not be read or predicted in; watching goes on."""

    def dropped(self, dropped: Sequence[Dropped], cache_bytes: int) -> None:
        """Sessions went to keep memory bounded; the caches of the others take so much."""

    def noted(self, error: PieError) -> None:
        """Something is wrong that no save is the cause of; watching goes on."""

    def stopped(self, summary: Summary) -> None:
        """The watch has ended."""


class TextReport:
    """Tells a person."""

    def __init__(self, renderer: Renderer, show: Callable[[Path], str] = shown_path) -> None:
        self._renderer = renderer
        self._show = show
        self._compare = ""

    def started(self, beginning: Beginning) -> None:
        """Name the files and the model."""
        loaded = beginning.sessions.model.loaded
        self._compare = beginning.sessions.settings.compare
        folders = f" ({beginning.n_folders:,} folders)" if beginning.n_folders > 1 else ""
        context = f", {_listed(beginning.context)} as context," if beginning.context else ""
        self._renderer.line(
            f"Watching {_listed(beginning.paths)}{folders}{context} with {loaded.name}"
            f" ({loaded.n_params / 1e6:,.1f} M parameters, {loaded.device}, {loaded.dtype},"
            f" loaded in {beginning.load_ms:,.0f} ms). Ctrl-C ends."
        )

    def predicted(self, session: EditSession, save: Save, prediction: Prediction) -> None:
        """Show the prediction in its place."""
        self._renderer.line("")
        saved = self._show(save.path)
        if saved != session.path:
            self._renderer.aside(f"{saved} saved, which is context of")
        self._renderer.prediction(session.path, session.text or "", prediction)

    def compared(self, comparison: Comparison) -> None:
        """Show the comparison below its prediction."""
        self._renderer.comparison(comparison)

    def given_up(self) -> None:
        """Say why no comparison follows."""
        self._renderer.aside(f" {self._compare:<6} given up: a newer save came")

    def superseded(self, saves: Sequence[Save]) -> None:
        """Count them."""
        many = len(saves) > 1
        self._renderer.line("")
        self._renderer.aside(
            f"{len(saves)} save{'s' * many} superseded by a newer one before the answer"
        )

    def failed(self, failed: FailedSave) -> None:
        """Print cause and remedy to stderr, and that it is not the end."""
        self.noted(failed.error)

    def dropped(self, dropped: Sequence[Dropped], cache_bytes: int) -> None:
        """Say nothing: the next save of such a file shows that it is encoded anew."""

    def noted(self, error: PieError) -> None:
        """Print cause and remedy to stderr, and that it is not the end."""
        advice = [error.remedy, "watching goes on"]
        self._renderer.error(error.cause, "; ".join(part for part in advice if part))

    def stopped(self, summary: Summary) -> None:
        """Print the summary."""
        self._renderer.line("")
        self._renderer.summary(summary)


class JsonReport:
    """Tells a program: one JSON document a line, flushed at once."""

    def __init__(self, show: Callable[[Path], str] = shown_path) -> None:
        self._show = show
        self._last_id = 0
        self._predicted: tuple[int, str] = (0, "")

    def started(self, beginning: Beginning) -> None:
        """Print `start`."""
        self._print("start", 0, start_document(beginning))

    def predicted(self, session: EditSession, save: Save, prediction: Prediction) -> None:
        """Print `prediction`."""
        self._predicted = (save.save_id, session.path)
        document = prediction_document(session, prediction)
        self._print("prediction", save.save_id, document | {"saved": self._show(save.path)})

    def compared(self, comparison: Comparison) -> None:
        """Print `comparison`."""
        save_id, path = self._predicted
        self._print("comparison", save_id, {"path": path, **comparison_document(comparison)})

    def given_up(self) -> None:
        """Print nothing: a prediction without a comparison says it."""

    def superseded(self, saves: Sequence[Save]) -> None:
        """Print one `superseded` for each."""
        for save in saves:
            self._print("superseded", save.save_id, {"path": self._show(save.path)})

    def failed(self, failed: FailedSave) -> None:
        """Print `error`."""
        path = self._show(failed.path)
        self._print("error", failed.save_id, {"path": path, **error_document(failed.error)})

    def dropped(self, dropped: Sequence[Dropped], cache_bytes: int) -> None:
        """Print one `dropped` for each."""
        for one in dropped:
            fields = {"path": one.path, "freed_bytes": one.freed_bytes, "cache_bytes": cache_bytes}
            self._print("dropped", self._last_id, fields)

    def noted(self, error: PieError) -> None:
        """Print `note`."""
        self._print("note", self._last_id, error_document(error))

    def stopped(self, summary: Summary) -> None:
        """Print `stop`, with the last save's id."""
        self._print("stop", self._last_id, summary_document(summary))

    def _print(self, event: str, save_id: int, document: dict[str, Any]) -> None:
        self._last_id = max(self._last_id, save_id)
        print(dump({"event": event, "save_id": save_id, **document}), flush=True)


def _listed(paths: Sequence[str]) -> str:
    """Name a few of the paths, and count the others."""
    few = ", ".join(paths[:_NAMED])
    return f"{few} and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else few
