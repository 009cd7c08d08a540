"""The commands that measure: options in, exit codes out."""

from pathlib import Path
from typing import Annotated

import typer

from pie_cli.cli import options
from pie_cli.cli.reporting import reporting
from pie_cli.cli.starting import importing
from pie_cli.config import DEFAULT_MODEL, Settings
from pie_cli.plan.strategies import BENCHED


def bench(
    model: options.Model = DEFAULT_MODEL,
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Build the named shape without downloading it."),
    ] = False,
    context_tokens: Annotated[
        str, typer.Option("--context-tokens", help="Prompt lengths.", metavar="N,N")
    ] = "1024,4096",
    edits: Annotated[
        str, typer.Option("--edits", help="Kinds of edit.", metavar="insert,delete,replace,multi")
    ] = "insert,delete,replace,multi",
    edit_tokens: Annotated[
        str, typer.Option("--edit-tokens", help="Sizes of an edit.", metavar="N,N")
    ] = "1,16",
    repeats: Annotated[
        int, typer.Option("--repeats", help="Measurements of each case.", metavar="N")
    ] = 5,
    strategies: Annotated[
        str,
        typer.Option(
            "--strategies", help="What to measure; full recompute always is.", metavar="NAME,NAME"
        ),
    ] = ",".join(BENCHED),
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="A server with llama.cpp's /completion that is given the same edits.",
            metavar="URL",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Show where the time goes, for the last strategy."),
    ] = False,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="From short to long prompts, small to large edits."),
    ] = False,
    max_tokens: options.MaxTokens = 16,
    threads: options.Threads = Settings.threads,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    weights: options.Weights = Settings.weights,
    trust_remote_code: options.TrustRemoteCode = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", help="Draw the times to a PNG (needs matplotlib).", metavar="OUT.png"
        ),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure every strategy against full recompute, on this machine."""
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.bench import BenchOptions, run

        run(
            Settings(
                model,
                device,
                dtype,
                max_tokens=max_tokens,
                trust_remote_code=trust_remote_code,
                threads=threads,
                weights=weights,
            ),
            BenchOptions.parse(
                context_tokens,
                edits,
                edit_tokens,
                repeats,
                strategies,
                against,
                profile=profile,
                sweeps=sweep,
            ),
            random_weights=random_weights,
            plot=plot,
            as_json=as_json,
        )


def evaluate(
    cases: Annotated[
        str | None,
        typer.Option(
            "--cases",
            help="A file or folder of cases, git repositories, or hub:NAME; else what is built in.",
            metavar="PATH|hub:NAME",
            show_default=False,
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            help="What the cases are made into.",
            metavar="real|insertion|deletion|multi|adversarial|session|prose|short|all",
        ),
    ] = "all",
    strategies: Annotated[
        str,
        typer.Option("--strategies", help="What is compared, commas between.", metavar="A,B"),
    ] = ",".join(BENCHED),
    model: options.Model = DEFAULT_MODEL,
    context_tokens: Annotated[
        int, typer.Option("--context-tokens", help="Longest prompt in tokens.", metavar="N")
    ] = 2_048,
    max_tokens: options.MaxTokens = Settings.max_tokens,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Most cases of each task.", metavar="N", show_default=False),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Of made-up edits and the bootstrap.", metavar="N"),
    ] = 0,
    refresh_every: Annotated[
        str,
        typer.Option(
            "--refresh-every",
            help="Sessions: saves between two exact runs, 0 for none.",
            metavar="N,N",
        ),
    ] = "0,1,5",
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            help="Of prompts; plain shows the model nothing below the cursor, as the paper does.",
            metavar="auto|plain|prefix-suffix-middle|suffix-prefix-middle",
        ),
    ] = "auto",
    latency: options.Latency = Settings.latency,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for results, summary, report and plots.",
            metavar="DIR",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the results in DIR.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail on a malformed record instead of skipping it.")
    ] = False,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    weights: options.Weights = Settings.weights,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure how faithful an edited cache is, strategy by strategy.

    On real and made-up edits: agreement with full recompute, exact match, divergence and time. A
    report goes to DIR.
    """
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.eval import EvalOptions, run

        run(
            Settings(
                model,
                device,
                dtype,
                max_tokens=max_tokens,
                trust_remote_code=trust_remote_code,
                weights=weights,
            ),
            EvalOptions.parse(
                cases=cases,
                task=task,
                strategies=strategies,
                context_tokens=context_tokens,
                max_tokens=max_tokens,
                seed=seed,
                refresh_every=refresh_every,
                layout=layout,
                latency=latency,
                limit=limit,
                strict=strict,
                out=out,
                resume=resume,
            ),
            as_json=as_json,
        )
