"""`pie bench`: every strategy against full recompute, on this machine."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from pie_cli.cli.documents import dump
from pie_cli.cli.lists import entries, numbers
from pie_cli.cli.models import open_model
from pie_cli.cli.render import Renderer
from pie_cli.config import Settings
from pie_cli.evaluation.cases.workload import Workload, sweep
from pie_cli.evaluation.report.environment import Environment, describe
from pie_cli.evaluation.report.figures import check_plot, draw_latency
from pie_cli.evaluation.runs.latency import Measured, OnProgress, Row, measure
from pie_cli.evaluation.runs.peer import Peer, PeerRow
from pie_cli.evaluation.runs.spread import LEAST
from pie_cli.plan.strategies import BENCHED, check

_COLUMNS = (
    "edit",
    "strategy",
    "encoded",
    "update",
    "first",
    "p95",
    "saved %",
    "line",
    "p95",
    "saved %",
    "agree %",
)


@dataclass(frozen=True)
class BenchOptions:
    """What the options ask for."""

    workload: Workload
    strategies: tuple[str, ...] = BENCHED
    peer: Peer | None = None
    profile: bool = False
    sweeps: bool = False

    def workloads(self, window: int) -> Sequence[Workload]:
        """Return what is measured with a model of this window."""
        return list(sweep(window, self.workload.repeats)) if self.sweeps else [self.workload]

    @classmethod
    def parse(
        cls,
        context_tokens: str,
        edits: str,
        edit_tokens: str,
        repeats: int,
        strategies: str = ",".join(BENCHED),
        against: str | None = None,
        *,
        profile: bool = False,
        sweeps: bool = False,
    ) -> "BenchOptions":
        """Read lists separated by commas; what is there twice counts once.

        Raises:
            InputError: an entry that is no number, too small, or an unknown edit or strategy.
        """
        names = entries(strategies)
        for name in names:
            check(name)
        return cls(
            Workload(
                context_tokens=numbers("--context-tokens", context_tokens),
                edits=entries(edits),
                edit_tokens=numbers("--edit-tokens", edit_tokens),
                repeats=repeats,
            ),
            names,
            None if against is None else Peer(against),
            profile,
            sweeps,
        )


def run(
    settings: Settings,
    options: BenchOptions,
    *,
    random_weights: bool,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Measure, and print a table or one JSON document.

    Raises:
        PieError: whatever the user can mend.
        KeyboardInterrupt: broken off; what was measured by then has been printed.
    """
    renderer = Renderer()
    if plot is not None:
        check_plot(plot)
    peer_name = None if options.peer is None else options.peer.describe()
    opened = open_model(settings, renderer, random_weights=random_weights)
    workloads = options.workloads(opened.model.window)
    with renderer.progress("measuring") as report:
        measured = Measured.joined(
            measure(
                opened.model,
                workload,
                settings,
                partial(_overall, report, index, len(workloads)),
                options.strategies,
                peer=options.peer,
                profile=options.profile,
            )
            for index, workload in enumerate(workloads)
        )
    name = opened.model.loaded.name
    environment = describe(opened.model.loaded)
    if as_json:
        print(dump(document(name, environment, measured, peer_name), indent=2))
    elif measured.rows:
        _print_tables(renderer, name, environment, measured.rows)
        _print_peers(renderer, peer_name, measured.peers)
        _print_profiles(renderer, measured)
    if measured.broken_off:
        sys.stdout.flush()
        so_far = "this is what was measured by then" if measured.rows else "nothing is measured"
        renderer.note(f"broken off: {so_far}")
        raise KeyboardInterrupt
    if plot is not None:
        draw_latency(plot, measured.rows, f"{name}, {environment.dtype}, {environment.device_name}")
        renderer.note(f"drew {plot}")


def document(
    model: str, environment: Environment, measured: Measured, peer: str | None = None
) -> dict[str, Any]:
    """Return the fields of `bench --json`, without `schema`."""
    return {
        "environment": asdict(environment),
        "model": model,
        "peer": peer,
        **{
            name: [_rounded(asdict(row)) for row in rows]
            for name, rows in (
                ("rows", measured.rows),
                ("peers", measured.peers),
                ("profiles", measured.profiles),
            )
        },
        "bandwidth_gbps": _rounded(measured.bandwidth_gbps),
        "broken_off": measured.broken_off,
    }


def _overall(
    report: OnProgress, index: int, workloads: int, stage: str, done: int, total: int
) -> None:
    """Report the progress of one of several workloads as that of all, each counting alike."""
    report(stage, index * total + done, workloads * total)


def _print_tables(
    renderer: Renderer, model: str, environment: Environment, rows: Sequence[Row]
) -> None:
    weights = "random weights" if environment.random_weights else "weights as trained"
    if environment.weights != "full":
        weights += f", in {environment.weights}"
    size = f"{environment.parameters / 1e6:,.1f} M parameters"
    renderer.line(f"{model}, {size} ({weights}), {environment.dtype}")
    plural = "s" * (environment.threads != 1)
    renderer.line(f"{environment.device_name}, {environment.threads} thread{plural}")
    for context, group in groupby(rows, key=lambda row: row.context_tokens):
        in_context = list(group)
        renderer.line("")
        renderer.table(
            _COLUMNS,
            list(_cells(in_context)),
            f"{context:,} tokens of context; times in ms, medians and 95th percentiles",
        )
        renderer.line(_against_stock(in_context))
    renderer.line("")
    for line in _legend(rows):
        renderer.line(line)


