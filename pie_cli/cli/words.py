"""What a person reads about a prediction: plain words, and numbers with the digits that matter."""

from dataclasses import asdict

from pie_cli.config import COMPARE_LIMIT_S
from pie_cli.results import Comparison, Prediction, Recompute

_MINUTE_MS = 60_000.0


def duration(ms: float) -> str:
    """Say how long something took, with two or three digits: 8.3 ms, 183 ms, 1.4 s, 2.5 min."""
    if ms < 9.95:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 9_950:
        return f"{ms / 1e3:.1f} s"
    if ms < 2 * _MINUTE_MS:
        return f"{ms / 1e3:.0f} s"
    return f"{ms / _MINUTE_MS:.{1 if ms < 9.95 * _MINUTE_MS else 0}f} min"


def megabytes(size_bytes: int) -> str:
    """Say how large a file is."""
    size = size_bytes / 1e6
    return f"{size:,.0f} MB" if size >= 9.95 else f"{size:.1f} MB"


def times_as_long(factor: float) -> str:
    """Say how many times as long something took."""
    return f"{factor:.{1 if factor < 9.95 else 0}f} times as long"


def precision(dtype: str, weights: str) -> str:
    """Say in which type is computed, and how weights are kept where that is another."""
    return dtype if weights == "full" else f"{dtype}, weights in {weights}"


def what_changed(prediction: Prediction) -> str:
    """Say what the save changed, in lines."""
    added, removed = prediction.lines_added, prediction.lines_removed
    if not (added or removed):
        return ""
    parts = [
        f"{count:,} line{'s' * (count != 1)} {what}" if not earlier else f"{count:,} {what}"
        for count, what, earlier in ((added, "added", 0), (removed, "removed", added))
        if count
    ]
    return ", ".join(parts)


def what_it_took(prediction: Prediction) -> str:
    """Say how long the answer took, and what of the file did not have to be read again."""
    tokens = prediction.tokens
    parts = [duration(prediction.timings_ms.line)]
    if tokens.reused:
        of_last_run = " from the last run" * bool(tokens.from_disk)
        parts.append(f"kept {tokens.reused:,} of {tokens.total:,} tokens{of_last_run}")
    else:
        parts.append(f"read {tokens.total:,} token{'s' * (tokens.total != 1)}")
    if prediction.context:
        files = len(prediction.context)
        parts.append(f"with {files} other file{'s' * (files != 1)}")
    left_out = prediction.window_dropped
    if prediction.form != "plain":
        left_out += prediction.window_dropped_below
    if left_out:
        parts.append(f"without {left_out:,} line{'s' * (left_out != 1)} that do not fit")
    return ", ".join(parts)


def unconfirmed(prediction: Prediction, *, will_be_compared: bool) -> str:
    """Say what an answer is worth before it is compared."""
    if prediction.exact:
        return "exact"
    return "not confirmed yet" if will_be_compared else "not confirmed"


def verdict(comparison: Comparison) -> str:
    """Say what recomputing makes of the answer, and what it took."""
    said = "confirmed" if comparison.agrees else "corrected"
    took = duration(comparison.timings_ms.line)
    by = "full recompute" if comparison.strategy == "full" else "recomputing from the change on"
    return f"{said} by {by}: {took}, {times_as_long(comparison.speedup.line)}"


def not_run(recompute: Recompute) -> str:
    """Say what a recompute that is not run would take, and how to ask for it."""
    limit = max(1, -(-int(recompute.line_ms) // 10_000) * 10)
    how = f"--compare-limit {limit} runs it"
    if limit <= COMPARE_LIMIT_S:
        how = "it runs without --compare-limit"
    return f"full recompute: about {duration(recompute.line_ms)}, as measured before; {how}"


def explained(prediction: Prediction) -> str:
    """Say it in the method's vocabulary."""
    tokens, times = prediction.tokens, prediction.timings_ms
    steps = [
        f"{name} {duration(took)}"
        for name, took in asdict(times).items()
        if name not in ("first_token", "line")
    ]
    read = f", {tokens.from_disk:,} read from disk" if tokens.from_disk else ""
    return (
        f"{prediction.strategy}, {prediction.form}: {tokens.reused:,} reused"
        f" ({tokens.shifted:,} shifted, {tokens.restored:,} restored{read}),"
        f" {tokens.encoded:,} encoded,"
        f" {tokens.stale:,} stale; {', '.join(steps)}; first token {duration(times.first_token)}"
    )


def explained_comparison(comparison: Comparison) -> str:
    """Say it of a comparison."""
    times, speedup = comparison.timings_ms, comparison.speedup
    return (
        f"{comparison.strategy}: first token {duration(times.first_token)}"
        f" ({speedup.first_token:.1f} times), line {duration(times.line)}"
        f" ({speedup.line:.1f} times)"
    )
