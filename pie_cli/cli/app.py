"""The `pie` command: options in, exit codes out.

Heavy modules are imported by the command that runs, so that `--help` and `--version` are quick.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pie_cli import __version__
from pie_cli.cli import options
from pie_cli.config import DEFAULT_MODEL, Settings
from pie_cli.errors import ExitCode, PieError

app = typer.Typer(
    help="Next-line code completion that survives edits: the KV cache follows the file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INTERRUPTED = 130


@contextmanager
def reporting(*, debug: bool) -> Iterator[None]:
    """Turn what goes wrong into one or two lines on stderr and the documented exit code."""
    try:
        yield
    except PieError as error:
        _fail(error.cause, error.remedy, error.exit_code, debug=debug)
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output went away: nothing is left to say, nor anyone to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.FAILURE) from None
    except ImportError as error:
        _fail(
            f"a package is missing or broken: {error}".splitlines()[0],
            "install pie again in an environment of its own",
            ExitCode.FAILURE,
            debug=debug,
        )
    except Exception as error:  # noqa: BLE001 (the last resort, and it says so)
        _fail(
            f"internal error: {type(error).__name__}: {error}".splitlines()[0],
            "please report it, with what --debug shows",
            ExitCode.FAILURE,
            debug=debug,
        )


@contextmanager
def importing() -> Iterator[None]:
    """Let Ctrl-C end the process at once while the body imports.

    There is nothing to tidy up yet, and a KeyboardInterrupt may come within a destructor, where
    Python prints and forgets it.
    """
    handler = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    taken = in_main_thread and handler is signal.default_int_handler
    if taken:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if taken:
            signal.signal(signal.SIGINT, handler)


def _fail(cause: str, remedy: str, code: ExitCode, *, debug: bool) -> None:
    from pie_cli.cli.render import Renderer

    if debug:
        traceback.print_exc()
    Renderer().error(cause, remedy)
    raise typer.Exit(code) from None


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pie {__version__}")
        raise typer.Exit


@app.callback()
def pie(
    _version_asked: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Next-line code completion that survives edits: the KV cache follows the file."""


@app.command()
def watch(
    paths: Annotated[
        list[Path], typer.Argument(help="Files and folders to watch.", metavar="PATH")
    ],
    model: options.Model = DEFAULT_MODEL,
    at: options.At = Settings.at,
    strategy: options.Strategy = Settings.strategy,
    compare: options.Compare = Settings.compare,
    max_tokens: options.MaxTokens = Settings.max_tokens,
    context: options.ContextFiles = None,
    context_tokens: options.ContextTokens = None,
    context_budget: Annotated[
        int | None,
        typer.Option(
            "--context-budget",
            help="Most tokens of recently saved files before the prompt; a quarter of the window"
            " if not given.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    cache_memory: Annotated[
        str | None,
        typer.Option(
            "--cache-memory",
            help="Memory for the caches of all files, such as 2GB; a share of what is free if not"
            " given.",
            metavar="SIZE",
            show_default=False,
        ),
    ] = None,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Predict the next line on each save of a file, until Ctrl-C.

    Of several files, or of those in a folder, the one saved last is predicted in. Beside each
    prediction stands the time that a full recompute would have taken.
    """
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.watch import WatchOptions, run

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
            ),
            WatchOptions(tuple(context or ()), context_budget, cache_memory),
            as_json=as_json,
        )


@app.command()
def complete(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The file; by default the one that the patch names.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    edit: options.EditPatch = None,
    applied: Annotated[
        bool, typer.Option("--applied", help="The file on disk already holds the patch.")
    ] = False,
    model: options.Model = DEFAULT_MODEL,
    at: options.At = Settings.at,
    strategy: options.Strategy = Settings.strategy,
    compare: options.Compare = Settings.compare,
    max_tokens: options.MaxTokens = Settings.max_tokens,
    context: options.ContextFiles = None,
    context_tokens: options.ContextTokens = None,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Predict the next line of a file once, behind a patch or plain."""
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.complete import run

        run(
            file,
            edit,
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
            ),
            context=context or (),
            applied=applied,
            as_json=as_json,
        )


@app.command()
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
    max_tokens: options.MaxTokens = 16,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
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
                model, device, dtype, max_tokens=max_tokens, trust_remote_code=trust_remote_code
            ),
            BenchOptions.parse(context_tokens, edits, edit_tokens, repeats),
            random_weights=random_weights,
            plot=plot,
            as_json=as_json,
        )


@app.command()
def demo(
    model: options.Model = DEFAULT_MODEL,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    debug: options.Debug = False,
) -> None:
    """See it work: edits of a temporary file, and a watch of it.

    It ends by itself within a minute.
    """
    with reporting(debug=debug):
        with importing():
            from pie_cli.cli.demo import run

        run(Settings(model, device, dtype))


def main() -> None:
    """Run the command line; the entry point of `pie`."""
    app()
