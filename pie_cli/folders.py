"""Where pie keeps what it makes and fetches, and its settings, in the user's own folders."""

import os
from pathlib import Path

from platformdirs import user_cache_path, user_config_path, user_data_path

_NAME = "pie"


def cache_folder() -> Path:
    """Return the folder of what can be made again: it may be deleted at any time."""
    return _own("XDG_CACHE_HOME") or user_cache_path(_NAME, appauthor=False)


def config_folder() -> Path:
    """Return the folder of the user's own settings."""
    return _own("XDG_CONFIG_HOME") or user_config_path(_NAME, appauthor=False)


def data_folder() -> Path:
    """Return the folder of what was fetched on request, such as models."""
    return _own("XDG_DATA_HOME") or user_data_path(_NAME, appauthor=False)


def _own(variable: str) -> Path | None:
    """Return what a variable says, on systems where it is not usual as well."""
    root = os.environ.get(variable)
    return Path(root) / _NAME if root else None
