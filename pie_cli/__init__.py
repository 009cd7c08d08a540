"""pie: next-line code completion that survives edits, by Positional Integrity Encoding.

from pie_cli import EditSession, load, prepare

Importing the package loads nothing heavy; each public name loads what it needs on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pie_cli.threads import keep_few_kernels, spin_briefly

if TYPE_CHECKING:
    from pie_cli.editable import prepare
    from pie_cli.models.loading import load
    from pie_cli.results import Comparison, Prediction
    from pie_cli.session import EditSession
    from pie_cli.text.edit import Edit

__version__ = "0.1.0"
__all__ = ["Comparison", "Edit", "EditSession", "Prediction", "load", "prepare"]

_HOMES = {
    "Comparison": "results",
    "Edit": "text.edit",
    "EditSession": "session",
    "Prediction": "results",
    "load": "models.loading",
    "prepare": "editable",
}


# Before torch is there: it reads them once.
spin_briefly()
keep_few_kernels()


def __getattr__(name: str) -> Any:
    """Load a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
