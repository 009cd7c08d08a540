"""The options that commands share, each described once."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from pie_cli.config import COMPARISONS

Model: TypeAlias = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="pie-nano (embedded), a name from `pie models`, a hub name, a folder or a GGUF file.",
        metavar="NAME|FOLDER|FILE",
    ),
]
At: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--at",
        help="Where to predict: below the last edit, at the end, as a line, or within one.",
        metavar="edit|end|LINE[:COL]",
        show_default="edit where the model can, else end",
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
    ),
]
MaxTokens: TypeAlias = Annotated[
    int, typer.Option("--max-tokens", help="Most tokens of a predicted line.", metavar="N")
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
Device: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device",
        help="Where the model runs; map spreads it over all devices.",
        metavar="auto|cpu|cuda|mps|map",
    ),
]
Dtype: TypeAlias = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="Type of weights and cache; auto is float32 on a CPU, else the checkpoint's.",
        metavar="auto|float32|bfloat16|float16",
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
