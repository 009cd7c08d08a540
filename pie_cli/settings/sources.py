"""Where settings come from: a user's file, a project's, variables; later ones win."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from pie_cli.errors import InputError
from pie_cli.folders import config_folder
from pie_cli.regular import read_regular
from pie_cli.settings.keys import KEYS, Key, Value, closest, find_key

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_NAME = "pie.toml"
_PROJECT_FILE = "pyproject.toml"
_PREFIX = "PIE_"


@dataclass(frozen=True)
class Found:
    """A setting's value, and where it is from.

    Attributes:
        key: the setting.
        value: checked.
        source: for people: `default`, a file, a variable.
    """

    key: Key
    value: Value
    source: str


Resolved: TypeAlias = Mapping[str, Found]


def resolve(
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    user_file: Path | None = None,
) -> dict[str, Found]:
    """Gather all settings by name: defaults, the user's file, the project's, then variables.

    Args:
        folder: where the search for a project's file begins; by default the working directory.
        environment: by default the process's.
        user_file: by default `pie.toml` in the folder that the system has for such files.

    Raises:
        InputError: a file that cannot be read, an unknown setting, a value that one cannot take.
    """
    found = {name: Found(key, key.default, "default") for name, key in KEYS.items()}
    users = user_file or config_folder() / FILE_NAME
    if users.is_file():
        found |= _of_file(users, _read(users), personal=True)
    project = find_project_file(folder or Path.cwd())
    if project is not None and project.resolve() != users.resolve():
        table = _read(project)
        if project.name == _PROJECT_FILE:
            table = table["tool"]["pie"]
        found |= _of_file(project, table, personal=False)
    found |= _of_environment(os.environ if environment is None else environment)
    return found


def given(values: Mapping[str, object], source: str) -> tuple[dict[str, Found], list[InputError]]:
    """Read settings that an editor sends, where names may be in camel case, and null says nothing.

    Returns:
        The settings, and what is wrong with the others.
    """
    found: dict[str, Found] = {}
    wrong: list[InputError] = []
    for name, raw in values.items():
        if raw is None:
            continue
        try:
            key = _named(_dashed(name), source)
            _refuse_personal(key, source)
            found[key.name] = _found(key, raw, source)
        except InputError as error:
            wrong.append(error)
    return found, wrong


def find_project_file(folder: Path) -> Path | None:
    """Return the nearest file up the tree that holds settings: pie.toml, or a table of pyproject's.

    Raises:
        InputError: a file on the way cannot be read.
    """
    for place in (folder.absolute(), *folder.absolute().parents):
        own, project = place / FILE_NAME, place / _PROJECT_FILE
        if own.is_file():
            return own
        if project.is_file() and "pie" in _table(_read(project), "tool"):
            return project
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(path).decode("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8", "convert it to UTF-8") from None
    except (ValueError, RecursionError) as error:
        cause = f"{path} is no TOML: {error}".splitlines()[0]
        raise InputError(cause, "mend it") from None


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = document.get(name)
    return table if isinstance(table, dict) else {}


def _of_file(path: Path, table: object, *, personal: bool) -> dict[str, Found]:
    if not isinstance(table, dict):
        raise InputError(f"{path}: tool.pie is no table", "write [tool.pie]")
    found: dict[str, Found] = {}
    for name, raw in table.items():
        key = _named(name, str(path))
        if not personal:
            _refuse_personal(key, str(path))
        found[key.name] = _beside(_found(key, raw, str(path)), path.parent)
    return found


def _of_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Found]]:
    variables = {key.variable: key for key in KEYS.values()}
    for name in sorted(environment):
        if not name.startswith(_PREFIX):
            continue
        key = variables.get(name)
        if key is None:
            # By the part that differs: with the prefix every name is like every other.
            like = closest(
                name[len(_PREFIX) :], {one.parameter.upper(): one for one in KEYS.values()}
            )
            raise InputError(
                f"{name} is no setting of pie",
                f"did you mean {_PREFIX}{like}?"
                if like
                else "unset it; pie config lists the settings",
            )
        try:
            value = key.read_text(environment[name])
        except InputError as error:
            raise InputError(f"{name}: {error.cause}", error.remedy) from None
        yield key.name, Found(key, value, name)


def _refuse_personal(key: Key, source: str) -> None:
    """Refuse what a project must not say; an editor's settings may be a project's as well."""
    if key.personal:
        raise InputError(
            f"{source}: {key.name} is not taken from there",
            f"set it in your own file, {config_folder() / FILE_NAME}, or give the option",
        )


def _named(name: str, source: str) -> Key:
    try:
        return find_key(name)
    except InputError as error:
        raise InputError(f"{source}: {error.cause}", error.remedy) from None


def _found(key: Key, raw: object, source: str) -> Found:
    try:
        return Found(key, key.read(raw), source)
    except InputError as error:
        raise InputError(f"{source}: {error.cause}", error.remedy) from None


def _beside(found: Found, folder: Path) -> Found:
    """Let relative paths of a file begin at its folder; what is no path there may be a name."""
    value = found.value
    if found.key.kind == "paths" and isinstance(value, tuple):
        return replace(found, value=tuple(str(folder / path) for path in value))
    if found.key.kind == "path" and isinstance(value, str) and value.startswith((".", "~")):
        # A name that begins with the home of nobody is for the loading to refuse.
        with suppress(RuntimeError):
            return replace(found, value=str(folder / Path(value).expanduser()))
    return found


def _dashed(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)
