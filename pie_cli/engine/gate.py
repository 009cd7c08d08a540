"""The gate: at each load, find how a model rotates its keys and prove that moving them is right."""

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pie_cli.engine.attention import (
    NAME,
    UnsupportedAttention,
    implementation,
    install,
    stock_attention,
)
from pie_cli.engine.candidates import list_candidates
from pie_cli.engine.clock import stamp
from pie_cli.engine.forward import encode
from pie_cli.engine.kv_cache import SlotCache, stock_cache, stock_keys
from pie_cli.engine.model import CausalModel, layer_count, window
from pie_cli.engine.rope import LayerRotation, ModelRotation, rotate
from pie_cli.spans import KeptRun

N_TOKENS = 24
_DELTAS = (1, 37, 1_000)
# Deltas whose outputs are compared; slots are allocated up to the largest, so not the window's end.
_OUTPUT_DELTAS = (37, 1_000)
_MARGIN = 10.0

# Largest relative error, by dtype. Sound models measured 3e-7 to 3e-4 (float32), 0.001 to 0.005
# (float16) and 0.005 to 0.03 (bfloat16); a wrong rotation has 0.3 to 1.4.
_KEY_TOLERANCE = {torch.float32: 1e-2, torch.float16: 2e-2, torch.bfloat16: 1e-1}
_OUTPUT_TOLERANCE = {torch.float32: 1e-2, torch.float16: 3e-2, torch.bfloat16: 1.5e-1}


@dataclass(frozen=True, eq=False)
class GateReport:
    """What the gate measured.

    Attributes:
        rotation: the rotation found, one a layer.
        key_error: by delta in tokens, the largest relative error over the layers of re-rotated
            against encoded keys.
        margin: by how many times the rotations found beat the next best candidate, in the worst
            layer.
        output_error: by check, relative error of logits against the stock forward pass.
        cost_ms: wall time of the whole gate.
    """

    rotation: ModelRotation
    key_error: Mapping[int, float]
    margin: float
    output_error: Mapping[str, float]
    cost_ms: float = field(default=0.0)


