"""Answers for `pie complete` from a workspace that is running."""

import os
from collections.abc import Mapping
from concurrent.futures import TimeoutError as TooLate
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.errors import PieError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.serving.positions import clean
from pie_cli.serving.warm import Question, WarmSocket
from pie_cli.session import EditSession
from pie_cli.text.cursor import Cursor, around
from pie_cli.text.edit import Edit
from pie_cli.workspace.documents import Documents
from pie_cli.workspace.requests import Request

_ANSWER_S = 600.0


def offering(documents: Documents, model: EditableModel, settings: Settings) -> WarmSocket:
    """Return a socket at which `pie complete` is answered by whoever works on the documents."""

    def answer(question: Question) -> Mapping[str, Any]:
        return _answer(documents, model, settings, question)

    return WarmSocket(settings, answer)


def _answer(
    documents: Documents, model: EditableModel, settings: Settings, question: Question
) -> Mapping[str, Any]:
    """Ask as a question of `pie complete` wants it, and wait.

    Raises:
        PieError: what is wrong with it.
    """
    edit = Edit.between(clean(question.before), clean(question.after))
    session = EditSession(model, question.shown, replace(settings, at=question.at))
    cursor = session.cursor
    first, last = around(cursor, edit) if edit.hunks else (cursor, _resting(cursor, edit.after))
    context = tuple(ContextFile(path, clean(text)) for path, text in question.context)
    path = Path(question.path)
    requests = [Request(path, last, edit.after, context=context)]
    if edit.hunks:
        # The text before is only to be encoded: no line is wanted there.
        before = Request(path, first, edit.before, context=context, enough=lambda: True)
        requests.insert(0, before)
    for request in requests:
        documents.ask(request)
    try:
        found = requests[-1].answer.result(_ANSWER_S)
    except TooLate:
        raise PieError("the running pie does not answer", "end it, or give --cold") from None
    finally:
        for request in requests:
            request.drop()
    return {
        "prediction": asdict(found.prediction) if found else None,
        "model": model.name,
        "device": model.device,
        "dtype": model.dtype,
        "weights": model.weights,
        "process_id": os.getpid(),
    }


def _resting(cursor: Cursor, text: str) -> Cursor:
    """Return where a cursor that follows edits is as long as there was none."""
    if not cursor.follows_edits:
        return cursor
    position = cursor.place(text).position
    return replace(cursor, line=position.line - 1, column=position.column - 1)
