"""Settings from files and variables as the defaults of options."""

from collections.abc import Mapping
from typing import Any

from pie_cli.settings.keys import EDITING, GENERAL, SERVING, SHOWING, Key
from pie_cli.settings.sources import Found, resolve

_ALL = ("watch", "complete", "lsp", "serve", "bench", "eval", "demo", "doctor")
_FOLLOWING = ("watch", "complete", "lsp", "serve")
_SHOWING = ("watch", "complete")
_SERVERS = ("lsp", "serve")


def default_map() -> dict[str, dict[str, Any]]:
    """Return by command what its options are where the command line does not say.

    Raises:
        InputError: a file or a variable that says what no setting can be.
    """
    found = resolve()
    commands: dict[str, dict[str, Any]] = {}
    groups = (
        (_ALL, GENERAL),
        (_FOLLOWING, EDITING),
        (_SHOWING, SHOWING),
        (_SERVERS, SERVING),
    )
    for names, keys in groups:
        for name in names:
            commands.setdefault(name, {}).update(_set(found, keys))
    device = _set(found, GENERAL).get("device")
    if device is not None:
        commands["models"] = {"device": device}
    return commands


def _set(found: Mapping[str, Found], keys: tuple[Key, ...]) -> dict[str, Any]:
    chosen = (found[key.name] for key in keys)
    return {
        one.key.parameter: list(one.value) if isinstance(one.value, tuple) else one.value
        for one in chosen
        if one.source != "default"
    }
