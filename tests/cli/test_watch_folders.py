"""`pie watch` on folders and several files: the file saved last is answered, none is lost."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pie_cli.cli.watch import WatchOptions
from pie_cli.config import Settings
from pie_cli.prompt.assembly import ContextFile
from pie_cli.session import EditSession
from pie_cli.watching.files import FileDocuments
from pie_cli.watching.tree import SourceTree
from pie_cli.watching.watcher import watch
from pie_cli.workspace.documents import Change, Documents, Failure
from tests.cli.helpers import LONGEST_S, Recorder, watched
from tests.conftest import SOURCE

# --- a watched folder ----------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path.resolve() / "project"
    (root / "src").mkdir(parents=True)
    (root / "src/a.py").write_text(SOURCE)
    (root / "src/b.py").write_text(SOURCE[:100])
    os.utime(root / "src/b.py", (1_000, 1_000))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def settings(tiny_checkpoint: Path) -> Settings:
    return Settings(str(tiny_checkpoint), "cpu", max_tokens=8, chunk_tokens=64)


def answers(recorder: Recorder) -> list[tuple[int, str, str]]:
    """Return of each prediction its id, the file saved and the file predicted in."""
    return [(event.number, event.saved.as_posix(), event.path) for event in recorder.answered]


def steps(stop: threading.Event, *saves: Callable[[], object]) -> Recorder:
    """Make a report that saves something after each prediction or error, and stops behind them."""
    remaining = [*saves, stop.set]

    def act(event: str) -> None:
        if event.split(maxsplit=1)[0] in ("prediction", "error"):
            remaining.pop(0)()

    return Recorder(act)


def accounted_once(recorder: Recorder) -> list[int]:
    ids = [event.number for event in [*recorder.answered, *recorder.failed] if event.number]
    return sorted(ids + recorder.superseded)


def test_the_file_saved_last_is_predicted_in_also_one_that_is_new(
    root: Path, settings: Settings
) -> None:
    def grow() -> None:
        (root / "src/new").mkdir()
        (root / "src/new/c.py").write_text("x = 1\n")

    stop = threading.Event()
    recorder = steps(
        stop,
        lambda: (root / "src/b.py").write_text(SOURCE[:150]),
        grow,
        lambda: (root / "src/a.py").write_text(f"import math\n{SOURCE}"),
        lambda: (root / "src/b.py").write_text(SOURCE[:200]),
    )
    watched([Path("src")], settings, recorder, stop)
    assert answers(recorder) == [
        (0, "src/a.py", "src/a.py"),
        (1, "src/b.py", "src/b.py"),
        (2, "src/new/c.py", "src/new/c.py"),
        (3, "src/a.py", "src/a.py"),
        (4, "src/b.py", "src/b.py"),
    ]
    reused = [event.prediction.tokens.reused > 0 for event in recorder.answered]
    assert reused == [False, False, False, True, True], "the third and fourth had a session"
    assert recorder.summary
    assert (recorder.summary.predictions, recorder.summary.opened) == (4, 2)
    assert recorder.events.count(("comparison",)) <= 2


def test_a_folder_without_source_waits_for_some(root: Path, settings: Settings) -> None:
    (root / "empty").mkdir()
    stop = threading.Event()

    def act(event: str) -> None:
        if event == "start":
            (root / "empty/x.py").write_text("x = 1\n")
        elif event == "prediction 1":
            stop.set()

    recorder = Recorder(act)
    watched([Path("empty")], settings, recorder, stop)
    assert answers(recorder) == [(1, "empty/x.py", "empty/x.py")]


def test_a_cursor_that_the_newest_file_lacks_is_noted_and_another_save_is_answered(
    root: Path, settings: Settings
) -> None:
    stop = threading.Event()

    def act(event: str) -> None:
        if event.startswith("note"):
            (root / "src/b.py").write_text(SOURCE * 40)
        elif event == "prediction 1":
            stop.set()

    recorder = Recorder(act)
    watched([Path("src")], Settings(settings.model, "cpu", at="999"), recorder, stop)
    assert [event[0] for event in recorder.events] == ["start", "note", "prediction", "stop"]


def test_sessions_beyond_the_bound_of_memory_are_dropped_and_told(
    root: Path, settings: Settings
) -> None:
    stop = threading.Event()
    recorder = steps(
        stop,
        lambda: (root / "src/b.py").write_text(SOURCE[:150]),
        lambda: (root / "src/a.py").write_text(SOURCE + "\n"),
    )
    watched([Path("src")], settings, recorder, stop, WatchOptions(cache_memory="1KB"))
    dropped = [event for event in recorder.events if event[0] == "dropped"]
    assert dropped == [("dropped", "src/a.py"), ("dropped", "src/b.py")]


# --- context -------------------------------------------------------------------------------------


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Collect the file predicted in and the context's paths, of each prediction."""
    seen: list[tuple[str, list[str]]] = []

    def noting(name: str) -> None:
        method = getattr(EditSession, name)

        def noted(session: EditSession, *arguments: object, **named: object) -> object:
            given = named.get("context", arguments[-1])
            assert isinstance(given, Iterable)
            files = [file for file in given if isinstance(file, ContextFile)]
            seen.append((session.path, [f"{file.path}:{file.text}" for file in files]))
            return method(session, *arguments, **named)

        monkeypatch.setattr(EditSession, name, noted)

    noting("open")
    noting("update")
    return seen


