"""`pie demo`: real edits of a real file, which is gone at the end, whatever ends it."""

import ast
import signal
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest

from pie_cli.cli import demo
from pie_cli.cli.demo_script import EDITS, texts
from pie_cli.config import Settings
from pie_cli.session import EditSession


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def settings(tiny_checkpoint: Path) -> Settings:
    return Settings(str(tiny_checkpoint), "cpu", max_tokens=4)


def test_every_text_is_python_up_to_its_unfinished_end() -> None:
    for text in texts():
        ast.parse(f"{text}            pass\n")
        with pytest.raises(SyntaxError):
            ast.parse(text)


def test_every_edit_changes_the_text_and_the_last_one_undoes_them() -> None:
    states = texts()
    assert len(states) == len(EDITS) + 1
    assert all(before != after for before, after in pairwise(states))
    assert states[-1] == states[0]


def test_it_shows_every_edit_and_ends_by_itself(
    folder: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.run(settings)
    out = capsys.readouterr().out
    for number, edit in enumerate(EDITS, 1):
        assert f"Edit {number} of {len(EDITS)}: {edit.what}" in out
    assert f"\n{len(EDITS)} saves\n" in out
    assert f" of {len(EDITS)} comparisons" in out
    assert "Ended before" not in out
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_file_behind(
    folder: Path,
    settings: Settings,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    compare = EditSession.compare

    def interrupted(session: EditSession, *rest: object) -> object:
        assert list(folder.glob("pie-demo-*/*.py"))
        signal.raise_signal(number)
        return compare(session)

    monkeypatch.setattr(EditSession, "compare", interrupted)
    demo.run(settings)
    out = capsys.readouterr().out
    assert "\n1 save\n" in out
    assert "Ended before all" in out
    assert list(folder.iterdir()) == []


def test_it_ends_when_time_is_up(
    folder: Path,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "_LONGEST_S", 0)
    monkeypatch.setattr(demo.Editor, "_edit", lambda editor: None)
    demo.run(settings)
    out = capsys.readouterr().out
    assert "Ended before all" in out
    assert "pie demo --model pie-nano" in out
    assert list(folder.iterdir()) == []
