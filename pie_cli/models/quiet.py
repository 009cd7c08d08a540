"""Keep transformers and the hub's client silent, and turn their progress bars into calls.

Both log and draw to stderr on their own; below the CLI nothing may. What matters in their warnings
(weights that are missing, for one) is checked by the loader itself.
"""

import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import transformers.utils.logging as transformers_logging
from tqdm.std import tqdm

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the stage ("download" and "convert" in bytes, "weights" in tensors), done, total.

The total is 0 where it is unknown.
"""

_LOGGERS = ("transformers", "huggingface_hub")


@contextmanager
def hushed(on_progress: Progress | None = None) -> Iterator[None]:
    """Silence logging, warnings and progress bars in the body; put everything back after it.

    Not for two threads at once: what it changes belongs to the process.
    """
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    bars = transformers_logging.is_progress_bar_enabled()
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), _bars_to(on_progress):
        warnings.simplefilter("ignore")
        transformers_logging.disable_progress_bar()  # the hub's too
        try:
            yield
        finally:
            if bars:
                transformers_logging.enable_progress_bar()
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


@contextmanager
def _bars_to(on_progress: Progress | None) -> Iterator[None]:
    """Let transformers' bars report to a callback, where its version can do so."""
    set_hook = getattr(transformers_logging, "set_tqdm_hook", None)
    if on_progress is None or set_hook is None:
        yield
        return
    bar = reporting_bar("weights", on_progress)
    previous = set_hook(lambda _factory, args, kwargs: bar(*args, **kwargs))
    try:
        yield
    finally:
        set_hook(previous)


def reporting_bar(stage: str, on_progress: Progress, *, unit: str | None = None) -> type[Any]:
    """Make a progress bar's class that draws nothing and reports to a callback.

    Args:
        stage: what the callback is told.
        on_progress: called as often as the bar would be drawn, and once at its end.
        unit: bars that count something else stay mute; None for all.

    Returns:
        A subclass of tqdm, for the interfaces that take one.
    """

    class ReportingBar(tqdm):  # type: ignore[type-arg, unused-ignore, misc]
        monitor_interval = 0  # else tqdm starts a thread that redraws stale bars

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # The hub draws its transfer twice, as received and as written; one of them is enough.
            self._mute = kwargs.get("desc") == "Downloading bytes" or (
                unit is not None and kwargs.get("unit") != unit
            )
            kwargs.pop("name", None)
            kwargs.update(file=io.StringIO(), disable=False)
            super().__init__(*args, **kwargs)

        def display(self, *_args: Any, **_kwargs: Any) -> bool:
            if not self._mute:
                on_progress(stage, int(self.n), int(self.total or 0))
            return True

        def __del__(self) -> None:
            """Leave a bar that nobody closed as it is: its end is not news any more."""

    # tqdm's default lock is shared between processes and starts a helper process for it.
    ReportingBar.set_lock(threading.RLock())
    return ReportingBar
