"""The hub, without a hub: its client's answers are played."""

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HFValidationError

from pie_cli.errors import ModelError
from pie_cli.models import hub
from pie_cli.models.loading import load
from pie_cli.models.registry import EMBEDDED

FILES = [
    ".gitattributes",
    "README.md",
    "config.json",
    "modeling_own.py",
    "onnx/model.safetensors",
    "pytorch_model.bin",
    "tokenizer.json",
]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the hub says: `files` or `error`; `asked` is what was downloaded."""
    state = SimpleNamespace(files=[*FILES, "model.safetensors"], error=None, folder="", asked=None)

    def model_info(
        self: object, repo_id: str, timeout: float, files_metadata: bool
    ) -> SimpleNamespace:
        assert 0 < timeout <= 30
        assert files_metadata
        if state.error:
            raise state.error
        siblings = [SimpleNamespace(rfilename=name, lfs=None) for name in state.files]
        return SimpleNamespace(siblings=siblings, sha="0" * 40)

    def snapshot_download(repo_id: str, allow_patterns: list[str], **_: object) -> str:
        state.asked = allow_patterns
        if isinstance(state.folder, Exception):
            raise state.folder
        return str(state.folder)

    monkeypatch.setattr(hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    return state


def test_a_hub_model_loads_like_a_folder(answers: SimpleNamespace, checkpoint: Path):
    answers.folder = checkpoint
    loaded = load("owner/model", device="cpu")
    assert loaded.name == "owner/model"
    assert answers.asked == ["config.json", "model.safetensors", "tokenizer.json"]


def test_code_is_downloaded_only_when_it_may_run():
    assert "modeling_own.py" not in hub.wanted_files(FILES)
    assert "modeling_own.py" in hub.wanted_files(FILES, with_code=True)


def test_shards_are_downloaded_with_their_index_and_nothing_twice():
    names = [*FILES, "model.safetensors.index.json", "consolidated.safetensors"]
    names += ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert hub.wanted_files(names) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ]


def test_a_repository_with_pickles_only_is_refused_before_the_download(answers: SimpleNamespace):
    answers.files = FILES
    with pytest.raises(ModelError, match="no weights in safetensors"):
        load("owner/model", device="cpu")
    assert answers.asked is None


def test_no_hub_in_reach_names_what_works_without_one(answers: SimpleNamespace):
    answers.error = ConnectionError("no route")
    with pytest.raises(ModelError, match="not in reach") as caught:
        load("deepseek-coder-1.3b", device="cpu")
    assert EMBEDDED in caught.value.remedy
    assert "local folder" in caught.value.remedy


def test_without_the_hub_the_cached_copy_serves(
    answers: SimpleNamespace, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    answers.error = ConnectionError("no route")
    config = str(checkpoint / "config.json")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: config)
    assert load("owner/model", device="cpu").name == "owner/model"
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no model"):
        load("owner/model", device="cpu")


def test_a_name_that_the_hub_would_not_take(answers: SimpleNamespace):
    answers.error = HFValidationError("bad")
    with pytest.raises(ModelError, match="there is no model owner/model"):
        load("owner/model", device="cpu")


def test_a_full_disk_is_called_by_its_name(answers: SimpleNamespace):
    answers.folder = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ModelError, match=r"cannot be stored in .*: No space left") as caught:
        load("owner/model", device="cpu")
    assert caught.value.remedy == "make room there, or point HF_HOME at another place"
