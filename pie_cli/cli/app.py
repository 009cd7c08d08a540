"""The `pie` command: options in, exit codes out.

Heavy modules are imported by the command that runs, so that `--help` and `--version` are quick.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pie_cli import __version__
from pie_cli.cli import logs, measuring, options, servers
from pie_cli.cli.legible import LegibleGroup
from pie_cli.cli.reporting import reporting
from pie_cli.cli.starting import importing
from pie_cli.config import COMPARE_LIMIT_S, COMPARE_PAUSE_MS, DEFAULT_MODEL, Settings
from pie_cli.errors import PieError

app = typer.Typer(
    cls=LegibleGroup,
    help="Next-line code completion that survives edits: the KV cache follows the file.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    """Come first of all: what an earlier command in this process wanted said is over."""
    logs.reset()
    if wanted:
        typer.echo(f"pie {__version__}")
        raise typer.Exit


@app.callback()
def pie(
    context: typer.Context,
    _version_asked: Annotated[
        bool,
        typer.Option(
            "--version", "-V", help="Print the version.", callback=_version, is_eager=True
        ),
    ] = False,
    _quiet: options.Quiet = False,
    _verbose: options.Verbose = False,
    _log_file: options.LogFile = None,
) -> None:
    """Next-line code completion that survives edits: the KV cache follows the file."""
    if context.resilient_parsing:
        return
    with reporting(debug=False):
        from pie_cli.cli.defaults import default_map

        context.default_map = default_map()


@app.command()
def watch(
    paths: Annotated[
        list[Path], typer.Argument(help="Files and folders to watch.", metavar="PATH")
    ],
    model: options.Model = DEFAULT_MODEL,
    at: options.At = Settings.at,
    strategy: options.Strategy = Settings.strategy,
    compare: options.Compare = Settings.compare,
    compare_pause: options.ComparePause = COMPARE_PAUSE_MS,
    compare_limit: options.CompareLimit = COMPARE_LIMIT_S,
    explain: options.Explain = False,
    lines: options.Lines = Settings.lines,
    max_tokens: options.MaxTokens = Settings.max_tokens,
    latency: options.Latency = Settings.latency,
    threads: options.Threads = Settings.threads,
    context: options.ContextFiles = None,
    context_tokens: options.ContextTokens = None,
    context_budget: options.ContextBudget = None,
    cache_memory: options.CacheMemory = None,
    keep_cache: options.KeepCache = False,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    weights: options.Weights = Settings.weights,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    _quiet: options.Quiet = False,
    _verbose: options.Verbose = False,
    _log_file: options.LogFile = None,
    debug: options.Debug = False,
) -> None:
    """Predict the next line on each save of a file, until Ctrl-C.

    Of several files, or of those in a folder, the one saved last is predicted in. Beside each
    prediction is the time that a full recompute would have taken.
    """
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.places import place_of
            from pie_cli.cli.watch import WatchOptions, run

        if len(paths) == 1:
            file, at = place_of(paths[0], at)
            paths = [file or paths[0]]
        run(
            paths,
            Settings(
                model,
                device,
                dtype,
                strategy,
                compare,
                at,
                max_tokens,
                context_tokens,
                trust_remote_code=trust_remote_code,
                latency=latency,
                threads=threads,
                lines=lines,
                weights=weights,
            ),
            WatchOptions(
                tuple(context or ()),
                context_budget,
                cache_memory,
                compare_pause,
                compare_limit,
                explains=explain,
                keeps=keep_cache,
            ),
            as_json=as_json,
        )


@app.command()
def complete(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The file; by default the one that the patch names; - reads a text from stdin.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    edit: options.EditPatch = None,
    stdin_filename: Annotated[
        Path | None,
        typer.Option(
            "--stdin-filename",
            help="What a text from stdin is called; nothing is read from there.",
            metavar="PATH",
            show_default=False,
        ),
    ] = None,
    applied: Annotated[
        bool, typer.Option("--applied", help="The file on disk already holds the patch.")
    ] = False,
    not_applied: Annotated[
        bool, typer.Option("--not-applied", help="The file on disk does not hold the patch yet.")
    ] = False,
    model: options.Model = DEFAULT_MODEL,
    at: options.At = Settings.at,
    strategy: options.Strategy = Settings.strategy,
    compare: options.Compare = Settings.compare,
    compare_limit: options.CompareLimit = COMPARE_LIMIT_S,
    explain: options.Explain = False,
    lines: options.Lines = Settings.lines,
    max_tokens: options.MaxTokens = Settings.max_tokens,
    latency: options.Latency = Settings.latency,
    threads: options.Threads = Settings.threads,
    context: options.ContextFiles = None,
    context_tokens: options.ContextTokens = None,
    keep_cache: options.KeepCache = False,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    weights: options.Weights = Settings.weights,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    plain: Annotated[bool, typer.Option("--plain", help="Print the predicted line alone.")] = False,
    cold: Annotated[
        bool, typer.Option("--cold", help="Load the model, also where a running pie has it.")
    ] = False,
    _quiet: options.Quiet = False,
    _verbose: options.Verbose = False,
    _log_file: options.LogFile = None,
    debug: options.Debug = False,
) -> None:
    """Predict the next line of a file once, after a patch or plain."""
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.complete import CompleteOptions, run
            from pie_cli.cli.places import place_of

        file, at = place_of(file, at)
        run(
            Settings(
                model,
                device,
                dtype,
                strategy,
                compare,
                at,
                max_tokens,
                context_tokens,
                trust_remote_code=trust_remote_code,
                latency=latency,
                threads=threads,
                lines=lines,
                weights=weights,
            ),
            CompleteOptions(
                file,
                edit,
                stdin_filename,
                tuple(context or ()),
                applied=applied,
                not_applied=not_applied,
                as_json=as_json,
                plain=plain,
                cold=cold,
                compare_limit_s=compare_limit,
                explains=explain,
                keeps=keep_cache,
            ),
        )


app.command()(measuring.bench)
app.command(name="eval")(measuring.evaluate)


@app.command()
def demo(
    model: options.Model = DEFAULT_MODEL,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    weights: options.Weights = Settings.weights,
    debug: options.Debug = False,
) -> None:
    """See it work: edits of a temporary file, and a watch of it.

    It ends by itself within a minute.
    """
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.demo import run

        run(Settings(model, device, dtype, weights=weights))


@app.command()
def doctor(
    model: options.Model = DEFAULT_MODEL,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    weights: options.Weights = Settings.weights,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Check this machine, and whether a model can be edited on it.

    Downloads nothing: a model that is not at hand is reported as such.
    """
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.doctor import run

        run(
            Settings(model, device, dtype, trust_remote_code=trust_remote_code, weights=weights),
            as_json=as_json,
        )


