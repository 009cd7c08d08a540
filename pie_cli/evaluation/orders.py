"""Compare the ways to ask for a hidden line: without the text behind it, and by order of the parts.

For each case the line is taken out of the file and asked for in the gap: once by the text before it
alone, once with each order of fill-in-the-middle that the model's tokenizer is known for. Beside
the quality stands what a save costs that adds the line directly above the gap.
"""

import gzip
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.errors import InputError
from pie_cli.prompt.fim import FimFormat
from pie_cli.results import Prediction
from pie_cli.session import EditSession
from pie_cli.text.cursor import Cursor
from pie_cli.text.edit import split_lines
from pie_cli.text.matching import similarity

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class HiddenLine:
    """A file and a line of it to hide, 0-based."""

    path: str
    text: str
    line: int


@dataclass(frozen=True)
class OrderRow:
    """What one form of the prompt gives.

    Attributes:
        form: of the prompts.
        cases: hidden lines.
        exact_match_pct: of the line, blanks around it left aside.
        edit_similarity: mean over the cases, 0 to 100.
        nothing_to_add_pct: predictions that were empty.
        encoded_tokens: of a save just above the gap; the median.
        exact_pct: of these saves, those that left no stale token.
        first_token_ms: of these saves; the median.
    """

    form: str
    cases: int
    exact_match_pct: float
    edit_similarity: float
    nothing_to_add_pct: float
    encoded_tokens: float
    exact_pct: float
    first_token_ms: float


def read_hidden_lines(path: Path, limit: int | None = None) -> list[HiddenLine]:
    """Read cases of real edits (JSON Lines with `path`, `after`, `target_line`), evenly spaced.

    Raises:
        InputError: no such file, no such fields, or no case.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        records = [json.loads(line) for line in data.splitlines()]
        found = [HiddenLine(one["path"], one["after"], one["target_line"]) for one in records]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read cases from {path}: {error}", "name a JSONL file") from error
    if not found:
        raise InputError(f"{path} holds no case", "name another file")
    step = max(1, len(found) // limit) if limit else 1
    return found[::step][:limit]


def compare_orders(
    model: PreparedModel,
    lines: Sequence[HiddenLine],
    settings: Settings,
    on_progress: OnProgress | None = None,
) -> list[OrderRow]:
    """Ask for every hidden line in every form.

    Args:
        model: prepared.
        lines: to hide.
        settings: of which limits count.
        on_progress: told (form, cases done, cases in all).
    """
    rows = []
    for form, fim in _forms(model):
        twin = replace(model, fim=fim)
        asked = []
        for number, hidden in enumerate(lines, 1):
            asked.append(_ask(twin, hidden, settings))
            if on_progress:
                on_progress(form, number, len(lines))
        rows.append(_row(form, lines, asked))
    return rows


def _forms(model: PreparedModel) -> Iterator[tuple[str, FimFormat | None]]:
    yield "plain", None
    if model.fim:
        for order in model.fim.layouts:
            yield order, model.fim.only(order)


def _ask(
    model: PreparedModel, hidden: HiddenLine, settings: Settings
) -> tuple[Prediction, Prediction]:
    """Return the prediction in the gap, and that of a save which adds the line above it."""
    lines = split_lines(hidden.text)
    del lines[hidden.line]
    session = EditSession(model, hidden.path, settings)
    above = max(0, hidden.line - 1)
    session.prime("".join([*lines[:above], *lines[hidden.line :]]), at=Cursor(above))
    text, at = "".join(lines), Cursor(hidden.line)
    saved = session.update(text, at=at)
    session.prime(text, at=at)
    return session.update(text, at=at), saved


def _row(
    form: str, lines: Sequence[HiddenLine], asked: Sequence[tuple[Prediction, Prediction]]
) -> OrderRow:
    pairs = [
        (prediction.text.strip().split("\n")[0], split_lines(hidden.text)[hidden.line].strip())
        for hidden, (prediction, _) in zip(lines, asked, strict=True)
    ]
    saves = [saved for _, saved in asked]
    return OrderRow(
        form=form,
        cases=len(pairs),
        exact_match_pct=_percent([found == target for found, target in pairs]),
        edit_similarity=round(statistics.mean(similarity(*pair) for pair in pairs), 2),
        nothing_to_add_pct=_percent([not found for found, _ in pairs]),
        encoded_tokens=statistics.median(saved.tokens.encoded for saved in saves),
        exact_pct=_percent([saved.exact for saved in saves]),
        first_token_ms=round(statistics.median(one.timings_ms.first_token for one in saves), 2),
    )


def _percent(verdicts: Sequence[bool]) -> float:
    return round(100 * sum(verdicts) / len(verdicts), 2)