def test_files_saved_before_are_context_of_the_next_and_so_are_unanswered_saves(
    root: Path, settings: Settings, contexts: list[tuple[str, list[str]]]
) -> None:
    def two_at_once() -> None:
        (root / "src/a.py").write_text("a = 2\n")
        (root / "src/b.py").write_text("b = 3\n")

    stop = threading.Event()
    recorder = steps(
        stop,
        lambda: (root / "src/b.py").write_text("b = 1\n"),
        lambda: (root / "src/c.py").write_text("c = 1\n"),
        two_at_once,
    )
    watched([Path("src")], settings, recorder, stop, WatchOptions(context_budget=1_000))
    assert contexts[0] == ("src/a.py", [])
    assert contexts[1] == ("src/b.py", [])
    assert contexts[2] == ("src/c.py", ["src/b.py:b = 1\n"])
    last = {"src/b.py:b = 3\n", "src/c.py:c = 1\n", "src/a.py:a = 2\n"}
    assert set(contexts[-1][1]) == {file for file in last if not file.startswith(contexts[-1][0])}
    assert accounted_once(recorder) == [1, 2, 3, 4]


def test_a_context_file_that_is_saved_is_answered_in_the_file_saved_last(
    root: Path, settings: Settings, contexts: list[tuple[str, list[str]]]
) -> None:
    """A context file that vanishes is reported once and left out, and may come back."""
    names = root / "names.txt"
    names.write_text("width\n")
    stop = threading.Event()
    recorder = steps(
        stop,
        lambda: names.write_text("height\n"),
        names.unlink,
        lambda: (root / "src/a.py").write_text(f"{SOURCE}\n"),
        lambda: names.write_bytes(b"\x00"),
        lambda: names.write_text("height\n"),
    )
    options = WatchOptions((Path("names.txt"),))
    watched([Path("src/a.py")], settings, recorder, stop, options)
    assert answers(recorder) == [
        (0, "src/a.py", "src/a.py"),
        (1, "names.txt", "src/a.py"),
        (3, "src/a.py", "src/a.py"),
        (5, "names.txt", "src/a.py"),
    ]
    assert [failed.number for failed in recorder.failed] == [2, 4]
    assert all("left out of the context" in failed.error.remedy for failed in recorder.failed)
    assert recorder.superseded == []
    given = [paths for _, paths in contexts]
    assert given == [["names.txt:width\n"], ["names.txt:height\n"], [], ["names.txt:height\n"]]


