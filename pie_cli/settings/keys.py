"""The settings that files, variables and editors may give: names, types, and who may set them."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeAlias

from pie_cli.config import COMPARE_LIMIT_S, COMPARE_PAUSE_MS, Settings
from pie_cli.errors import InputError, PieError
from pie_cli.text.matching import similarity
from pie_cli.workspace.memory import parse_size

Value: TypeAlias = str | int | bool | tuple[str, ...] | None
Kind: TypeAlias = Literal["text", "integer", "flag", "path", "paths"]

_WORDS: Final = {"integer": "a whole number", "flag": "true or false", "paths": "a list of paths"}
_FLAGS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_SIMILAR = 60.0


@dataclass(frozen=True)
class Key:
    """One setting.

    Attributes:
        name: as files spell it, which is the option's name.
        kind: of its value; a `path` may also be a name, as a model's.
        help: what it is, in a few words.
        default: where nobody sets it.
        check: raises a PieError for a value that it cannot take.
        personal: never taken from a project's file: who clones a repository does not agree to run
            its code, to write where it says, or to open a port.
    """

    name: str
    kind: Kind
    help: str
    default: Value = None
    check: Callable[[Any], object] = lambda _: None
    personal: bool = False

    @property
    def parameter(self) -> str:
        """Its name in Python."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"PIE_{self.parameter.upper()}"

    def read(self, raw: object) -> Value:
        """Take a value from a file or an editor.

        Raises:
            InputError: of another type, or one that the setting cannot take.
        """
        value = _converted(self.kind, raw)
        if value is None:
            raise InputError(
                f"{self.name} is {raw!r}", f"it must be {_WORDS.get(self.kind, 'text')}"
            )
        try:
            self.check(value)
        except PieError as error:
            # The settings of a session name the option.
            cause = error.cause.removeprefix("--").replace(self.parameter, self.name)
            named = cause if cause.startswith(self.name) else f"{self.name}: {cause}"
            raise InputError(named, error.remedy) from None
        return value

    def read_text(self, text: str) -> Value:
        """Take a value from an environment variable.

        Raises:
            InputError: as `read`.
        """
        raw: object = text
        if self.kind == "integer" and re.fullmatch(r"-?\d{1,9}", text.strip()):
            raw = int(text)
        elif self.kind == "flag":
            raw = _FLAGS.get(text.strip().lower(), text)
        elif self.kind == "paths":
            raw = [path for path in text.split(os.pathsep) if path]
        return self.read(raw)


def _converted(kind: Kind, raw: object) -> Value:
    """Return a value of a kind, or None where it is of another."""
    match kind:
        case "integer":
            return raw if isinstance(raw, int) and not isinstance(raw, bool) else None
        case "flag":
            return raw if isinstance(raw, bool) else None
        case "paths":
            is_list = isinstance(raw, list | tuple) and all(isinstance(one, str) for one in raw)
            return tuple(raw) if is_list and isinstance(raw, list | tuple) else None
        case _:
            return raw if isinstance(raw, str) else None


def _of_session(name: str) -> Callable[[Any], object]:
    """Check a value as the settings of a session do."""
    return lambda value: Settings(**{name: value})


def _at_least(name: str, minimum: int, maximum: int | None = None) -> Callable[[Any], object]:
    def check(value: int) -> None:
        if value < minimum:
            raise InputError(f"{name} is {value}", f"it must be at least {minimum}")
        if maximum is not None and value > maximum:
            raise InputError(f"{name} is {value}", f"it must be at most {maximum:,}")

    return check


_DEFAULTS: Final[Mapping[str, Any]] = {field.name: field.default for field in fields(Settings)}


def _session(name: str, kind: Kind, text: str, *, personal: bool = False) -> Key:
    parameter = name.replace("-", "_")
    return Key(name, kind, text, _DEFAULTS[parameter], _of_session(parameter), personal)


GENERAL: Final = (
    _session("model", "path", "pie-nano, an alias, a hub name, or a folder"),
    _session("device", "text", "where the model runs"),
    _session("dtype", "text", "type of weights and cache"),
    _session("weights", "text", "how weights are kept: full, or int8"),
    _session("trust-remote-code", "flag", "run code that comes with a model", personal=True),
)
"""Settings of every command that takes a model."""

EDITING: Final = (
    _session("at", "text", "where to predict"),
    _session("strategy", "text", "how an edit updates the cache"),
    _session("compare", "text", "what the comparison recomputes"),
    _session("lines", "integer", "most lines of a prediction"),
    _session("max-tokens", "integer", "most tokens for each predicted line"),
    _session("threads", "integer", "threads that compute on a CPU"),
    _session("latency", "integer", "milliseconds to the first token that repair may fill up"),
    _session("context-tokens", "integer", "longest prompt in tokens"),
    Key("context", "paths", "files before the prompt", ()),
    Key(
        "context-budget",
        "integer",
        "most tokens of other documents before the prompt",
        check=_at_least("context-budget", 0),
    ),
    Key("cache-memory", "text", "memory for the caches of all documents", check=parse_size),
    Key("keep-cache", "flag", "keep exact caches on disk between runs", False),
)
"""Settings of the commands that follow edits."""

SHOWING: Final = (
    Key(
        "compare-limit",
        "integer",
        "seconds of work beyond which full recompute is not run",
        COMPARE_LIMIT_S,
        _at_least("compare-limit", 0),
    ),
    Key(
        "compare-pause",
        "integer",
        "milliseconds without a save after which the comparison starts",
        COMPARE_PAUSE_MS,
        _at_least("compare-pause", 0),
    ),
    Key("explain", "flag", "tell what became of the tokens", False),
)
"""Settings of the commands that show what full recompute says."""

SERVING: Final = (
    Key("pause-ms", "integer", "quiet time before the cache follows", 40, _at_least("pause-ms", 0)),
    Key("completion", "flag", "offer textDocument/completion as well", False),
    Key("host", "text", "address that pie serve listens at", "127.0.0.1", personal=True),
    Key("port", "integer", "port of pie serve", 8012, _at_least("port", 0, 65_535), personal=True),
    Key("token", "text", "what clients of pie serve have to show", personal=True),
)
"""Settings of the servers."""

KEYS: Final[Mapping[str, Key]] = {key.name: key for key in (*GENERAL, *EDITING, *SHOWING, *SERVING)}
"""All settings by name."""


def find_key(name: str) -> Key:
    """Return a setting by its name.

    Raises:
        InputError: there is none.
    """
    key = KEYS.get(name)
    if key is not None:
        return key
    like = closest(name, KEYS)
    raise InputError(
        f"{name} is no setting of pie",
        f"did you mean {like}?" if like else "pie config lists the settings",
    )


def closest(name: str, names: Mapping[str, object]) -> str | None:
    """Return the name that looks most like another, or None where none does."""
    best = max(names, key=lambda other: similarity(name, other), default=None)
    return best if best is not None and similarity(name, best) >= _SIMILAR else None