def _cells(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Give the table's cells, the edit named once for its strategies."""
    for (edit, tokens), group in groupby(rows, key=lambda row: (row.edit, row.edit_tokens)):
        for index, row in enumerate(group):
            yield (
                "" if index else f"{edit} {tokens}",
                row.strategy,
                f"{row.encoded_tokens:,}",
                _time(row.update_ms.median),
                _time(row.first_token_ms.median),
                _or_dash(row.first_token_ms.p95),
                _per_cent(row, row.reduction_pct.first_token),
                _time(row.line_ms.median),
                _or_dash(row.line_ms.p95),
                _per_cent(row, row.reduction_pct.line),
                f"{row.agreement_pct:.0f}",
            )


def _print_peers(renderer: Renderer, peer: str | None, rows: Sequence[PeerRow]) -> None:
    """Show what a server took for the same edits, and how many times longer that is."""
    if not rows:
        return
    renderer.line("")
    strategies = list(rows[0].times_slower)
    renderer.table(
        ("context", "edit", "encoded", "first token", "line", *strategies),
        [
            (
                f"{row.context_tokens:,}",
                f"{row.edit} {row.edit_tokens}",
                f"{row.encoded_tokens:,}",
                _time(row.first_token_ms.median),
                _time(row.line_ms.median),
                *(
                    f"{_times(row.times_slower[name].first_token)}"
                    f" / {_times(row.times_slower[name].line)}"
                    for name in strategies
                ),
            )
            for row in rows
        ],
        f"{peer}: times in ms, medians of {rows[0].measurements}; then how many times as long as"
        " each strategy it took, to the first token / to the line",
    )


def _print_profiles(renderer: Renderer, measured: Measured) -> None:
    """Show where the time goes, and what reading memory alone takes."""
    for profile in measured.profiles:
        steps = {part.name: part for part in profile.step}
        renderer.line("")
        renderer.table(
            ("part", "to the first token", "one more pass", "limit"),
            [
                (
                    part.name,
                    f"{part.time_ms:.2f}",
                    f"{steps[part.name].time_ms:.2f}" if part.name in steps else "",
                    "" if part.limit_ms is None else f"{part.limit_ms:.2f}",
                )
                for part in profile.first
            ],
            f"{profile.strategy}, {profile.edit} {profile.edit_tokens} at"
            f" {profile.context_tokens:,} tokens, {profile.encoded_tokens:,} encoded: ms, medians;"
            f" limit: weights and cache read once, at {measured.bandwidth_gbps:.0f} GB/s",
        )


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"


def _per_cent(row: Row, reduction: float) -> str:
    return "" if row.strategy == "full" else f"{reduction:.1f}"


def _against_stock(rows: Sequence[Row]) -> str:
    """Say how full recompute compares with the model's own forward pass."""
    stock = rows[0].stock_forward_ms.median
    forwards = sorted(row.forward_ms.median for row in rows if row.strategy == "full")
    full = forwards[len(forwards) // 2]
    return (
        f"The model's own forward pass takes {_time(stock)} ms, full recompute's {_time(full)} ms "
        f"({full / stock:.2f} times)."
    )


def _legend(rows: Sequence[Row]) -> Iterator[str]:
    """Say what the columns mean and how many measurements they rest on."""
    by_strategy = {row.strategy: row for row in rows}
    counts = ", ".join(f"{name} {row.measurements}" for name, row in by_strategy.items())
    yield "encoded: tokens run through the model. update: moving what the cache keeps."
    yield "first, line: from having the new text to the first token and to the line, all included."
    yield "saved: against full recompute, whose times are those of all edits at one context length."
    yield f"agree: cases with full recompute's line, of {rows[0].compared} a row."
    yield f"Measurements a row: {counts}."
    if any(row.line_ms.p95 is None for row in rows):
        yield f"p95: of {LEAST} measurements or more."
    for strategy in by_strategy:
        own = [row for row in rows if row.strategy == strategy]
        compared = sum(row.compared for row in own)
        agreed = sum(round(row.compared * row.agreement_pct / 100) for row in own)
        if strategy != "full":
            yield f"{strategy}: the line of full recompute in {agreed} of {compared} cases."


def _time(duration_ms: float) -> str:
    return f"{duration_ms:,.0f}" if duration_ms >= 100 else f"{duration_ms:.1f}"


def _or_dash(duration_ms: float | None) -> str:
    return "-" if duration_ms is None else _time(duration_ms)


def _rounded(value: Any) -> Any:
    """Round all fractions to microseconds, or thousandths of a per cent."""
    if isinstance(value, dict):
        return {name: _rounded(entry) for name, entry in value.items()}
    return round(value, 3) if isinstance(value, float) else value
