"""The commands that serve editors: options in, exit codes out."""

from typing import TYPE_CHECKING, Annotated

import typer

from pie_cli.cli import options
from pie_cli.cli.reporting import leave, reporting
from pie_cli.cli.starting import importing
from pie_cli.config import COMPARISONS, Settings
from pie_cli.errors import ExitCode, InputError

if TYPE_CHECKING:
    from pie_cli.settings.keys import Value
    from pie_cli.settings.sources import Found


def lsp(
    context: typer.Context,
    model: options.Model = Settings.model,
    strategy: options.Strategy = Settings.strategy,
    lines: options.Lines = Settings.lines,
    max_tokens: options.MaxTokens = Settings.max_tokens,
    latency: options.Latency = Settings.latency,
    threads: options.Threads = Settings.threads,
    context_files: options.ContextFiles = None,
    context_tokens: options.ContextTokens = None,
    context_budget: options.ContextBudget = None,
    cache_memory: options.CacheMemory = None,
    keep_cache: options.KeepCache = False,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    weights: options.Weights = Settings.weights,
    trust_remote_code: options.TrustRemoteCode = False,
    completion: Annotated[
        bool,
        typer.Option(
            "--completion",
            help="Offer textDocument/completion, too: for editors without inline completion.",
        ),
    ] = False,
    pause_ms: Annotated[
        int,
        typer.Option(
            "--pause-ms", help="Quiet time after which the cache follows a change.", metavar="N"
        ),
    ] = 40,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            help="Listen at this port of the loopback interface instead of stdin and stdout.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    _stdio: Annotated[
        bool, typer.Option("--stdio", help="Use stdin and stdout, as without any option.")
    ] = False,
    _quiet: options.Quiet = False,
    _verbose: options.Verbose = False,
    _log_file: options.LogFile = None,
    debug: options.Debug = False,
) -> None:
    """Serve an editor by the language server protocol.

    The editor starts it. It offers lines at the cursor. Settings come from files and variables,
    then from these options, then from the editor.
    """
    values: dict[str, object] = {
        "model": model,
        "strategy": strategy,
        "max-tokens": max_tokens,
        "latency": latency,
        "threads": threads,
        "lines": lines,
        "context": [str(path.absolute()) for path in context_files or ()],
        "context-tokens": context_tokens,
        "context-budget": context_budget,
        "cache-memory": cache_memory,
        "keep-cache": keep_cache,
        "device": device,
        "dtype": dtype,
        "weights": weights,
        "trust-remote-code": trust_remote_code,
        "completion": completion,
        "pause-ms": pause_ms,
    }
    with reporting(debug=debug):
        if port is not None:
            _read("port", port)
        given = _given(context, values)
        with importing():
            from pie_cli.cli.lsp import run

        code = run(given, port)
    leave(ExitCode.FAILURE if code else ExitCode.OK)


def serve(
    model: options.Model = Settings.model,
    strategy: options.Strategy = Settings.strategy,
    compare: Annotated[
        str,
        typer.Option(
            "--compare", help="What is recomputed in idle time.", metavar="|".join(COMPARISONS)
        ),
    ] = "prefix",
    lines: options.Lines = Settings.lines,
    max_tokens: options.MaxTokens = Settings.max_tokens,
    latency: options.Latency = Settings.latency,
    threads: options.Threads = Settings.threads,
    context_tokens: options.ContextTokens = None,
    cache_memory: options.CacheMemory = None,
    device: options.Device = Settings.device,
    dtype: options.Dtype = Settings.dtype,
    weights: options.Weights = Settings.weights,
    trust_remote_code: options.TrustRemoteCode = False,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen at; others than this machine's need a token."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="Port to listen at; 0 for any.", metavar="N")
    ] = 8012,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            help="What clients have to show; better said by PIE_TOKEN, which nobody else sees.",
            metavar="TEXT",
            show_default=False,
        ),
    ] = None,
    _quiet: options.Quiet = False,
    _verbose: options.Verbose = False,
    _log_file: options.LogFile = None,
    debug: options.Debug = False,
) -> None:
    """Serve plugins over HTTP, as llama.cpp's server does."""
    with reporting(debug=debug):
        from pie_cli.serving.setup import CHUNK_TOKENS

        _read("port", port)
        settings = Settings(
            model,
            device,
            dtype,
            strategy,
            compare,
            max_tokens=max_tokens,
            context_tokens=context_tokens,
            latency=latency,
            threads=threads,
            lines=lines,
            chunk_tokens=CHUNK_TOKENS,
            trust_remote_code=trust_remote_code,
            weights=weights,
        )
        with importing():
            from pie_cli.cli.serve import run
            from pie_cli.serving.worker import Serving

        # What comes before a text, the client says.
        serving = Serving(settings, cache_memory=cache_memory, keeps_changed=False)
        run(serving, host, port, token)
    leave(ExitCode.OK)


def _given(context: typer.Context, values: dict[str, object]) -> "dict[str, Found]":
    """Return what the command line itself says: the rest is looked up where the project is."""
    from pie_cli.settings.keys import KEYS
    from pie_cli.settings.sources import Found

    found: dict[str, Found] = {}
    for name, value in values.items():
        parameter = "context_files" if name == "context" else KEYS[name].parameter
        source = context.get_parameter_source(parameter)
        if source is not None and source.name == "COMMANDLINE":
            key = KEYS[name]
            found[name] = Found(key, _read(name, value), f"--{name}")
    return found


def _read(name: str, value: object) -> "Value":
    """Take an option's value as the setting of that name takes it.

    Raises:
        InputError: it cannot be used.
    """
    from pie_cli.settings.keys import KEYS

    try:
        return KEYS[name].read(value)
    except InputError as error:
        raise InputError(f"--{error.cause}", error.remedy) from None
