"""A profile accounts for the whole time, part by part, and leaves the model as it was."""

import pytest
import torch
from transformers import AttentionInterface

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.engine import attention, forward, layers, logits, rope
from pie_cli.evaluation.cases.workload import Workload
from pie_cli.evaluation.runs import profile as profiles
from pie_cli.evaluation.runs.latency import measure
from pie_cli.evaluation.runs.profile import PARTS, Profile, profiled, weight_bytes

SETTINGS = Settings(max_tokens=4, chunk_tokens=128)
WORKLOAD = Workload((160,), ("insert",), (4,), repeats=1)


@pytest.fixture
def profile(tiny_model: PreparedModel, monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.setattr(profiles, "_READ_BYTES", 1 << 20)
    measured = measure(tiny_model, WORKLOAD, SETTINGS, strategies=("pie",), profile=True)
    assert measured.bandwidth_gbps
    assert len(measured.profiles) == 1
    return measured.profiles[0]


def test_parts_add_up(profile: Profile):
    times = {part.name: part.time_ms for part in profile.first}
    assert list(times) == ["tokenize", "diff, plan", *PARTS, "the rest", "all"]
    assert all(times[name] > 0 for name in ("products", "attention", "head", "write", "rotate"))
    assert sum(times.values()) - times["all"] == pytest.approx(times["all"], rel=1e-6)
    limits = {part.name: part.limit_ms for part in profile.first if part.limit_ms is not None}
    assert limits["products"] + limits["attention"] + limits["head"] == limits["all"]


def test_a_step_moves_nothing(profile: Profile):
    assert [part.name for part in profile.step] == [*PARTS[2:], "the rest", "all"]


def test_the_model_is_as_it_was(tiny_model: PreparedModel):
    model = tiny_model.loaded.model
    before = [dict(vars(module)) for module in model.modules()]
    functions = (rope._turn, layers.SlotLayer.move, logits._best_two, forward.rescored)
    with pytest.raises(ZeroDivisionError), profiled(model):
        1 / 0  # noqa: B018
    assert [dict(vars(module)) for module in model.modules()] == before
    assert (rope._turn, layers.SlotLayer.move, logits._best_two, forward.rescored) == functions
    assert AttentionInterface()[attention.NAME] is attention.pie_attention


def test_bytes_are_those_that_are_multiplied():
    layer = torch.nn.Linear(8, 4, dtype=torch.bfloat16)
    assert weight_bytes(layer) == 64
