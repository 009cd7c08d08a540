"""`pie eval`: how faithful is it, on any model and any cases."""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from pie_cli.cli.documents import SCHEMA, dump
from pie_cli.cli.lists import entries, numbers
from pie_cli.cli.models import open_model
from pie_cli.cli.render import Renderer
from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.errors import InputError
from pie_cli.evaluation.cases.case import TASKS
from pie_cli.evaluation.cases.sources import Loaded, load
from pie_cli.evaluation.report.environment import describe
from pie_cli.evaluation.report.figures import draw_figures, figures_can_be_drawn
from pie_cli.evaluation.report.summary import summarise
from pie_cli.evaluation.report.tables import render_report
from pie_cli.evaluation.runs.evaluate import Experiment, Unit, evaluate, settings_of
from pie_cli.evaluation.runs.outcomes import Record
from pie_cli.evaluation.runs.sharing import Team, join_team
from pie_cli.evaluation.runs.store import check_folder, merge_parts, prepare_folder, write_whole

_SHOWN_SKIPS = 5
_PRINTED = ("environment", "model", "seed", "source", "settings", "counts", "skipped", "rows")
_COLUMNS = (
    "task",
    "strategy",
    "cases",
    "EM %",
    "ES",
    "same %",
    "KL",
    "echo %",
    "encoded",
    "ms",
    "saved %",
)


@dataclass(frozen=True)
class EvalOptions:
    """What the options ask for.

    Attributes:
        cases: where cases come from; None for what is built in.
        task: one of `TASKS`.
        experiment: strategies and sizes.
        limit: most cases of a task.
        strict: whether a malformed record is fatal.
        out: folder for results and report; None for a table only.
        resume: whether to go on with what is there.
    """

    cases: str | None
    task: str
    experiment: Experiment
    limit: int | None = None
    strict: bool = False
    out: Path | None = None
    resume: bool = False

    @classmethod
    def parse(
        cls,
        *,
        cases: str | None,
        task: str,
        strategies: str,
        context_tokens: int,
        max_tokens: int,
        seed: int,
        refresh_every: str,
        layout: str,
        latency: int,
        limit: int | None,
        strict: bool,
        out: Path | None,
        resume: bool,
    ) -> "EvalOptions":
        """Read lists separated by commas; what is there twice counts once.

        Raises:
            InputError: an unknown strategy or task, or a number that cannot be used.
        """
        experiment = Experiment(
            entries(strategies),
            context_tokens,
            max_tokens,
            seed,
            numbers("--refresh-every", refresh_every),
            layout,
            latency,
        )
        return cls(cases, task, experiment, limit, strict, out, resume)

    def __post_init__(self) -> None:
        """Refuse what could only fail later.

        Raises:
            InputError: an unknown task, or options that do not go together.
        """
        if self.task not in TASKS:
            raise InputError(f"unknown task {self.task!r}", f"use one of {', '.join(TASKS)}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit is {self.limit}", "it must be at least 1")
        if self.resume and self.out is None:
            raise InputError("nothing to resume", "name the folder of the results with --out")


def run(settings: Settings, options: EvalOptions, *, as_json: bool) -> None:
    """Evaluate, and print a table or one JSON document; with a folder, write the report there.

    Raises:
        PieError: whatever the user can mend.
        KeyboardInterrupt: when interrupted; what was computed is kept in the folder.
    """
    team = join_team(settings.device)
    renderer = Renderer(quiet=not team.leads)
    try:
        if options.out and team.leads:
            check_folder(options.out, resume=options.resume)
        loaded = _load(options, renderer)
        settings = replace(settings, device=team.device(settings.device))
        opened = open_model(settings, renderer)
        document = _evaluate(opened.model, options, loaded, team, renderer)
    finally:
        team.close()
    if document is None:
        return
    if as_json:
        print(dump({name: document[name] for name in _PRINTED}, indent=2))
    else:
        _print_table(renderer, document)
    if options.out:
        renderer.note(f"wrote {options.out / 'report.md'}")


def _load(options: EvalOptions, renderer: Renderer) -> Loaded:
    """Load the cases, and say what was skipped.

    Raises:
        InputError: no cases, or with --strict a malformed record.
    """
    with renderer.progress("reading cases"):
        loaded = load(
            options.cases,
            options.task,
            seed=options.experiment.seed,
            limit=options.limit,
            strict=options.strict,
            context_tokens=options.experiment.context_tokens,
        )
    for skipped in loaded.skipped[:_SHOWN_SKIPS]:
        renderer.note(f"skipped {skipped.where}: {skipped.reason}")
    if len(loaded.skipped) > _SHOWN_SKIPS:
        renderer.note(f"skipped {len(loaded.skipped) - _SHOWN_SKIPS} more records")
    return loaded


