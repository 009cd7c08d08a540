"""Ctrl-C, SIGTERM and SIGHUP, taken only where nothing is left half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, final

_HANGUP = getattr(signal, "SIGHUP", None)
_SIGNALS = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, _HANGUP)))


@final
class Interrupts:
    """Ends a command at the user's word: while it waits or computes, never within a line of output.

    A context manager: inside of it the first SIGINT, SIGTERM or SIGHUP raises KeyboardInterrupt,
    but only in the body of `allowed`; one that comes elsewhere waits for the next `allowed`. The
    second is ignored, since people press twice and `timeout` signals twice. From the third on it
    raises anywhere, in case the end itself hangs.

    Outside of the main thread, where Python takes no signals, it does nothing.

    Args:
        ends_process: whether nothing but the process's end comes after it. Where a signal came,
            others are ignored from then on: one that comes while Python tidies up would kill it.
    """

    def __init__(self, *, ends_process: bool = False) -> None:
        self._ends_process = ends_process
        self._count = 0
        self._is_allowed = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interrupts":
        """Take the signals over; also those that a shell has its background commands ignore.

        A SIGHUP that is ignored stays so: nohup means that.
        """
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number == _HANGUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        over = self._ends_process and self.asked
        for number, handler in self._handlers.items():
            if over:
                signal.signal(number, signal.SIG_IGN)
                continue
            # A handler that was not set from Python cannot be set from there again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._count > 0

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let a signal interrupt the body.

        Raises:
            KeyboardInterrupt: when one comes, or came before.
        """
        self._is_allowed = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
            # Libraries may swallow what is raised inside of a callback.
            if self.asked:
                raise KeyboardInterrupt
        finally:
            self._is_allowed = False

    def _handle(self, *_: object) -> None:
        self._count += 1
        if self._count > 2 or (self._count == 1 and self._is_allowed):
            raise KeyboardInterrupt
