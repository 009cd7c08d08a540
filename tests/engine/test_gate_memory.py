"""What the gate found is remembered per model and library version, and never trusted blindly."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pie_cli.engine.gate import check
from pie_cli.engine.gate.check import check_model
from pie_cli.engine.gate.memory import memory_folder
from pie_cli.engine.gate.verdicts import UnusableModel
from tests.engine.families import FALLING_BACK, build, rotating


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model's folder whose verdicts go to a cache of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = tmp_path / "model"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"weights")
    return weights


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that the gate really ran on."""
    seen: list[Any] = []
    run = check.run_gate

    def counted(model: Any) -> Any:
        seen.append(model)
        return run(model)

    monkeypatch.setattr(check, "run_gate", counted)
    return seen


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "cohere2", "gptj", "llama dynamic"])
def test_a_verdict_is_taken_over_whole(folder: Path, runs: list[Any], name: str) -> None:
    first, again = (
        check_model(rotating(name), folder).report,
        check_model(rotating(name), folder).report,
    )
    assert first is not None
    assert again is not None
    assert len(runs) == 1
    assert (first.remembered, again.remembered) == (False, True)
    for one, other in zip(first.rotation.layers, again.rotation.layers, strict=True):
        assert one.pairing == other.pairing
        if one.inv_freq is None or other.inv_freq is None:
            assert one.inv_freq is other.inv_freq
        else:
            assert torch.equal(one.inv_freq, other.inv_freq)
    assert len(again.rotation.distinct) == len(first.rotation.distinct)
    for field in ("key_error", "output_error", "margin", "limit", "masked"):
        assert getattr(first, field) == getattr(again, field)
    assert again.cost_ms > 0


def test_attention_is_installed_again(folder: Path) -> None:
    for expected in ("llama", "gptj"):
        for _ in range(2):
            model = rotating(expected)
            check_model(model, folder)
            assert (model.config._attn_implementation == "pie") is (expected == "llama")


def test_a_refusal_is_taken_over_with_what_the_cache_can_do(folder: Path, runs: list[Any]) -> None:
    first, again = (check_model(build(*FALLING_BACK["gpt2"]), folder) for _ in range(2))
    assert len(runs) == 1
    assert first.report is None
    assert (again.refusal, again.ability) == (first.refusal, first.ability)


@pytest.mark.parametrize(
    "change", ["weights", "config", "dtype", "pie", "torch", "no weights", "no folder"]
)
def test_what_could_change_the_verdict_makes_it_another(
    folder: Path, runs: list[Any], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_model(rotating("llama"), folder)
    model = rotating("llama", torch.bfloat16 if change == "dtype" else torch.float32)
    if change == "weights":
        (folder / "model.safetensors").write_bytes(b"other weights")
    elif change == "config":
        model.config.rms_norm_eps *= 2
    elif change == "pie":
        monkeypatch.setattr("pie_cli.engine.gate.memory.__version__", "0.0.0")
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "0.0.0")
    elif change == "no weights":
        (folder / "model.safetensors").unlink()
    check_model(model, None if change == "no folder" else folder)
    assert len(runs) == 2


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"refusal": "x"}',
        '{"refusal": "x", "ability": {"a": 1}}',
        "[" * 100_000 + "]" * 100_000,
        '{"rotations":' + "[" * 900 + "]" * 900 + "}",
        '{"rotations": [{"inv_freq": [1e999], "pairing": "half"}], "layers": [0, 0, 0]}',
    ],
)
def test_a_damaged_verdict_is_ignored(folder: Path, runs: list[Any], stored: str) -> None:
    check_model(rotating("llama"), folder)
    (path,) = memory_folder().iterdir()
    path.write_text(stored, encoding="utf-8")
    report = check_model(rotating("llama"), folder).report
    assert report is not None
    assert not report.remembered
    assert len(runs) == 2
    # It was written anew.
    assert check_model(rotating("llama"), folder).report.remembered  # type: ignore[union-attr]


@pytest.mark.parametrize("damage", ["frequencies", "layers", "masked", "pairing"])
def test_a_verdict_that_does_not_fit_the_model_is_ignored(
    folder: Path, runs: list[Any], damage: str
) -> None:
    check_model(rotating("llama"), folder)
    (path,) = memory_folder().iterdir()
    fields = json.loads(path.read_text(encoding="utf-8"))
    if damage == "frequencies":
        fields["rotations"][0]["inv_freq"][3] *= 1.01
    elif damage == "layers":
        fields["layers"].append(0)
    elif damage == "masked":
        fields["masked"] = True
    else:
        fields["rotations"][0]["pairing"] = "quarter"
    path.write_text(json.dumps(fields), encoding="utf-8")
    report = check_model(rotating("llama"), folder).report
    assert report is not None
    assert not report.remembered
    assert len(runs) == 2


def test_a_cache_that_cannot_be_written_is_no_failure(
    folder: Path, runs: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert check_model(rotating("llama"), folder).report is not None
    assert len(runs) == 2


def test_unusable_models_are_not_remembered(folder: Path) -> None:
    model = rotating("llama")
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(UnusableModel):
        check_model(model, folder)
    assert not memory_folder().exists()


def test_the_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert memory_folder() == Path("/somewhere/pie/gate")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert memory_folder() == Path.home() / ".cache" / "pie" / "gate"
