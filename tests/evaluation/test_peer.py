"""A server is given the same edits, and asked for as many tokens as full recompute predicted."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from pie_cli.cli.app import app
from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.errors import ExitCode, InputError
from pie_cli.evaluation.cases.workload import Workload
from pie_cli.evaluation.runs.latency import measure
from pie_cli.evaluation.runs.peer import Peer

SETTINGS = Settings(max_tokens=4, chunk_tokens=128)


class FakeServer(ThreadingHTTPServer):
    """Answers as llama.cpp's server does; remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.status = 200
        self.props = json.dumps({"model_path": "tiny.gguf", "build_info": "b1"}).encode()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(self.server.props)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(asked)
        parts = [{"content": "x", "stop": False} for _ in range(asked["n_predict"])]
        parts.append({"content": "", "stop": True, "timings": {"prompt_n": 7}})
        self.answer("".join(f"data: {json.dumps(part)}\n\n" for part in parts).encode())

    def answer(self, body: bytes) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_gets_both_texts_and_predicts_as_many_tokens(
    tiny_model: PreparedModel, server: FakeServer
):
    workload = Workload((160,), ("insert", "delete"), (2,), repeats=2)
    measured = measure(tiny_model, workload, SETTINGS, peer=Peer(server.url))
    assert [(row.edit, row.encoded_tokens, row.measurements) for row in measured.peers] == [
        ("insert", 7, 1),
        ("delete", 7, 1),
    ]
    for row in measured.peers:
        assert set(row.times_slower) == {own.strategy for own in measured.rows}
        full = next(r for r in measured.rows if (r.edit, r.strategy) == (row.edit, "full"))
        assert row.times_slower["full"].first_token == pytest.approx(
            row.first_token_ms.median / full.first_token_ms.median
        )
    before, after, *_ = server.asked
    assert before["n_predict"] == 0
    assert 1 <= after["n_predict"] <= SETTINGS.max_tokens
    assert before["prompt"] != after["prompt"]
    assert len(after["prompt"]) > len(before["prompt"])
    assert after["prompt"].startswith("# source.py\n")
    assert after["cache_prompt"]


def test_tokens_come_back_with_their_times(server: FakeServer):
    answer = Peer(server.url + "/").complete("a", 3)
    assert answer.text == "xxx"
    assert answer.encoded_tokens == 7
    assert 0 < answer.first_token_ms <= answer.line_ms


def test_the_table_names_the_server(server: FakeServer):
    quick = ["--context-tokens", "96", "--edits", "insert", "--edit-tokens", "2", "--repeats", "1"]
    quick += ["--max-tokens", "3", "--device", "cpu", "--model", "pie-nano"]
    result = CliRunner().invoke(app, ["bench", *quick, "--against", server.url, "--profile"])
    assert result.exit_code == 0, result.stderr
    assert "tiny.gguf, b1" in result.stdout
    assert "attention" in result.stdout


@pytest.mark.parametrize("url", ["localhost:8080", "file:///etc/passwd", "", "http://"])
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(InputError, match="not the address of a server"):
        Peer(url)


def test_nobody_there():
    result = CliRunner().invoke(app, ["bench", "--against", "http://127.0.0.1:9"])
    assert result.exit_code == ExitCode.INPUT
    assert "no answer from http://127.0.0.1:9: Connection refused" in result.stderr


def test_a_server_of_another_kind(server: FakeServer):
    server.status = 404
    with pytest.raises(InputError, match="does not complete as llama"):
        Peer(server.url).complete("a", 1)


@pytest.mark.parametrize("props", [b"<html>", b"3", b"[1]", b"\xff"])
def test_facts_of_another_kind(server: FakeServer, props: bytes):
    server.props = props
    with pytest.raises(InputError, match="does not complete as llama"):
        Peer(server.url).describe()
