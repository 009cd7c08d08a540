"""A home of each test's own, with the stores of other tools in their usual places."""

from pathlib import Path

import pytest

from pie_cli.models.stores import package


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder; empty, and no package with a model installed."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for variable in ("OLLAMA_MODELS", "LLAMA_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(package, "installed_models", lambda: iter(()))
    monkeypatch.setattr("pie_cli.models.stores.lookup.installed_models", lambda: iter(()))
    return folder
