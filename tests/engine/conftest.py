"""Fixtures of the engine's tests."""

import pytest
from transformers import LlamaForCausalLM

from pie_cli.engine.attention import install
from pie_cli.engine.rope import ModelRotation
from tests.engine.helpers import SCALINGS, find_rotation, make_llama


@pytest.fixture(scope="session", params=sorted(SCALINGS))
def model(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    """A float32 model for each rope scaling, the engine's attention installed."""
    llama = make_llama(request.param)
    install(llama)
    return llama


@pytest.fixture(scope="session")
def rotation(model: LlamaForCausalLM) -> ModelRotation:
    """The model's rotation, found by the gate."""
    return find_rotation(model)
