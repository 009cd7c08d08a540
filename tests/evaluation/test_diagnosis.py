"""The diagnosis: layers are grouped by their rotation, frequencies are read back as a config."""

import math
from types import SimpleNamespace

import pytest
import torch

from pie_cli.engine.gate import GateRefusal
from pie_cli.engine.rope import LayerRotation, ModelRotation
from pie_cli.errors import CacheCapacityError, ModelError
from pie_cli.evaluation import diagnosis
from pie_cli.evaluation.diagnosis import RopeGroup, diagnose, group_layers
from pie_cli.session import EditableModel


def frequencies(base: float, dims: int, factor: float = 1.0) -> torch.Tensor:
    return base ** -(torch.arange(0, dims, 2) / dims) / factor


def test_layers_that_rotate_alike_are_one_group_whatever_stands_between_them():
    local = LayerRotation(frequencies(10_000, 16))
    far = LayerRotation(frequencies(1_000_000, 16, 8), "interleaved")
    none = LayerRotation(None)
    layers = (local, local, none, local, far, far, none)
    groups = list(group_layers(ModelRotation(layers)))
    assert [group.layers for group in groups] == [((0, 1), (3, 3)), ((2, 2), (6, 6)), ((4, 5),)]
    assert [group.pairing for group in groups] == ["half", None, "interleaved"]
    assert [group.rotary_dims for group in groups] == [16, 0, 16]
    assert groups[0].base == pytest.approx(10_000, rel=1e-3)
    assert groups[0].factor == pytest.approx(1)
    assert groups[1] == RopeGroup(((2, 2), (6, 6)), None, 0, None, None)
    assert groups[2].base == pytest.approx(1_000_000, rel=1e-3)
    assert groups[2].factor == pytest.approx(8)


def test_frequencies_that_are_no_series_have_neither_base_nor_factor():
    scaled = frequencies(10_000, 16)
    scaled[4:] /= 8  # as Llama 3 scales the slow ones
    (group,) = group_layers(ModelRotation((LayerRotation(scaled),)))
    assert (group.base, group.factor) == (None, None)
    assert group.rotary_dims == 16


def test_a_model_that_passes_is_described_as_its_config_says(tiny_model: EditableModel):
    found = diagnose(tiny_model.loaded)
    assert found.editable
    assert found.reason == ""
    (group,) = found.rope
    assert (group.layers, group.pairing, group.rotary_dims) == (((0, 2),), "half", 16)
    assert group.base == pytest.approx(10_000, rel=1e-3)
    assert set(found.key_error) >= {1, 37}
    assert all(math.isfinite(error) for error in found.output_error.values())
    assert found.gate_ms is not None
    assert found.fim_tokens == ("<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>")


def test_a_refusal_keeps_its_reason(tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch):
    def refuse(_: object) -> None:
        raise GateRefusal("positions enter elsewhere")

    monkeypatch.setattr(diagnosis, "run_gate", refuse)
    found = diagnose(tiny_model.loaded)
    assert (found.editable, found.reason) == (False, "positions enter elsewhere")
    assert found.rope == ()
    assert found.gate_ms is None


def test_a_model_that_predicts_nothing_is_an_error(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
):
    def refuse(_: object) -> None:
        refusal = GateRefusal("layer 1 holds NaN")
        refusal.remedy = "download it again"  # type: ignore[attr-defined]
        raise refusal

    monkeypatch.setattr(diagnosis, "run_gate", refuse)
    with pytest.raises(ModelError, match="layer 1 holds NaN") as caught:
        diagnose(tiny_model.loaded)
    assert caught.value.remedy == "download it again"


def test_a_lack_of_memory_is_called_so(tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch):
    def exhaust(_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(diagnosis, "run_gate", exhaust)
    with pytest.raises(CacheCapacityError, match="too little memory on cpu"):
        diagnose(tiny_model.loaded)


def test_all_three_tokens_or_none(tiny_model: EditableModel):
    vocabulary = {"<fim_prefix>": 1, "<fim_suffix>": 2}
    loaded = SimpleNamespace(tokenizer=SimpleNamespace(get_vocab=lambda: vocabulary))
    assert diagnosis._fim_tokens(loaded) == ()
    vocabulary["<fim_middle>"] = 3
    assert diagnosis._fim_tokens(loaded) == ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
