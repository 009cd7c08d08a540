"""`pie watch`: every save is answered, superseded or reported, and the end is always clean."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pie_cli.cli.documents import Beginning, start_document
from pie_cli.cli.interrupts import Interrupts
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import JsonReport, Report, TextReport
from pie_cli.cli.tally import Tally
from pie_cli.cli.watch import reader_is_gone
from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.errors import ExitCode, InputError
from pie_cli.session import EditSession
from pie_cli.workspace.documents import Document
from pie_cli.workspace.events import (
    Compared,
    ComparisonStopped,
    Dropped,
    Event,
    Failed,
    Noted,
    Predicted,
    Superseded,
)
from pie_cli.workspace.pool import SessionPool
from tests.cli.helpers import LONGEST_S, Recorder, watched
from tests.conftest import SOURCE, WINDOW

# --- signals -------------------------------------------------------------------------------------


@pytest.fixture
def hangups() -> Iterator[None]:
    """Let SIGHUP come, also where what runs the tests ignores it."""
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_interrupts_only_where_allowed(number: signal.Signals, hangups: object) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        signal.raise_signal(number)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt), interrupts.allowed():
            pytest.fail("entered although a signal had come")
        signal.raise_signal(number)  # the second: ignored
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_after_the_last_word_of_a_process_no_signal_kills_it_before_its_end() -> None:
    """Python gives signals back to the system while it tidies up; what is ignored stays so."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with Interrupts(ends_process=True):
            pass
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
        with Interrupts(ends_process=True):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


def test_a_hangup_that_nohup_has_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupts.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_a_library_swallows_is_not_lost() -> None:
    def library() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt), interrupts.allowed():
        library()


def test_other_threads_leave_the_signals_alone() -> None:
    handlers = []

    def enter() -> None:
        with Interrupts():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGINT)]


AREA = Path("area.py")
FIRST = "import math\n" + SOURCE
SECOND = FIRST.replace("size", "extent")


# --- a watched file ------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "area.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def settings(tiny_checkpoint: Path) -> Settings:
    return Settings(str(tiny_checkpoint), "cpu", max_tokens=8, chunk_tokens=64)


def test_real_saves_of_all_kinds_are_answered(file: Path, settings: Settings) -> None:
    stop = threading.Event()

    def rename_over(text: str) -> None:
        file.with_name("draft").write_text(text)
        file.with_name("draft").replace(file)

    steps: dict[str, Callable[[], object]] = {
        "prediction 0": lambda: file.write_text(FIRST),
        "prediction 1": lambda: rename_over(SECOND),
        "prediction 2": file.unlink,
        "error 3": lambda: file.write_bytes(b"\xff"),
        "error 4": lambda: file.write_bytes(b"a\x00"),
        "error 5": lambda: file.write_text(FIRST),
        "prediction 6": stop.set,
    }

    def act(event: str) -> None:
        if event in steps:
            steps.pop(event)()

    recorder = Recorder(act)
    watched([file], settings, recorder, stop)
    assert not steps
    assert recorder.summary
    assert (recorder.summary.saves, recorder.summary.errors) == (3, 3)
    assert recorder.events[-1] == ("stop",)


@pytest.mark.parametrize("moment", ["start", "prediction 0", "prediction 1"])
def test_a_signal_ends_with_a_summary_at_any_moment(
    file: Path, settings: Settings, moment: str
) -> None:
    def act(event: str) -> None:
        if event == moment:
            signal.raise_signal(signal.SIGINT)
        elif event == "prediction 0":
            file.write_text(FIRST)

    recorder = Recorder(act)
    watched([file], settings, recorder, threading.Event())
    assert [" ".join(map(str, event)) for event in recorder.events][-2:] == [moment, "stop"]


