"""The table of known models: its figures are those of the published models and of transformers."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pie_cli.models.known import KNOWN, Shape
from pie_cli.models.loading import load
from pie_cli.models.random_weights import config_of
from pie_cli.models.registry import SHAPES, resolve

# In billions, as the models' pages on the hub count them.
PUBLISHED = {
    "deepseek-coder-1.3b": 1.346,
    "deepseek-coder-6.7b": 6.741,
    "deepseek-coder-33b": 33.343,
    "qwen2.5-coder-0.5b": 0.494,
    "qwen2.5-coder-1.5b": 1.544,
    "qwen2.5-coder-3b": 3.086,
    "qwen2.5-coder-7b": 7.616,
    "qwen2.5-coder-14b": 14.770,
    "qwen2.5-coder-32b": 32.764,
    "starcoder2-3b": 3.030,
    "starcoder2-7b": 7.174,
    "starcoder2-15b": 15.958,
    "codellama-7b": 6.739,
    "codellama-13b": 13.016,
    "codellama-34b": 33.744,
    "granite-code-3b": 3.483,
    "granite-code-8b": 8.055,
    "granite-code-20b": 20.1,
    "granite-code-34b": 33.7,
    "codegemma-2b": 2.506,
    "codegemma-7b": 8.538,
    "stable-code-3b": 2.795,
}


def on_paper(shape: Shape) -> torch.nn.Module:
    """Build a shape without memory."""
    if not shape.rotates:
        config = AutoConfig.for_model(
            shape.family,
            vocab_size=shape.vocabulary,
            n_positions=shape.window,
            n_embd=shape.hidden,
            n_inner=shape.mlp,
            n_layer=shape.layers,
            n_head=shape.heads,
            multi_query=shape.kv_heads == 1,
        )
    else:
        config = config_of(shape)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def test_sizes_are_the_published_ones():
    billions = {alias: model.shape.n_params / 1e9 for alias, model in KNOWN.items()}
    assert billions == pytest.approx(PUBLISHED, rel=2e-3)


@pytest.mark.parametrize("alias", sorted(KNOWN))
def test_transformers_counts_as_many_parameters_in_the_family(alias: str):
    """Two layers of each shape; biases are the thousandth that may be missing."""
    shape = replace(KNOWN[alias].shape, layers=2)
    counted = sum(parameter.numel() for parameter in on_paper(shape).parameters())
    assert shape.n_params == pytest.approx(counted, rel=1e-3)


def test_a_shape_s_memory_follows_its_heads_and_its_type():
    shape = KNOWN["deepseek-coder-33b"].shape
    per_token = 2 * 62 * 8 * 128
    assert shape.cache_bytes(1_000, 4) == 1_000 * per_token * 4
    assert shape.cache_bytes(1_000, 2) == 1_000 * per_token * 2 * 3 // 2
    gemma = KNOWN["codegemma-2b"].shape
    assert gemma.cache_bytes(1, 4) == 2 * 18 * 256 * 4


def test_what_has_no_rope_is_known_but_has_no_shape_to_build():
    assert not KNOWN["granite-code-20b"].shape.rotates
    assert "granite-code-20b" not in SHAPES
    assert "granite-code-8b" in SHAPES


def test_every_alias_is_lower_case_and_leads_to_the_hub():
    for alias, model in KNOWN.items():
        assert alias == alias.lower()
        assert resolve(alias).location == model.hub_name
        assert model.hub_name.count("/") == 1


@pytest.mark.parametrize(
    "alias", ["qwen2.5-coder-0.5b", "codegemma-2b", "stable-code-3b", "starcoder2-3b"]
)
def test_other_families_are_built_with_random_weights(alias: str, monkeypatch: pytest.MonkeyPatch):
    shape = KNOWN[alias].shape
    tiny = replace(shape, hidden=32, mlp=48, layers=2, heads=4, kv_heads=2, window=256)
    tiny = replace(tiny, vocabulary=20_000, head_dim=shape.head_dim and 8)
    monkeypatch.setattr("pie_cli.models.registry.SHAPES", {alias: tiny})
    loaded = load(alias, device="cpu", random_weights=True)
    assert loaded.model.config.model_type == tiny.family
    assert loaded.n_params == pytest.approx(tiny.n_params, rel=2e-2)
    logits = loaded.model(torch.arange(1, 50)[None]).logits
    assert logits.isfinite().all()


def test_random_weights_of_a_wide_shape_do_not_grow_from_layer_to_layer():
    """With 0.02 at a width of 7,168, roundings decide the fortieth layer of DeepSeek-Coder 33B."""
    gains = {
        shape.hidden: config_of(shape).initializer_range * shape.hidden**0.5
        for shape in (SHAPES[alias] for alias in ("deepseek-coder-1.3b", "deepseek-coder-33b"))
    }
    assert gains[7_168] == pytest.approx(gains[2_048])
    assert gains[2_048] == pytest.approx(0.02 * 2_048**0.5)
