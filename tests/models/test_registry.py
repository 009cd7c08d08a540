"""What names mean."""

import os
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from pie_cli.errors import ModelError
from pie_cli.models.registry import (
    ALIASES,
    EMBEDDED,
    EMBEDDED_FOLDER,
    SHAPES,
    Origin,
    resolve,
    shape_of,
)


def test_the_embedded_model_is_a_folder_of_the_package():
    source = resolve(EMBEDDED)
    assert source.origin is Origin.EMBEDDED
    assert Path(source.location) == EMBEDDED_FOLDER
    assert EMBEDDED_FOLDER.name == "nano"


def test_aliases_stand_for_the_base_models_on_the_hub():
    for size in ("1.3b", "6.7b", "33b"):
        source = resolve(f"deepseek-coder-{size}")
        assert source.origin is Origin.HUB
        assert source.location == f"deepseek-ai/deepseek-coder-{size}-base"
        assert source.name == f"deepseek-coder-{size}"


def test_a_folder_goes_before_the_hub_and_an_alias_before_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "owner" / "model").mkdir(parents=True)
    (tmp_path / EMBEDDED).mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/model").origin is Origin.FOLDER
    assert resolve(EMBEDDED).origin is Origin.EMBEDDED
    assert resolve(f"./{EMBEDDED}").origin is Origin.FOLDER
    assert resolve("owner/other").origin is Origin.HUB


def test_the_home_folder_is_spelled_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/model").location == str(tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["./nowhere", "/no/where", "~/nowhere", "a/b/c", "../no-such-folder", "\\a\\b"]
)
def test_a_path_that_is_not_there_is_named(name: str):
    with pytest.raises(ModelError, match="there is no folder") as caught:
        resolve(name)
    assert name in caught.value.cause
    assert EMBEDDED in caught.value.remedy
    assert "folder" in caught.value.remedy


def test_a_gguf_file_that_is_not_there_is_no_name_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "dangling.gguf").symlink_to("nowhere")
    for name in ("gone.gguf", "dangling.gguf", "models/gone.GGUF"):
        with pytest.raises(ModelError, match=f"there is no file {name}"):
            resolve(name)
    assert resolve("owner/model.gguf").origin is Origin.HUB


@pytest.mark.parametrize(
    "name", ["", " ", "two words", "-flag", "name\n", "naïve", "x" + "\x1b[2J"]
)
def test_what_is_no_name_is_refused_without_raw_control_characters(name: str):
    with pytest.raises(ModelError, match="no model's name") as caught:
        resolve(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["x" * 300, "~nosuchuser/x", "~/x"])
def test_what_cannot_be_a_path_is_refused_as_any_name(name: str, monkeypatch: pytest.MonkeyPatch):
    """Also where nobody has a home."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(ModelError):
        resolve(name)


def test_control_characters_of_a_path_are_not_shown_raw():
    with pytest.raises(ModelError, match="there is no folder") as caught:
        resolve("./\x1b[2J")
    assert str(caught.value).isprintable()


def test_a_file_is_a_model_in_gguf_or_none(tmp_path: Path):
    file = tmp_path / "model.bin"
    file.write_bytes(b"PK\3\4")
    with pytest.raises(ModelError, match="is a file, and no GGUF") as caught:
        resolve(str(file))
    assert "config.json" in caught.value.remedy
    # By its name, or by how it begins: Ollama's files have no ending.
    named, begun = tmp_path / "model.gguf", tmp_path / "sha256-0123"
    named.touch()
    begun.write_bytes(b"GGUF")
    for path in (named, begun):
        source = resolve(str(path))
        assert (source.origin, source.location) == (Origin.GGUF, str(path))


def test_a_shape_is_found_by_alias_and_by_hub_name_only():
    for alias, shape in SHAPES.items():
        assert shape_of(resolve(alias)) is shape_of(resolve(ALIASES[alias])) is shape
    with pytest.raises(ModelError, match="no shape") as caught:
        shape_of(resolve(EMBEDDED))
    assert "pie models" in caught.value.remedy


@pytest.mark.parametrize(
    "name", ["a--b", "x/y--z", "owner/model.", "owner-/model", "model-", "m.git", "m" * 97, "a/..b"]
)
def test_what_the_hub_s_client_would_not_take_is_no_hub_name(name: str):
    with pytest.raises(HFValidationError):
        validate_repo_id(name)
    with pytest.raises(ModelError):
        resolve(name)


@pytest.mark.parametrize(
    "name", ["gpt2", "owner/model", "o-w/m.0_B-x", "Qwen/Qwen2.5-Coder-7B", "a/b"]
)
def test_what_it_takes_is_one(name: str):
    validate_repo_id(name)
    assert resolve(name).origin is Origin.HUB


@pytest.mark.parametrize("name", ["model", "model.gguf", "model.safetensors"])
def test_a_pipe_is_no_model(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(name)
    with pytest.raises(ModelError, match="neither a file nor a folder"):
        resolve(name)
