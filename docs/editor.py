"""An editor without a screen: what one says to `pie lsp`, for the scripts beside this one."""

import itertools
import json
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from time import perf_counter
from typing import Any, TypeAlias

URI = "file:///code/document.py"

Place: TypeAlias = tuple[int, int]
"""Line and character, from 0."""

Hook: TypeAlias = Callable[[Any], None]


class Editor:
    """Starts a server, has one document open there, and keeps the text that the server should have.

    Args:
        command: that starts the server.
        settings: sent as `initializationOptions`.

    Attributes:
        lines: the document's.
        version: the document's.
        process: the server's.
    """

    def __init__(self, command: Sequence[str], settings: Mapping[str, object]) -> None:
        self.lines: list[str] = []
        self.version = 0
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._ids = itertools.count(1)
        self._waiting: dict[int, tuple[Future[Any], Hook]] = {}
        self._ready: Future[str] = Future()
        threading.Thread(target=self._listen, daemon=True).start()
        capabilities = {"general": {"positionEncodings": ["utf-32"]}}
        self.ask(
            "initialize",
            {
                "capabilities": capabilities,
                "processId": None,
                "rootUri": None,
                "initializationOptions": dict(settings),
            },
        ).result()
        self.tell("initialized", {})
        state = self._ready.result()
        if state != "ready":
            raise SystemExit(f"the server has {state}")

    def close(self) -> None:
        """Say goodbye, and wait for the server's end."""
        if self.process.poll() is None:
            self.ask("shutdown", None)
            self.tell("exit", None)
        self.process.wait(timeout=60)

    @property
    def text(self) -> str:
        """The document's."""
        return "\n".join(self.lines)

    def open(self, text: str) -> None:
        """Open the document, also again."""
        self.lines, self.version = text.split("\n"), self.version + 1
        document = {"uri": URI, "languageId": "python", "version": self.version, "text": text}
        self.tell("textDocument/didOpen", {"textDocument": document})

    def replace(self, start: Place, stop: Place, text: str) -> None:
        """Change the document, here and there; line ends become its own, as in any editor."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        (first, left), (last, right) = start, stop
        new = self.lines[first][:left] + text + self.lines[last][right:]
        self.lines[first : last + 1] = new.split("\n")
        self.version += 1
        places = [{"line": line, "character": character} for line, character in (start, stop)]
        change = {"range": {"start": places[0], "end": places[1]}, "text": text}
        document = {"uri": URI, "version": self.version}
        self.tell("textDocument/didChange", {"textDocument": document, "contentChanges": [change]})

    def complete(self, place: Place, hook: Hook = lambda _: None) -> "Future[Any]":
        """Ask for a line; the future has the one item, or None."""
        params = {
            "textDocument": {"uri": URI},
            "position": {"line": place[0], "character": place[1]},
            "context": {"triggerKind": 2},
        }
        return self.ask("textDocument/inlineCompletion", params, hook)

    def command(self, name: str, hook: Hook = lambda _: None) -> "Future[Any]":
        """Let the server run one of its commands."""
        return self.ask("workspace/executeCommand", {"command": name, "arguments": [URI]}, hook)

    def ask(self, method: str, params: Any, hook: Hook = lambda _: None) -> "Future[Any]":
        """Send a request; the hook gets its result as soon as it comes, in the reader's thread."""
        number, future = next(self._ids), Future[Any]()
        self._waiting[number] = future, hook
        self._send({"id": number, "method": method, "params": params})
        return future

    def tell(self, method: str, params: Any) -> None:
        """Send a notification."""
        self._send({"method": method, "params": params})

    def _send(self, message: Mapping[str, object]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self.process.stdin.flush()

    def _listen(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while line := stream.readline():
            length = int(line.split(b":")[1])
            while stream.readline().strip():
                pass
            self._hear(json.loads(stream.read(length)))
        gone = SystemExit("the server has ended")
        for future, _ in self._waiting.values():
            future.set_exception(gone)
        if not self._ready.done():
            self._ready.set_exception(gone)

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "id" in message and "method" not in message:
            future, hook = self._waiting.pop(message["id"])
            if "error" in message:
                future.set_exception(SystemExit(f"the server says: {message['error']['message']}"))
                return
            hook(message["result"])
            future.set_result(message["result"])
        elif message.get("method") == "pie/status":
            state = message["params"]["state"]
            if state in ("ready", "failed") and not self._ready.done():
                self._ready.set_result(message["params"].get("message", state))


class Clock:
    """Takes the time from when it is made to when a result comes.

    Attributes:
        ms: so many milliseconds; None until then.
    """

    def __init__(self) -> None:
        self._began = perf_counter()
        self.ms: float | None = None

    def stop(self, _result: Any = None) -> None:
        """Note the time, in whatever thread."""
        self.ms = 1e3 * (perf_counter() - self._began)
