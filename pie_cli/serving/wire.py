"""Messages of the language server protocol as bytes: bounded, and garbage told from them."""

import asyncio
import queue
import re
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, BinaryIO, Final, Protocol, TypeAlias

from pie_cli.errors import InputError

MOST_BODY_BYTES: Final = 256 << 20
"""Of one message: a document of 50 MB, every character of it escaped."""

_MOST_HEADER_BYTES = 4096
_MOST_WAITING_BYTES = 256 << 20
_LENGTH = re.compile(rb"content-length:\s*(\d{1,12})\s*", re.IGNORECASE)

Frame: TypeAlias = bytes | InputError | None
"""A message's body, or what is wrong with what came instead, or the end."""


class Reader(Protocol):
    """Where bytes come from."""

    def readline(self, size: int, /) -> bytes:
        """Return a line, or as many bytes of it; none at the end."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, fewer at the end only."""


def read_frame(reader: Reader) -> Frame:
    """Read one message; what is none is skipped up to the next that could be."""
    length, garbage = None, 0
    while True:
        line = reader.readline(_MOST_HEADER_BYTES)
        if not line:
            return None
        found = _LENGTH.fullmatch(line.strip())
        if found:
            length = int(found[1])
        elif not line.strip():
            if length is not None:
                break
        elif not re.match(rb"[\w-]+:", line):
            garbage += 1
            length = None
        if garbage == 1 and length is None:
            garbage += 1
            return InputError("what came is no message", "send headers, then JSON")
    if length > MOST_BODY_BYTES:
        _skip(reader, length)
        return InputError(f"a message of {length} bytes is too long", "send less at once")
    body = reader.read(length)
    return body if len(body) == length else None


def _skip(reader: Reader, length: int) -> None:
    while length > 0:
        part = reader.read(min(length, 1 << 20))
        if not part:
            return
        length -= len(part)


class Pump:
    """Reads messages in a thread of its own and hands them to an event loop, one after the other.

    Args:
        reader: read by the thread.
        deal: called in the loop with each message, the end last; the next one is only read on when
            it has returned, so that a flood waits in the pipe.
    """

    def __init__(self, reader: Reader, deal: Callable[[Frame], Coroutine[Any, Any, None]]) -> None:
        self._reader = reader
        self._deal = deal

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to read."""
        threading.Thread(target=self._run, args=(loop,), name="pie-lsp-in", daemon=True).start()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        frame: Frame = b""
        while frame is not None:
            try:
                frame = read_frame(self._reader)
            except (OSError, ValueError):
                frame = None
            dealing = self._deal(frame)
            try:
                asyncio.run_coroutine_threadsafe(dealing, loop).result()
            except (RuntimeError, CancelledError):
                # The loop has ended.
                dealing.close()
                return


class QueuedWriter:
    """Writes in a thread of its own, so that a client that reads slowly holds nobody up.

    Args:
        stream: written to by the thread.
        lost: called by the thread when nobody reads any more.
    """

    def __init__(self, stream: BinaryIO, lost: Callable[[], None]) -> None:
        self._stream = stream
        self._lost = lost
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="pie-lsp-out", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Queue a message; a client that leaves very many unread has gone."""
        with self._lock:
            self._waiting_bytes += len(data)
            too_much = self._waiting_bytes > _MOST_WAITING_BYTES
        if too_much:
            self._lost()
        else:
            self._queue.put(data)

    def close(self) -> None:
        """Write what is queued, for a moment at most."""
        self._queue.put(None)
        self._thread.join(timeout=2.0)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            try:
                self._stream.write(data)
                self._stream.flush()
            except (OSError, ValueError):
                self._lost()
                return
            with self._lock:
                self._waiting_bytes -= len(data)
