"""The scripts of the documentation that drive `pie lsp` as an editor does."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def script(name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "docs" / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def other() -> Iterator[tuple[str, list[Any]]]:
    """A server with the routes of llama.cpp's, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            timings = {"prompt_ms": 1234.5, "prompt_n": 77}
            body = json.dumps({"content": "line", "timings": timings}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize(("route", "ask"), [("/completion", "end"), ("/infill", "edit")])
def test_both_servers_are_asked_about_the_same_edits(
    tiny_checkpoint: Path, other: tuple[str, list[Any]], route: str, ask: str
) -> None:
    url, asked = other
    options = ["--tokens", "200", "--edits", "2", "--max-tokens", "4", "--pause", "0"]
    against = ["--against", url + route, "--ask", ask, "--threads", "1"]
    result = script("keypress.py", "--model", str(tiny_checkpoint), *options, *against)
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^ +\d .*$", result.stdout, re.MULTILINE)
    assert len(rows) == 2
    assert all("1234.5" in row and " 77 " in row for row in rows)
    assert all(int(row.split()[3].replace(",", "")) > 0 for row in rows)
    parts = ("input_prefix", "prompt", "input_suffix")
    texts = ["".join(body.get(part, "") for part in parts) for body in asked]
    assert [len(text) - len(texts[0]) for text in texts] == [0, 1, 2]
    assert all(text.count("\n") > 4 for text in texts)


def test_typing_is_replayed_and_nothing_is_lost(tiny_checkpoint: Path) -> None:
    result = script("replay.py", "--model", str(tiny_checkpoint), "--changes", "120")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "answers to an old version: 0; texts unequal: 0" in result.stdout
    last = result.stdout.splitlines()[-2].split()
    assert last[0] == "120"
    assert int(last[4]) > 0


def test_what_is_wrong_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from replay import Seen

    seen = Seen()
    seen.answer(1, {"items": []})
    seen.look(2, "digest", {"version": 2, "digest": "digest"})
    assert (seen.old, seen.unequal, seen.lines) == (0, 0, 1)
    seen.answer(1, {"items": []})
    seen.look(3, "digest", {"version": 3, "digest": "another"})
    assert (seen.old, seen.unequal, seen.lines) == (1, 1, 2)


def test_line_ends_of_what_is_inserted_become_the_documents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lone carriage return is a line end to a language server, and both count lines."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from editor import Editor

    told: list[Any] = []
    monkeypatch.setattr(Editor, "tell", lambda _, method, params: told.append(params))
    editor = Editor.__new__(Editor)
    editor.lines, editor.version = ["ab"], 0
    editor.replace((0, 1), (0, 1), "x\ry\r\nz")
    assert editor.lines == ["ax", "y", "zb"]
    assert told[0]["contentChanges"][0]["text"] == "x\ny\nz"
