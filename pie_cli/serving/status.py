"""What a server says of its documents: tokens kept and encoded, times, exact or not."""

from dataclasses import asdict
from typing import Any, final

from pie_cli.results import Prediction
from pie_cli.workspace.events import Answered, Compared, Dropped, Event, MadeExact, Predicted


@final
class Status:
    """The last that is known of each document, and counts over all; any one thread.

    Attributes:
        predictions: made.
        accepted: taken over by the user.
    """

    def __init__(self) -> None:
        self.predictions = 0
        self.accepted = 0
        self._of: dict[str, dict[str, Any]] = {}

    def tell(self, event: Event) -> dict[str, Any] | None:
        """Take in what happened, and return what is known of its document by then, if any."""
        match event:
            case Predicted():
                return self._predicted(event.path, event.document.version, event.prediction)
            case Answered():
                return self._predicted(event.path, event.document.version, event.prediction)
            case Compared() | MadeExact():
                found = self._of.get(event.path)
                if found is None:
                    return None
                found |= {"exact": True, "agrees": event.comparison.agrees}
                found["recompute_ms"] = round(event.comparison.timings_ms.line, 3)
                return found
            case Dropped():
                self._of.pop(event.path, None)
                return None
            case _:
                return None

    def of(self, path: str) -> dict[str, Any] | None:
        """Return what is known of a document."""
        return self._of.get(path)

    def counts(self) -> dict[str, int]:
        """Return how many predictions were made and how many accepted."""
        return {"predictions": self.predictions, "accepted": self.accepted}

    def _predicted(self, path: str, version: int, prediction: Prediction) -> dict[str, Any]:
        self.predictions += 1
        found = self._of[path] = {
            "path": path,
            "version": version,
            "strategy": prediction.strategy,
            "exact": prediction.exact,
            "agrees": None,
            "tokens": asdict(prediction.tokens),
            "timings_ms": {
                name: round(value, 3) for name, value in asdict(prediction.timings_ms).items()
            },
        }
        return found
