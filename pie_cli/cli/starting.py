"""The start of a process: heavy packages imported, without needless work, and what that took."""

import gc
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from time import perf_counter

from pie_cli.cli import logs
from pie_cli.timing import elapsed_ms

_LABEL = "importing torch and transformers"

_took = {"ms": 0.0}


def import_ms() -> float:
    """Return the milliseconds that this process has spent in `importing`."""
    return _took["ms"]


@contextmanager
def importing() -> Iterator[None]:
    """Import in the body: no garbage is looked for, and Ctrl-C ends the process at once.

    There is nothing to tidy up yet, and a KeyboardInterrupt may come within a destructor, where
    Python prints and forgets it. What torch and transformers leave are hundreds of thousands of
    objects that stay to the end: to look through them again and again takes a fifth of the time.
    """
    began = perf_counter()
    handler = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread()
    taken = in_main_thread and handler is signal.default_int_handler
    if taken:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    collects, is_first = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        with _labelled() if is_first else nullcontext():
            yield
    finally:
        if is_first and "torch" in sys.modules:
            gc.freeze()
        if collects:
            gc.enable()
        if taken:
            signal.signal(signal.SIGINT, handler)
        _took["ms"] += elapsed_ms(began, perf_counter())


@contextmanager
def _labelled() -> Iterator[None]:
    """Say on a terminal what takes these seconds; not by rich, which takes its time as well."""
    stream = sys.stderr
    if stream is None or logs.is_quiet() or not stream.isatty():
        yield
        return
    stream.write(f"{_LABEL}\r")
    stream.flush()
    try:
        yield
    finally:
        stream.write(f"{' ' * len(_LABEL)}\r")
        stream.flush()
