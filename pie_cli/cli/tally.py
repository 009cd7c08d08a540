"""Counts over a watch's saves, for the summary at the end."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from pie_cli.results import Comparison, Prediction
from pie_cli.workspace.events import Compared, Event, Failed, Predicted, Superseded


@dataclass(frozen=True)
class MedianTimes:
    """Medians, in milliseconds from having the new text, and of how many."""

    first_token: float
    line: float
    count: int


@dataclass(frozen=True)
class Summary:
    """What became of the saves.

    Attributes:
        saves: texts that were saved, the first text not counted.
        predictions: saves that were answered.
        opened: those of them that were the first of their file, which took encoding all of it.
        superseded: saves that a newer one overtook, or the end.
        errors: saves that could not be read or predicted in.
        comparisons: predictions that were compared.
        agreed: comparisons that said the same.
        strategy, baseline: what made the predictions and the comparisons.
        prediction_ms, comparison_ms: of updates and their comparisons; None where there were none.
    """

    saves: int
    predictions: int
    opened: int
    superseded: int
    errors: int
    comparisons: int
    agreed: int
    strategy: str
    baseline: str
    prediction_ms: MedianTimes | None
    comparison_ms: MedianTimes | None

    @property
    def agreement_pct(self) -> float | None:
        """Comparisons that said the same, in percent; None where nothing was compared."""
        return 100 * self.agreed / self.comparisons if self.comparisons else None


@dataclass
class Tally:
    """Collects what a summary tells.

    Attributes:
        predictions: of texts that had a cache to start from.
    """

    strategy: str
    baseline: str
    saves: int = 0
    superseded: int = 0
    errors: int = 0
    opened: int = 0
    predictions: list[Prediction] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)

    def add(self, event: Event) -> None:
        """Count what happened."""
        match event:
            case Predicted(number=0):
                pass
            case Predicted(opened=True):
                self.saves += 1
                self.opened += 1
            case Predicted():
                self.saves += 1
                self.predictions.append(event.prediction)
            case Compared():
                self.comparisons.append(event.comparison)
            case Superseded():
                self.saves += len(event.changes)
                self.superseded += len(event.changes)
            case Failed():
                self.saves += event.was_read
                self.errors += 1
            case _:
                pass

    def summary(self) -> Summary:
        """Sum up so far."""
        return Summary(
            saves=self.saves,
            predictions=len(self.predictions) + self.opened,
            opened=self.opened,
            superseded=self.superseded,
            errors=self.errors,
            comparisons=len(self.comparisons),
            agreed=sum(comparison.agrees for comparison in self.comparisons),
            strategy=self.strategy,
            baseline=self.baseline,
            prediction_ms=_medians(self.predictions),
            comparison_ms=_medians(
                [one for one in self.comparisons if one.strategy == self.baseline]
            ),
        )


def _medians(results: Sequence[Prediction | Comparison]) -> MedianTimes | None:
    if not results:
        return None
    return MedianTimes(
        median([result.timings_ms.first_token for result in results]),
        median([result.timings_ms.line for result in results]),
        len(results),
    )
