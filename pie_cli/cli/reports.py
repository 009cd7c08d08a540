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
    recompute_document,
    start_document,
    summary_document,
)
from pie_cli.cli.render import Renderer
from pie_cli.cli.tally import Summary
from pie_cli.cli.words import duration, megabytes, precision, what_changed
from pie_cli.editable import EditableModel
from pie_cli.watching.files import shown_path
from pie_cli.workspace.events import (
    Compared,
    ComparisonStopped,
    Dropped,
    Event,
    Failed,
    Kept,
    NotCompared,
    Noted,
    NotKept,
    Predicted,
    Superseded,
)

_NAMED = 3
"""Paths that are named where there may be hundreds."""


class Report(Protocol):
    """Who is told what happens in a watch."""

    def started(self, beginning: Beginning) -> None:
        """The model is loaded and the files watched."""

    def reading(self, path: str, *, asked: bool) -> None:
        """A document is read for the first time, or a text of it that a question brought along."""

    def tell(self, event: Event) -> None:
        """Something happened."""

    def stopped(self, summary: Summary) -> None:
        """The watch has ended."""


class TextReport:
    """Tells a person."""

    def __init__(self, renderer: Renderer, show: Callable[[Path], str] = shown_path) -> None:
        self._renderer = renderer
        self._show = show
        self._compares = False
        # Whether the last answer still says that it is not confirmed yet.
        self._is_open = False

    def started(self, beginning: Beginning) -> None:
        """Name the files and the model, and say what to do."""
        model = beginning.pool.model
        self._compares = beginning.pool.settings.compare != "none"
        folders = f" ({beginning.n_folders:,} folders)" if beginning.n_folders > 1 else ""
        context = f", {_listed(beginning.context)} as context," if beginning.context else ""
        self._renderer.prose(
            f"Watching {_listed(beginning.paths)}{folders}{context} with {model.name}"
            f" ({model.n_params / 1e6:,.1f} M parameters, {model.device},"
            f" {precision(model.dtype, model.weights)},"
            f" loaded in {duration(beginning.load_ms)}, after {duration(beginning.import_ms)}"
            " importing torch and transformers)."
        )
        self._renderer.aside("Each save is answered with the line that comes next. Ctrl-C ends.")

    def reading(self, path: str, *, asked: bool) -> None:
        """Say why this takes longer than later saves will, or what is going on without a save."""
        why = "as pie complete asks" if asked else "for the first time"
        self._renderer.aside(f"Reading {path} {why}")

    def tell(self, event: Event) -> None:
        """Print what happened; of what is wrong, cause and remedy to stderr.

        Nothing of what was dropped: the next save of such a file says that it is read again.
        """
        self._is_open &= not isinstance(event, Compared | NotCompared | ComparisonStopped)
        match event:
            case Predicted():
                self._predicted(event)
            case Compared():
                self._renderer.comparison(event.comparison)
                if event.full is not None and not event.full.measured:
                    self._renderer.not_compared(event.full)
            case NotCompared():
                self._renderer.not_compared(event.full)
            case ComparisonStopped():
                self._renderer.aside("  not confirmed: a newer save or question came")
            case Superseded():
                self._superseded(event)
            case Failed() | Noted():
                advice = [event.error.remedy, "watching goes on"]
                self._renderer.error(event.error.cause, "; ".join(part for part in advice if part))
            case Kept():
                size = megabytes(event.size_bytes)
                self._renderer.aside(f"Kept the cache of {event.path} for the next run ({size}).")
            case NotKept():
                self._renderer.error(event.error.cause, event.error.remedy)

    def stopped(self, summary: Summary) -> None:
        """Print the summary."""
        if self._is_open:
            self._renderer.aside("  not confirmed: ended before")
        self._renderer.line("")
        self._renderer.summary(summary)

    def _predicted(self, event: Predicted) -> None:
        """Show the prediction in its place, below a rule."""
        saved = self._show(event.saved)
        detail = what_changed(event.prediction)
        if saved != event.path:
            detail = f"{saved} was saved, which is context"
        self._renderer.rule(event.path, detail)
        self._show_answer(event)

    def _show_answer(self, event: Predicted) -> None:
        compares = self._compares and not event.opened
        self._is_open = compares and not event.prediction.exact
        self._renderer.prediction(
            event.path, event.document.text, event.prediction, compares=compares
        )

    def _superseded(self, event: Superseded) -> None:
        """Count them."""
        count = len(event.changes)
        saves = f"{count} save{'s' * (count > 1)}"
        why = "before the end" if event.at_end else "before a newer one came"
        self._renderer.line("")
        self._renderer.aside(f"{saves} not answered {why}")


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

    def reading(self, path: str, *, asked: bool) -> None:
        """Print nothing: the prediction says that everything was encoded."""

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
                document["full_recompute"] = recompute_document(event.full)
                self._print("comparison", event.number, document)
            case NotCompared():
                full = recompute_document(event.full)
                document = {"path": event.path, "full_recompute": full}
                self._print("not_compared", event.number, document)
            case Superseded():
                for number, path in event.changes:
                    self._print("superseded", number, {"path": self._show(path)})
            case Failed():
                document = {"path": self._show(event.path), **error_document(event.error)}
                self._print("error", event.number, document)
            case Dropped():
                self._print("dropped", self._last_id, asdict(event))
            case Kept():
                self._print("kept", self._last_id, asdict(event))
            case Noted() | NotKept():
                self._print("note", self._last_id, error_document(event.error))

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