def _evaluate(
    model: PreparedModel, options: EvalOptions, loaded: Loaded, team: Team, renderer: Renderer
) -> dict[str, Any] | None:
    """Run the cases; in the process that leads, sum up and write what is asked for."""
    experiment, folder = options.experiment, options.out
    units: list[Unit] = [*loaded.cases, *loaded.sessions]
    made_with = settings_of(experiment, model, options.task, units)
    if folder:
        if team.leads:
            prepare_folder(folder, made_with, resume=options.resume)
        team.wait()
    try:
        with renderer.progress("evaluating") as report:
            records = evaluate(model, experiment, units, team, report, folder)
    except KeyboardInterrupt:
        if folder:
            renderer.note(f"what was computed is kept in {folder}; --resume goes on with it")
        else:
            renderer.note("broken off: what was computed is lost; --out DIR would have kept it")
        raise
    if not team.leads:
        return None
    document = _document(model, options, loaded, made_with, records)
    if folder:
        merge_parts(folder, records)
        _write(folder, document, renderer)
    return document


def _document(
    model: PreparedModel,
    options: EvalOptions,
    loaded: Loaded,
    made_with: dict[str, Any],
    records: Sequence[Record],
) -> dict[str, Any]:
    """Return the fields of `summary.json`, without `schema`."""
    experiment = options.experiment
    return {
        "environment": asdict(describe(model.loaded)),
        "model": model.name,
        "seed": experiment.seed,
        "command": _command_line(model.name, options),
        "source": loaded.source,
        "settings": made_with,
        "skipped": [asdict(skipped) for skipped in loaded.skipped],
        **summarise(records, experiment.strategies, experiment.seed),
    }


def _write(folder: Path, document: dict[str, Any], renderer: Renderer) -> None:
    """Write the summary, the plots if they can be drawn, and the report that shows them."""
    summary = json.dumps({"schema": SCHEMA, **document}, indent=1, allow_nan=False)
    write_whole(folder / "summary.json", summary + "\n")
    pictures: Sequence[str] = ()
    if figures_can_be_drawn():
        pictures = draw_figures(folder, document)
    else:
        renderer.note("no plots: they need matplotlib (pip install 'pie-cli[plot]')")
    write_whole(folder / "report.md", render_report(document, pictures))


def _command_line(model: str, options: EvalOptions) -> str:
    """Spell the command that gives this evaluation again."""
    experiment = options.experiment
    words = ["pie", "eval"]
    if options.cases:
        words += ["--cases", options.cases]
    words += ["--task", options.task, "--strategies", ",".join(experiment.strategies)]
    words += ["--model", model, "--context-tokens", str(experiment.context_tokens)]
    if experiment.max_tokens != Settings.max_tokens:
        words += ["--max-tokens", str(experiment.max_tokens)]
    if experiment.refresh_every != Experiment.refresh_every:
        words += ["--refresh-every", ",".join(map(str, experiment.refresh_every))]
    if experiment.layout != Experiment.layout:
        words += ["--layout", experiment.layout]
    if experiment.latency != Experiment.latency:
        words += ["--latency", str(experiment.latency)]
    if options.limit:
        words += ["--limit", str(options.limit)]
    return shlex.join([*words, "--seed", str(experiment.seed)])


def _print_table(renderer: Renderer, document: dict[str, Any]) -> None:
    environment = document["environment"]
    renderer.line(
        f"{document['model']}, {environment['parameters'] / 1e6:,.1f} M parameters, "
        f"{environment['dtype']}, {document['settings']['context_tokens']:,} tokens of context"
    )
    renderer.line(f"{document['source']}; {environment['device_name']}")
    renderer.line("")
    renderer.table(_COLUMNS, list(_cells(document["rows"])))
    renderer.line("")
    for line in _legend(document):
        renderer.line(line)


def _cells(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for task, group in groupby(rows, key=lambda row: row["task"]):
        for index, row in enumerate(group):
            every = row["refresh_every"]
            yield (
                "" if index else task,
                row["strategy"] + (f" @{every}" if every else ""),
                f"{row['cases']:,}",
                _number(row["em"], 1),
                _number(row["es"], 1),
                _number(row["agreement"], 1),
                "" if row["kl_mean"] is None else f"{row['kl_mean']:.2g}",
                _number(row["stale_echo"], 1),
                _number(row["encoded_tokens_mean"], 0),
                _number(row["first_token_ms_median"], 1),
                _number(row["reduction_pct"], 1),
            )


def _legend(document: dict[str, Any]) -> Iterator[str]:
    """Say what the columns mean, and what was counted."""
    yield "EM, ES: exact match and edit similarity with the true line. same: full recompute's line."
    yield "KL: divergence of the next token from full recompute's, nats, mean."
    yield "encoded: tokens run through the model. ms: to the first token, median."
    if any(row["stale_echo"] is not None for row in document["rows"]):
        yield "echo: predictions with a name or value that the edit took out of the text."
    if any(row["refresh_every"] for row in document["rows"]):
        yield "@N: the cache is made exact after every N saves, once they are answered."
    counts = document["counts"].values()
    truncated = sum(count["truncated"] for count in counts)
    outside = sum(count["outside"] for count in counts)
    if truncated:
        yield f"{truncated:,} longer than the context: cut at the window."
    if outside:
        yield f"{outside:,} not measured: the edit lies outside the context."
    if outside and outside == sum(count["cases"] for count in counts):
        yield "Nothing was measured: a larger --context-tokens has more edits in view."
    if document["skipped"]:
        yield f"{len(document['skipped']):,} malformed records skipped."


def _number(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:,.{digits}f}"
