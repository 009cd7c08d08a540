"""The events of a watch, told to a person or to a program."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
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
from pie_cli.editable import EditableModel
from pie_cli.watching.files import shown_path
from pie_cli.workspace.events import (
    Compared,
    ComparisonStopped,
    Dropped,
    Event,
    Failed,
    Noted,
    Predicted,
    Superseded,
)

_NAMED = 3
"""Paths that are named where there may be hundreds."""


class Report(Protocol):
    """Who is told what happens in a watch."""

    def started(self, beginning: Beginning) -> None:
        """The model is loaded and the files watched."""

    def tell(self, event: Event) -> None:
        """Something happened."""

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
        model = beginning.pool.model
        self._compare = beginning.pool.settings.compare
        folders = f" ({beginning.n_folders:,} folders)" if beginning.n_folders > 1 else ""
        context = f", {_listed(beginning.context)} as context," if beginning.context else ""
        self._renderer.line(
            f"Watching {_listed(beginning.paths)}{folders}{context} with {model.name}"
            f" ({model.n_params / 1e6:,.1f} M parameters, {model.device}, {model.dtype},"
            f" loaded in {beginning.load_ms:,.0f} ms). Ctrl-C ends."
        )

    def tell(self, event: Event) -> None:
        """Print what happened; of what is wrong, cause and remedy to stderr."""
        match event:
            case Predicted():
                self._predicted(event)
            case Compared():
                self._renderer.comparison(event.comparison)
            case ComparisonStopped():
                self._renderer.aside(f" {self._compare:<6} not finished: a newer save came")
            case Superseded():
                self._superseded(event)
            case Failed() | Noted():
                advice = [event.error.remedy, "watching goes on"]
                self._renderer.error(event.error.cause, "; ".join(part for part in advice if part))
            case Dropped():
                # The next save of such a file shows that it is encoded again.
                pass

    def stopped(self, summary: Summary) -> None:
        """Print the summary."""
        self._renderer.line("")
        self._renderer.summary(summary)

    def _predicted(self, event: Predicted) -> None:
        """Show the prediction in its place."""
        self._renderer.line("")
        saved = self._show(event.saved)
        if saved != event.path:
            self._renderer.aside(f"{saved} saved, which is context of")
        self._renderer.prediction(event.path, event.document.text, event.prediction)

    def _superseded(self, event: Superseded) -> None:
        """Count them."""
        count = len(event.changes)
        why = (
            "not answered before the end"
            if event.at_end
            else "superseded by a newer one before the answer"
        )
        self._renderer.line("")
        self._renderer.aside(f"{count} save{'s' * (count > 1)} {why}")


class JsonReport:
    """Tells a program: one JSON document a line, flushed at once."""

    def __init__(self, show: Callable[[Path], str] = shown_path) -> None:
        self._show = show
        self._last_id = 0
        self._model: EditableModel | None = None

    def started(self, beginning: Beginning) -> None:
        """Print `start`."""
        self._model = beginning.pool.model
        self._print("start", 0, start_document(beginning))

    def tell(self, event: Event) -> None:
        """Print what happened; nothing where the lack of a comparison says it."""
        match event:
            case Predicted():
                assert self._model is not None
                document = prediction_document(event.path, self._model, event.prediction)
                document["saved"] = self._show(event.saved)
                self._print("prediction", event.number, document)
            case Compared():
                document = {"path": event.path, **comparison_document(event.comparison)}
                self._print("comparison", event.number, document)
            case Superseded():
                for number, path in event.changes:
                    self._print("superseded", number, {"path": self._show(path)})
            case Failed():
                document = {"path": self._show(event.path), **error_document(event.error)}
                self._print("error", event.number, document)
            case Dropped():
                self._print("dropped", self._last_id, asdict(event))
            case Noted():
                self._print("note", self._last_id, error_document(event.error))
            case ComparisonStopped():
                pass

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
