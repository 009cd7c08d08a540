"""`pie complete` as editors call it, asked of a running pie without typer, which takes longer.

Everything that this does not understand, and whatever goes wrong, is left to the commands proper.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pie_cli.errors import PieError
from pie_cli.settings.keys import EDITING, GENERAL, KEYS
from pie_cli.settings.sources import resolve

_FLAGS: Final = {"--plain": "plain", "--json": "as_json", "--quiet": "", "-q": ""}
_NOT_OF_SESSIONS: Final = ("context", "context-budget", "cache-memory", "keep-cache")
_OF_SESSIONS: Final = tuple(
    key for key in (*GENERAL, *EDITING) if key.name not in _NOT_OF_SESSIONS and key.kind != "flag"
)
_NAMES: Final = {f"--{key.name}": key.name for key in _OF_SESSIONS} | {
    "-m": "model",
    "--stdin-filename": "stdin-filename",
}
_STDIN: Final = "-"


def completes(arguments: Sequence[str]) -> bool:
    """Complete, if these are the arguments of a plain call and a running pie answers.

    Args:
        arguments: of the command line, without the program's name.

    Returns:
        Whether that was all; else nothing has been shown, and stdin can be read from its beginning.
    """
    read = _read(arguments[1:]) if arguments[:1] == ["complete"] else None
    if read is None:
        return False
    file, flags, values = read
    if file == _STDIN and sys.stdin is not None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(sys.stdin.buffer.read()))
    try:
        done = _completed(file, flags, values)
    except (PieError, OSError, ValueError):
        done = False
    if not done and file == _STDIN and sys.stdin is not None:
        sys.stdin.seek(0)
    return done


def _completed(file: str, flags: dict[str, bool], values: dict[str, str]) -> bool:
    from pie_cli.cli.complete import CompleteOptions, run
    from pie_cli.cli.places import place_of
    from pie_cli.config import Settings

    found = resolve()
    chosen: dict[str, Any] = {
        key.parameter: found[key.name].value for key in (*_OF_SESSIONS, KEYS["trust-remote-code"])
    }
    stdin_filename = values.pop("stdin-filename", None)
    for name, text in values.items():
        chosen[KEYS[name].parameter] = KEYS[name].read_text(text)
    context = found["context"].value
    path, chosen["at"] = place_of(Path(file), chosen["at"])
    options = CompleteOptions(
        path,
        stdin_filename=None if stdin_filename is None else Path(stdin_filename),
        context=tuple(map(Path, context)) if isinstance(context, tuple) else (),
        as_json=flags.get("as_json", False),
        plain=flags.get("plain", False),
    )
    return run(Settings(**chosen), options, only_warm=True)


def _read(arguments: Sequence[str]) -> tuple[str, dict[str, bool], dict[str, str]] | None:
    """Sort out FILE, flags and values; None for anything else, and for output to a person."""
    files: list[str] = []
    flags: dict[str, bool] = {}
    values: dict[str, str] = {}
    left = iter(arguments)
    for argument in left:
        name, given, value = argument.partition("=")
        if argument in _FLAGS:
            flags[_FLAGS[argument]] = True
        elif name in _NAMES:
            text = value if given else next(left, None)
            if text is None:
                return None
            values[_NAMES[name]] = text
        elif argument.startswith("-") and argument != _STDIN:
            return None
        else:
            files.append(argument)
    flags.pop("", None)
    if len(files) != 1 or len(flags) != 1 or sys.stdout is None or sys.stdout.isatty():
        return None
    return files[0], flags, values
