"""`--keep-cache` from the command line: what is said, what goes wrong, who keeps nothing."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pie_cli.cli.app import app
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import JsonReport, TextReport
from pie_cli.cli.watch import WatchOptions
from pie_cli.config import Settings
from pie_cli.editable import prepare
from pie_cli.keeping import kept_caches, kept_folder
from pie_cli.models.loading import load
from pie_cli.session import EditSession
from pie_cli.workspace.events import Event, NotKept, Predicted
from pie_cli.workspace.pool import SessionPool
from tests.cli.helpers import watched
from tests.conftest import SOURCE
from tests.diffs import unified_diff

KEEPING = WatchOptions(keeps=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source file in a working directory, and a cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "area.py").write_text(SOURCE)
    return tmp_path / "area.py"


@pytest.fixture
def settings(tiny_checkpoint: Path) -> Settings:
    return Settings(str(tiny_checkpoint), "cpu", max_tokens=8, strategy="pie+seam:8")


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- pie watch -----------------------------------------------------------------------------------


class Once(JsonReport):
    """Tells a program, and ends the watch by Ctrl-C after the first prediction."""

    def tell(self, event: Event) -> None:
        super().tell(event)
        if isinstance(event, Predicted):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def watch(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """`pie watch --json`, ended after the first prediction."""
    monkeypatch.setattr("pie_cli.cli.watch.JsonReport", Once)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def run(*options: str) -> list[dict[str, Any]]:
        command = ["watch", "area.py", "--json", "--model", str(tiny_checkpoint)]
        result = CliRunner().invoke(app, [*command, "--device", "cpu", *options])
        assert result.exit_code == 0, result.output
        return documents(result.stdout)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_next_watch_starts_where_the_last_one_ended(watch: Callable[..., Any]) -> None:
    _, first, kept, stop = watch("--keep-cache")
    assert (kept["event"], kept["path"], stop["event"]) == ("kept", "area.py", "stop")
    (path,) = kept_folder().iterdir()
    assert kept["size_bytes"] == path.stat().st_size
    _, second, kept, _ = watch("--keep-cache")
    assert kept["size_bytes"] == path.stat().st_size
    assert first["tokens"]["from_disk"] == 0
    assert second["tokens"]["from_disk"] == second["tokens"]["reused"] > 0
    assert second["tokens"]["encoded"] == 1
    assert second["exact"]
    assert (second["prediction"], second["at"]) == (first["prediction"], first["at"])


def test_the_next_watch_goes_on_at_the_last_edit(
    watch: Callable[..., Any], file: Path, tiny_checkpoint: Path
) -> None:
    text = SOURCE.replace("width * height + 3", "width * height - 3")
    model = prepare(load(str(tiny_checkpoint), "cpu"))
    caches = kept_caches(model, wanted=True)
    assert caches is not None
    session = EditSession(model, "area.py", Settings(max_tokens=8), caches.of(file))
    session.open(SOURCE)
    edited = session.update(text)
    assert session.compare()
    session.keep()
    file.write_text(text)
    prediction = watch("--keep-cache")[1]
    assert prediction["at"] == {"line": edited.at.line, "column": edited.at.column}
    assert prediction["tokens"]["encoded"] == 1
    assert prediction["exact"]


def test_a_cache_that_is_not_exact_is_not_kept_and_that_is_said(
    tiny_checkpoint: Path, file: Path
) -> None:
    model = prepare(load(str(tiny_checkpoint), "cpu"))
    settings = Settings(max_tokens=8, strategy="pie")
    pool = SessionPool(model, settings, 1 << 30, kept_caches(model, wanted=True))
    session = pool.use("area.py", file).session
    assert list(pool.keep()) == []
    session.open(SOURCE)
    session.update(SOURCE.replace("width", "breadth", 1))
    assert not session.exact
    (outcome,) = pool.keep()
    assert isinstance(outcome, NotKept)
    assert "area.py is not kept: it was not exact yet" in outcome.error.cause
    assert list(kept_folder().glob("*")) == []


IN_A_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "pie_cli", *sys.argv[1:]])
"""


def test_a_watch_whose_terminal_closes_keeps_what_it_has(tiny_checkpoint: Path) -> None:
    ours, theirs = pty.openpty()
    command = ["watch", "area.py", "--model", str(tiny_checkpoint), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", IN_A_TERMINAL, *command, "--keep-cache"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
    )
    os.close(theirs)
    said = b""
    while b" tokens, exact" not in said:
        said += os.read(ours, 1 << 16)
    os.close(ours)
    process.wait(60)
    assert process.returncode >= 0, "the signal has killed it"
    assert len(list(kept_folder().glob("*.safetensors"))) == 1


class Unread(JsonReport):
    """Tells a program that has gone after the first prediction."""

    def tell(self, event: Event) -> None:
        if isinstance(event, Predicted):
            raise BrokenPipeError


