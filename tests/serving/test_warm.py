"""A warm `pie complete`: the answer of a running pie, for those alone who may have it."""

import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pie_cli.cli.app import app
from pie_cli.config import Settings
from pie_cli.errors import ExitCode
from pie_cli.serving.warm import Question, WarmSocket, ask, fingerprint
from pie_cli.serving.worker import Serving, Worker
from pie_cli.workspace.documents import Documents
from tests.conftest import SOURCE
from tests.diffs import unified_diff

ROOT = Path(__file__).parents[2]
OPTIONS = ["--device", "cpu", "--max-tokens", "8", "--strategy", "pie+seam:8"]
AFTER = SOURCE.replace("    return size\n", "    print(size)\n    return size\n", 1)


class Listener:
    """Waits for the model."""

    def __init__(self) -> None:
        self.heard = threading.Event()

    def loading(self, *_: Any) -> None: ...

    @contextmanager
    def encoding(self, _path: str) -> Iterator[Any]:
        yield lambda *_: None

    def ready(self, *_: Any) -> None:
        self.heard.set()

    def tell(self, _event: Any) -> None: ...

    def failed(self, *_: Any, **__: Any) -> None:
        self.heard.set()


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path: that of a socket is limited."""
    folder = Path(tempfile.mkdtemp(prefix="pie"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    yield folder / "pie"
    shutil.rmtree(folder)


@pytest.fixture
def running(
    tiny_checkpoint: Path, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Documents]:
    """A server with the tiny model, and a working directory with a file."""
    monkeypatch.chdir(tmp_path)
    Path("area.py").write_text(SOURCE)
    documents, listener = Documents(), Listener()
    settings = Settings(str(tiny_checkpoint), "cpu", max_tokens=8, strategy="pie+seam:8")
    worker = Worker(documents, Serving(settings, keeps_changed=False), listener)
    worker.start()
    assert listener.heard.wait(60)
    while not list(runtime.glob("*.sock")):
        assert not documents.stopped
    yield documents
    worker.stop()
    assert list(runtime.glob("*.sock")) == []


def completed(model: Path, *arguments: str, stdin: str | None = None) -> Result:
    command = ["complete", "--model", str(model), *OPTIONS, *arguments]
    return CliRunner().invoke(app, command, input=stdin)


def test_the_answer_is_that_of_a_cold_call_and_says_that_it_is_not_one(
    running: Documents, tiny_checkpoint: Path
) -> None:
    for at in (), ("--at", "9:5"), ("--at", "end"):
        warm = json.loads(completed(tiny_checkpoint, "area.py", "--json", *at).stdout)
        cold = json.loads(completed(tiny_checkpoint, "area.py", "--json", "--cold", *at).stdout)
        assert (warm["warm"], cold["warm"]) == (True, False)
        assert warm["at"] == cold["at"]
        if warm["exact"]:
            assert warm["prediction"] == cold["prediction"]
        assert warm["load_ms"] == 0
        assert warm["total_ms"] > warm["timings_ms"]["line"]
    text = completed(tiny_checkpoint, "area.py").stdout
    assert "in the running pie" in text
    assert "in the running pie" not in completed(tiny_checkpoint, "area.py", "--cold").stdout
    plain = completed(tiny_checkpoint, "area.py", "--plain").stdout
    assert len(plain.splitlines()) <= 2


def test_after_a_patch_only_what_changed_is_encoded(
    running: Documents, tiny_checkpoint: Path
) -> None:
    patch = unified_diff(SOURCE, AFTER, "area.py")
    arguments = ("area.py", "--edit", "-", "--not-applied", "--json")
    warm = completed(tiny_checkpoint, *arguments, stdin=patch)
    cold = completed(tiny_checkpoint, *arguments, "--cold", stdin=patch)
    assert warm.exit_code == 0, warm.output
    one, other = json.loads(warm.stdout), json.loads(cold.stdout)
    assert one["warm"]
    assert one["at"] == other["at"]
    assert one["tokens"]["total"] == other["tokens"]["total"]
    assert one["tokens"]["encoded"] < one["tokens"]["total"] / 2


def test_unsaved_text_and_context_go_along(running: Documents, tiny_checkpoint: Path) -> None:
    Path("other.py").write_text(SOURCE[:300])
    stdin = ("-", "--stdin-filename", "area.py", "--json", "--context", "other.py")
    found = json.loads(completed(tiny_checkpoint, *stdin, stdin=SOURCE[:500]).stdout)
    assert found["warm"]
    assert found["context"] == ["other.py"]


def test_other_settings_find_nobody(running: Documents, tiny_checkpoint: Path) -> None:
    found = completed(tiny_checkpoint, "area.py", "--json", "--max-tokens", "7")
    assert not json.loads(found.stdout)["warm"]


def test_what_the_running_one_refuses_is_an_error_here(
    running: Documents, tiny_checkpoint: Path
) -> None:
    settings = Settings(str(tiny_checkpoint), "cpu", max_tokens=8, strategy="pie+seam:8")
    with pytest.raises(Exception, match="outside the file"):
        ask(settings, Question("/x.py", "x.py", "a", "a", "90:1"))
    refused = completed(tiny_checkpoint, "area.py", "--at", "4000")
    assert refused.exit_code == ExitCode.INPUT


def test_what_is_no_question_is_said_to_be_that_and_holds_nobody_up(
    running: Documents, runtime: Path, tiny_checkpoint: Path
) -> None:
    (path,) = runtime.glob("*.sock")
    for sent in (b"\n", b"{}\n", b"[1]\n", b"\xff\n", b'{"path": 1}\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(sent)
            assert b"no question" in client.makefile("rb").readline()
    idle = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in idle:
        client.connect(str(path))
    assert json.loads(completed(tiny_checkpoint, "area.py", "--json").stdout)["warm"]
    for client in idle:
        client.close()


def test_the_socket_is_the_users_alone(running: Documents, runtime: Path) -> None:
    (path,) = runtime.glob("*.sock")
    assert path.stat().st_mode & 0o777 == 0o600
    assert runtime.stat().st_mode & 0o777 == 0o700


QUESTION = Question("/a.py", "a.py", "x", "x")


def test_a_folder_that_others_can_write_to_is_not_used(runtime: Path) -> None:
    runtime.mkdir(mode=0o777)
    runtime.chmod(0o777)
    with WarmSocket(Settings(), lambda _: {}):
        assert list(runtime.iterdir()) == []
    assert ask(Settings(), QUESTION) is None


def test_a_socket_left_behind_is_removed_and_nobody_is_waited_for(runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    left = runtime / f"{fingerprint(Settings())}-1.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    (runtime / f"{fingerprint(Settings())}-2.sock").write_text("no socket")
    assert ask(Settings(), QUESTION) is None
    assert not left.exists()


def test_a_socket_that_is_closed_holds_no_model(runtime: Path) -> None:
    """Freed by a thread while Python ends, a model's tensors abort the process."""

    class Answerer:
        def answer(self, _: Question) -> dict[str, Any]:
            return {}

    answerer = Answerer()
    alive = weakref.ref(answerer)
    with socket.socket(socket.AF_UNIX) as stalled:
        with WarmSocket(Settings(), answerer.answer), socket.socket(socket.AF_UNIX) as other:
            path = str(next(runtime.glob("*.sock")))
            stalled.connect(path)
            # Accepted after the first, whose thread waits for its question by then.
            other.connect(path)
            other.sendall(b"{}\n")
            assert other.recv(100)
        assert "pie-warm" not in {thread.name for thread in threading.enumerate()}
        del answerer
        gc.collect()
        assert alive() is None


