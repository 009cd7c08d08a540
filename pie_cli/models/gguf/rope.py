"""RoPE as a GGUF file describes it, in transformers' words."""

import math
from typing import Any, Final

import numpy as np

from pie_cli.errors import ModelError
from pie_cli.models.gguf.model import Facts, GgufModel

FREQUENCIES: Final = "rope_freqs.weight"
LONG: Final = "rope_factors_long.weight"
SHORT: Final = "rope_factors_short.weight"

# Llama 3.1 and later store factors by frequency; these were all made by one formula.
_LLAMA3: Final = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8_192,
}
_UNUSED: Final = {
    "yarn_log_multiplier": 0.0,
    "yarn_ext_factor": 1.0,
    "yarn_attn_factor": 1.0,
    "alpha": 0.0,
}
"""Settings that change the rotation in ways that transformers has no words for, and their rest."""


def rope_parameters(model: GgufModel, head_dim: int, *, partial: bool) -> dict[str, Any]:
    """Return what a config says of RoPE.

    Args:
        model: its headers.
        head_dim: dimensions of a head.
        partial: whether the architecture may turn a part of them only.

    Raises:
        ModelError: a scaling that transformers cannot be told.
    """
    facts = model.facts
    base = facts.number("{arch}.rope.freq_base", 10_000.0)
    found: dict[str, Any] = {"rope_theta": base, **_scaling(model, base, head_dim)}
    turned = facts.integer("{arch}.rope.dimension_count", head_dim)
    if turned != head_dim:
        if not partial or not 0 < turned < head_dim:
            raise _unread(facts, f"RoPE on {turned} of {head_dim} dimensions")
        found["partial_rotary_factor"] = turned / head_dim
    return found


def _scaling(model: GgufModel, base: float, head_dim: int) -> dict[str, Any]:
    facts = model.facts
    for name, rest in _UNUSED.items():
        if facts.number(f"{{arch}}.rope.scaling.{name}", rest) != rest:
            raise _unread(facts, f"rope.scaling.{name}")
    if LONG in model.tensors or SHORT in model.tensors:
        return _longrope(model)
    if FREQUENCIES in model.tensors:
        return _llama3(model, base, head_dim)
    kind = facts.text("{arch}.rope.scaling.type", "linear")
    old = facts.number("{arch}.rope.scale_linear", 0.0)
    factor = facts.number("{arch}.rope.scaling.factor", old)
    if kind == "none" or (kind == "linear" and factor in (0.0, 1.0)):
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": _original(facts),
            "beta_fast": facts.number("{arch}.rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": facts.number("{arch}.rope.scaling.yarn_beta_slow", 1.0),
        }
    raise _unread(facts, f"RoPE scaling of the type {kind!r}")


def _longrope(model: GgufModel) -> dict[str, Any]:
    facts = model.facts
    original, longest = _original(facts), facts.integer("{arch}.context_length")
    scale = longest / original
    factor = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    return {
        "rope_type": "longrope",
        "factor": scale,
        "original_max_position_embeddings": original,
        "attention_factor": facts.number("{arch}.rope.scaling.attn_factor", factor),
        "long_factor": _factors(model, LONG).tolist(),
        "short_factor": _factors(model, SHORT).tolist(),
    }


def _llama3(model: GgufModel, base: float, head_dim: int) -> dict[str, Any]:
    """Find the formula's factor again; what another formula made is refused."""
    factors = _factors(model, FREQUENCIES)
    factor = float(factors.max())
    wavelengths = 2 * np.pi * base ** (np.arange(0, head_dim, 2) / head_dim)
    turns = _LLAMA3["original_max_position_embeddings"] / wavelengths
    low, high = _LLAMA3["low_freq_factor"], _LLAMA3["high_freq_factor"]
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if len(factors) != len(expected) or not np.allclose(factors, expected, rtol=1e-4):
        raise _unread(model.facts, f"other factors in {FREQUENCIES} than Llama 3's")
    return {"rope_type": "llama3", "factor": factor, **_LLAMA3}


def _factors(model: GgufModel, name: str) -> np.ndarray:
    placed = model.tensors.get(name)
    if placed is None or placed.tensor.kind != 0 or len(placed.tensor.shape) != 1:
        raise _unread(model.facts, f"no {name} in 32 bits")
    try:
        with placed.path.open("rb") as file:
            file.seek(placed.tensor.start)
            data = file.read(placed.tensor.size_bytes)
    except OSError as error:
        raise ModelError(f"{placed.path} cannot be read: {error.strerror}", "check it") from error
    found = np.frombuffer(data, "<f4")
    if len(found) != placed.tensor.shape[0] or not np.isfinite(found).all():
        raise _unread(model.facts, f"a damaged {name}")
    return found


def _original(facts: Facts) -> int:
    original = facts.integer(
        "{arch}.rope.scaling.original_context_length", facts.integer("{arch}.context_length")
    )
    if original < 2:
        raise _unread(facts, f"an original context of {original} tokens")
    return original


def _unread(facts: Facts, what: str) -> ModelError:
    return ModelError(
        f"{facts.path} has {what}, which pie does not read", "give the model as safetensors"
    )
