"""Settings as a server takes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pie_cli.config import Settings
from pie_cli.serving.worker import Serving
from pie_cli.settings.keys import EDITING, GENERAL
from pie_cli.settings.sources import Found

CHUNK_TOKENS: Final = 128
"""Tokens between two looks for a request while idle time is used: one waits for a chunk at most."""

_OF_SESSIONS = {key.name for key in (*GENERAL, *EDITING)} - {
    "context",
    "context-budget",
    "cache-memory",
    "keep-cache",
}


def from_found(found: Mapping[str, Found]) -> Serving:
    """Return what a server runs by.

    Where nobody says what to recompute in idle time it is what is not exact: nobody sees how long a
    full recompute would take.

    Raises:
        PieError: values that contradict each other.
    """
    values: dict[str, Any] = {
        one.key.parameter: one.value for name, one in found.items() if name in _OF_SESSIONS
    }
    if found["compare"].source == "default":
        values["compare"] = "prefix"
    values["chunk_tokens"] = CHUNK_TOKENS
    own = {name: one.value for name, one in found.items()}
    context = own["context"]
    budget, memory, pause = own["context-budget"], own["cache-memory"], own["pause-ms"]
    return Serving(
        Settings(**values),
        tuple(map(Path, context)) if isinstance(context, tuple) else (),
        budget if isinstance(budget, int) else None,
        memory if isinstance(memory, str) else None,
        pause / 1e3 if isinstance(pause, int) else 0.04,
        keeps=bool(own["keep-cache"]),
    )
