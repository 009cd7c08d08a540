"""Threads spin while they wait, and leave processors to programs that are at work."""

import subprocess
import sys
from pathlib import Path

import pytest

from pie_cli import threads
from pie_cli.threads import keep_few_kernels, spin_briefly, threads_for, threads_spin

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
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    spin_briefly()
    keep_few_kernels()
    assert threads.os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert not threads_spin()
    assert threads.os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert threads.os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "64"


def test_kernels_for_edits_of_all_sizes_do_not_pile_up() -> None:
    """Bytes that malloc has given out; without a bound they grow by 0.6 MB a shape."""
    program = """
import ctypes, sys
import pie_cli.cli.app
import torch
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
class Given(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]
try:
    told = ctypes.CDLL(None).mallinfo2
    packed = torch.ops.mkldnn._reorder_linear_weight(torch.randn(64, 64), 16)
except (AttributeError, OSError, RuntimeError):
    sys.exit("no way to tell here")
told.restype = Given
def given_out(sizes):
    for rows in sizes:
        torch.ops.mkldnn._linear_pointwise(torch.randn(rows, 64), packed, None, "none", [], "")
    return told().uordblks
before = given_out(range(1, 101))
print(given_out(range(101, 501)) - before)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if "no way to tell" in result.stderr:
        pytest.skip(result.stderr)
    assert int(result.stdout) < 20e6


def _in_a_fresh_process(program: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
    ).stdout.strip()


def test_the_command_line_says_so_before_torch_is_there() -> None:
    program = (
        "import pie_cli.cli.app, os, sys;"
        "assert 'torch' not in sys.modules; print(os.environ['GOMP_SPINCOUNT'])"
    )
    assert _in_a_fresh_process(program) == "100000"


def test_a_library_says_so_as_well() -> None:
    program = "import pie_cli, os; print(os.environ['GOMP_SPINCOUNT'])"
    assert _in_a_fresh_process(program) == "100000"


def test_once_torch_is_there_it_is_too_late_to_spin() -> None:
    program = "import os, torch, pie_cli.cli.app; print('GOMP_SPINCOUNT' in os.environ)"
    assert _in_a_fresh_process(program) == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="only there GNU's runtime is looked for")
@pytest.mark.parametrize("policy", ["PASSIVE", ""])
def test_threads_spin_unless_the_user_wants_them_asleep(policy: str) -> None:
    program = (
        "import pie_cli.cli.app, torch; from pie_cli import threads;"
        "print(threads.threads_spin(), 'libgomp' in open('/proc/self/maps').read())"
    )
    environment = {"OMP_WAIT_POLICY": policy} if policy else {}
    spins, has_gnu = _in_a_fresh_process(program, **environment).split()
    assert spins == str(not policy and has_gnu == "True")
