"""Questions to a workspace: predict here, now; answered once, or not at all."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pie_cli.errors import PieError
from pie_cli.results import Prediction
from pie_cli.text.cursor import Cursor

if TYPE_CHECKING:
    from pie_cli.prompt.assembly import ContextFile


@dataclass(frozen=True)
class Answer:
    """What a request got.

    Attributes:
        prediction: for the text and the cursor that were asked about.
        waited: whether it had been made before it was asked for.
    """

    prediction: Prediction
    waited: bool = False


@dataclass(eq=False)
class Request:
    """A question, from any thread.

    Attributes:
        path: of the document.
        cursor: where to predict; None for where the workspace would by itself.
        text: to predict in, for one who keeps the text himself; None for the document's own.
        version: of the document that is asked about; another one is answered by None.
        context: other files before the text, from one who brings them; None for the workspace's.
        enough: asked between decoding passes besides; true ends the line there, and is no failure.
        answer: done once; None where the question is out of date.
    """

    path: Path
    cursor: Cursor | None = None
    text: str | None = None
    version: int | None = None
    context: "tuple[ContextFile, ...] | None" = None
    enough: Callable[[], bool] = lambda: False
    answer: "Future[Answer | None]" = field(default_factory=Future)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def over(self) -> bool:
        """Whether nobody waits for an answer any more."""
        return self._over.is_set() or self.answer.done()

    def finish(self, answer: Answer | None) -> None:
        """Answer, unless that was done."""
        self._over.set()
        with suppress(InvalidStateError):
            self.answer.set_result(answer)

    def drop(self) -> None:
        """Say that the question is out of date, or that nobody is interested any more."""
        self.finish(None)

    def fail(self, error: PieError) -> None:
        """Say why there is no answer, unless there was one."""
        self._over.set()
        with suppress(InvalidStateError):
            self.answer.set_exception(error)
