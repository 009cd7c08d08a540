"""The report of an evaluation in Markdown: tables in the paper's layout, and what stands behind."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

PICTURES = {
    "cost.png": "Agreement with full recompute against the time to the first token",
    "distance.png": "Agreement by distance of the edit",
    "size.png": "Agreement by size of the move and of the edit",
    "cosine.png": "Cosine of keys and values with full recompute's, by layer",
    "drift.png": "Drift over replayed sessions",
}
"""File names of the plots, and what they show."""

_GROUPINGS = {
    "distance": ("distance", "Lines from the edit to the predicted line"),
    "moved": ("size of the move", "Tokens by which the edit moved the text behind it"),
    "changed": ("size of the edit", "Tokens that came and tokens that went"),
    "shares_identifier": (
        "shared identifier",
        "Whether the predicted line shares an identifier with the changed lines",
    ),
    "kind": ("kind", "Kind of edit"),
    "language": ("language", "Language of the file"),
}

Row = Mapping[str, Any]


def render_report(document: Row, pictures: Iterable[str] = ()) -> str:
    """Write the report.

    Args:
        document: of `summary.json`.
        pictures: file names of the plots that were drawn, out of `PICTURES`.

    Returns:
        Markdown.
    """
    drawn = set(pictures)
    sections = [
        _head(document),
        _accuracy(document),
        _fidelity(document),
        _differences(document),
        *_groups(document),
        _echo(document),
        _cosines(document),
        _sessions(document),
        "\n\n".join(f"![{text}]({name})" for name, text in PICTURES.items() if name in drawn),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(document: Row) -> str:
    environment, settings = document["environment"], document["settings"]
    model = (
        f"Model {document['model']} ({environment['parameters'] / 1e6:,.1f} M parameters, "
        f"{environment['dtype']}), {settings['context_tokens']:,} tokens of context, seed "
        f"{document['seed']}. Cases: {document['source']}."
    )
    commit = f" at {environment['commit'][:10]}" if environment["commit"] else ""
    changed = " with uncommitted changes" if environment["uncommitted_changes"] else ""
    machine = (
        f"{environment['device_name']}, {environment['threads']} threads, torch "
        f"{environment['torch']}, transformers {environment['transformers']}, Python "
        f"{environment['python']}, pie {environment['pie']}{commit}{changed}."
    )
    counts = _table(
        ("task", "read", "truncated at the window", "edit outside the window, not measured"),
        [
            (task, n["cases"], n["truncated"], n["outside"])
            for task, n in document["counts"].items()
        ],
    )
    skipped = "\n".join(
        [
            f"Records skipped: {len(document['skipped'])}.",
            *(f"- {entry['where']}: {entry['reason']}" for entry in document["skipped"]),
        ]
    )
    command = f"    {document['command']}"
    return f"# Evaluation\n\n{command}\n\n{model}\n\n{machine}\n\n{counts}\n\n{skipped}"


def _accuracy(document: Row) -> str:
    rows = [
        (
            task,
            _label(row),
            row["cases"],
            _with_interval(row["em"], row["ci"]["em"]),
            _number(row["es"], 1),
            _time(row["first_token_ms_median"]),
            _number(row["reduction_pct"], 1),
        )
        for task, row in _tasks(document["rows"])
    ]
    columns = ("task", "strategy", "cases", "EM, %", "ES", "first token, ms", "reduction, %")
    return _section(
        "Accuracy and time",
        "EM: exact match with the true line, with its 95 % interval; ES: edit similarity, 0 to "
        "100. Time: median from having the token ids (alignment, plan, splice, re-rotation and "
        "forward pass) to the first token.",
        _table(columns, rows),
    )


def _fidelity(document: Row) -> str:
    rows = [
        (
            task,
            _label(row),
            _with_interval(row["agreement"], row["ci"]["agreement"]),
            _small(row["kl_mean"]),
            _small(row["kl_p95"]),
            _small(row["kl_max"]),
            _number(row["stale_echo"], 1),
            _number(row["encoded_tokens_mean"], 1),
            _number(row["encoded_pct"], 1),
            _number(row["stale_tokens_mean"], 0),
        )
        for task, row in _tasks(document["rows"])
    ]
    columns = (
        "task",
        "strategy",
        "same line, %",
        "KL mean",
        "KL p95",
        "KL max",
        "stale echo, %",
        "tokens encoded",
        "share, %",
        "stale tokens",
    )
    return _section(
        "Faithfulness to full recompute",
        "Same line: the line that full recompute predicts, to the character, with its 95 % "
        "interval. KL: divergence of the next token's distribution from full recompute's, in nats. "
        "Stale echo: predictions that use a name or value the edit took out, where full "
        "recompute's does not.",
        _table(columns, rows),
    )


def _differences(document: Row) -> str:
    wanted = [
        entry
        for entry in document["paired"]
        if entry["against"] in ("full", "pie") and entry["strategy"] != "prefix"
    ]
    rows = [
        (
            task,
            f"{entry['strategy']} - {entry['against']}",
            _with_interval(entry["em"], entry["em_ci"], sign=True),
            _with_interval(entry["agreement"], entry["agreement_ci"], sign=True),
            _small(entry["kl_mean"]),
        )
        for task, entry in _tasks(wanted)
    ]
    if not rows:
        return ""
    return _section(
        "Paired differences",
        "Each case compared with itself, in points, with 95 % intervals; all pairs are in "
        "`summary.json`.",
        _table(("task", "difference", "EM", "same line", "KL mean"), rows),
    )


def _groups(document: Row) -> Iterable[str]:
    for by, (title, meaning) in _GROUPINGS.items():
        groups = [group for group in document["groups"] if group["by"] == by]
        if len({(group["group"]) for group in groups}) < 2:
            continue
        strategies = list(groups[0]["agreement"])
        rows = [
            (
                task,
                group["group"],
                group["cases"],
                *(_number(group["agreement"][name], 1) for name in strategies),
            )
            for task, group in _tasks(groups)
        ]
        yield _section(
            f"Agreement by {title}",
            f"{meaning}; same line as full recompute, %.",
            _table(("task", title, "cases", *strategies), rows),
        )


def _echo(document: Row) -> str:
    groups = [
        group
        for group in document["groups"]
        if group["by"] == "kind" and any(rate is not None for rate in group["stale_echo"].values())
    ]
    if not groups:
        return ""
    strategies = list(groups[0]["stale_echo"])
    rows = [
        (
            task,
            group["group"],
            group["cases"],
            *(_number(group["stale_echo"][name], 1) for name in strategies),
        )
        for task, group in _tasks(groups)
    ]
    return _section(
        "Stale echo by class",
        "Predictions that use what the edit took out of the text, where full recompute's does "
        "not, %.",
        _table(("task", "class", "cases", *strategies), rows),
    )


def _cosines(document: Row) -> str:
    entries = document["cosines"]
    if not entries:
        return ""
    layers = max(len(entry["keys"]) for entry in entries)
    rows = [
        (*names, kind, *(_number(cosine, 4) for cosine in entry[kind]))
        for task, entry in _tasks(entries)
        for names, kind in (((task, entry["strategy"]), "keys"), (("", ""), "values"))
    ]
    return _section(
        "Cosine with full recompute's keys and values, by layer",
        "Mean over the tokens kept behind a change.",
        _table(("task", "strategy", "", *map(str, range(layers))), rows),
    )


def _sessions(document: Row) -> str:
    sessions = document["sessions"]
    if not sessions["drift"]:
        return ""
    totals = sessions["totals"]
    names = list(sessions["drift"][0]["kl_mean"])
    columns = ("strategy", "saves", "tokens encoded", "answers, s", "refreshes, s", "cache, MB")
    rows = [
        (
            _policy(total["policy"]),
            total["saves"],
            f"{total['encoded_tokens']:,}",
            _number(total["answers_total_ms"] / 1e3, 2),
            _number(total["refreshes_total_ms"] / 1e3, 2),
            _number(total["cache_bytes_max"] / 1e6, 1),
        )
        for total in totals
    ]
    spans = [
        (f"{first}" if first == last else f"{first} to {last}", steps)
        for first, last, steps in _save_spans(sessions["drift"])
    ]
    drift = [
        (span, sum(step["sessions"] for step in steps), *(_drift_cell(steps, n) for n in names))
        for span, steps in spans
    ]
    return _section(
        "Sessions",
        "Whole sessions, save by save. Answers: time to the first token of all saves together; "
        "refreshes: exact runs behind the answers, while nobody waits. Cache: the largest.",
        _table(columns, rows),
        "Mean KL divergence from full recompute, nats (same line, %), by answered save:",
        _table(("save", "saves", *map(_policy, names)), drift),
    )


def _save_spans(drift: Sequence[Row]) -> Iterable[tuple[int, int, list[Row]]]:
    """Gather saves in fives."""
    for _, group in groupby(drift, key=lambda step: (step["save"] - 1) // 5):
        steps = list(group)
        yield steps[0]["save"], steps[-1]["save"], steps


def _drift_cell(steps: Sequence[Row], policy: str) -> str:
    saves = sum(step["sessions"] for step in steps)
    kl = _weighted(steps, "kl_mean", policy)
    agreement = _weighted(steps, "agreement", policy)
    if kl is None or agreement is None:
        return ""
    return f"{_small(kl / saves)} ({agreement / saves:.0f})"


def _weighted(steps: Sequence[Row], name: str, policy: str) -> float | None:
    parts = [(step[name][policy], step["sessions"]) for step in steps]
    if any(value is None for value, _ in parts):
        return None
    return float(sum(value * sessions for value, sessions in parts))


def _tasks(rows: Iterable[Row]) -> Iterable[tuple[str, Row]]:
    """Give each row with its task, which is named once."""
    for task, group in groupby(rows, key=lambda row: row["task"]):
        for index, row in enumerate(group):
            yield ("" if index else task), row


def _label(row: Row) -> str:
    every = row["refresh_every"]
    return _policy(f"{row['strategy']}@{every}" if every else row["strategy"])


def _policy(name: str) -> str:
    """Spell a strategy with its refreshes out."""
    strategy, _, every = name.partition("@")
    if not every:
        return strategy
    return f"{strategy}, exact after " + ("each save" if every == "1" else f"every {every} saves")


def _section(title: str, *parts: str) -> str:
    return "\n\n".join((f"## {title}", *parts))


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(cell: object) -> str:
    text = f"{cell:,}" if isinstance(cell, int) else str(cell)
    return text.replace("|", "\\|")


def _number(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:,.{digits}f}"


def _time(duration_ms: float | None) -> str:
    if duration_ms is None:
        return ""
    return f"{duration_ms:,.0f}" if duration_ms >= 100 else f"{duration_ms:.1f}"


def _small(number: float | None) -> str:
    """Write a number that may be tiny with three digits that mean something."""
    if number is None:
        return ""
    return "0" if number == 0 else f"{number:.3g}"


def _with_interval(
    number: float | None, bounds: Sequence[float] | None, *, sign: bool = False
) -> str:
    if number is None:
        return ""
    spelled = f"{number:+.1f}" if sign else f"{number:.1f}"
    return spelled if bounds is None else f"{spelled} [{bounds[0]:.1f}, {bounds[1]:.1f}]"
