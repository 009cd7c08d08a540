"""The events of a watched file, told to a person or to a program."""

from collections.abc import Sequence
from typing import Any, Protocol

from pie_cli.cli.documents import (
    comparison_document,
    dump,
    prediction_document,
    start_document,
    summary_document,
)
from pie_cli.cli.render import Renderer
from pie_cli.cli.saves import FailedSave, Save
from pie_cli.cli.tally import Summary
from pie_cli.session import Comparison, EditSession, Prediction


class Report(Protocol):
    """Who is told what happens to a watched file; one call an event, in order."""

    def started(self, session: EditSession, load_ms: float) -> None:
        """The model is loaded and the file watched."""

    def predicted(self, session: EditSession, save: Save, prediction: Prediction) -> None:
        """A text was answered; the first text has the id 0."""

    def compared(self, comparison: Comparison) -> None:
        """The prediction before was compared."""

    def given_up(self) -> None:
        """The comparison was given up for a newer save."""

    def superseded(self, save_ids: Sequence[int]) -> None:
        """Saves were overtaken by newer ones and not answered."""

    def failed(self, failed: FailedSave) -> None:
        """A save could not be read or predicted in; watching goes on."""

    def stopped(self, summary: Summary) -> None:
        """The watch has ended."""


class TextReport:
    """Tells a person."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._compare = ""

    def started(self, session: EditSession, load_ms: float) -> None:
        """Name the file and the model."""
        loaded = session.model.loaded
        self._compare = session.settings.compare
        self._renderer.line(
            f"Watching {session.path} with {loaded.name} ({loaded.n_params / 1e6:,.1f} M"
            f" parameters, {loaded.device}, {loaded.dtype}, loaded in {load_ms:,.0f} ms)."
            " Ctrl-C ends."
        )

    def predicted(self, session: EditSession, save: Save, prediction: Prediction) -> None:
        """Show the prediction in its place."""
        self._renderer.line("")
        self._renderer.prediction(session.path, save.text, prediction)

    def compared(self, comparison: Comparison) -> None:
        """Show the comparison below its prediction."""
        self._renderer.comparison(comparison)

    def given_up(self) -> None:
        """Say why no comparison follows."""
        self._renderer.aside(f" {self._compare:<6} given up: a newer save came")

    def superseded(self, save_ids: Sequence[int]) -> None:
        """Count them."""
        many = len(save_ids) > 1
        self._renderer.line("")
        self._renderer.aside(
            f"{len(save_ids)} save{'s' * many} superseded by a newer one before the answer"
        )

    def failed(self, failed: FailedSave) -> None:
        """Print cause and remedy to stderr, and that it is not the end."""
        advice = [failed.error.remedy, "watching goes on"]
        self._renderer.error(failed.error.cause, "; ".join(part for part in advice if part))

    def stopped(self, summary: Summary) -> None:
        """Print the summary."""
        self._renderer.line("")
        self._renderer.summary(summary)


class JsonReport:
    """Tells a program: one JSON document a line, flushed at once."""

    def __init__(self) -> None:
        self._last_id = 0
        self._predicted_id = 0

    def started(self, session: EditSession, load_ms: float) -> None:
        """Print `start`."""
        self._print("start", 0, start_document(session, load_ms))

    def predicted(self, session: EditSession, save: Save, prediction: Prediction) -> None:
        """Print `prediction`."""
        self._predicted_id = save.save_id
        self._print("prediction", save.save_id, prediction_document(session, prediction))

    def compared(self, comparison: Comparison) -> None:
        """Print `comparison`."""
        self._print("comparison", self._predicted_id, comparison_document(comparison))

    def given_up(self) -> None:
        """Print nothing: a prediction without a comparison says it."""

    def superseded(self, save_ids: Sequence[int]) -> None:
        """Print one `superseded` for each."""
        for save_id in save_ids:
            self._print("superseded", save_id, {})

    def failed(self, failed: FailedSave) -> None:
        """Print `error`."""
        error = failed.error
        self._print("error", failed.save_id, {"cause": error.cause, "remedy": error.remedy})

    def stopped(self, summary: Summary) -> None:
        """Print `stop`, with the last save's id."""
        self._print("stop", self._last_id, summary_document(summary))

    def _print(self, event: str, save_id: int, document: dict[str, Any]) -> None:
        self._last_id = max(self._last_id, save_id)
        print(dump({"event": event, "save_id": save_id, **document}), flush=True)
