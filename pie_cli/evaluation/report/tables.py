"""The report of an evaluation in Markdown: tables in the paper's layout, and how they were made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

PICTURES = {
    "cost.png": "Agreement with full recompute against the time to the first token and to the line",
    "distance.png": "Agreement by distance of the edit",
    "size.png": "Agreement by size of the move and of the edit",
    "cosine.png": "Cosine of keys and values with full recompute's, by layer",
    "drift.png": "Drift over replayed sessions",
}
"""File names of the plots, and what they show."""

_GROUPINGS = {
    "distance": ("distance", "Lines from the edit to the predicted line"),
    "moved": ("size of the move", "Tokens by which the edit moved the text after it"),
    "changed": ("size of the edit", "Tokens that came and tokens that went"),
    "shares_identifier": (
        "shared identifier",
        "Whether the predicted line shares an identifier with the changed lines",
    ),
    "kind": ("kind", "Kind of edit"),
    "language": ("language", "Language of the file"),
}

Row: TypeAlias = Mapping[str, Any]
_Columns: TypeAlias = Mapping[str, Callable[[Row], object]]


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
        _accuracy(document["rows"]),
        _fidelity(document["rows"]),
        _differences(document["paired"]),
        *_groups(document["groups"]),
        _echo(document["groups"]),
        _cosines(document["cosines"]),
        _sessions(document["sessions"]),
        "\n\n".join(f"![{text}]({name})" for name, text in PICTURES.items() if name in drawn),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def policy_name(name: str) -> str:
    """Spell a strategy with its exact runs out."""
    strategy, _, every = name.partition("@")
    if not every:
        return strategy
    return f"{strategy}, exact after " + ("each save" if every == "1" else f"every {every} saves")


def _head(document: Row) -> str:
    environment, settings = document["environment"], document["settings"]
    layout = settings.get("layout", "auto")
    model = (
        f"Model {document['model']} ({environment['parameters'] / 1e6:,.1f} M parameters, "
        f"{environment['dtype']}), {settings['context_tokens']:,} tokens of context, "
        + (f"{layout} prompts, " if layout != "auto" else "")
        + f"seed {document['seed']}. Cases: {document['source']}."
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
    skipped = [
        f"Records skipped: {len(document['skipped'])}.",
        *(f"- {entry['where']}: {entry['reason']}" for entry in document["skipped"]),
    ]
    command = f"    {document['command']}"
    return "\n\n".join(("# Evaluation", command, model, machine, counts, "\n".join(skipped)))


def _accuracy(rows: Sequence[Row]) -> str:
    return _section(
        "Accuracy and time",
        "EM: exact match with the true line, with its 95 % interval; ES: edit similarity, 0 to "
        "100. Times: medians from having the new text to the first token, and to the line. Tokens "
        "a pass: more than one where a draft was right.",
        _by_task(
            rows,
            {
                "strategy": _label,
                "cases": lambda row: row["cases"],
                "EM, %": lambda row: _with_interval(row["em"], row["ci"]["em"]),
                "ES": lambda row: _number(row["es"], 1),
                "first token, ms": lambda row: _time(row["first_token_ms_median"]),
                "reduction, %": lambda row: _number(row["reduction_pct"], 1),
                "line, ms": lambda row: _time(row["line_ms_median"]),
                "tokens a pass": lambda row: _number(row["tokens_per_pass"], 2),
            },
        ),
    )


def _fidelity(rows: Sequence[Row]) -> str:
    return _section(
        "Faithfulness to full recompute",
        "Same line: the line that full recompute predicts, to the character, with its 95 % "
        "interval. KL: divergence of the next token's distribution from full recompute's, in nats. "
        "Stale echo: predictions that use a name or value the edit took out, where full "
        "recompute's does not.",
        _by_task(
            rows,
            {
                "strategy": _label,
                "same line, %": lambda r: _with_interval(r["agreement"], r["ci"]["agreement"]),
                "KL mean": lambda row: _small(row["kl_mean"]),
                "KL p95": lambda row: _small(row["kl_p95"]),
                "KL max": lambda row: _small(row["kl_max"]),
                "stale echo, %": lambda row: _number(row["stale_echo"], 1),
                "tokens encoded": lambda row: _number(row["encoded_tokens_mean"], 1),
                "share, %": lambda row: _number(row["encoded_pct"], 1),
                "stale tokens": lambda row: _number(row["stale_tokens_mean"], 0),
            },
        ),
    )


def _differences(paired: Sequence[Row]) -> str:
    wanted = [
        entry
        for entry in paired
        if entry["against"] in ("full", "pie") and entry["strategy"] != "prefix"
    ]
    if not wanted:
        return ""
    return _section(
        "Paired differences",
        "Each case compared with itself, in points, with 95 % intervals; all pairs are in "
        "`summary.json`.",
        _by_task(
            wanted,
            {
                "difference": lambda entry: f"{entry['strategy']} - {entry['against']}",
                "EM": lambda entry: _with_interval(entry["em"], entry["em_ci"], sign=True),
                "same line": lambda entry: _with_interval(
                    entry["agreement"], entry["agreement_ci"], sign=True
                ),
                "KL mean": lambda entry: _small(entry["kl_mean"]),
            },
        ),
    )


def _groups(groups: Sequence[Row]) -> Iterable[str]:
    for by, (title, meaning) in _GROUPINGS.items():
        chosen = [group for group in groups if group["by"] == by]
        if len({group["group"] for group in chosen}) > 1:
            yield _section(
                f"Agreement by {title}",
                f"{meaning}; same line as full recompute, %.",
                _by_group(chosen, title, "agreement"),
            )


def _echo(groups: Sequence[Row]) -> str:
    chosen = [
        group
        for group in groups
        if group["by"] == "kind" and any(rate is not None for rate in group["stale_echo"].values())
    ]
    if not chosen:
        return ""
    return _section(
        "Stale echo by class",
        "Predictions that use what the edit took out of the text, where full recompute's does "
        "not, %.",
        _by_group(chosen, "class", "stale_echo"),
    )


def _cosines(entries: Sequence[Row]) -> str:
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
        "Mean over the tokens kept after a change.",
        _table(("task", "strategy", "", *map(str, range(layers))), rows),
    )


def _sessions(sessions: Row) -> str:
    if not sessions["drift"]:
        return ""
    totals = [
        (
            policy_name(total["policy"]),
            total["saves"],
            f"{total['encoded_tokens']:,}",
            _number(total["answers_total_ms"] / 1e3, 2),
            _number(total["refreshes_total_ms"] / 1e3, 2),
            _number(total["cache_bytes_max"] / 1e6, 1),
        )
        for total in sessions["totals"]
    ]
    names = list(sessions["drift"][0]["kl_mean"])
    drift = []
    for _, group in groupby(sessions["drift"], key=lambda step: (step["save"] - 1) // 5):
        steps = list(group)
        first, last = steps[0]["save"], steps[-1]["save"]
        span = f"{first}" if first == last else f"{first} to {last}"
        saves = sum(step["sessions"] for step in steps)
        drift.append((span, saves, *(_drift_cell(steps, saves, name) for name in names)))
    return _section(
        "Sessions",
        "Whole sessions, save by save. Answers: time to the first token of all saves together; "
        "refreshes: exact runs after the answers, while nobody waits. Cache: the largest.",
        _table(
            ("strategy", "saves", "tokens encoded", "answers, s", "refreshes, s", "cache, MB"),
            totals,
        ),
        "Mean KL divergence from full recompute, nats (same line, %), by answered save:",
        _table(("save", "saves", *map(policy_name, names)), drift),
    )


def _drift_cell(steps: Sequence[Row], saves: int, policy: str) -> str:
    """Give the means over saves; empty where one of them has none."""
    sums = []
    for name in ("kl_mean", "agreement"):
        if any(step[name][policy] is None for step in steps):
            return ""
        sums.append(sum(step[name][policy] * step["sessions"] for step in steps))
    return f"{_small(sums[0] / saves)} ({sums[1] / saves:.0f})"


def _by_task(rows: Sequence[Row], columns: _Columns) -> str:
    """Return a table of rows, whose task is named once."""
    cells = [(task, *(cell(row) for cell in columns.values())) for task, row in _tasks(rows)]
    return _table(("task", *columns), cells)


def _by_group(groups: Sequence[Row], title: str, rate: str) -> str:
    """Return a table of groups with a rate by strategy."""
    columns: dict[str, Callable[[Row], object]] = {
        title: lambda group: group["group"],
        "cases": lambda group: group["cases"],
    }
    for name in groups[0][rate]:
        columns[name] = lambda group, name=name: _number(group[rate][name], 1)  # type: ignore[misc]
    return _by_task(groups, columns)


def _tasks(rows: Iterable[Row]) -> Iterable[tuple[str, Row]]:
    """Give each row with its task, which is named once."""
    for task, group in groupby(rows, key=lambda row: row["task"]):
        for index, row in enumerate(group):
            yield ("" if index else task), row


def _label(row: Row) -> str:
    every = row["refresh_every"]
    return policy_name(f"{row['strategy']}@{every}" if every else row["strategy"])


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
    return _number(duration_ms, 0 if duration_ms and duration_ms >= 100 else 1)


def _small(number: float | None) -> str:
    """Write a number that may be tiny with three digits that mean something."""
    return "" if number is None else f"{number:.3g}"


def _with_interval(
    number: float | None, bounds: Sequence[float] | None, *, sign: bool = False
) -> str:
    if number is None:
        return ""
    spelled = f"{number:+.1f}" if sign else f"{number:.1f}"
    return spelled if bounds is None else f"{spelled} [{bounds[0]:.1f}, {bounds[1]:.1f}]"