class GateRefusal(Exception):
    """A model whose cache cannot be moved by re-rotation; exact strategies still work.

    Attributes:
        reason: one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def find_rotation(model: CausalModel) -> ModelRotation:
    """Return the model's rotation.

    Raises:
        GateRefusal: when no rotation explains the model's keys, or outputs disagree.
    """
    return run_gate(model).rotation


def run_gate(model: CausalModel) -> GateReport:
    """Find the model's rotation, install the engine's attention, prove both by the model's outputs.

    RoPE is relative: a sequence encoded at positions 0.. and again at delta.. has keys that differ
    by R(delta), in every layer. Of all candidates the one that fits is taken, layer by layer. Keys
    alone prove too little (ALiBi and latent attention can pass with no rotation), so outputs are
    compared as well: the next token's logits over a shifted cache, and a pass over scattered
    positions, against the stock forward pass.

    Args:
        model: in evaluation mode; its attention is replaced by the engine's.

    Raises:
        GateRefusal: with the reason in one line.
    """
    began = stamp(model.device)
    try:
        with torch.inference_mode():
            key_error, margin, rotation, logits = _check_keys(model)
            install(model)
            if implementation(model) != NAME:
                raise GateRefusal("the model does not let its attention be replaced")
            output_error = _check_outputs(model, rotation, logits)
    except UnsupportedAttention as error:
        raise GateRefusal(str(error)) from error
    return GateReport(
        rotation, key_error, margin, output_error, 1e3 * (stamp(model.device) - began)
    )


def _check_keys(
    model: CausalModel,
) -> tuple[dict[int, float], float, ModelRotation, dict[int, Tensor]]:
    """Encode one sequence at all deltas, in one batch of the stock model, and fit its layers."""
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise GateRefusal("the model takes no position ids")
    deltas = _deltas(model)
    if not deltas:
        raise GateRefusal(f"a window of {window(model)} tokens is too short to move keys in")
    cache = stock_cache()
    starts = torch.tensor((0, *deltas), device=model.device)[:, None]
    with stock_attention(model) if _replaceable(model) else nullcontext():
        logits = model(
            input_ids=torch.tensor([_token_ids(model)], device=model.device).expand(
                len(starts), -1
            ),
            position_ids=starts + torch.arange(N_TOKENS, device=model.device),
            past_key_values=cache,
            use_cache=True,
        ).logits
    layers = stock_keys(cache)
    if len(layers) != layer_count(model):
        raise GateRefusal(f"{len(layers)} of {layer_count(model)} layers keep keys")
    fits = []
    candidates = list_candidates(model)
    for index, keys in enumerate(layers):
        if keys is None or keys.shape[0] != len(starts) or keys.shape[2] != N_TOKENS:
            raise GateRefusal(f"layer {index} keeps no plain keys")
        fits.append(_fit(index, keys, deltas, candidates, _tolerance(_KEY_TOLERANCE, keys.dtype)))
    if all(fit.rotation.inv_freq is None for fit in fits):
        raise GateRefusal("no layer rotates its keys: positions enter elsewhere")
    key_error = {delta: max(fit.errors[row] for fit in fits) for row, delta in enumerate(deltas)}
    rotation = ModelRotation(tuple(fit.rotation for fit in fits))
    rows = {delta: logits[row].float() for row, delta in enumerate((0, *deltas))}
    return key_error, min(fit.margin for fit in fits), rotation, rows


@dataclass(frozen=True, eq=False)
class _Fit:
    rotation: LayerRotation
    errors: Sequence[float]
    margin: float


def _fit(
    index: int,
    keys: Tensor,
    deltas: Sequence[int],
    candidates: Sequence[LayerRotation],
    tolerance: float,
) -> _Fit:
    """Find the candidate that carries keys[0] into keys[1:], shifted by `deltas`, or refuse."""
    keys = keys.float()
    tried: list[tuple[list[float], LayerRotation]] = []
    for candidate in candidates:
        if candidate.inv_freq is not None and 2 * len(candidate.inv_freq) > keys.shape[-1]:
            continue
        errors = [
            _relative_error(rotate(keys[0], delta, candidate), keys[1 + row])
            for row, delta in enumerate(deltas)
        ]
        tried.append((errors, candidate))
    tried.sort(key=lambda entry: max(entry[0]))
    errors, winner = tried[0]
    if not max(errors) <= tolerance:
        raise GateRefusal(
            f"no known rotation explains layer {index}: "
            f"error {max(errors):.2g}, allowed {tolerance:g}"
        )
    # A tie between roundings is none: margins count from the storage type's resolution on.
    margin = max(tried[1][0]) / max(*errors, 1e-7) if len(tried) > 1 else float("inf")
    if margin < _MARGIN:
        raise GateRefusal(
            f"two rotations explain layer {index} almost equally well ({margin:.1f} times)"
        )
    return _Fit(winner, errors, margin)


def _check_outputs(
    model: CausalModel, rotation: ModelRotation, stock: Mapping[int, Tensor]
) -> dict[str, float]:
    """Compare logits over moved and over scattered positions with the stock forward pass's."""
    token_ids = _token_ids(model)
    last = N_TOKENS - 1
    cache = SlotCache.for_model(model)
    cache.splice((), N_TOKENS, None)
    errors: dict[str, float] = {}
    logits = encode(model, cache, token_ids, range(N_TOKENS), range(N_TOKENS))
    errors["one pass"] = _relative_error(logits, stock[0])
    scattered = [*range(1, N_TOKENS, 3), last] if last % 3 != 1 else list(range(1, N_TOKENS, 3))
    logits = encode(
        model, cache, [token_ids[p] for p in scattered], scattered, range(len(scattered))
    )
    errors["scattered"] = _relative_error(logits, stock[0][scattered])
    for delta in _OUTPUT_DELTAS:
        if delta not in stock:
            continue
        moved = cache.clone()
        moved.splice((KeptRun(0, delta, last),), delta + N_TOKENS, rotation)
        logits = encode(model, moved, token_ids[last:], [delta + last], (0,), first_key=delta)
        errors[f"shifted by {delta}"] = _relative_error(logits, stock[delta][last:])
    tolerance = _tolerance(_OUTPUT_TOLERANCE, model.dtype)
    for check, error in errors.items():
        if not error <= tolerance:
            raise GateRefusal(f"outputs differ ({check}): error {error:.2g}, allowed {tolerance:g}")
    return errors


def _deltas(model: CausalModel) -> tuple[int, ...]:
    """Return the shifts to try: fixed ones and one near the window's end, as far as it reaches."""
    limit = window(model)
    if limit is None:
        return _DELTAS
    end = limit - N_TOKENS
    return (*(delta for delta in _DELTAS if delta < end), end) if end > 0 else ()


def _token_ids(model: CausalModel) -> list[int]:
    """Return the same short sequence at every load, spread over the vocabulary."""
    config = (
        model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    )
    generator = torch.Generator().manual_seed(0)
    token_ids: list[int] = torch.randint(
        int(config.vocab_size), (N_TOKENS,), generator=generator
    ).tolist()
    return token_ids


def _replaceable(model: CausalModel) -> bool:
    return implementation(model) == NAME


def _tolerance(table: Mapping[torch.dtype, float], dtype: torch.dtype) -> float:
    return table.get(dtype, table[torch.bfloat16])


def _relative_error(found: Tensor, expected: Tensor) -> float:
    """Return |found - expected| / |expected|, Euclidean norms; NaN counts as infinite."""
    error = float(
        (found.float() - expected.float()).norm() / expected.float().norm().clamp_min(1e-30)
    )
    return float("inf") if math.isnan(error) else error
