"""The diagnosis: layers are grouped by their rotation, frequencies are read back as a config."""

import math
from dataclasses import replace

import pytest
import torch

from pie_cli.cli.diagnosis import RopeGroup, describe, group_layers
from pie_cli.editable import PreparedModel
from pie_cli.engine.gate.verdicts import PlainAbility, Verdict
from pie_cli.engine.rope import LayerRotation, ModelRotation


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


def test_a_model_that_passes_is_described_as_its_config_says(tiny_model: PreparedModel):
    found = describe(tiny_model)
    assert found.editable
    assert (found.reason, found.exact, found.limit_tokens) == ("", "", None)
    (group,) = found.rope
    assert (group.layers, group.pairing, group.rotary_dims) == (((0, 2),), "half", 16)
    assert group.base == pytest.approx(10_000, rel=1e-3)
    assert set(found.key_error) >= {1, 37}
    assert all(math.isfinite(error) for error in found.output_error.values())
    assert found.gate_ms is not None
    assert (found.fim, found.fim_order) == ("pie-nano", "suffix-prefix-middle")


def test_a_refusal_keeps_its_reason_and_says_what_runs(tiny_model: PreparedModel):
    ability = PlainAbility(crops=True, appends=True, copies=True, steps=True)
    verdict = Verdict(refusal="positions enter elsewhere", ability=ability)
    refused = replace(tiny_model, verdict=verdict, fim=None)
    found = describe(refused)
    assert (found.editable, found.reason) == (False, "positions enter elsewhere")
    assert found.exact == "exact, by prefix"
    assert (found.rope, found.gate_ms, found.fim) == ((), None, None)
