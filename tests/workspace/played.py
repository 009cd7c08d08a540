"""A workspace that is played a script: which changes come when, and when they are overtaken."""

import threading
from pathlib import Path
from typing import Any

from pie_cli.errors import PieError
from pie_cli.workspace.documents import Change, Document, Documents, Failure, Taken
from pie_cli.workspace.events import (
    Answered,
    Compared,
    ComparisonStopped,
    Dropped,
    Event,
    Failed,
    Kept,
    MadeExact,
    NotCompared,
    Noted,
    NotKept,
    Predicted,
    Superseded,
)

NAMES = {
    Predicted: "prediction",
    Answered: "answer",
    MadeExact: "made exact",
    Compared: "comparison",
    NotCompared: "not compared",
    ComparisonStopped: "comparison stopped",
    Superseded: "superseded",
    Failed: "error",
    Dropped: "dropped",
    Noted: "note",
    Kept: "kept",
    NotKept: "not kept",
}


def told(event: Event) -> tuple[Any, ...]:
    """Return an event's name and its numbers, or what else tells it from others."""
    name = NAMES[type(event)]
    match event:
        case Predicted() | Failed():
            return (name, event.number)
        case Superseded():
            return (name, *(number for number, _ in event.changes))
        case Dropped():
            return (name, event.path)
        case Noted():
            return (name, event.error.cause)
        case _:
            return (name,)


class Played:
    """Documents that change as scripted, a change overtaken after so many looks whether it is.

    Each step is what came in while the worker was busy: texts of `path`, or errors.
    """

    def __init__(
        self,
        path: Path,
        *steps: tuple[str | PieError, ...],
        overtaken_after: dict[int, int] | None = None,
    ) -> None:
        self.path = path
        self.script = list(steps)
        self.looks = dict(overtaken_after or {})
        self.number = 0
        self.left: dict[int, Change | Failure] = {}
        self.stop = threading.Event()

    @property
    def stopped(self) -> bool:
        return self.stop.is_set()

    def take(self, timeout_s: float) -> Taken:
        if not self.script:
            self.stop.set()
            return Taken()
        items = []
        for state in self.script.pop(0):
            self.number += 1
            item: Change | Failure = (
                Failure(self.number, self.path, state)
                if isinstance(state, PieError)
                else Change(self.number, Document(self.path, self.number, state))
            )
            self.left[self.number] = item
            items.append(item)
        return Taken.of(*items)

    def newer_than(self, number: int) -> bool:
        return self.looks.get(number, 1) <= 0

    def moved_on(self, number: int, path: Path) -> bool:
        return False

    def overtaken(self, number: int) -> bool:
        if number in self.looks:
            self.looks[number] -= 1
        return self.newer_than(number)

    def drop_requests(self) -> None:
        pass

    def settle(self, number: int) -> None:
        self.left.pop(number, None)

    def unsettled(self) -> tuple[Change | Failure, ...]:
        return tuple(self.left.values())


def documents_with(**texts: str) -> Documents:
    """Return documents that are known from the start, `a` being a.py."""
    documents = Documents()
    for name, text in texts.items():
        documents.open(Path(f"{name}.py"), text)
    return documents
