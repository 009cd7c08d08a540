"""What a session answers: predictions and comparisons, as plain records."""

from dataclasses import dataclass

from pie_cli.text.cursor import Position


@dataclass(frozen=True)
class TokenCounts:
    """What became of a prompt's tokens; `reused + encoded == total`.

    Attributes:
        total: tokens of the prompt.
        reused: taken over from the cache.
        shifted: reused at another position than before.
        encoded: run through the model.
        stale: tokens whose keys and values may differ from full recompute's.
        restored: put back from exact copies; part of `reused`.
        repaired: computed again though they were in the cache; part of `encoded`.
        from_disk: read from what an earlier run kept; part of `reused`.
    """

    total: int
    reused: int
    shifted: int
    encoded: int
    stale: int
    restored: int = 0
    repaired: int = 0
    from_disk: int = 0


@dataclass(frozen=True)
class Timings:
    """Milliseconds of one prediction.

    Attributes:
        tokenize: text to token ids.
        diff: line hunks, token alignment and plan.
        update: splice and re-rotation, or reading what an earlier run kept.
        forward: the pass over the fresh tokens, to the first predicted token.
        decode: the rest of the line.
        first_token: from having the new text to the first token.
        line: from having the new text to the whole line.
    """

    tokenize: float
    diff: float
    update: float
    forward: float
    decode: float
    first_token: float
    line: float


@dataclass(frozen=True)
class Speedup:
    """Baseline time over pie's time."""

    first_token: float
    line: float


@dataclass(frozen=True)
class Prediction:
    """The answer to one text.

    Attributes:
        text: the predicted line, or several; blank lines before it kept; empty when there is
            nothing to add.
        at: where it begins.
        strategy: of the plan that was executed.
        exact: whether every token of the prompt is as full recompute would have it.
        tokens: what became of the prompt's tokens.
        timings_ms: durations.
        lines_added, lines_removed: lines of the edit.
        window_dropped: lines above the window, left out of the prompt.
        window_dropped_below: lines below it, left out of the prompt: all that are below the cursor
            where the prompt is plain.
        stopped_by: what ended the line: newline, end, max_tokens, or interrupted by a newer save.
        form: of the prompt: plain, prefix-suffix-middle or suffix-prefix-middle.
        context: paths of the other files that are in the prompt.
        token_ids: of the line as generated, what healing took back and the line's end included.
        margins: of each of these, by how much its logit was above that of the next best token.
        completes_line: whether the text goes on with the line at `at`; else it is lines of its
            own, before that line.
        passes: forward passes that it took.
        first: what the line was before a second look corrected it, as far as it had come; None
            where nothing was corrected.
    """

    text: str
    at: Position
    strategy: str
    exact: bool
    tokens: TokenCounts
    timings_ms: Timings
    lines_added: int
    lines_removed: int
    window_dropped: int
    stopped_by: str
    window_dropped_below: int = 0
    form: str = "plain"
    context: tuple[str, ...] = ()
    token_ids: tuple[int, ...] = ()
    margins: tuple[float, ...] = ()
    completes_line: bool = False
    passes: int = 1
    first: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What recomputing says, and what it costs.

    Attributes:
        strategy: full (from token 0) or prefix (from the first changed or stale token).
        text: its prediction.
        at: where it begins.
        completes_line: as in `Prediction`.
        agrees: whether it is the prediction that it was compared with.
        timings_ms: tokenizing, the chunks' compute without the pauses between them, decoding.
        speedup: its times over the prediction's.
        token_ids: of its line, as in `Prediction`.
        margins: of each of these, as in `Prediction`.
    """

    strategy: str
    text: str
    at: Position
    completes_line: bool
    agrees: bool
    timings_ms: Timings
    speedup: Speedup
    token_ids: tuple[int, ...] = ()
    margins: tuple[float, ...] = ()


@dataclass(frozen=True)
class Recompute:
    """What a full recompute of a prompt takes.

    Attributes:
        line_ms: milliseconds to the whole line.
        measured: whether it was run; else that is what encoding this text took the last time, as
            far as its length has not changed.
    """

    line_ms: float
    measured: bool