def test_settings_that_predict_otherwise_are_told_apart() -> None:
    same = {
        fingerprint(Settings(**{n: v}))
        for n, v in (("at", "3"), ("compare", "none"), ("threads", 2))
    }
    assert same == {fingerprint(Settings())}
    assert fingerprint(Settings(max_tokens=3)) != fingerprint(Settings())


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 300, "x\0"])
def test_a_model_that_cannot_be_a_path_is_for_the_loading_to_refuse(name: str) -> None:
    assert fingerprint(Settings(model=name)) != fingerprint(Settings())
    result = CliRunner().invoke(app, ["complete", __file__, "--model", name])
    assert result.exit_code == ExitCode.MODEL
    assert "internal" not in result.stderr


def test_asking_loads_neither_torch_nor_transformers(
    running: Documents, tiny_checkpoint: Path, runtime: Path
) -> None:
    command = ["complete", "--model", str(tiny_checkpoint), *OPTIONS, "area.py", "--json"]
    program = f"""
import sys
from pie_cli.cli.app import app
app({command!r}, standalone_mode=False)
print(*{{name.split('.')[0] for name in sys.modules}}, file=sys.stderr)
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_RUNTIME_DIR": str(runtime.parent),
    }
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert json.loads(result.stdout)["warm"]
    heavy = {"torch", "transformers", "tokenizers", "numpy", "huggingface_hub", "rich"}
    assert set(result.stderr.split()) & heavy == set()


def in_pipe(runtime: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run pie as an editor does, and have it tell which packages it loaded."""
    program = f"""
import sys
sys.argv = ["pie", *{list(arguments)!r}]
from pie_cli.__main__ import main
try:
    main()
finally:
    print(*{{name.split('.')[0] for name in sys.modules}}, file=sys.stderr)
"""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_RUNTIME_DIR": str(runtime.parent),
    }
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        input=stdin,
    )


