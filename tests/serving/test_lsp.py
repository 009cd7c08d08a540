"""The language server as its clients see it: order, versions, cancellation, and what is wrong."""

import hashlib
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import SOURCE
from tests.serving.talking import Talk, framed, replaced

A = "file:///code/a.py"
PROGRESS = {"window": {"workDoneProgress": True}}


@pytest.fixture
def talk(tiny_checkpoint: Path) -> Iterator[Talk]:
    server = Talk(tiny_checkpoint)
    yield server
    server.close()


@pytest.fixture
def ready(talk: Talk) -> Talk:
    talk.begin()
    assert talk.ready()["state"] == "ready"
    return talk


def items(result: Any) -> list[str]:
    return [item["insertText"] for item in result["items"]] if result else []


# --- an editor at work ---------------------------------------------------------------------------


def test_a_line_is_offered_and_an_edit_encodes_only_what_changed(ready: Talk) -> None:
    ready.open(A, SOURCE)
    (line,) = items(ready.result(ready.inline(A, 1, 8)))
    assert line
    ready.change(A, 2, replaced((20, 4), (20, 4), "more = 1\n    "))
    result = ready.result(ready.inline(A, 22, 4))
    assert len(items(result)) == 1
    here = {"line": 22, "character": 4}
    assert result["items"][0]["range"] == {"start": here, "end": here}
    document = ready.explain(A)["document"]
    assert document["version"] == 2
    assert document["tokens"]["encoded"] < document["tokens"]["total"] / 3
    exact = ready.status(lambda p: p.get("document") and p["document"]["agrees"] is not None)
    assert exact["document"]["exact"]


def test_the_cache_follows_before_anybody_asks_and_the_answer_waits(ready: Talk) -> None:
    ready.open(A, SOURCE)
    ready.status(lambda p: p.get("document"))
    ready.change(A, 2, replaced((20, 4), (20, 4), "x"))
    made = ready.status(lambda p: p.get("document") and p["document"]["version"] == 2)
    ready.result(ready.inline(A, 20, 5))
    after = ready.explain(A)["document"]
    assert after["tokens"]["total"] == made["document"]["tokens"]["total"]
    assert ready.explain(A)["predictions"] == made["predictions"] + 1


def test_inline_completion_is_offered_or_no_editor_would_ask(talk: Talk) -> None:
    assert talk.begin()["inlineCompletionProvider"] is True


def test_an_accepted_line_is_counted_and_its_text_is_an_edit(ready: Talk) -> None:
    ready.open(A, SOURCE)
    result = ready.result(ready.inline(A, 1, 8))
    command = result["items"][0]["command"]
    text = result["items"][0]["insertText"]
    ready.change(A, 2, replaced((1, 8), (1, 8), text))
    params = {"command": command["command"], "arguments": command["arguments"]}
    ready.result(ready.ask("workspace/executeCommand", params))
    assert ready.explain(A)["accepted"] == 1
    assert items(ready.result(ready.inline(A, 3, 4))) is not None
    document = ready.explain(A)["document"]
    assert document["tokens"]["encoded"] < document["tokens"]["total"] / 3


def test_completion_is_offered_only_where_it_is_asked_for(tiny_checkpoint: Path) -> None:
    plain = Talk(tiny_checkpoint)
    assert "completionProvider" not in plain.begin()
    plain.goodbye()
    talk = Talk(tiny_checkpoint)
    assert "completionProvider" in talk.begin(initializationOptions={"completion": True})
    talk.open(A, SOURCE)
    params = {"textDocument": {"uri": A}, "position": {"line": 1, "character": 7}}
    (item,) = talk.result(talk.ask("textDocument/completion", params))["items"]
    assert item["textEdit"]["range"]["start"] == {"line": 1, "character": 4}
    assert item["textEdit"]["newText"].startswith("siz")
    assert item["filterText"] == item["textEdit"]["newText"]
    assert talk.goodbye() == 0