def test_a_watch_that_nobody_reads_any_more_keeps_what_it_has(
    file: Path, settings: Settings
) -> None:
    with pytest.raises(BrokenPipeError):
        watched([file], settings, Unread(), threading.Event(), KEEPING)
    assert len(list(kept_folder().glob("*.safetensors"))) == 1


def test_who_does_not_ask_for_it_keeps_and_reads_nothing(watch: Callable[..., Any]) -> None:
    assert [one["event"] for one in watch()] == ["start", "prediction", "stop"]
    assert not kept_folder().exists()
    watch("--keep-cache")
    _, prediction, stop = watch()
    assert prediction["tokens"]["from_disk"] == 0
    assert stop["event"] == "stop"


def test_a_setting_asks_for_it_as_well(
    watch: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIE_KEEP_CACHE", "yes")
    assert [one["event"] for one in watch()] == ["start", "prediction", "kept", "stop"]


class OnceForPeople(TextReport):
    """Tells a person, and ends the watch after the first prediction."""

    def __init__(self, stop: threading.Event, *, explains: bool = False) -> None:
        super().__init__(Renderer(explains=explains))
        self._stop = stop

    def tell(self, event: Event) -> None:
        super().tell(event)
        if isinstance(event, Predicted):
            self._stop.set()


def test_a_person_is_told(
    file: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in range(2):
        stop = threading.Event()
        watched([file], settings, OnceForPeople(stop, explains=True), stop, KEEPING)
        said = capsys.readouterr().out
        assert "Kept the cache of area.py for the next run (0." in said
        assert said.index("Kept the cache") < said.index("0 saves")
        assert ("tokens from the last run" in said) is bool(run)
        assert ("read from disk)" in said) is bool(run)


def test_a_disk_that_takes_nothing_costs_one_note(
    file: Path,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "cache" / "pie").mkdir(parents=True)
    (tmp_path / "cache" / "pie" / "kept").write_text("in the way")
    for report in (OnceForPeople, None):
        stop = threading.Event()
        if report is not None:
            watched([file], settings, report(stop), stop, KEEPING)
            captured = capsys.readouterr()
            assert captured.err.count("cannot be kept") == 1
            assert "a file is in the way" in captured.err
            assert "move it away, set XDG_CACHE_HOME" in captured.err
            assert "leave --keep-cache out" in captured.err
            assert "0 saves" in captured.out
        else:
            watched([file], settings, Once(), stop, KEEPING)
            *_, note, end = documents(capsys.readouterr().out)
            assert (note["event"], end["event"]) == ("note", "stop")
            assert "cannot be kept" in note["cause"]


# --- pie complete --------------------------------------------------------------------------------


@pytest.fixture
def complete(tiny_checkpoint: Path) -> Callable[..., Result]:
    def run(*arguments: str) -> Result:
        options = ["--model", str(tiny_checkpoint), "--device", "cpu", "--max-tokens", "8"]
        options += ["--strategy", "pie+seam:8", "--cold", "--at", "end"]
        result = CliRunner().invoke(app, ["complete", *options, *arguments])
        assert result.exit_code == 0, result.output
        return result

    return run


def test_a_completion_begins_with_what_the_last_one_kept(
    complete: Callable[..., Result],
) -> None:
    first, second, third = (
        json.loads(complete("area.py", "--json", *options).stdout)
        for options in (["--keep-cache"], ["--keep-cache"], [])
    )
    assert (first["from_disk"], third["from_disk"]) == (0, 0)
    assert second["from_disk"] == second["tokens"]["from_disk"] == second["tokens"]["total"] - 1
    assert first["prediction"] == second["prediction"] == third["prediction"]
    said = complete("area.py", "--keep-cache").stdout
    assert "from the last run" in said
    assert "kept the cache for the next run (0." in said
    plain = complete("area.py", "--keep-cache", "--plain").stdout
    assert plain == first["prediction"] + "\n" * bool(first["prediction"])


def test_the_text_before_a_patch_is_read_from_disk(
    complete: Callable[..., Result], file: Path
) -> None:
    after = SOURCE.replace("height + 11", "height - 11")
    patch = file.with_name("edit.patch")
    patch.write_text(unified_diff(SOURCE, after, "area.py"))
    complete("area.py", "--keep-cache", "--plain")
    answer = json.loads(complete("--edit", str(patch), "--json", "--keep-cache").stdout)
    assert answer["from_disk"] > 64
    assert answer["tokens"]["from_disk"] == 0
    assert answer["comparison"]["strategy"] == "full"
    said = complete("--edit", str(patch), "--keep-cache", "--explain").stdout
    assert "tokens of that text were read from disk" in said


def test_an_answer_is_no_worse_for_a_disk_that_takes_nothing(
    complete: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "cache" / "pie").mkdir(parents=True)
    (tmp_path / "cache" / "pie" / "kept").write_text("in the way")
    result = complete("area.py", "--json", "--keep-cache")
    assert "prediction" in json.loads(result.stdout)
    assert "cannot be kept" in result.stderr
    assert "leave --keep-cache out" in result.stderr
