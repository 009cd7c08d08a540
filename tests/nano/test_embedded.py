"""The embedded model: small, whole, loadable by anyone, and as its card says."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pie_cli.errors import ModelError
from pie_cli.models import loading, registry
from pie_cli.models.loading import load
from pie_cli.models.nano.recipe.corpus import is_held_out, is_permissive
from pie_cli.models.registry import EMBEDDED_FOLDER

MAX_BYTES = 40_000_000
CARD = EMBEDDED_FOLDER / "README.md"


def test_it_is_small() -> None:
    files = [path for path in EMBEDDED_FOLDER.iterdir() if path.suffix not in (".py", "")]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES


def test_plain_transformers_loads_it() -> None:
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_FOLDER)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_FOLDER)
    config = model.config
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() <= 19_000_000
    assert (config.num_key_value_heads, config.head_dim) == (2, 64)
    assert config.max_position_embeddings >= 4096
    ids = tokenizer("import os\nimport sys\n\n\ndef main():\n", return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = model(ids).logits
    assert torch.isfinite(logits).all()


def test_it_has_learned_python() -> None:
    """A model that knows nothing needs log2(8192) = 13 bits a token."""
    model = load(device="cpu")
    text = "import os\nimport sys\n\n\nclass Point:\n    def __init__(self, x, y):\n"
    ids = torch.tensor([model.tokenizer.encode(text)])
    with torch.inference_mode():
        logits = model.model(ids).logits[0, :-1]
    bits = torch.nn.functional.cross_entropy(logits, ids[0, 1:]) / torch.log(torch.tensor(2.0))
    assert float(bits) < 5


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the embedded model's folder, in its place."""
    folder = tmp_path / "nano"
    folder.mkdir()
    for path in EMBEDDED_FOLDER.iterdir():
        if path.is_file() and path.suffix != ".py":
            (folder / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(loading, "EMBEDDED_FOLDER", folder)
    monkeypatch.setattr(registry, "EMBEDDED_FOLDER", folder)
    return folder


def test_missing_weights_are_named(damaged: Path) -> None:
    (damaged / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load(device="cpu")


@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_damaged_weights_are_refused(damaged: Path, damage: str) -> None:
    weights = damaged / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "truncated":
        data = data[:-1000]
    else:
        data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load(device="cpu")


def manifest() -> list[list[str]]:
    row = r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([\d,]+) \|$"
    rows = re.findall(row, CARD.read_text(), re.MULTILINE)
    assert len(rows) > 20
    return [list(row) for row in rows]


def test_the_manifest_s_licences_are_permissive() -> None:
    for package, _version, licence, _size in manifest():
        assert is_permissive(licence), package


def test_nothing_set_aside_stands_in_the_manifest() -> None:
    assert not [row for row in manifest() if is_held_out(row[0])]


def test_the_card_names_the_shape_that_is_there() -> None:
    config = json.loads((EMBEDDED_FOLDER / "config.json").read_text())
    text = CARD.read_text()
    for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size"):
        assert f"{config[key]:,}" in text