def test_loading_and_first_encoding_show_progress(tiny_checkpoint: Path) -> None:
    talk = Talk(tiny_checkpoint)
    talk.begin(PROGRESS)
    talk.open(A, SOURCE)
    talk.result(talk.inline(A, 1, 8))
    talk.explain(A)
    progress = [m["params"] for m in talk.seen if m.get("method") == "$/progress"]
    for token in {p["token"] for p in progress}:
        kinds = [p["value"]["kind"] for p in progress if p["token"] == token]
        assert (kinds[0], kinds[-1]) == ("begin", "end")
    titles = [p["value"]["title"] for p in progress if p["value"]["kind"] == "begin"]
    assert titles[0] == "loading the model"
    assert titles[1].startswith("encoding ")
    talk.goodbye()


def test_other_open_documents_come_before_the_prompt(ready: Talk) -> None:
    other = "file:///code/b.py"
    ready.open(other, SOURCE[:600])
    ready.result(ready.inline(other, 1, 8))
    ready.open(A, SOURCE[:300])
    ready.result(ready.inline(A, 1, 8))
    with_other = ready.explain(A)["document"]["tokens"]["total"]
    ready.note("textDocument/didClose", {"textDocument": {"uri": other}})
    ready.change(A, 2, replaced((0, 0), (0, 0), "y"))
    ready.result(ready.inline(A, 1, 8))
    assert ready.explain(A)["document"]["tokens"]["total"] < with_other - 100


# --- settings ------------------------------------------------------------------------------------


def test_settings_come_from_the_editor_when_it_is_asked(tiny_checkpoint: Path) -> None:
    talk = Talk(tiny_checkpoint)
    talk.begin({"workspace": {"configuration": True}})
    asked = talk.hear(lambda m: m.get("method") == "workspace/configuration")
    section = {"contextTokens": 300, "command": ["pie"], "maxTokens": None}
    talk.say({"jsonrpc": "2.0", "id": asked["id"], "result": [section]})
    assert talk.ready()["window_tokens"] == 300
    talk.goodbye()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"maxTokans": 3}, "did you mean max-tokens"),
        ({"maxTokens": 0, "lines": None}, "max-tokens is 0"),
        (
            {"trustRemoteCode": True, "command": ["pie"]},
            "trust-remote-code is not taken from there",
        ),
        (["lines"], "no object"),
    ],
)
@pytest.mark.parametrize("by", ["initializationOptions", "workspace/configuration"])
def test_wrong_settings_of_the_editor_are_named_and_the_others_hold(
    tiny_checkpoint: Path, options: Any, said: str, by: str
) -> None:
    talk = Talk(tiny_checkpoint)
    sent = {**options, "contextTokens": 300} if isinstance(options, dict) else options
    if by == "initializationOptions":
        talk.begin(initializationOptions=sent)
    else:
        talk.begin({"workspace": {"configuration": True}})
        asked = talk.hear(lambda m: m.get("method") == "workspace/configuration")
        talk.say({"jsonrpc": "2.0", "id": asked["id"], "result": [sent]})
    for method in ("window/logMessage", "window/showMessage"):
        assert said in talk.told(method)["message"]
    ready = talk.ready()
    assert ready["state"] == "ready"
    assert ready["window_tokens"] == (300 if isinstance(options, dict) else 1024)
    talk.open(A, SOURCE)
    assert items(talk.result(talk.inline(A, 1, 8)))
    assert talk.goodbye() == 0


def test_a_file_of_settings_that_is_wrong_is_for_the_user_to_mend(
    talk: Talk, tmp_path: Path
) -> None:
    (tmp_path / "pie.toml").write_text("lines = 0\n")
    talk.begin(rootUri=tmp_path.as_uri())
    assert "lines is 0" in talk.told("window/showMessage")["message"]
    assert talk.ready()["state"] == "failed"
    talk.open(A, SOURCE)
    assert talk.result(talk.inline(A, 1, 8)) is None


def test_a_model_that_is_not_there_is_said_and_questions_get_nothing(tmp_path: Path) -> None:
    talk = Talk(tmp_path / "no" / "model")
    talk.begin()
    talk.open(A, SOURCE)
    request = talk.inline(A, 1, 8)
    assert "no folder" in talk.told("window/showMessage")["message"]
    assert talk.result(request) is None
    assert talk.result(talk.inline(A, 1, 8)) is None
    assert talk.goodbye() == 0