def test_a_signal_ends_the_first_encoding(
    file: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_session = EditSession.open

    def interrupted(
        session: EditSession,
        text: str,
        on_progress: Callable[[int, int], None],
        *rest: Any,
        **named: Any,
    ) -> Any:
        def report(done: int, total: int) -> None:
            assert done < total
            signal.raise_signal(signal.SIGTERM)
            on_progress(done, total)

        return open_session(session, text, report, *rest, **named)

    monkeypatch.setattr(EditSession, "open", interrupted)
    recorder = Recorder()
    watched([file], settings, recorder, threading.Event())
    assert recorder.events == [("start",), ("stop",)]


def test_a_file_that_is_not_there_yet_is_awaited_and_its_first_save_answered(
    file: Path, settings: Settings
) -> None:
    stop, new = threading.Event(), file.with_name("new.py")
    steps: dict[str, Callable[[], object]] = {
        "start": lambda: new.write_text(SOURCE),
        "prediction 1": lambda: new.write_text(FIRST),
        "prediction 2": stop.set,
    }
    recorder = Recorder(lambda event: steps.pop(event, lambda: None)())
    watched([new], settings, recorder, stop)
    assert not steps
    assert [event[0] for event in recorder.events[:3]] == ["start", "note", "prediction"]
    assert [event.opened for event in recorder.answered] == [True, False]


def test_of_several_files_the_first_that_is_there_is_predicted_in_at_the_start(
    file: Path, settings: Settings
) -> None:
    stop = threading.Event()
    recorder = Recorder(lambda event: stop.set() if event == "prediction 0" else None)
    watched([file.with_name("new.py"), file], settings, recorder, stop)
    assert recorder.answered[0].saved == file


def test_what_cannot_be_watched_is_refused_before_a_model_is_loaded(
    tmp_path: Path, file: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    none = tmp_path / "none" / "new.py"
    for path, at in ((none, "end"), (tmp_path / "pipe", "end"), (file, "999")):
        recorder = Recorder()
        with pytest.raises(InputError):
            watched([path], Settings("no/such-model", at=at), recorder, threading.Event())
        assert recorder.events == []


# --- what is printed -----------------------------------------------------------------------------


def told(report: Report, model: EditableModel) -> None:
    """Tell a report of every kind of event."""
    pool = SessionPool(model, Settings(max_tokens=8), 1 << 30)
    session = pool.use("area.py").session
    tally = Tally("pie", "full")
    report.started(Beginning(("area.py",), ("b.py",), pool, 0, 9_000.0, 12.0))

    def tell(event: Event) -> None:
        tally.add(event)
        report.tell(event)

    opened, text = session.open(SOURCE), Document(AREA, 0, SOURCE)
    tell(Predicted(0, AREA, text, "area.py", opened, opened=True))
    text = Document(AREA, 1, FIRST)
    tell(Predicted(1, AREA, text, "area.py", session.update(FIRST), opened=False))
    comparison = session.compare()
    assert comparison
    tell(Compared(1, "area.py", comparison))
    tell(ComparisonStopped(1))
    tell(Superseded(((2, AREA), (3, Path("b.py")))))
    tell(Failed(4, AREA, InputError("a\x1b[31mb is binary", "mend it")))
    tell(Dropped("b.py", 1_000, 2_000))
    tell(Noted(InputError("too many folders", "name one")))
    tell(Superseded(((5, AREA),), at_end=True))
    report.stopped(tally.summary())


@pytest.mark.parametrize("ended", [False, True])
def test_an_answer_that_nothing_will_confirm_says_so_at_the_end(
    tiny_model: EditableModel, capsys: pytest.CaptureFixture[str], ended: bool
) -> None:
    pool = SessionPool(tiny_model, Settings(max_tokens=8, strategy="pie"), 1 << 30)
    session, report = pool.use("area.py").session, TextReport(Renderer())
    report.started(Beginning(("area.py",), (), pool, 0, 9_000.0, 12.0))
    session.open(SOURCE)
    answer = session.update("import os\n" + SOURCE)
    assert not answer.exact
    text = Document(AREA, 1, FIRST)
    report.tell(Predicted(1, AREA, text, "area.py", answer, opened=False))
    if not ended:
        report.tell(ComparisonStopped(1))
    report.stopped(Tally("pie", "full").summary())
    assert ("not confirmed: ended before" in capsys.readouterr().out) is ended


def test_the_start_says_how_weights_are_kept_and_what_importing_took(
    tiny_model: EditableModel, capsys: pytest.CaptureFixture[str]
) -> None:
    for weights, said in (("full", "float32, loaded"), ("int8", "float32, weights in int8,")):
        pool = SessionPool(replace(tiny_model, weights=weights), Settings(), 1)
        TextReport(Renderer()).started(Beginning(("area.py",), (), pool, 0, 9_000.0, 12.0))
        out = capsys.readouterr().out
        assert said in out
        assert "loaded in 12 ms, after 9.0 s importing torch and transformers)." in out


def test_text_names_what_happened(
    tiny_model: EditableModel, capsys: pytest.CaptureFixture[str]
) -> None:
    told(TextReport(Renderer()), tiny_model)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "is binary" in captured.err
    assert "mend it; watching goes on" in captured.err
    for part in (
        "Watching area.py",
        "area.py  1 line added",
        "not confirmed: a newer save or question came",
        "2 saves not answered before a newer one came",
        "1 save not answered before the end",
    ):
        assert part in captured.out
    end = captured.out[captured.out.index("4 saves, 3 superseded, 1 error") :]
    assert "median of 1" in end
    assert " of 1 comparisons" in end
    # The method's vocabulary is for who asks for it.
    for word in ("stale", "shifted", "reused", "encoded", "pie+"):
        assert word not in captured.out


def test_json_is_one_document_a_line_with_event_and_id(
    tiny_model: EditableModel, capsys: pytest.CaptureFixture[str]
) -> None:
    told(JsonReport(), tiny_model)
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {document["schema"] for document in documents} == {"pie/1"}
    assert [(document["event"], document["save_id"]) for document in documents] == [
        ("start", 0),
        ("prediction", 0),
        ("prediction", 1),
        ("comparison", 1),
        ("superseded", 2),
        ("superseded", 3),
        ("error", 4),
        ("dropped", 4),
        ("note", 4),
        ("superseded", 5),
        ("stop", 5),
    ]
    assert [document.get("path") for document in documents] == [
        *["area.py"] * 5,
        "b.py",
        "area.py",
        "b.py",
        None,
        "area.py",
        None,
    ]
    stop = documents[-1]
    assert (stop["saves"], stop["superseded"], stop["errors"]) == (4, 3, 1)
    assert set(stop["median_ms"]) == {"prediction", "comparison"}


@pytest.mark.parametrize(("asked", "told"), [(None, WINDOW), (100, 100), (10**9, WINDOW)])
def test_the_window_told_is_the_one_there_is(
    tiny_model: EditableModel, asked: int | None, told: int
) -> None:
    pool = SessionPool(tiny_model, Settings(context_tokens=asked), 1)
    beginning = Beginning(("area.py",), (), pool, 0, 9_000.0, 1.0)
    assert start_document(beginning)["window_tokens"] == told


def test_a_watch_without_saves_sums_up(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Tally("pie", "full").summary()
    TextReport(Renderer()).stopped(summary)
    assert capsys.readouterr().out.strip() == "0 saves"
    JsonReport().stopped(summary)
    document = json.loads(capsys.readouterr().out)
    assert document["agreement_pct"] is None
    assert document["median_ms"] == {"prediction": None, "comparison": None}


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def process(file: Path, tiny_checkpoint: Path) -> Iterable[subprocess.Popen[str]]:
    """`pie watch --json` in a process of its own."""
    command = [sys.executable, "-m", "pie_cli", "watch", str(file), "--json"]
    options = ["--model", str(tiny_checkpoint), "--device", "cpu", "--max-tokens", "8"]
    with subprocess.Popen(
        [*command, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    ) as process:
        timer = threading.Timer(LONGEST_S, process.kill)
        timer.start()
        yield process
        timer.cancel()
        timer.join()
        process.kill()


def test_the_command_answers_saves_and_ends_with_ctrl_c(
    process: subprocess.Popen[str], file: Path
) -> None:
    assert process.stdout
    assert process.stderr

    def event() -> dict[str, Any]:
        assert process.stdout
        document: dict[str, Any] = json.loads(process.stdout.readline())
        return document

    assert event()["event"] == "start"
    assert event()["event"] == "prediction"
    file.write_text(FIRST)
    prediction, comparison = event(), event()
    assert (prediction["event"], prediction["save_id"]) == ("prediction", 1)
    tokens = prediction["tokens"]
    assert tokens["reused"] + tokens["encoded"] == tokens["total"]
    assert (comparison["event"], comparison["save_id"]) == ("comparison", 1)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    stop = event()
    assert (stop["event"], stop["saves"], stop["comparisons"]) == ("stop", 1, 1)
    assert process.wait(LONGEST_S) == 0
    assert process.stderr.read() == ""


def test_saves_that_wait_while_the_reader_stalls_are_reported_at_the_end(
    process: subprocess.Popen[str], file: Path
) -> None:
    """Each number comes once, also of saves that came when nobody read any more."""
    assert process.stdout
    assert '"start"' in process.stdout.readline()
    for number in range(200):
        draft = file.with_name("draft")
        draft.write_text(f"{SOURCE}x = {number}\n")
        draft.replace(file)
    process.send_signal(signal.SIGINT)
    documents = [json.loads(line) for line in process.stdout]
    assert process.wait(LONGEST_S) == 0
    told = ("prediction", "superseded", "error")
    numbers = [d["save_id"] for d in documents if d["event"] in told and d["save_id"]]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert documents[-1]["event"] == "stop"
    assert documents[-1]["saves"] == len(numbers)


def test_a_reader_that_goes_away_ends_the_command_quietly(process: subprocess.Popen[str]) -> None:
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(LONGEST_S) == ExitCode.FAILURE
    assert process.stderr.read() == ""


def test_only_a_pipe_without_a_reader_counts_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert not reader_is_gone()
        os.close(reading)
        assert reader_is_gone()
        monkeypatch.setattr(sys, "stdout", None)
        assert not reader_is_gone()