app.command()(servers.lsp)
app.command()(servers.serve)


@app.command()
def config(as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Show every setting, its value, and where it is from.

    Settings are taken from your own pie.toml, then from pie.toml or pyproject.toml up the tree,
    then from PIE_* variables, then from options; the later ones win.
    """
    with reporting(debug=debug):
        from pie_cli.cli.config import run

        run(as_json=as_json)


models_app = typer.Typer(
    help="List the models that pie knows by name, or download one.",
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(models_app, name="models")


@models_app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    context_tokens: Annotated[
        int,
        typer.Option("--context-tokens", help="Prompt length for the cache's memory.", metavar="N"),
    ] = 4_096,
    device: options.Device = Settings.device,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the models that pie knows by name, or download one."""
    if context.invoked_subcommand is not None:
        return
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.catalog import run

        run(context_tokens, device, as_json=as_json)


@models_app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="An alias or a name on the hub.", metavar="NAME")],
    debug: options.Debug = False,
) -> None:
    """Download a model, or what is missing of it.

    Ctrl-C keeps what has arrived; the next pull goes on from there.
    """
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.catalog import pull

        pull(name)


def main() -> None:
    """Run the command line; the entry point of `pie`."""
    try:
        with reporting(debug=False):
            if sys.stdout is None:
                raise PieError("stdout is closed, so nothing could be shown", "give it a reader")
            app(prog_name="pie")
    except typer.Exit as end:
        sys.exit(end.exit_code)