def test_so_many_threads_compute_as_the_settings_say(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    talk = Talk(tiny_checkpoint)
    talk.begin(initializationOptions={"threads": 3})
    assert talk.ready()["state"] == "ready"
    assert taken == [3]
    talk.goodbye()


# --- order ---------------------------------------------------------------------------------------


def initialized_later(talk: Talk) -> None:
    """Begin, but let no model load yet: what is asked now waits."""
    talk.result(talk.ask("initialize", {"capabilities": {}, "processId": None, "rootUri": None}))


def test_a_cancelled_request_is_answered_at_once(talk: Talk) -> None:
    initialized_later(talk)
    talk.open(A, SOURCE)
    request = talk.inline(A, 1, 8)
    talk.note("$/cancelRequest", {"id": request})
    assert talk.answer(request)["error"]["code"] == -32800
    talk.note("$/cancelRequest", {"id": 12345})
    assert talk.explain(A)["version"] == 1


@pytest.mark.parametrize("by", ["didChange", "didClose", "didOpen"])
def test_a_question_that_a_newer_version_overtakes_gets_null_at_once(talk: Talk, by: str) -> None:
    initialized_later(talk)
    talk.open(A, SOURCE)
    request = talk.inline(A, 1, 8)
    if by == "didChange":
        talk.change(A, 2, replaced((0, 0), (0, 0), "x"))
    elif by == "didClose":
        talk.note("textDocument/didClose", {"textDocument": {"uri": A}})
    else:
        talk.open(A, "other", 7)
    assert talk.result(request) is None


def test_a_thousand_changes_with_questions_between(ready: Talk) -> None:
    """Every question has one answer: about the newest version, or null. The texts stay equal."""
    chance = random.Random(7)
    text = SOURCE
    ready.open(A, text)
    asked: dict[int, int] = {}
    for version in range(2, 1002):
        lines = text.split("\n")
        row = chance.randrange(len(lines))
        column = chance.randrange(len(lines[row]) + 1)
        start = sum(len(line) + 1 for line in lines[:row]) + column
        gone = min(chance.choice((0, 0, 0, 1, 5)), len(lines[row]) - column)
        new = chance.choice(("x", "y = 1", "\n", "    return z\n", "", "é€"))
        text = text[:start] + new + text[start + gone :]
        ready.change(A, version, replaced((row, column), (row, column + gone), new))
        if chance.random() < 0.1:
            asked[ready.inline(A, row, 0)] = version
        if len(text) > 3_000:
            text = SOURCE
            ready.change(A, version, {"text": "stale"})
            ready.note("textDocument/didClose", {"textDocument": {"uri": A}})
            ready.open(A, text, version)
        if version % 100 == 0:
            found = ready.explain(A)
            assert found["version"] == version
            assert found["digest"] == hashlib.sha256(text.encode()).hexdigest()
    last = ready.inline(A, 3, 0)
    for request in asked:
        assert "error" not in ready.answer(request)
    ready.result(last)
    assert ready.explain(A)["document"]["version"] == 1001


# --- what is wrong -------------------------------------------------------------------------------


def test_before_initialize_and_after_shutdown_requests_are_refused(talk: Talk) -> None:
    assert talk.answer(talk.inline(A, 0, 0))["error"]["code"] == -32002
    talk.open(A, SOURCE)
    talk.begin()
    assert talk.explain(A)["open_documents"] == 0
    again = talk.ask("initialize", {"capabilities": {}, "processId": None, "rootUri": None})
    assert talk.answer(again)["error"]["code"] == -32600
    talk.result(talk.ask("shutdown"))
    assert talk.answer(talk.inline(A, 0, 0))["error"]["code"] == -32600
    talk.note("exit")
    assert talk.ended.wait(30)
    assert talk.exit_code == 0


def test_exit_without_shutdown_is_a_failure(talk: Talk) -> None:
    talk.begin()
    talk.note("exit")
    assert talk.ended.wait(30)
    assert talk.exit_code == 1


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET / HTTP/1.1\n\n\n", -32700),
        (b"\x00\xff" * 3000 + b"\n", -32700),
        (framed(b"{no json"), -32700),
        (framed(b"[" * 100_000), -32700),
        (framed(b"[1, 2]"), -32600),
        (framed({"id": 1, "method": "initialize"}), -32600),
        (framed({"jsonrpc": "1.0", "id": 1, "method": "initialize"}), -32600),
        (b"Content-Length: 999999999999\r\n\r\n", None),
    ],
)
def test_garbage_on_the_wire_is_said_to_be_that_and_the_next_message_is_heard(
    talk: Talk, sent: bytes, code: int | None
) -> None:
    if code is None:
        talk.input.write(sent)
        talk.close()
        return
    talk.input.write(sent)
    talk.input.flush()
    assert talk.hear(lambda m: m.get("id") is None)["error"]["code"] == code
    talk.begin()
    assert talk.ready()["state"] == "ready"


