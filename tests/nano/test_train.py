"""Training: the loss falls, and a run that is broken off continues as if it had not been."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from pie_cli.models.checkpoint import verify_checksums
from pie_cli.models.loading import load
from pie_cli.models.nano.recipe import train as training
from pie_cli.models.nano.recipe.tokenizer import save_tokenizer

SCHEDULE = "64:4096,128:2048"


@pytest.fixture
def recipe(corpus: Path, tokenizer: Tokenizer, tmp_path: Path, tiny_shape: None) -> list[str]:
    save_tokenizer(tokenizer, tmp_path / "tokenizer", 128)
    options = "--shape small --batch-tokens 256 --device cpu --schedule".split()
    return [str(corpus), str(tmp_path / "tokenizer"), *options, SCHEDULE]


def run(recipe: list[str], folder: Path, *options: str) -> int:
    corpus, tokenizer, *rest = recipe
    return training.main([corpus, tokenizer, str(folder), *rest, *options])


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_in_two_parts_equals_an_unbroken_one(recipe: list[str], tmp_path: Path) -> None:
    assert run(recipe, tmp_path / "whole", "--export", str(tmp_path / "model")) == 0
    whole = losses(tmp_path / "whole")
    # One step a call: each ends itself at once, and the next goes on from its checkpoint.
    for _ in range(5):
        assert run(recipe, tmp_path / "parts", "--stop-after-minutes", "0") == 3
    assert run(recipe, tmp_path / "parts") == 0
    assert losses(tmp_path / "parts") == pytest.approx(whole, abs=2e-3)
    assert len(whole) == 24
    assert sum(whole[-4:]) < sum(whole[:4]) - 4


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    recipe: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves behind the checkpoint is taken again, and logged once."""
    run(recipe, tmp_path / "whole")
    step = training.Trainer.step

    def killed(trainer: training.Trainer, *arguments: object) -> float:
        if trainer.at.step == 9:
            raise MemoryError
        return step(trainer, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(training.Trainer, "step", killed)
        assert run(recipe, tmp_path / "run", "--stop-after-minutes", "0") == 3
        with pytest.raises(MemoryError):
            run(recipe, tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 9
    assert run(recipe, tmp_path / "run") == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), abs=2e-3)


def test_the_export_is_a_checkpoint_like_any_other(recipe: list[str], tmp_path: Path) -> None:
    assert run(recipe, tmp_path / "run", "--export", str(tmp_path / "model")) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.bfloat16
    assert model.config.num_key_value_heads == 2
    assert model.config.head_dim == 64
    assert model.config.max_position_embeddings == 128
    assert model.config.use_cache
    verify_checksums(tmp_path / "model")
    assert load(str(tmp_path / "model"), "cpu").n_params == model.num_parameters()


def test_other_settings_are_refused(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(recipe, tmp_path / "run", "--stop-after-minutes", "0")
    assert run(recipe, tmp_path / "run", "--seed", "1") == 3
    assert "other settings" in capsys.readouterr().err


def test_a_failed_save_leaves_the_last_checkpoint(
    recipe: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(recipe, tmp_path / "run", "--stop-after-minutes", "0")
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()

    def full(_state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        assert run(recipe, tmp_path / "run", "--stop-after-minutes", "0") == 3
    assert "the last checkpoint is intact" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == kept
    assert not (tmp_path / "run" / "checkpoint.partial").exists()


def test_a_missing_tokenizer_is_an_error(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe[1] = str(tmp_path)
    assert run(recipe, tmp_path / "run") == 3
    assert "there is no" in capsys.readouterr().err


def test_a_missing_corpus_is_an_error(
    recipe: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe[0] = str(tmp_path / "nothing.jsonl.gz")
    assert run(recipe, tmp_path / "run") == 3
    assert "no corpus at" in capsys.readouterr().err


@pytest.mark.parametrize("schedule", ["", "512", "512:x", "a:1M"])
def test_a_bad_schedule_is_an_error(recipe: list[str], tmp_path: Path, schedule: str) -> None:
    assert run(recipe, tmp_path / "run", "--schedule", schedule) == 3


def test_the_learning_rate_warms_up_holds_and_decays() -> None:
    settings = training.Settings("small", 1, 1.0, 1.0, 0.0, warmup=0.1, decay=0.5, seed=0)
    factors = [training.learning_rate_factor(n, 100, settings) for n in (0, 5, 10, 30, 50, 75, 99)]
    assert factors == pytest.approx([0.01, 0.5, 1, 1, 1, 0.5, 0.02])
