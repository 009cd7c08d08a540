"""`pie doctor`: the report, its JSON, and the exit code that tells whether a model is usable."""

import json
from pathlib import Path
from typing import NoReturn

import pytest
from transformers import GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner, Result

from pie_cli.cli.app import app
from pie_cli.cli.models import advice, open_model
from pie_cli.cli.render import Renderer
from pie_cli.config import Settings
from pie_cli.errors import ExitCode, ModelError
from pie_cli.models.machine import examine
from pie_cli.models.nano.recipe.tokenizer import save_tokenizer, train_tokenizer
from pie_cli.models.stores.trees import own_folder
from tests.conftest import SOURCE, WINDOW
from tests.models.stores.making import gguf


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "--device", "cpu", *arguments])


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


@pytest.fixture
def gpt2(tmp_path: Path) -> Path:
    """A model whose positions are learned."""
    folder = tmp_path / "gpt2"
    tokenizer = train_tokenizer(iter([SOURCE] * 8), 320)
    save_tokenizer(tokenizer, folder, WINDOW)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=WINDOW,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_a_model_that_passes_is_described(tiny_checkpoint: Path):
    result = doctor("--model", str(tiny_checkpoint))
    assert result.exit_code == ExitCode.OK, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    for label in ("pie", "packages", "cpu", "memory", "models in", "window", "FIM", "key error"):
        assert any(line.startswith(f"{label} ") for line in lines), label
    (layers,) = [line for line in lines if line.startswith("layers 0-2")]
    assert "half-split, 16 dimensions, base 10,000" in layers
    assert any("edited in place" in line for line in lines)
    assert any(line.startswith("A save costs about ") for line in lines)
    assert "pie watch FILE --model" in lines[-1]


