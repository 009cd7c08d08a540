"""`pie models`: the table, its JSON, and downloads."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pie_cli.cli import catalog
from pie_cli.cli.app import app
from pie_cli.errors import ExitCode, ModelError
from pie_cli.models import hub
from pie_cli.models.cache import OnDisk, Presence
from pie_cli.models.known import KNOWN


def models(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def listed(*arguments: str) -> dict[str, dict]:
    result = models("--json", "--device", "cpu", *arguments)
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == "pie/1"
    return {entry["name"]: entry for entry in document["models"]}


def test_the_table_names_every_model_and_fits_80_columns(empty_cache: Path):
    result = models("--device", "cpu")
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if str(empty_cache) not in line]
    assert max(map(len, lines)) <= 80
    assert not any(line != line.rstrip() for line in lines)
    names = [line.split()[0] for line in lines if line]
    assert names[1 : len(KNOWN) + 2] == ["pie-nano", *KNOWN]


def test_a_narrow_terminal_gets_fewer_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(catalog.Renderer, "columns", 60)
    catalog.run(4_096, "cpu", as_json=False)
    table = capsys.readouterr().out.splitlines()[: len(KNOWN) + 2]
    assert max(map(len, table)) <= 60
    assert "licence" not in table[0]


def test_json_has_what_a_program_needs_to_choose():
    entry = listed()["deepseek-coder-1.3b"]
    assert entry["hub_name"] == "deepseek-ai/deepseek-coder-1.3b-base"
    assert entry["window_tokens"] == 16_384
    assert entry["fim"] is True
    assert entry["needs"]["bfloat16"]["weights_bytes"] == 2 * entry["parameters"]
    assert entry["on_disk"] == {"state": "absent", "size_bytes": 0, "folder": None}


def test_the_cache_follows_the_context_up_to_the_window():
    short, long = listed("--context-tokens", "1000"), listed("--context-tokens", "2000")
    assert {name: entry["context_tokens"] for name, entry in short.items()} == dict.fromkeys(
        short, 1_000
    )
    for name, entry in short.items():
        twice = long[name]["needs"]["float32"]["cache_bytes"]
        assert twice == 2 * entry["needs"]["float32"]["cache_bytes"]
    windows = listed("--context-tokens", "1000000")
    assert windows["granite-code-3b"]["context_tokens"] == 2_048


def test_what_fits_depends_on_the_free_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(catalog, "available_bytes", lambda _: 8_000_000_000)
    entries = listed()
    assert entries["deepseek-coder-1.3b"]["fits"] == ["float32", "bfloat16"]
    assert entries["qwen2.5-coder-3b"]["fits"] == ["bfloat16"]
    assert entries["deepseek-coder-6.7b"]["fits"] == []
    monkeypatch.setattr(catalog, "available_bytes", lambda _: None)
    assert listed()["pie-nano"]["fits"] is None
    assert " ?" in models().stdout


def test_the_embedded_model_is_always_there():
    entry = listed()["pie-nano"]
    assert entry["on_disk"]["state"] == "complete"
    assert entry["hub_name"] is None
    assert entry["parameters"] > 1_000_000


@pytest.mark.parametrize("tokens", ["0", "-5"])
def test_no_context_is_refused(tokens: str):
    result = models("--context-tokens", tokens)
    assert result.exit_code == ExitCode.INPUT
    assert "at least 1" in result.stderr


# --- pull ---------------------------------------------------------------------------------------


def test_a_download_ends_with_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setattr(hub, "fetch", lambda repo_id, **_: asked.append(repo_id) or tmp_path)
    found = OnDisk(Presence.COMPLETE, tmp_path, 2_700_000_000)
    monkeypatch.setattr(catalog, "look_up", lambda _: found)
    result = models("pull", "deepseek-coder-1.3b")
    assert result.exit_code == 0, result.stderr
    assert asked == ["deepseek-ai/deepseek-coder-1.3b-base"]
    assert result.stdout == f"deepseek-coder-1.3b is complete: 2.7 GB in {tmp_path}\n"


def test_what_is_embedded_needs_no_hub(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: pytest.fail("asked the hub"))
    result = models("pull", "pie-nano")
    assert result.exit_code == 0, result.stderr
    assert "pie-nano is complete" in result.stdout


def test_a_hub_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch):
    def unreachable(repo_id: str, **_: object) -> Path:
        raise ModelError(f"the model hub is not in reach and {repo_id} is not here", "wait")

    monkeypatch.setattr(hub, "fetch", unreachable)
    result = models("pull", "starcoder2-3b")
    assert result.exit_code == ExitCode.MODEL
    assert "not in reach" in result.stderr
    assert result.stdout == ""


def test_a_part_that_the_hub_cannot_complete_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hub, "fetch", lambda *_, **__: tmp_path)
    found = OnDisk(Presence.PARTIAL, tmp_path, 1_200_000_000)
    monkeypatch.setattr(catalog, "look_up", lambda _: found)
    result = models("pull", "starcoder2-3b")
    assert result.exit_code == ExitCode.MODEL
    assert "1.2 GB of it are here" in result.stderr
    assert "pie models pull starcoder2-3b" in result.stderr


def test_ctrl_c_says_that_the_next_pull_goes_on(monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object, **__: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "fetch", interrupted)
    result = models("pull", "starcoder2-3b")
    assert result.exit_code == 130
    assert "goes on from it" in result.stderr


def test_a_name_that_cannot_be_pulled(tmp_path: Path):
    result = models("pull", "no such model")
    assert result.exit_code == ExitCode.MODEL
    assert "no model's name" in result.stderr