def test_the_quick_way_answers_as_the_other_and_loads_less(
    running: Documents, tiny_checkpoint: Path, runtime: Path
) -> None:
    common = ["complete", "-m", str(tiny_checkpoint), *OPTIONS]
    for how in ("--json", "--plain"):
        for arguments, stdin in (
            (["area.py", how, "--at=9:5"], ""),
            (["-", "--stdin-filename", "area.py", how, "--at", "9:5"], SOURCE),
        ):
            quick = in_pipe(runtime, *common, *arguments, stdin=stdin)
            assert quick.returncode == 0, quick.stderr
            assert "typer" not in quick.stderr.split()
            other = in_pipe(runtime, *common, *arguments, "--verbose", stdin=stdin)
            assert "typer" in other.stderr.split()
            line = quick.stdout if how == "--plain" else json.loads(quick.stdout)["prediction"]
            same = other.stdout if how == "--plain" else json.loads(other.stdout)["prediction"]
            assert line == same


@pytest.mark.parametrize(
    "arguments",
    [
        ["area.py", "--at", "4000:1", "--plain"],
        ["area.py", "--max-tokens", "x", "--plain"],
        ["area.py", "--max-tokens", "--plain"],
        ["nowhere.py", "--plain"],
        ["--plain"],
        ["area.py", "--plain", "--no-such-option"],
    ],
)
def test_whatever_goes_wrong_is_said_by_the_commands_proper(
    running: Documents, tiny_checkpoint: Path, runtime: Path, arguments: list[str]
) -> None:
    result = in_pipe(runtime, "complete", "-m", str(tiny_checkpoint), *OPTIONS, *arguments)
    assert result.returncode in (ExitCode.USAGE, ExitCode.INPUT)
    assert "typer" in result.stderr.split()
    assert result.stdout == ""


def test_a_text_from_stdin_is_not_lost_where_nobody_answers(
    runtime: Path, tiny_checkpoint: Path
) -> None:
    arguments = ["complete", "-", "-m", str(tiny_checkpoint), *OPTIONS, "--json"]
    found = json.loads(in_pipe(runtime, *arguments, stdin=SOURCE).stdout)
    assert not found["warm"]
    assert found["tokens"]["total"] > 100
