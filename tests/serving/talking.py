"""A client of the language server that is in the test's hand: messages as they are on the wire."""

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from pie_cli.serving.lsp import serve
from pie_cli.settings.keys import KEYS
from pie_cli.settings.sources import Found

LONGEST_S = 60


def framed(message: Any) -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


class Talk:
    """A server in a thread of this process, and both ends of its pipes."""

    def __init__(self, model: Path, **settings: Any) -> None:
        # A strategy with a budget of its own: a tiny model computes all again in milliseconds.
        values = {"model": str(model), "device": "cpu", "max-tokens": 6, "strategy": "pie+seam:8"}
        values |= settings
        values = {name.replace("_", "-"): value for name, value in values.items()}
        options = {name: Found(KEYS[name], value, "test") for name, value in values.items()}
        here_out, there_in = _pipe()
        there_out, here_in = _pipe()
        self.out, self.input = here_out, here_in
        self.exit_code: int | None = None
        self.inbox: list[dict[str, Any]] = []
        self.seen: list[dict[str, Any]] = []
        self._arrived = threading.Condition()
        self._id = 0
        self.ended = threading.Event()
        self._server = threading.Thread(
            target=self._serve, args=(there_out, there_in, options), daemon=True
        )
        self._server.start()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _serve(self, reader: BinaryIO, writer: BinaryIO, options: Mapping[str, Found]) -> None:
        self.exit_code = serve(reader, writer, options)
        with suppress(BrokenPipeError):
            writer.close()
        self.ended.set()
        # The client closes its end, so that whoever reads there comes to the end.
        reader.close()

    def _listen(self) -> None:
        while line := self.out.readline():
            length = int(line.split(b":")[1])
            while self.out.readline().strip():
                pass
            message = json.loads(self.out.read(length))
            with self._arrived:
                self.inbox.append(message)
                self.seen.append(message)
                self._arrived.notify_all()
        self.out.close()

    # --- saying ------------------------------------------------------------------------------

    def say(self, message: Any) -> None:
        self.input.write(framed(message))
        self.input.flush()

    def note(self, method: str, params: Any = None) -> None:
        self.say({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method: str, params: Any = None) -> int:
        self._id += 1
        self.say({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        return self._id

    # --- hearing -----------------------------------------------------------------------------

    def hear(self, is_it: Any) -> dict[str, Any]:
        """Wait for a message, and take it."""
        with self._arrived:
            found = self._arrived.wait_for(
                lambda: next((m for m in self.inbox if is_it(m)), None), LONGEST_S
            )
            assert found is not None, self.seen[-5:]
            self.inbox.remove(found)
            return found

    def answer(self, request: int) -> dict[str, Any]:
        return self.hear(lambda m: m.get("id") == request and "method" not in m)

    def result(self, request: int) -> Any:
        answer = self.answer(request)
        assert "error" not in answer, answer
        return answer["result"]

    def told(self, method: str, is_it: Any = lambda params: True) -> dict[str, Any]:
        return self.hear(lambda m: m.get("method") == method and is_it(m["params"]))["params"]

    def status(self, is_it: Any) -> dict[str, Any]:
        return self.told("pie/status", is_it)

    # --- the usual ---------------------------------------------------------------------------

    def begin(self, capabilities: Any = None, **params: Any) -> dict[str, Any]:
        given = {"capabilities": capabilities or {}, "processId": os.getpid(), "rootUri": None}
        result = self.result(self.ask("initialize", {**given, **params}))
        self.note("initialized", {})
        return result["capabilities"]

    def ready(self) -> dict[str, Any]:
        return self.status(lambda params: params["state"] in ("ready", "failed"))

    def open(self, uri: str, text: str, version: int = 1) -> None:
        document = {"uri": uri, "languageId": "python", "version": version, "text": text}
        self.note("textDocument/didOpen", {"textDocument": document})

    def change(self, uri: str, version: int, *changes: Any) -> None:
        identifier = {"uri": uri, "version": version}
        params = {"textDocument": identifier, "contentChanges": list(changes)}
        self.note("textDocument/didChange", params)

    def inline(self, uri: str, line: int, character: int) -> int:
        return self.ask(
            "textDocument/inlineCompletion",
            {
                "textDocument": {"uri": uri},
                "position": {"line": line, "character": character},
                "context": {"triggerKind": 2},
            },
        )

    def explain(self, uri: str) -> dict[str, Any]:
        params = {"command": "pie.explain", "arguments": [uri]}
        return self.result(self.ask("workspace/executeCommand", params))

    def goodbye(self) -> int | None:
        self.result(self.ask("shutdown"))
        self.note("exit")
        return self.close()

    def close(self) -> int | None:
        """Close the client's end, and wait for the server's."""
        self.input.close()
        for thread in (self._server, self._listener):
            thread.join(LONGEST_S)
            assert not thread.is_alive()
        return self.exit_code


def replaced(start: tuple[int, int], stop: tuple[int, int], text: str) -> dict[str, Any]:
    """Return one change of a notification."""
    places = [{"line": line, "character": character} for line, character in (start, stop)]
    return {"range": dict(zip(("start", "end"), places, strict=True)), "text": text}


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb"), os.fdopen(writing, "wb")
