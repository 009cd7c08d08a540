"""The options that commands share, each described once."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from pie_cli.cli import logs
from pie_cli.cli.reporting import reporting
from pie_cli.config import COMPARISONS, DEVICES, DTYPES, WEIGHTS


def _models(incomplete: str) -> list[str]:
    """Return the names that complete a model's; folders are the shell's business."""
    from pie_cli.models.registry import all_names

    return [name for name in all_names() if name.startswith(incomplete)]


def _one_of(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    def completed(incomplete: str) -> list[str]:
        return [choice for choice in choices if choice.startswith(incomplete)]

    return completed


def _log_file(path: Path | None) -> Path | None:
    with reporting(debug=False):
        logs.log_file(path)
    return path


Model: TypeAlias = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        autocompletion=_models,
        help="pie-nano (embedded), a name from `pie models`, a hub name, a folder or a GGUF file.",
        metavar="NAME|FOLDER|FILE",
    ),
]
At: TypeAlias = Annotated[
    str,
    typer.Option(
        "--at",
        help="Where to predict: where the last edit ends, at the end, as a line, or within one.",
        metavar="edit|end|LINE[:COL]",
    ),
]
Strategy: TypeAlias = Annotated[
    str,
    typer.Option(
        "--strategy",
        help="How an edit updates the cache; repairs are added to pie, as in pie+seam:8.",
        metavar="full|prefix|cfe|pie[+REPAIR…]",
    ),
]
Compare: TypeAlias = Annotated[
    str,
    typer.Option(
        "--compare",
        help="What the comparison recomputes: all, what follows the first change, nothing.",
        metavar="|".join(COMPARISONS),
        autocompletion=_one_of(COMPARISONS),
    ),
]
Lines: TypeAlias = Annotated[
    int,
    typer.Option(
        "--lines", help="Most lines of a prediction; it ends with its block.", metavar="N"
    ),
]
CompareLimit: TypeAlias = Annotated[
    int,
    typer.Option(
        "--compare-limit",
        help="Seconds of work beyond which full recompute is not run but estimated.",
        metavar="SECONDS",
    ),
]
ComparePause: TypeAlias = Annotated[
    int,
    typer.Option(
        "--compare-pause",
        help="Milliseconds without a save after which the comparison starts.",
        metavar="MS",
    ),
]
Explain: TypeAlias = Annotated[
    bool,
    typer.Option("--explain", help="Tell what became of the tokens, in the method's words."),
]
MaxTokens: TypeAlias = Annotated[
    int, typer.Option("--max-tokens", help="Most tokens for each predicted line.", metavar="N")
]
Latency: TypeAlias = Annotated[
    int,
    typer.Option(
        "--latency",
        help="Time to the first token, in ms, that repair may fill up on this machine.",
        metavar="MS",
    ),
]
Threads: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--threads",
        help="Most threads that compute on a CPU, by default all; fewer beside busy programs.",
        metavar="N",
        show_default=False,
    ),
]
ContextTokens: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--context-tokens",
        help="Longest prompt in tokens; the model's window if not given.",
        metavar="N",
        show_default=False,
    ),
]
ContextFiles: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--context",
        help="A file to put before the prompt; may be given several times.",
        metavar="FILE",
        show_default=False,
    ),
]
ContextBudget: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--context-budget",
        help="Most tokens of recently saved files before the prompt; a quarter of the window"
        " if not given.",
        metavar="N",
        show_default=False,
    ),
]
CacheMemory: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--cache-memory",
        help="Memory for the caches of all files, such as 2GB; a share of what is free if not"
        " given.",
        metavar="SIZE",
        show_default=False,
    ),
]
KeepCache: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--keep-cache",
        help="Keep exact caches on disk at the end, and begin with what was kept.",
    ),
]
Device: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device",
        help="Where the model runs; map spreads it over all devices.",
        metavar="auto|cpu|cuda|mps|map",
        autocompletion=_one_of(DEVICES),
    ),
]
Dtype: TypeAlias = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="Type of weights and cache; auto is float32 on a CPU, else the checkpoint's.",
        metavar="auto|float32|bfloat16|float16",
        autocompletion=_one_of(DTYPES),
    ),
]
Weights: TypeAlias = Annotated[
    str,
    typer.Option(
        "--weights",
        help="How weights are kept; int8 rounds them to eight bits, on a CPU.",
        metavar="full|int8",
        autocompletion=_one_of(WEIGHTS),
    ),
]
TrustRemoteCode: TypeAlias = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with a model's repository.")
]
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print JSON (schema pie/1) instead of text.")
]
Debug: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
EditPatch: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--edit",
        help="A unified diff, such as `git diff` prints; - reads it from stdin.",
        metavar="PATCH|-",
        show_default=False,
    ),
]
Quiet: TypeAlias = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show errors and results only.", callback=logs.quiet),
]
Verbose: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Tell on stderr what is being done.", callback=logs.verbose
    ),
]
LogFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--log-file",
        help="Write what is being done to the end of a file.",
        metavar="FILE",
        show_default=False,
        callback=_log_file,
    ),
]
