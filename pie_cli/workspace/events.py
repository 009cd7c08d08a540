"""What happens in a workspace, as plain records for whoever shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pie_cli.errors import PieError
from pie_cli.results import Comparison, Prediction, Recompute
from pie_cli.workspace.documents import Change, Document


@dataclass(frozen=True)
class Predicted:
    """A change was answered; the text at the start has the number 0.

    Attributes:
        number: of the change.
        saved: the document that changed: another than the one predicted in where that is context.
        document: the text predicted in.
        path: what it is called.
        prediction: the answer.
        opened: whether the document had to be encoded from scratch.
    """

    number: int
    saved: Path
    document: Document
    path: str
    prediction: Prediction
    opened: bool


@dataclass(frozen=True)
class Answered:
    """A question was answered.

    Attributes:
        number: of the change that brought the text asked about, if nobody was told of it yet; or 0.
        document: the text predicted in.
        path: what it is called.
        prediction: the answer.
        opened: whether the document had to be encoded from scratch.
        waited: whether the prediction had been made before.
    """

    number: int
    document: Document
    path: str
    prediction: Prediction
    opened: bool
    waited: bool


@dataclass(frozen=True)
class Compared:
    """The prediction with the same number was compared with recomputing.

    Attributes:
        number: of the prediction.
        path: what the document is called.
        comparison: what recomputing says.
        full: what full recompute takes, measured or estimated; None where nobody knows.
    """

    number: int
    path: str
    comparison: Comparison
    full: Recompute | None = None


@dataclass(frozen=True)
class NotCompared:
    """The prediction with the same number was not compared: it would take longer than it may."""

    number: int
    path: str
    full: Recompute


@dataclass(frozen=True)
class MadeExact:
    """After questions, what a cache holds was recomputed to its end.

    Attributes:
        document: the text that it holds.
        path: what it is called.
        comparison: with the last answer.
    """

    document: Document
    path: str
    comparison: Comparison


@dataclass(frozen=True)
class ComparisonStopped:
    """The comparison with the same number made way for a newer change, or for another answer."""

    number: int


@dataclass(frozen=True)
class Superseded:
    """Changes were not answered: newer ones came first, or the end.

    Attributes:
        changes: the number and the path of each.
        at_end: whether it was the end.
    """

    changes: tuple[tuple[int, Path], ...]
    at_end: bool = False

    @classmethod
    def of(cls, changes: Sequence[Change], *, at_end: bool = False) -> "Superseded":
        """Tell of changes."""
        return cls(tuple((change.number, change.path) for change in changes), at_end)


@dataclass(frozen=True)
class Failed:
    """A document could not be read or predicted in; work goes on.

    Attributes:
        number: of the failure or the change.
        path: of the document.
        error: what is wrong.
        was_read: whether there is a text, which could not be predicted in.
    """

    number: int
    path: Path
    error: PieError
    was_read: bool = False


@dataclass(frozen=True)
class Dropped:
    """A session went to keep memory bounded.

    Attributes:
        path: what its document is called.
        freed_bytes: what its cache took.
        cache_bytes: what the caches of the others take.
    """

    path: str
    freed_bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class Kept:
    """At the end a cache was kept on disk, for the next run.

    Attributes:
        path: what its document is called.
        size_bytes: of the file.
    """

    path: str
    size_bytes: int


@dataclass(frozen=True)
class NotKept:
    """At the end a cache that was to be kept on disk could not be."""

    path: str
    error: PieError


@dataclass(frozen=True)
class Noted:
    """Something is wrong that no change is the cause of; work goes on."""

    error: PieError


Event: TypeAlias = (
    Predicted
    | Answered
    | Compared
    | NotCompared
    | MadeExact
    | ComparisonStopped
    | Superseded
    | Failed
    | Dropped
    | Kept
    | NotKept
    | Noted
)