def test_wrong_parameters_and_unknown_methods_are_errors_of_the_protocol(ready: Talk) -> None:
    for method, params, code in (
        ("textDocument/inlineCompletion", {"position": 3}, -32602),
        ("textDocument/inlineCompletion", [1], -32602),
        ("no/such/method", {}, -32601),
        ("workspace/executeCommand", {"command": "rm"}, -32602),
    ):
        answer = ready.answer(ready.ask(method, params))
        assert answer["error"]["code"] in (code, -32603), (method, answer)
    ready.open(A, SOURCE)
    outside = ready.answer(ready.inline(A, 4000, 0))
    assert outside["error"]["code"] == -32602
    assert items(ready.result(ready.inline(A, 1, 8)))


@pytest.mark.parametrize("version", [0, 3, 5, None])
def test_what_comes_later_is_newer_whatever_version_it_has(ready: Talk, version: Any) -> None:
    """Some clients repeat a version in each change, or send none."""
    ready.open(A, SOURCE, 5)
    text = SOURCE
    for count in range(1, 6):
        overtaken = ready.inline(A, 1, 8)
        ready.change(A, version, replaced((0, 0), (0, 0), f"a{count} = 1\n"))
        text = f"a{count} = 1\n{text}"
        assert ready.result(overtaken) is None
    line = ready.inline(A, 6, 8)
    assert items(ready.result(line))
    found = ready.explain(A)
    assert found["digest"] == hashlib.sha256(text.encode()).hexdigest()
    assert found["document"]["version"] == found["version"] == 10
    ready.change(A, 30, replaced((0, 0), (0, 0), "x"))
    assert ready.explain(A)["version"] == 30


def test_a_document_without_a_version_is_followed(ready: Talk) -> None:
    for nothing in ({"version": None}, {}):
        document = {"uri": A, "languageId": "python", "text": SOURCE, **nothing}
        ready.note("textDocument/didOpen", {"textDocument": document})
        change = {"contentChanges": [replaced((0, 0), (0, 0), "x")]}
        ready.note("textDocument/didChange", {"textDocument": {"uri": A, **nothing}, **change})
        assert items(ready.result(ready.inline(A, 1, 8)))
        digest = hashlib.sha256(f"x{SOURCE}".encode()).hexdigest()
        assert ready.explain(A)["digest"] == digest


@pytest.mark.parametrize("rest", [")", "):", '")', "], 1)"])
def test_an_item_takes_the_place_of_what_it_says_again_and_of_nothing_else(
    ready: Talk, rest: str
) -> None:
    """As with brackets that an editor closes; with characters of two units before them."""
    lines = SOURCE.split("\n")
    begun = "    area_1('😀', (["[: 17 - len(rest)]
    lines[20] = begun + rest
    ready.open(A, "\n".join(lines))
    units = len(begun.encode("utf-16-le")) // 2
    result = ready.result(ready.inline(A, 20, units))
    for item in result["items"] if result else ():
        start, end = item["range"]["start"], item["range"]["end"]
        assert start == {"line": 20, "character": units}
        assert (end["line"], end["character"] <= units + len(rest)) == (20, True)
        taken = rest[: end["character"] - units]
        assert not taken or taken in item["insertText"]
        assert "\n" not in item["insertText"]


def test_ranges_outside_are_logged_and_nothing_is_lost(ready: Talk) -> None:
    ready.open(A, SOURCE, 5)
    ready.change(A, 6, replaced((900, 0), (901, 0), "x"))
    assert "outside the document" in ready.told("window/logMessage")["message"]
    assert ready.result(ready.inline(A, 1, 8)) is None
    ready.open(A, SOURCE, 1)
    assert items(ready.result(ready.inline(A, 1, 8)))