@pytest.mark.parametrize("there", [True, False])
def test_a_model_that_is_there_is_not_to_be_pulled(
    there: bool, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("pie_cli.models.stores.lookup.installed_models", lambda: iter(()))
    for module in ("doctor", "models"):
        monkeypatch.setattr(f"pie_cli.cli.{module}.advised_on", lambda _: "smollm2-135m")
    if there:
        gguf(own_folder() / "smollm2-135m.gguf")
    last = doctor("--model", str(tiny_checkpoint)).stdout.splitlines()[-1].strip()
    watch = "`pie watch FILE --model smollm2-135m`."
    pulled = f"smollm2-135m: `pie models pull smollm2-135m`, then {watch}"
    assert last == (f"smollm2-135m, which is on this disk: {watch}" if there else pulled)
    assert ("pull" in advice()) is not there


@pytest.mark.parametrize(("gains", "pays"), [((1.5, 2.0, 3.0), True), ((1.5, 0.9, 3.0), False)])
def test_bfloat16_is_advised_where_it_is_faster_throughout(
    gains: tuple[float, ...], pays: bool, gpt2: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pie_cli.cli.doctor.bfloat16_gains", lambda: gains)
    output = doctor("--model", str(gpt2)).stdout
    assert f"{gains[0]}, {gains[1]}, {gains[2]} times as fast as float32" in output
    assert ("--dtype bfloat16 answers sooner" in output) is pays
    assert ("so float32, the default, is right here" in output) is not pays


def test_json_is_one_document_with_the_same_facts(tiny_checkpoint: Path):
    result = doctor("--model", str(tiny_checkpoint), "--json")
    assert result.exit_code == ExitCode.OK, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == "pie/1"
    assert (document["usable"], document["error"]) == (True, None)
    assert {"pie", "python", "torch", "transformers"} <= set(document["machine"]["versions"])
    assert set(document["machine"]["bfloat16_gain"]) == {"1", "16", "256"}
    model = document["model"]
    assert model["on_disk"]["state"] == "complete"
    assert model["loaded"]["window_tokens"] == WINDOW
    assert model["diagnosis"]["editable"] is True
    assert model["diagnosis"]["rope"][0]["layers"] == [[0, 2]]
    assert set(model["diagnosis"]["key_error"]) >= {"1", "37"}


def test_what_cannot_be_edited_runs_exactly_and_the_reason_is_given(gpt2: Path):
    result = doctor("--model", str(gpt2))
    assert result.exit_code == ExitCode.OK, result.stderr
    assert "So pie runs exact, by prefix." in result.stdout
    reasons = ("no known rotation explains layer 0", "no layer rotates")
    assert any(reason in result.stdout for reason in reasons)
    assert "key error" not in result.stdout


def test_a_model_that_is_not_here_is_not_downloaded(empty_cache: Path):
    result = doctor("--model", "deepseek-coder-1.3b")
    assert result.exit_code == ExitCode.MODEL
    assert "at hand       no" in result.stdout
    assert "pie models pull deepseek-coder-1.3b" in result.stderr
    assert not empty_cache.exists()


def test_a_failure_is_in_the_json_too(empty_cache: Path):
    result = doctor("--model", "deepseek-coder-1.3b", "--json")
    assert result.exit_code == ExitCode.MODEL
    document = json.loads(result.stdout)
    assert document["usable"] is False
    assert "not on this disk" in document["error"]["cause"]
    assert "pull" in document["error"]["remedy"]
    assert document["model"]["diagnosis"] is None
    assert document["model"]["on_disk"]["state"] == "absent"


def test_a_part_of_a_model_is_called_so(empty_cache: Path):
    blobs = empty_cache / "models--owner--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.pie-part").write_bytes(bytes(100))
    result = doctor("--model", "owner/model")
    assert result.exit_code == ExitCode.MODEL
    assert "only a part of owner/model" in result.stderr


def test_a_folder_without_a_model_is_two_lines(tmp_path: Path):
    result = doctor("--model", str(tmp_path))
    assert result.exit_code == ExitCode.MODEL
    assert "has no config.json" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_a_name_that_means_nothing_leaves_the_machine_s_facts(tmp_path: Path):
    result = doctor("--model", "./nowhere")
    assert result.exit_code == ExitCode.MODEL
    assert "This machine" in result.stdout
    assert "there is no folder" in result.stderr


def test_the_machine_is_examined_without_writing(empty_cache: Path):
    machine = examine()
    assert machine.cache.folder == empty_cache
    assert machine.cache.free_bytes is not None
    assert machine.threads >= 1
    assert not empty_cache.exists()


def test_a_cache_that_cannot_be_written_is_told(empty_cache: Path, monkeypatch: pytest.MonkeyPatch):
    """By the system's word: a folder's mode means nothing to root, who may run the tests."""
    asked: list[Path] = []
    monkeypatch.setattr("os.access", lambda path, _mode: asked.append(path) or False)
    result = doctor("--model", "owner/model")
    assert "not writable: set HF_HOME" in result.stdout
    assert asked == [empty_cache.parent]


def test_progress_names_the_model_that_auto_stands_for(monkeypatch: pytest.MonkeyPatch):
    titles: list[str] = []

    def progress(_renderer: Renderer, title: str) -> NoReturn:
        titles.append(title)
        raise ModelError("that is enough")

    monkeypatch.setattr(Renderer, "progress", progress)
    monkeypatch.setattr("pie_cli.cli.models.best_at_hand", lambda: "pie-nano")
    for model in ("auto", "owner/model"):
        with pytest.raises(ModelError):
            open_model(Settings(model), Renderer())
    assert titles == ["loading pie-nano", "loading owner/model"]


def test_long_values_wrap_in_their_column_on_a_terminal(capsys: pytest.CaptureFixture[str]):
    renderer = Renderer()
    renderer.out._force_terminal = True
    renderer.out.width = 40
    renderer.facts("Title", [("label", "word " * 20), ("other", "short")])
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert sum("word" in line for line in lines) > 2
    assert not any(line.startswith("word") for line in lines)
