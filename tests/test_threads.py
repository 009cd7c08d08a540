"""Threads wait asleep, and leave a processor to programs that are at work."""

import subprocess
import sys
from pathlib import Path

import pytest

from pie_cli import threads
from pie_cli.threads import threads_for, wait_passively

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("load", "asked", "expected"),
    [(0.0, None, 4), (0.4, None, 4), (1.0, None, 3), (9.0, None, 3), (9.0, 4, 4), (0.0, 1, 1)],
)
def test_one_core_is_left_to_others(
    monkeypatch: pytest.MonkeyPatch, load: float, asked: int | None, expected: int
) -> None:
    monkeypatch.setattr(threads.os, "getloadavg", lambda: (load, load, load))
    assert threads_for(4, asked) == expected


def test_one_thread_is_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads.os, "getloadavg", lambda: (5.0, 5.0, 5.0))
    assert threads_for(1) == 1


def test_where_the_load_is_not_known_all_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise OSError

    monkeypatch.setattr(threads.os, "getloadavg", unknown)
    assert threads_for(4) == 4


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_passively()
    assert threads.os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


def test_the_command_line_says_so_before_torch_is_there() -> None:
    program = (
        "import pie_cli.cli.app, os, sys;"
        "assert 'torch' not in sys.modules and os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'"
    )
    environment = {"PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, env=environment)
