"""Evaluation cases: an edit, the spot behind it, and the line that truly stands there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Task = Literal["real", "insertion", "deletion", "multi", "adversarial", "prose", "short"]


@dataclass(frozen=True)
class EvalCase:
    """One edit and the line to predict behind it.

    The cached prompt is `before`, the prompt that is asked `after`: both are cut at the spot, so
    that the edit lies inside and the target is the next line.

    Attributes:
        id: unique within its set.
        task: what kind of case it is.
        path: of the file, for the prompt's head.
        language: "python", "java" and so on.
        before: text up to the spot, before the edit.
        after: text up to the spot, behind the edit.
        target: the line that stands there, without its newline.
        distance: lines from the last hunk to the target; 1 is directly behind it.
        shares_identifier: whether the target has an identifier that also stands in a changed line.
        kind: finer than the task: insert, delete, replace, multi; for adversarial cases the class
            (names, values, signatures, control flow, data structure, algorithm).
        obsolete: names and values that the edit took out of the text; predicting one of them, where
            full recompute does not, is a stale echo.
    """

    id: str
    task: Task
    path: str
    language: str
    before: str
    after: str
    target: str
    distance: int
    shares_identifier: bool
    kind: str = ""
    obsolete: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class EvalSession:
    """Many versions of one file, to be replayed save by save.

    Attributes:
        id: unique within its set.
        path: of the file.
        language: of the file.
        versions: whole texts, oldest first, at least two.
    """

    id: str
    path: str
    language: str
    versions: Sequence[str]
