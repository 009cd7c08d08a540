"""The `pie` command before any command runs: help, and Ctrl-C while modules are imported."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import get_args, get_type_hints

import click
import pytest
import typer
from typer.testing import CliRunner

from pie_cli.cli.app import app, importing
from pie_cli.errors import ExitCode

NAMES = ["watch", "complete", "bench", "eval", "demo", "doctor", "lsp", "serve", "config", "models"]


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_describes_each_command_in_whole_sentences(option: str) -> None:
    result = CliRunner().invoke(app, [option], terminal_width=80)
    assert result.exit_code == 0
    commands = result.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in commands] == NAMES
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


def test_help_names_arguments_as_the_documentation_does() -> None:
    assert " PATH " in CliRunner().invoke(app, ["watch", "--help"]).stdout
    assert " FILE " in CliRunner().invoke(app, ["complete", "--help"]).stdout


def test_ctrl_c_during_imports_ends_the_process_also_within_a_destructor() -> None:
    program = """
import os, signal
from pie_cli.cli.app import importing
# A background job of a shell inherits an interrupt that is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
class Gone:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
with importing():
    del_me = Gone()
    del del_me
print("still here")
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == -signal.SIGINT
    assert result.stdout + result.stderr == ""


def test_what_is_imported_first_is_never_looked_through_for_garbage() -> None:
    program = """
import gc, sys, types
from pie_cli.cli.starting import import_ms, importing
with importing():
    assert not gc.isenabled()
assert gc.isenabled() and gc.get_freeze_count() == 0
with importing():
    sys.modules["torch"] = types.ModuleType("torch")
frozen = gc.get_freeze_count()
assert gc.isenabled() and frozen > 0 and import_ms() > 0
with importing():
    kept = [[] for _ in range(1_000)]
# Later objects are the process's own, and may become garbage.
assert gc.get_freeze_count() == frozen
gc.disable()
with importing():
    pass
assert not gc.isenabled()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


class Stream(StringIO):
    """Stderr, as a terminal or none."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.mark.parametrize(
    ("is_terminal", "is_first", "is_quiet", "shown"),
    [
        (True, True, False, True),
        (False, True, False, False),
        (True, False, False, False),
        (True, True, True, False),
    ],
)
def test_a_terminal_shows_what_the_first_seconds_are_for(
    is_terminal: bool,
    is_first: bool,
    is_quiet: bool,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = Stream(is_terminal=is_terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("pie_cli.cli.logs.is_quiet", lambda: is_quiet)
    monkeypatch.setitem(sys.modules, "torch", sys)
    if is_first:
        monkeypatch.delitem(sys.modules, "torch")
    with importing():
        assert stream.getvalue() == "importing torch and transformers\r" * shown
    if shown:
        label, over, _ = stream.getvalue().split("\r")
        assert over == " " * len(label)


def test_a_package_that_does_not_load_is_two_lines_on_stderr() -> None:
    program = f"""
import sys
sys.modules["torch"] = None
sys.argv = ["pie", "complete", {__file__!r}]
from pie_cli.cli.app import main
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.returncode == ExitCode.FAILURE
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 2
    assert "torch" in result.stderr
    assert "install pie again" in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_models_names_are_completed_however_pie_is_run(shell: str) -> None:
    typed = "pie watch --model smollm2-13"
    environment = {
        "_PIE_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": typed,
        "COMP_CWORD": "3",
    }
    assert "smollm2-135m" in pie("", **environment).stdout
    assert pie("--help").stdout.startswith("Usage: ")


def pie(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `pie` by a shell, for its redirections."""
    return subprocess.run(
        ["sh", "-c", f'"$0" -m pie_cli {command}', sys.executable],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--version", "--help", "watch --help", "models --json"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_after_stdout_is_two_lines_on_stderr(command: str, unbuffered: str) -> None:
    result = pie(f"{command} >/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert result.returncode == ExitCode.FAILURE
    assert result.stderr.splitlines()[0].startswith("pie: the output cannot be written: No space")
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize("command", ["--version", "complete --json x.py", "watch x.py"])
def test_a_closed_stdout_is_a_failure_before_anything_is_done(command: str) -> None:
    result = pie(f"{command} >&-")
    assert result.returncode == ExitCode.FAILURE
    assert result.stderr.splitlines()[0].startswith("pie: stdout is closed")


def test_ctrl_c_is_given_back_behind_the_imports() -> None:
    before = signal.getsignal(signal.SIGINT)
    with importing():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_done_goes_to_a_file_or_to_stderr_only_where_asked(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("area.py").write_text("x = 1\n")
    command = ["complete", "area.py", "-m", str(tiny_checkpoint), "--max-tokens", "1"]

    def said(*options: str) -> str:
        result = CliRunner().invoke(app, [*options, *command])
        assert result.exit_code == 0, result.output
        return result.stderr

    assert "loaded" in said("--verbose")
    assert "loaded" not in said()
    assert "loaded" not in said("--log-file", "log.txt")
    assert "loaded" in Path("log.txt").read_text()
    refused = CliRunner().invoke(app, ["--log-file", "no/such/folder", *command])
    assert refused.exit_code == ExitCode.INPUT
    assert refused.stderr.startswith("pie: cannot write no/such/folder")


def whole_numbers(command: click.Command) -> Iterator[str]:
    """Give the options of a command that take a whole number."""
    hints = get_type_hints(command.callback)
    for parameter in command.params:
        if int in (hint := hints.get(parameter.name), *get_args(hint)):
            yield parameter.opts[0]


def number_options() -> Iterator[list[str]]:
    group = typer.main.get_group(app)
    for name, command in group.commands.items():
        arguments = ["x.py"] if name == "watch" else []
        for option in whole_numbers(command):  # type: ignore[arg-type]
            yield [name, *arguments, option]


@pytest.mark.parametrize("option", [*number_options()], ids=" ".join)
@pytest.mark.parametrize("value", ["nan", "inf", "1.5", "many"])
def test_what_is_no_whole_number_is_refused_in_our_words(option: list[str], value: str) -> None:
    result = CliRunner().invoke(app, [*option, value])
    assert result.exit_code == ExitCode.INPUT
    assert result.stderr == (
        f"pie: the value of {option[-1]} is no number\n     it must be a whole number\n"
    )


def test_every_option_with_a_number_is_among_these() -> None:
    found = [" ".join(option) for option in number_options()]
    assert {"complete --latency", "bench --repeats", "serve --port", "eval --seed"} <= {*found}
    assert len(found) > 30


@pytest.mark.parametrize("command", ["watch", "complete --no-such-option"])
def test_an_unknown_option_or_a_missing_argument_shows_the_usage(command: str) -> None:
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith("Usage: ")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("serve --port 99999", "--port is 99999"),
        ("serve --port -1", "--port is -1"),
        ("lsp --port 99999", "--port is 99999"),
        ("lsp --pause-ms -1", "--pause-ms is -1"),
    ],
)
def test_a_number_out_of_its_range_is_named_with_its_option(command: str, message: str) -> None:
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == ExitCode.INPUT
    assert result.stderr.startswith(f"pie: {message}\n     it must be at ")
