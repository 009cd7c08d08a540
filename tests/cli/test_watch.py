"""`pie watch`: every save is answered, superseded or reported, and the end is always clean."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pie_cli.cli.documents import Beginning, start_document
from pie_cli.cli.interrupts import Interrupts
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import JsonReport, Report, TextReport
from pie_cli.cli.tally import Tally
from pie_cli.cli.watch import Follower, reader_is_gone
from pie_cli.config import Settings
from pie_cli.errors import ExitCode, InputError
from pie_cli.session import EditableModel, EditSession, Prediction
from pie_cli.workspace.context import Context
from pie_cli.workspace.pool import Dropped, SessionPool
from pie_cli.workspace.queue import FailedSave, Save, Saves, Taken
from tests.cli.helpers import LONGEST_S, Recorder, watched
from tests.conftest import SOURCE, WINDOW

# --- the queue of saves --------------------------------------------------------------------------


X = Path("x.py")


def pumped(*states: str | InputError, known: str = "a") -> Saves:
    """Return saves that looked at the file once for each state, and have not ended."""
    remaining = iter(states)

    def read(path: Path, named: bool) -> str:
        assert (path, named) == (X, True)
        state = next(remaining)
        if isinstance(state, InputError):
            raise state
        return state

    saves = Saves((), {X: known}, threading.Event(), read=read)
    for _ in states:
        saves._look(X)
    return saves


def test_the_newest_save_wins_and_the_others_are_named() -> None:
    saves = pumped("b", "c", "d")
    assert saves.newer_than(2)
    assert not saves.newer_than(3)
    taken = saves.take(0)
    assert taken.newest == Save(3, X, "d")
    assert taken.superseded == (Save(1, X, "b"), Save(2, X, "c"))
    assert saves.take(0) == Taken()


def test_an_unchanged_text_is_no_save() -> None:
    saves = pumped("a", "b", "b", "a", "a")
    assert saves.take(0) == Taken((Save(1, X, "b"), Save(2, X, "a")))


def test_a_failure_that_lasts_is_one_and_does_not_overtake() -> None:
    missing = InputError("there is no file x.py")
    saves = pumped(missing, missing, InputError("x.py is binary"))
    taken = saves.take(0)
    assert taken.newest is None
    assert [(failed.save_id, failed.path, failed.error.cause) for failed in taken.failed] == [
        (1, X, "there is no file x.py"),
        (2, X, "x.py is binary"),
    ]
    assert not saves.newer_than(0)


def test_behind_a_failure_the_same_text_says_that_all_is_well() -> None:
    missing = InputError("there is no file x.py")
    taken = pumped(missing, "a", missing).take(0)
    assert taken.newest == Save(2, X, "a")
    assert [failed.save_id for failed in taken.failed] == [1, 3]


def test_the_end_stops_and_a_failed_watch_raises() -> None:
    def broken() -> Iterator[list[Path]]:
        raise InputError("the folder cannot be read")
        yield

    for changes, raises in (((), False), (broken(), True)):
        stop = threading.Event()
        saves = Saves(changes, {X: "a"}, stop)
        with saves:
            if raises:
                with pytest.raises(InputError, match="the folder"):
                    saves.take(LONGEST_S)
            else:
                assert saves.take(LONGEST_S) == Taken()
        assert saves.ended
        assert saves.stopped
        assert saves.overtaken(99)


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_only_where_allowed(number: signal.Signals) -> None:
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


# --- answering -----------------------------------------------------------------------------------


class PlayedSaves:
    """Saves that come as scripted; `overtaken_after[id]` looks later a newer one is there."""

    def __init__(self, *taken: Taken, overtaken_after: dict[int, int] | None = None) -> None:
        self.script = list(taken)
        self.looks = dict(overtaken_after or {})
        self.ended = self.stopped = False

    def take(self, timeout_s: float) -> Taken:
        self.ended = not self.script
        return self.script.pop(0) if self.script else Taken()

    def newer_than(self, save_id: int) -> bool:
        return self.looks.get(save_id, 1) <= 0

    def moved_on(self, save_id: int, path: Path) -> bool:
        return False

    def overtaken(self, save_id: int) -> bool:
        if save_id in self.looks:
            self.looks[save_id] -= 1
        return self.newer_than(save_id)


def followed(
    model: EditableModel, saves: PlayedSaves, **settings: Any
) -> tuple[Recorder, Tally, EditSession]:
    options = Settings(max_tokens=8, **settings)
    sessions = SessionPool(model, options, 1 << 30)
    recorder, tally = Recorder(), Tally(options.strategy, options.compare)
    context = Context({}, keeps_saved=False, budget_tokens=0, show=str)
    with Interrupts() as interrupts:
        follower = Follower(
            sessions,
            saves,  # type: ignore[arg-type]
            context,
            recorder,
            tally,
            interrupts,
            Renderer(),
        )
        follower.first(AREA, SOURCE)
        follower.follow()
    return recorder, tally, sessions.session("area.py")


AREA = Path("area.py")


def saved(*saves: tuple[int, str] | FailedSave) -> Taken:
    """Return what comes in when a file is saved again and again."""
    return Taken(
        tuple(one if isinstance(one, FailedSave) else Save(one[0], AREA, one[1]) for one in saves)
    )


FIRST = "import math\n" + SOURCE
SECOND = FIRST.replace("size", "extent")


def test_each_save_is_answered_and_compared(tiny_model: EditableModel) -> None:
    saves = PlayedSaves(saved((1, FIRST)), Taken(), saved((2, SECOND)))
    recorder, tally, _ = followed(tiny_model, saves)
    assert recorder.events == [
        ("prediction", 0),
        ("prediction", 1),
        ("comparison",),
        ("prediction", 2),
        ("comparison",),
    ]
    summary = tally.summary()
    assert (summary.saves, summary.predictions, summary.comparisons) == (2, 2, 2)
    assert summary.agreement_pct in {0.0, 50.0, 100.0}
    assert summary.prediction_ms
    assert summary.comparison_ms


def test_a_line_cut_short_by_a_newer_save_is_superseded_and_nothing_is_lost(
    tiny_model: EditableModel,
) -> None:
    saves = PlayedSaves(saved((1, FIRST)), saved((2, SECOND)), overtaken_after={1: 1})
    recorder, tally, session = followed(tiny_model, saves)
    assert recorder.events == [
        ("prediction", 0),
        ("superseded", 1),
        ("prediction", 2),
        ("comparison",),
    ]
    assert (tally.saves, tally.superseded) == (2, 1)
    assert session.text == SECOND


def test_a_comparison_gives_way_to_a_newer_save(tiny_model: EditableModel) -> None:
    options = {"chunk_tokens": 64, "strategy": "full", "at": "end"}
    # More looks than a line has passes: the comparison's second chunk is not begun.
    saves = PlayedSaves(saved((1, FIRST)), saved((2, SECOND)), overtaken_after={1: 9})
    recorder, tally, _ = followed(tiny_model, saves, **options)
    assert recorder.events[1:4] == [("prediction", 1), ("given up",), ("prediction", 2)]
    assert len(tally.comparisons) == 1


def test_without_comparison_none_is_given_up(tiny_model: EditableModel) -> None:
    recorder, tally, _ = followed(tiny_model, PlayedSaves(saved((1, FIRST))), compare="none")
    assert recorder.events == [("prediction", 0), ("prediction", 1)]
    assert tally.summary().agreement_pct is None


def test_failures_are_reported_and_the_next_save_is_answered(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = EditSession.update

    def refusing(session: EditSession, text: str, *rest: Any, **named: Any) -> Prediction:
        if text == "refused":
            raise InputError("line 9 is outside the file")
        return update(session, text, *rest, **named)

    monkeypatch.setattr(EditSession, "update", refusing)
    gone = FailedSave(1, AREA, InputError("there is no file"))
    saves = PlayedSaves(
        saved(gone), saved((2, FIRST), (3, SECOND), (4, "refused")), saved((5, FIRST))
    )
    recorder, tally, _ = followed(tiny_model, saves, compare="none")
    assert recorder.events == [
        ("prediction", 0),
        ("error", 1),
        ("superseded", 2, 3),
        ("error", 4),
        ("prediction", 5),
    ]
    assert (tally.saves, tally.superseded, tally.errors) == (4, 2, 2)


def test_a_spot_survives_that_the_file_shrinks(tiny_model: EditableModel) -> None:
    line = SOURCE.count("\n")
    saves = PlayedSaves(saved((1, "a = 1\n")), saved((2, "")), saved((3, SOURCE)))
    recorder, tally, _ = followed(tiny_model, saves, at=str(line))
    assert tally.errors == 0
    assert [prediction.at.line for prediction in recorder.predictions] == [line, 2, 1, line + 1]


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
        session: EditSession, text: str, on_progress: Callable[[int, int], None], *rest: Any
    ) -> Any:
        def report(done: int, total: int) -> None:
            assert done < total
            signal.raise_signal(signal.SIGTERM)
            on_progress(done, total)

        return open_session(session, text, report, *rest)

    monkeypatch.setattr(EditSession, "open", interrupted)
    recorder = Recorder()
    watched([file], settings, recorder, threading.Event())
    assert recorder.events == [("start",), ("stop",)]


def test_what_cannot_be_watched_is_refused_before_a_model_is_loaded(
    tmp_path: Path, file: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, at in ((tmp_path / "none.py", "end"), (tmp_path / "pipe", "end"), (file, "999")):
        recorder = Recorder()
        with pytest.raises(InputError):
            watched([path], Settings("no/such-model", at=at), recorder, threading.Event())
        assert recorder.events == []


# --- what is printed -----------------------------------------------------------------------------


def told(report: Report, model: EditableModel) -> None:
    """Tell a report of every kind of event."""
    sessions = SessionPool(model, Settings(max_tokens=8), 1 << 30)
    session = sessions.session("area.py")
    tally = Tally("pie", "full")
    report.started(Beginning(("area.py",), ("b.py",), sessions, 0, 12.0))
    report.predicted(session, Save(0, AREA, SOURCE), session.open(SOURCE))
    prediction = session.update(FIRST)
    report.predicted(session, Save(1, AREA, FIRST), prediction)
    comparison = session.compare()
    assert comparison
    report.compared(comparison)
    report.given_up()
    report.superseded((Save(2, AREA, ""), Save(3, Path("b.py"), "")))
    report.failed(FailedSave(4, AREA, InputError("a\x1b[31mb is binary", "mend it")))
    report.dropped((Dropped("b.py", 1_000),), 2_000)
    report.noted(InputError("too many folders", "name one"))
    tally.saves, tally.superseded, tally.errors = 4, 2, 1
    tally.predictions.append(prediction)
    tally.comparisons.append(comparison)
    report.stopped(tally.summary())


def test_text_names_what_happened(
    tiny_model: EditableModel, capsys: pytest.CaptureFixture[str]
) -> None:
    told(TextReport(Renderer()), tiny_model)
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "is binary" in captured.err
    assert "mend it; watching goes on" in captured.err
    for part in ("Watching area.py", "+1 -0 lines", "given up", "2 saves superseded"):
        assert part in captured.out
    end = captured.out[captured.out.index("4 saves, 2 superseded, 1 error") :]
    assert "median of 1" in end
    assert " of 1 comparisons" in end


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
        ("stop", 4),
    ]
    assert [document.get("path") for document in documents] == [
        *["area.py"] * 5,
        "b.py",
        "area.py",
        "b.py",
        None,
        None,
    ]
    stop = documents[-1]
    assert (stop["saves"], stop["superseded"], stop["errors"]) == (4, 2, 1)
    assert set(stop["median_ms"]) == {"prediction", "comparison"}


@pytest.mark.parametrize(("asked", "told"), [(None, WINDOW), (100, 100), (10**9, WINDOW)])
def test_the_window_told_is_the_one_there_is(
    tiny_model: EditableModel, asked: int | None, told: int
) -> None:
    sessions = SessionPool(tiny_model, Settings(context_tokens=asked), 1)
    beginning = Beginning(("area.py",), (), sessions, 0, 1.0)
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
