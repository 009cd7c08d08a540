"""Sessions with models that the gate refuses: exact, and said so in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pie_cli.cli.models import open_model
from pie_cli.cli.render import Renderer
from pie_cli.config import Settings
from pie_cli.editable import PreparedModel, prepare
from pie_cli.engine.plain.model import whole_logits
from pie_cli.errors import ModelError
from pie_cli.models.loading import load
from pie_cli.models.nano.recipe.tokenizer import save_tokenizer, train_tokenizer
from pie_cli.session import EditSession
from tests.conftest import SOURCE, WINDOW
from tests.engine.families import FALLING_BACK, build, rotating

EDITS = {
    "inserted": SOURCE.replace("    size = width * height + 3\n", "    a = 1\n    size = a\n"),
    "deleted": SOURCE.replace("    return size\n", "", 4),
    "appended": SOURCE + "def last(width):\n",
    "emptied": "",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that saves a model with a tokenizer that fits it."""

    def save(model: Any) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        tokenizer = train_tokenizer(iter([SOURCE] * 8), 290)
        save_tokenizer(tokenizer, folder, WINDOW)
        model.save_pretrained(folder)
        return Path(folder)

    return save


def loaded(checkpoint: Any, name: str) -> PreparedModel:
    kind, config = FALLING_BACK[name]
    sizes = {"n_positions": WINDOW} if kind == "gpt2" else {}
    model = build(kind, {**config, **sizes, "vocab_size": 300})
    return prepare(load(str(checkpoint(model)), "cpu", "float32"))


@pytest.fixture(scope="module", params=["gpt2", "qwen3_next", "mamba"])
def model(request: pytest.FixtureRequest, checkpoint: Any) -> PreparedModel:
    return loaded(checkpoint, request.param)


def first_token(model: PreparedModel, session: EditSession) -> int:
    """Return the stock model's choice after the session's prompt, computed from scratch."""
    assert session.prompt is not None
    prompt = session.prompt
    logits = whole_logits(model.loaded.model, prompt.token_ids, 1)[-1]
    allowed = model.tokenizer.tokens_starting_with(prompt.healed.text)
    return max(allowed, key=lambda token_id: float(logits[token_id]))


@pytest.mark.parametrize("strategy", ["pie", "full"])
def test_every_prediction_is_exact_and_the_stock_models(
    model: PreparedModel, strategy: str
) -> None:
    session = EditSession(model, "a.py", Settings(strategy=strategy, max_tokens=4, at="2:8"))
    session.open(SOURCE)
    for text in (*EDITS.values(), SOURCE):
        prediction = session.update(text)
        assert prediction.exact
        assert prediction.tokens.stale == 0
        assert prediction.strategy in {"prefix", "full"}
        assert prediction.token_ids[0] == first_token(model, session)
        comparison = session.compare()
        assert comparison is not None
        assert comparison.agrees
        fork = session.fork("full")
        assert fork.update(text + "#\n").exact
        assert session.update(text).text == prediction.text
    assert session.cache_bytes > 0


def test_one_line_says_why_and_what_runs(model: PreparedModel) -> None:
    assert model.gate is None
    assert model.notice is not None
    assert "\n" not in model.notice
    assert model.refusal is not None
    assert model.refusal in model.notice
    assert "; runs exact, by " in model.notice


def test_a_model_that_passes_needs_no_notice(tiny_model: PreparedModel) -> None:
    assert tiny_model.notice is None
    assert tiny_model.refusal is None
    assert tiny_model.ability is None


def test_the_notice_is_shown_before_the_first_prediction(
    checkpoint: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, config = FALLING_BACK["gpt2"]
    folder = checkpoint(build(kind, {**config, "vocab_size": 300}))
    open_model(Settings(model=str(folder), device="cpu", dtype="float32"), Renderer())
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "the cache is not edited" in " ".join(shown.err.split())


def test_weights_that_are_no_numbers_are_named(checkpoint: Any) -> None:
    kind, config = ("llama", rotating("llama").config.to_dict())
    config = {key: config[key] for key in ("hidden_size", "intermediate_size", "head_dim")}
    broken = build(kind, {**config, "vocab_size": 300, "num_attention_heads": 4})
    with torch.no_grad():
        broken.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    folder = checkpoint(broken)
    with pytest.raises(ModelError, match=r"cannot be used: weights hold NaN") as caught:
        prepare(load(str(folder), "cpu", "float32"))
    assert caught.value.remedy == "download or save the model again"
    assert "\n" not in str(caught.value)
