"""`pie serve` as plugins see it: what llama.cpp's server answers, and what is refused."""

import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pie_cli.config import Settings
from pie_cli.errors import InputError, ModelError
from pie_cli.serving import http as serving_http
from pie_cli.serving.finding import Finder
from pie_cli.serving.http import MOST_BODY_BYTES, HttpServer
from pie_cli.serving.worker import Serving
from tests.conftest import SOURCE

LINES = SOURCE.split("\n")


class Served:
    """A server in a thread, and a client of it."""

    def __init__(self, model: str, token: str | None = None, **settings: Any) -> None:
        options = Settings(model, "cpu", max_tokens=8, strategy="pie+seam:8", **settings)
        self.listening, self.ready = threading.Event(), threading.Event()
        self.port = 0
        serving = Serving(options, keeps_changed=False)
        self.server = HttpServer(serving, "127.0.0.1", 0, token, self._started)
        self._token = token
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.listening.wait(30)

    def _started(self, address: str) -> None:
        self.port = int(address.rpartition(":")[2])
        self.listening.set()

    def _run(self) -> None:
        try:
            self.server.run()
        except Exception as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def ask(
        self, path: str, body: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        try:
            method = method or ("GET" if body is None else "POST")
            client.request(method, path, data, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    def json(self, path: str, body: Any = None, **headers: str) -> Any:
        status, data = self.ask(path, body, **headers)
        assert status == 200, data
        return json.loads(data)

    def until_ready(self) -> "Served":
        while self.ask("/health")[0] == 503:
            self.thread.join(0.02)
        return self

    def end(self) -> None:
        self.server.end()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def served(tiny_checkpoint: Path) -> Iterator[Served]:
    server = Served(str(tiny_checkpoint)).until_ready()
    yield server
    server.end()
    assert server.error is None


def at(row: int, lines: list[str] = LINES, **further: Any) -> dict[str, Any]:
    """Return what llama.vim sends from the end of a line."""
    return {
        "input_prefix": "".join(line + "\n" for line in lines[:row]),
        "prompt": lines[row],
        "input_suffix": "\n" + "\n".join(lines[row + 1 :]),
        "n_predict": 16,
        **further,
    }


def test_an_edit_is_answered_at_the_cost_of_the_edit(served: Served) -> None:
    first = served.json("/infill", at(20))
    assert first["timings"]["prompt_n"] > 100
    edited = [*LINES[:9], "    more = 1", *LINES[9:]]
    second = served.json("/infill", at(21, edited))
    assert 0 < second["timings"]["prompt_n"] < first["timings"]["prompt_n"] / 3
    assert second["timings"]["cache_n"] > 100
    # The window moves with the cursor: lines go at its beginning.
    third = served.json("/infill", at(18, edited[3:]))
    assert third["timings"]["cache_n"] > 100


def test_the_body_is_what_llama_vim_looks_for(served: Served) -> None:
    fields = ["content", "timings/prompt_n", "timings/predicted_per_second", "no/such", ""]
    status, data = served.ask("/infill", at(20, response_fields=fields))
    assert status == 200
    assert re.match(rb'^\{"content":"', data)
    found = json.loads(data)
    assert set(found) == {"content", "timings/prompt_n", "timings/predicted_per_second"}
    warm = {"input_prefix": "", "input_suffix": "", "prompt": "", "n_predict": 0}
    assert served.json("/infill", {**warm, "response_fields": [""]}) == {}


def test_limits_and_stops_end_the_content(served: Served) -> None:
    whole = served.json("/infill", at(20))["content"]
    assert len(whole) > 2
    short = served.json("/infill", at(20, n_predict=1))
    assert len(short["content"]) < len(whole)
    assert whole.startswith(short["content"])
    assert short["stop_type"] == "limit"
    stopped = served.json("/infill", at(20, stop=[whole[2]]))
    assert stopped["content"] == whole[: whole.index(whole[2])]
    assert stopped["stop_type"] == "word"


def test_extra_context_comes_before_the_prompt(served: Served) -> None:
    extra = [{"text": SOURCE[:400], "filename": "other.py"}]
    without = served.json("/infill", at(3, LINES[:8]))["tokens_evaluated"]
    assert served.json("/infill", at(3, LINES[:8], input_extra=extra))["tokens_evaluated"] > without


def test_streams_are_events(served: Served) -> None:
    _, data = served.ask("/infill", at(20, stream=True))
    assert data.startswith(b'data: {"index":0,"content":"')
    assert data.endswith(b"}\n\n")
    body = {"prompt": "x = ", "stream": True, "max_tokens": 4}
    _, data = served.ask("/v1/completions", body)
    assert data.endswith(b"data: [DONE]\n\n")


def test_completions_and_facts(served: Served) -> None:
    body = {"prompt": SOURCE[:100], "suffix": SOURCE[120:], "max_tokens": 4, "model": "any"}
    found = served.json("/v1/completions", body)
    assert found["object"] == "text_completion"
    assert found["choices"][0]["text"]
    for most in range(8):
        found = served.json("/v1/completions", {**body, "max_tokens": most})
        assert bool(most) <= found["usage"]["completion_tokens"] <= most
        assert most or not found["choices"][0]["text"]
    assert served.json("/health") == {"status": "ok"}
    assert served.json("/v1/models")["data"][0]["owned_by"] == "pie"
    assert served.json("/props")["default_generation_settings"]["n_ctx"] == 1024


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[1]", "no object"),
        ({"prompt": 3}, "prompt must be a text"),
        ({"n_predict": "many"}, "n_predict must be a whole number"),
        ({"n_predict": True}, "n_predict must be a whole number"),
        ({"stop": [1]}, "stop must be texts"),
        ({"stop": ["x"] * 99}, "stop has 99 texts"),
        ({"stream": 1}, "stream must be true or false"),
        ({"input_extra": [1]}, "input_extra must be chunks"),
        ({"input_extra": "x"}, "input_extra must be chunks"),
        ({"response_fields": 1}, "response_fields must be texts"),
    ],
)
def test_wrong_bodies_are_said_to_be_that(served: Served, body: Any, said: str) -> None:
    status, data = served.ask("/infill", body)
    assert status == 400
    assert said in json.loads(data)["error"]["message"]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/infill", "GET", 405),
        ("/infill", "DELETE", 405),
        ("/infill", "OPTIONS", 405),
        ("/health", "POST", 405),
        ("/", "GET", 404),
        ("/../../etc/passwd", "GET", 404),
        ("/infill/%2e%2e/health", "GET", 404),
        ("/infill/", "POST", 404),
        ("//infill", "POST", 404),
        ("/v1/completions/../../props", "GET", 404),
    ],
)
def test_other_methods_and_paths_are_refused(
    served: Served, path: str, method: str, status: int
) -> None:
    found, data = served.ask(path, b"{}", method)
    assert found == status
    assert "passwd" not in data.decode()
    assert b"access-control" not in data.lower()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example:8012"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1"},
    ],
)
def test_who_comes_by_another_name_or_from_another_place_is_refused(
    served: Served, headers: dict[str, str]
) -> None:
    for path, body in (("/health", None), ("/infill", at(1))):
        assert served.ask(path, body, **headers)[0] in (400, 403)
    assert served.ask("/health", Origin=f"http://127.0.0.1:{served.port}")[0] == 200
    assert served.ask("/health", Host=f"[::1]:{served.port}")[0] == 200