def test_context_without_anything_to_predict_in_is_counted_superseded(
    root: Path, settings: Settings
) -> None:
    (root / "empty").mkdir()
    stop = threading.Event()

    def act(event: str) -> None:
        if event == "start":
            (root / "src/a.py").write_text("a = 1\n")
        elif event == "superseded 1":
            stop.set()

    recorder = Recorder(act)
    watched([Path("empty")], settings, recorder, stop, WatchOptions((Path("src/a.py"),)))
    assert accounted_once(recorder) == [1]
    assert recorder.answered == []


# --- branch switches -----------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@e", *arguments]
    subprocess.run(command, check=True, capture_output=True, env=environment)


@pytest.fixture
def repository(root: Path) -> Path:
    """Two branches, with files and folders that the other one lacks or has otherwise."""
    git(root, "init", "-q", "-b", "one")
    for branch in ("one", "two"):
        for number in range(8):
            (root / f"src/f{number}.py").write_text(f"# {branch}\n" + SOURCE[: 40 * number + 40])
        (root / branch / "deep").mkdir(parents=True)
        (root / branch / "deep/g.py").write_text(f"{branch} = 1\n")
        git(root, "add", "-A")
        git(root, "commit", "-qm", branch)
        if branch == "one":
            git(root, "checkout", "-q", "-b", "two")
            git(root, "rm", "-rq", "one")
    git(root, "checkout", "-q", "one")
    return root


def sources(root: Path) -> dict[str, str]:
    """Return what is on disk."""
    return {
        path.relative_to(root).as_posix(): path.read_text() for path in sorted(root.rglob("*.py"))
    }


def test_a_branch_switched_20_times_gives_each_save_once_and_the_texts_on_disk(
    repository: Path,
) -> None:
    """The documents alone: what they say of the files is what is there, after each switch."""
    stop = threading.Event()
    timer = threading.Timer(LONGEST_S, stop.set)
    timer.start()
    changes = watch([], stop=stop, trees=[SourceTree(Path())])
    documents = Documents(stop)
    ids: list[int] = []
    for path, text in sources(repository).items():
        documents.open(Path(path), text)

    def told() -> dict[str, str]:
        known = (documents.get(path) for path in documents.paths())
        return {one.path.as_posix(): one.text for one in known if one is not None}

    with FileDocuments(changes, documents):
        for number in range(20):
            git(repository, "checkout", "-q", "two" if number % 2 == 0 else "one")
            wanted = sources(repository)
            while told() != wanted and not documents.stopped:
                for item in documents.take(LONGEST_S).items:
                    assert not isinstance(item, Failure)
                    if isinstance(item, Change):
                        ids.append(item.number)
                        documents.settle(item.number)
            assert told() == wanted
    timer.cancel()
    timer.join()
    ids += [change.number for change in documents.unsettled()]
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) >= 20 * 9


def test_a_branch_switched_20_times_is_answered_and_each_save_accounted_for(
    repository: Path, settings: Settings
) -> None:
    """The whole watch: the next switch comes when a text of the last one is answered."""
    stop = threading.Event()
    switches = list(("two", "one") * 10)

    def act(event: str) -> None:
        if event.startswith("prediction"):
            newest = recorder.answered[-1].document
            wanted = sources(repository).get(newest.path.as_posix())
            if newest.text != wanted:
                return
            if switches:
                git(repository, "checkout", "-q", switches.pop(0))
            else:
                stop.set()

    recorder = Recorder(act)
    watched([Path()], settings, recorder, stop, WatchOptions(cache_memory="200KB"))
    assert not switches
    ids = accounted_once(recorder)
    summary = recorder.summary
    assert summary
    assert ids == list(range(1, summary.saves + 1))
    assert summary.saves >= 20
    assert summary.predictions > 0
    assert summary.superseded == summary.saves - summary.predictions
    assert summary.errors == 0
