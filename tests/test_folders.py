"""The user's own folders, also where nobody knows whose they would be."""

import pwd
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pie_cli import folders
from pie_cli.cli.app import app
from tests.conftest import SOURCE


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user that the system does not know."""

    def nobody(_: object) -> None:
        raise KeyError("no such user")

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(pwd, "getpwnam", nobody)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    "find", [folders.home, folders.cache_folder, folders.config_folder, folders.data_folder]
)
def test_nobody_s_folder_leads_nowhere(find) -> None:
    folder = find()
    assert folder.is_absolute()
    assert not folder.is_dir()
    with pytest.raises(OSError, match=r"."):
        (folder / "x").mkdir(parents=True)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("command", ["complete", "models", "config", "doctor"])
def test_every_command_does_without_a_home(
    command: str, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    model = ["--model", str(tiny_checkpoint), "--device", "cpu"]
    arguments = {"complete": [str(tmp_path / "a.py"), *model], "doctor": model}
    result = CliRunner().invoke(app, [command, *arguments.get(command, [])])
    assert result.exit_code == 0, result.output


def test_a_home_that_is_known_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.home() == tmp_path
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert folders.data_folder() == tmp_path / "data" / "pie"
