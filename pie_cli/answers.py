"""What a session answers, put together: a line, where it begins, what it took."""

from pie_cli.engine.protocol import Line
from pie_cli.plan.plan import Plan
from pie_cli.prompt.assembly import Prompt, count_lines
from pie_cli.results import Comparison, Prediction, Speedup, Timings, TokenCounts
from pie_cli.text.cursor import Place, Position
from pie_cli.text.edit import Edit
from pie_cli.timing import elapsed_ms


def predicted(
    line: Line,
    place: Place,
    prompt: Prompt,
    plan: Plan,
    stale_from: int,
    timings: Timings,
    edit: Edit,
    first: str | None = None,
    from_disk: int = 0,
) -> Prediction:
    """Report a line as the answer to an edit.

    Args:
        line: predicted.
        place: of the cursor.
        prompt: that it follows.
        plan: that was executed.
        stale_from: every token of the prompt before it is as full recompute would have it.
        timings: of the whole way.
        edit: that was answered.
        first: what the line was before a second look corrected it.
        from_disk: tokens that an earlier run had kept.
    """
    stale = plan.length - stale_from
    below = prompt.dropped_below
    if prompt.form == "plain":
        # Nothing below the cursor is in it; what is after it in its own line is no line below.
        after = edit.after[place.resumes :]
        below = count_lines(after.partition("\n")[2] if place.begins == "rest" else after)
    return Prediction(
        text=line.text,
        at=_position(place, line),
        strategy=plan.strategy,
        exact=stale == 0,
        tokens=TokenCounts(
            plan.length,
            plan.reused,
            plan.shifted,
            plan.encoded,
            stale,
            plan.restored,
            len(plan.repaired),
            from_disk,
        ),
        timings_ms=timings,
        lines_added=edit.lines_added,
        lines_removed=edit.lines_removed,
        window_dropped=prompt.edges.top,
        stopped_by=line.stopped_by,
        window_dropped_below=below,
        form=prompt.form,
        context=prompt.context,
        token_ids=line.token_ids,
        margins=line.margins,
        completes_line=line.completes_line,
        passes=line.passes,
        first=first,
    )


def compared(
    strategy: str, line: Line, place: Place, prediction: Prediction, forward_ms: float
) -> Comparison:
    """Set a recompute's line and times beside a prediction's; both had to tokenize the text.

    Args:
        strategy: full or prefix.
        line: of the recompute.
        place: of the cursor.
        prediction: compared with.
        forward_ms: compute of the chunks, pauses excluded, to the first token.
    """
    pie = prediction.timings_ms
    decode = elapsed_ms(line.first_token_at, line.ended_at)
    first_token = pie.tokenize + forward_ms
    timings = Timings(pie.tokenize, 0.0, 0.0, forward_ms, decode, first_token, first_token + decode)
    return Comparison(
        strategy=strategy,
        text=line.text,
        at=_position(place, line),
        completes_line=line.completes_line,
        agrees=line.text == prediction.text
        and (not line.text or line.completes_line == prediction.completes_line),
        timings_ms=timings,
        speedup=Speedup(timings.first_token / pie.first_token, timings.line / pie.line),
        token_ids=line.token_ids,
        margins=line.margins,
    )


def _position(place: Place, line: Line) -> Position:
    """Return where a line begins: a new one below the line that it does not go on with."""
    if place.begins == "either" and not line.completes_line:
        return Position(place.position.line + 1, 1)
    return place.position