def raw(served: Served, data: bytes, *, hangs_up: bool = False) -> bytes:
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(data)
        return b"" if hangs_up else client.recv(4096)


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /infill HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def test_bodies_too_large_are_refused_before_they_come(served: Served) -> None:
    assert b" 413 " in raw(served, head(f"Content-Length: {MOST_BODY_BYTES + 1}"))
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    assert b" 413 " in raw(served, head("Transfer-Encoding: chunked") + 17 * chunk)


def test_a_client_that_dawdles_or_vanishes_holds_nobody_up(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw(served, head("Content-Length: 100") + b'{"pro', hangs_up=True)
    raw(served, b"POST /inf", hangs_up=True)
    body = json.dumps(at(20)).encode()
    raw(served, head(f"Content-Length: {len(body)}") + body, hangs_up=True)
    monkeypatch.setattr(serving_http, "_BODY_S", 0.05)
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(head("Content-Length: 100") + b'{"pro')
        assert served.json("/infill", at(20))["content"]
        assert b" 408 " in slow.recv(4096)
    assert b" 400 " in raw(served, b"\x16\x03\x01 garbage\r\n\r\n")
    assert served.json("/infill", at(20))["content"]


def test_a_failure_of_one_request_ends_no_other(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret details")

    with monkeypatch.context() as patch:
        patch.setattr(serving_http, "infill_document", broken)
        status, data = served.ask("/infill", at(20))
    assert status == 500
    assert b"secret" not in data
    assert served.json("/infill", at(20))["content"]


def test_a_token_is_asked_for_where_others_could_come(tiny_checkpoint: Path) -> None:
    with pytest.raises(InputError, match="others could reach"):
        HttpServer(Serving(Settings()), "0.0.0.0", 0, None, lambda _: None)
    server = Served(str(tiny_checkpoint), token="shown")
    assert server.ask("/v1/models")[0] == 401
    assert server.ask("/v1/models", Authorization="Bearer wrong")[0] == 401
    server.until_ready()
    assert server.ask("/v1/models", Authorization="Bearer shown")[0] == 200
    server.end()


@pytest.mark.parametrize(
    ("host", "remedy"), [("127.0.0.1", "give another --port"), ("no.such.invalid", "--host")]
)
def test_an_address_that_cannot_be_had_says_which_part_to_change(
    tiny_checkpoint: Path, host: str, remedy: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(model=str(tiny_checkpoint))
        with pytest.raises(InputError, match="cannot listen") as caught:
            HttpServer(Serving(settings), host, port, "token", lambda _: None).run()
    assert remedy in caught.value.remedy


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path: Path) -> None:
    server = Served(str(tmp_path / "no" / "model"))
    server.thread.join(60)
    assert isinstance(server.error, ModelError)


def test_a_text_belongs_to_the_document_it_has_most_in_common_with() -> None:
    finder = Finder()
    one, other = SOURCE, SOURCE.replace("width", "breadth").replace("height", "depth")
    first, second = finder.find(one), finder.find(other)
    assert first != second
    assert finder.find(one.replace("size", "extent", 2)) == first
    assert finder.find("\n".join(other.split("\n")[7:]) + "more\n") == second
    for number in range(40):
        finder.find(f"text {number}\n" * 9)
    assert finder.find(one) not in (first, second)


VIM = """
let request = {'input_prefix': join(getline(1, 20), "\\n") . "\\n", 'prompt': getline(21),
  \\ 'input_suffix': "\\n" . join(getline(22, '$'), "\\n"), 'n_predict': 16, 'stream': v:false,
  \\ 'response_fields': ['content', 'timings/prompt_n']}
let raw = system('curl --silent --no-buffer --request POST --url URL'
  \\ . ' --header "Content-Type: application/json" --data @-', json_encode(request))
call setline(21, getline(21) . json_decode(raw)['content'])
call writefile([raw =~# '\\v"content"\\s*:"' ? 'found' : raw], 'OUT')
wq
"""


def test_vim_asks_as_llama_vim_does(served: Served, tmp_path: Path) -> None:
    vim, curl = shutil.which("vim"), shutil.which("curl")
    has_eval = (
        vim
        and b"+eval" in subprocess.run([vim, "--version"], capture_output=True, check=False).stdout
    )
    if not (has_eval and curl):
        pytest.skip("needs Vim with +eval, and curl")
    assert vim is not None
    file, out = tmp_path / "area.py", tmp_path / "out"
    file.write_text(SOURCE)
    url = f"http://127.0.0.1:{served.port}/infill"
    script = tmp_path / "ask.vim"
    script.write_text(VIM.replace("URL", url).replace("OUT", str(out)))
    command = [vim, "-N", "-es", "-u", "NONE", "-S", str(script), str(file)]
    subprocess.run(command, check=False, timeout=60, stdin=subprocess.DEVNULL)
    assert out.read_text() == "found\n"
    assert len(file.read_text()) > len(SOURCE)


def test_ctrl_c_is_the_end_and_no_failure_also_while_the_model_loads() -> None:
    command = [sys.executable, "-m", "pie_cli", "serve", "--port", "0", "-m", "pie-nano"]
    for sent in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert "Serving pie-nano at" in process.stderr.readline()
            process.send_signal(sent)
            assert process.wait(timeout=60) == 0
            assert process.stderr.read() == ""


def test_a_size_that_is_none_is_refused_before_anything_is_served() -> None:
    with pytest.raises(InputError):
        Serving(Settings(), cache_memory="lots")
