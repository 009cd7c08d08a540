"""What a save costs with a model on this machine: one short measurement, on the user's path."""

from dataclasses import dataclass, replace
from itertools import islice

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.evaluation.cases.workload import source_lines
from pie_cli.session import EditSession

_TOKENS = 1_024
_LINES = 400
_AT = 300
"""The line that is written: any in the middle of a file."""


@dataclass(frozen=True)
class Cost:
    """Times of one save, in milliseconds.

    Attributes:
        context_tokens: of the prompt.
        first_token_ms, line_ms: of pie's answer.
        full_first_token_ms: of full recompute's.
    """

    context_tokens: int
    first_token_ms: float
    line_ms: float
    full_first_token_ms: float


def measure(model: PreparedModel, settings: Settings) -> Cost | None:
    """Open a source file of this project without one of its lines, save it with it, and compare.

    Args:
        model: ready.
        settings: the user's; the prompt is cut to some 1,000 tokens.

    Returns:
        None where the window is too short to measure anything.

    Raises:
        CacheCapacityError: when the memory does not suffice.
    """
    short = replace(settings, at=f"{_AT + 2}", compare="full", context_tokens=_TOKENS)
    if model.window < 2 * short.max_tokens:
        return None
    lines = list(islice(source_lines(), _LINES))
    session = EditSession(model, "measured.py", short)
    session.open("".join(lines[:_AT] + lines[_AT + 1 :]))
    prediction = session.update("".join(lines))
    comparison = session.compare()
    if comparison is None:
        return None
    return Cost(
        prediction.tokens.total,
        prediction.timings_ms.first_token,
        prediction.timings_ms.line,
        comparison.timings_ms.first_token,
    )