@pytest.mark.parametrize(
    "change",
    [
        replaced((0, -1), (0, 0), "x"),
        {"range": {"start": {"line": 0}}, "text": "x"},
        {"text": 3},
        3,
    ],
)
def test_a_change_of_another_form_costs_its_document_until_the_whole_text_comes(
    ready: Talk, change: Any
) -> None:
    ready.open(A, SOURCE)
    ready.change(A, 2, change)
    assert "is none" in ready.told("window/logMessage")["message"]
    assert ready.result(ready.inline(A, 1, 8)) is None
    ready.change(A, 3, replaced((0, 0), (0, 0), "x"))
    assert ready.explain(A)["digest"] is None
    ready.change(A, 4, {"text": SOURCE})
    assert items(ready.result(ready.inline(A, 1, 8)))


def test_half_a_character_is_text_all_the_same(ready: Talk) -> None:
    ready.say(
        b'{"jsonrpc":"2.0","method":"textDocument/didOpen","params":{"textDocument":{"uri":"%s",'
        b'"languageId":"python","version":1,"text":"x = \\"\\ud83d\\"\\ny = "}}}' % A.encode()
    )
    ready.result(ready.inline(A, 1, 4))
    assert ready.explain(A)["document"]["version"] == 1


def test_a_huge_document_is_answered_by_nothing(ready: Talk) -> None:
    ready.open(A, "x = 1\n" * 9_000_000)
    assert ready.result(ready.inline(A, 1, 0)) is None
    assert ready.explain(A)["digest"] is None


def test_a_client_that_is_gone_ends_the_server(tiny_checkpoint: Path) -> None:
    talk = Talk(tiny_checkpoint)
    talk.begin()
    talk.open(A, SOURCE)
    talk.inline(A, 1, 8)
    talk.close()
    half = Talk(tiny_checkpoint)
    half.input.write(b"Content-Length: 100\r\n\r\n{")
    half.close()


def test_as_a_process_it_keeps_stdout_for_the_protocol_and_ends_with_stdin(
    tmp_path: Path,
) -> None:
    log = str(tmp_path / "log.txt")
    command = [sys.executable, "-m", "pie_cli", "lsp", "--stdio", "--log-file", log]
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    params = {"capabilities": {}, "processId": None, "rootUri": None}
    result = subprocess.run(
        command, input=framed({**message, "params": params}), capture_output=True, check=False
    )
    head, _, body = result.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"Content-Length: ")
    assert json.loads(body)["result"]["serverInfo"]["name"] == "pie"
    assert result.returncode == 1


def test_on_a_port_the_second_client_finds_nobody(tiny_checkpoint: Path) -> None:
    command = [sys.executable, "-m", "pie_cli", "lsp", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = int(process.stderr.readline().rstrip(".\n").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as one:
            message = {"jsonrpc": "2.0", "id": 1, "method": "shutdown"}
            one.sendall(framed(message))
            assert b"-32002" in one.makefile("rb").read(120)
            with pytest.raises(OSError, match=r"refused|reset"):
                socket.create_connection(("127.0.0.1", port))
        process.wait(timeout=60)


def test_it_ends_at_exit_also_where_the_client_keeps_the_pipe_open() -> None:
    command = [sys.executable, "-m", "pie_cli", "lsp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        params = {"capabilities": {}, "processId": None, "rootUri": None}
        for number, method, given in ((1, "initialize", params), (2, "shutdown", None)):
            message = {"jsonrpc": "2.0", "id": number, "method": method, "params": given}
            process.stdin.write(framed(message))
        process.stdin.write(framed({"jsonrpc": "2.0", "method": "exit"}))
        process.stdin.flush()
        assert process.wait(timeout=60) == 0


def test_the_next_server_begins_with_what_the_last_one_kept(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    encoded = []
    for _ in range(2):
        server = Talk(tiny_checkpoint, keep_cache=True)
        server.begin()
        server.ready()
        server.open(A, SOURCE)
        document = server.status(lambda params: params.get("document"))["document"]
        assert document["exact"]
        encoded.append(document["tokens"]["encoded"])
        assert server.goodbye() == 0
    assert encoded[0] > 100
    assert encoded[1] == 1
    assert len(list((tmp_path / "pie" / "kept").iterdir())) == 1
