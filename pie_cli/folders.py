"""Where pie keeps what it makes and fetches, and its settings, in the user's own folders."""

import os
from collections.abc import Callable
from pathlib import Path

from platformdirs import user_cache_path, user_config_path, user_data_path

_NAME = "pie"
# Below it nothing is found, and nothing can be made.
_NOWHERE = Path(os.devnull)


def home() -> Path:
    """Return the user's home; where nobody knows one, a path that leads nowhere."""
    try:
        return Path.home()
    except RuntimeError:
        return _NOWHERE


def cache_folder() -> Path:
    """Return the folder of what can be made again: it may be deleted at any time."""
    return _own("XDG_CACHE_HOME") or _usual(user_cache_path)


def config_folder() -> Path:
    """Return the folder of the user's own settings."""
    return _own("XDG_CONFIG_HOME") or _usual(user_config_path)


def data_folder() -> Path:
    """Return the folder of what was fetched on request, such as models."""
    return _own("XDG_DATA_HOME") or _usual(user_data_path)


def _own(variable: str) -> Path | None:
    """Return what a variable says, on systems where it is not usual as well."""
    root = os.environ.get(variable)
    return Path(root) / _NAME if root else None


def _usual(find: Callable[..., Path]) -> Path:
    try:
        return find(_NAME, appauthor=False)
    except RuntimeError:
        return _NOWHERE / _NAME


def runtime_folder() -> Path:
    """Return the folder of what lives as long as a process, such as sockets.

    Where the system has none for the user, it is in the folder of what can be made again.
    """
    root = os.environ.get("XDG_RUNTIME_DIR")
    return Path(root) / _NAME if root else cache_folder() / "run"
