"""A socket in the user's runtime folder, by which `pie complete` asks a model that is loaded.

Both sides import nothing heavy: asking must cost less than loading saves.
"""

import hashlib
import json
import logging
import os
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, final

from pie_cli import __version__
from pie_cli.config import Settings
from pie_cli.errors import InputError, PieError
from pie_cli.folders import runtime_folder
from pie_cli.results import Prediction, Timings, TokenCounts
from pie_cli.text.cursor import Position

_MOST_BYTES: Final = 16 << 20
_BODY_S: Final = 10.0
_CONNECT_S: Final = 1.0
_JOIN_S: Final = 2.0
_ANSWER_S: Final = 600.0
_MOST_CLIENTS: Final = 8
_LONGEST_PATH: Final = 100
_NOT_ABOUT_IT: Final = ("compare", "at", "debounce_ms", "chunk_tokens", "threads")
"""Settings that change no prediction."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What `pie complete` asks.

    Attributes:
        path: of the file, absolute.
        shown: what the prompt would call it; the server may call it otherwise.
        before, after: the text before the edit and after it; without an edit they are equal.
        at: where to predict, as the option has it.
        context: path and text of other files before it.
    """

    path: str
    shown: str
    before: str
    after: str
    at: str = Settings.at
    context: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class WarmAnswer:
    """What came back.

    Attributes:
        prediction: the line.
        model, device, dtype, weights: what made it.
        process_id: of the one who answered.
    """

    prediction: Prediction
    name: str
    device: str
    dtype: str
    weights: str
    process_id: int


def fingerprint(settings: Settings) -> str:
    """Return what tells settings apart that predict differently; of this version of pie."""
    about = {name: value for name, value in asdict(settings).items() if name not in _NOT_ABOUT_IT}
    # What cannot be a path is a name, or for the loading to refuse.
    with suppress(OSError, RuntimeError):
        model = Path(settings.model).expanduser()
        if model.exists():
            about["model"] = str(model.resolve())
    text = json.dumps([__version__, about], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# --- who asks ------------------------------------------------------------------------------------


def ask(settings: Settings, question: Question) -> WarmAnswer | None:
    """Ask whoever has the same model loaded with the same settings.

    Returns:
        The answer, or None where nobody is there who can give one.

    Raises:
        PieError: what the other one says of the question.
    """
    folder = runtime_folder()
    if not hasattr(socket, "AF_UNIX") or not _is_own(folder):
        return None
    paths = sorted(folder.glob(f"{fingerprint(settings)}-*.sock"))
    return next(filter(None, (_tried(path, question) for path in paths)), None)


def _tried(path: Path, question: Question) -> WarmAnswer | None:
    """Ask at one socket; None where nobody answers there."""
    try:
        return _ask_at(path, question)
    except ConnectionRefusedError:
        # Left behind by a process that was killed.
        with suppress(OSError):
            path.unlink()
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.info("%s does not answer: %s", path, error)
    return None


def _ask_at(path: Path, question: Question) -> WarmAnswer | None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_S)
        connection.connect(str(path))
        connection.settimeout(_ANSWER_S)
        connection.sendall(json.dumps(asdict(question)).encode() + b"\n")
        with connection.makefile("rb") as stream:
            document = json.loads(stream.readline(_MOST_BYTES))
    if "error" in document:
        raise InputError(document["error"]["cause"], document["error"]["remedy"])
    made = document.get("prediction")
    if made is None:
        return None
    prediction = Prediction(
        **{
            **made,
            "at": Position(**made["at"]),
            "tokens": TokenCounts(**made["tokens"]),
            "timings_ms": Timings(**made["timings_ms"]),
            "context": tuple(made["context"]),
        }
    )
    facts = (document[name] for name in ("model", "device", "dtype", "weights", "process_id"))
    return WarmAnswer(prediction, *facts)


# --- who answers ---------------------------------------------------------------------------------


@final
class WarmSocket:
    """Listens where `pie complete` looks; used as a context manager.

    Where there are no such sockets, or no folder that is the user's alone, it does nothing: a
    `pie complete` then loads the model itself, as ever.

    Args:
        settings: of the sessions.
        answer: gives the fields of a response; called in threads.
    """

    def __init__(self, settings: Settings, answer: Callable[[Question], Mapping[str, Any]]) -> None:
        self._settings = settings
        self._answer = answer
        self._path: Path | None = None
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._clients = threading.BoundedSemaphore(_MOST_CLIENTS)

    def __enter__(self) -> "WarmSocket":
        """Begin to listen."""
        try:
            self._listen()
        except OSError as error:
            _log.info("no socket for pie complete: %s", error)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more, and let go of who answers.

        A thread that was left with the last reference to a model would free it while Python ends,
        which aborts the process.
        """
        self._answer = _gone
        if self._socket is not None:
            # Wakes the thread that accepts.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
        if self._thread is not None:
            self._thread.join(_JOIN_S)

    def _listen(self) -> None:
        folder = runtime_folder()
        path = folder / f"{fingerprint(self._settings)}-{os.getpid()}.sock"
        if not hasattr(socket, "AF_UNIX") or len(os.fsencode(path)) > _LONGEST_PATH:
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_own(folder):
            _log.info("%s is not the user's alone: no socket for pie complete", folder)
            return
        with suppress(FileNotFoundError):
            path.unlink()
        listening = socket.socket(socket.AF_UNIX)
        try:
            listening.bind(str(path))
            path.chmod(0o600)
            listening.listen()
        except OSError:
            listening.close()
            raise
        self._socket, self._path = listening, path
        self._thread = threading.Thread(
            target=self._accept, args=(listening,), name="pie-warm", daemon=True
        )
        self._thread.start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            if self._clients.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            else:
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb") as stream:
                connection.settimeout(_BODY_S)
                if not _is_own_process(connection):
                    return
                stream.write(
                    json.dumps(self._answered(stream.readline(_MOST_BYTES))).encode() + b"\n"
                )
        except OSError as error:
            _log.info("a client of the socket is gone: %s", error)
        finally:
            self._clients.release()

    def _answered(self, line: bytes) -> Mapping[str, Any]:
        try:
            fields = json.loads(line)
            context = tuple((str(path), str(text)) for path, text in fields.pop("context", ()))
            question = Question(**fields, context=context)
            if not all(
                isinstance(t, str) for t in (question.path, question.before, question.after)
            ):
                raise TypeError("a text is none")
        except (ValueError, TypeError, AttributeError, RecursionError):
            return {"error": {"code": 1, "cause": "that is no question", "remedy": ""}}
        try:
            return self._answer(question)
        except PieError as error:
            return {"error": {"cause": error.cause, "remedy": error.remedy}}


def _gone(_: Question) -> Mapping[str, Any]:
    raise InputError("the running pie has ended", "ask again")


def _is_own(folder: Path) -> bool:
    """Tell whether a folder is there, and the user's alone."""
    try:
        status = folder.stat(follow_symlinks=False)
    except OSError:
        return False
    alone = not stat.S_IMODE(status.st_mode) & 0o077
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and alone


def _is_own_process(connection: socket.socket) -> bool:
    """Tell whether the one at the other end is of the same user, where the system says."""
    if sys.platform != "linux":
        return True
    format_ = "3i"
    size = struct.calcsize(format_)
    _, user, _ = struct.unpack(
        format_, connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return bool(user == os.getuid())
