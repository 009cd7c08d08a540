"""Which rotation carries a layer's keys from one position to another: found by trying."""

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_cli.engine.attention import NAME, implementation, stock_attention
from pie_cli.engine.gate.candidates import list_candidates, reversed_rotation
from pie_cli.engine.gate.verdicts import GateRefusal, UnusableModel
from pie_cli.engine.model import CausalModel, layer_count, text_config, vocabulary
from pie_cli.engine.rope import LayerRotation, rotate
from pie_cli.engine.stock import stock_cache, stock_states, unusual_layer

N_TOKENS = 24
_DELTAS = (1, 37, 1_000)
# Models form angles in float32: much further out their own keys are no exact rotations.
_MAX_DELTA = 65_536
_MARGIN = 10.0

# Largest relative error of keys, by dtype. Sound models measured 3e-7 to 3e-4 (float32), 0.001 to
# 0.005 (float16) and 0.005 to 0.05 (bfloat16); a wrong rotation has 0.3 to 1.4.
_TOLERANCE = {torch.float32: 1e-2, torch.float16: 2e-2, torch.bfloat16: 1e-1}

LayerStates = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Sample:
    """One short sequence as the stock model encodes it at several places.

    Attributes:
        deltas: where it begins, besides 0.
        states: each layer's keys and values [1 + deltas, H, S, D].
        logits: float32 [1 + deltas, S, vocabulary].
    """

    deltas: tuple[int, ...]
    states: LayerStates
    logits: Tensor


def encode_shifted(model: CausalModel, limit: int | None) -> Sample:
    """Encode one sequence at 0 and at all deltas, in one batch of the stock model."""
    unusual = unusual_layer(text_config(model))
    if unusual:
        raise GateRefusal(unusual)
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise GateRefusal("the model takes no position ids")
    deltas = _deltas(limit)
    if not deltas:
        raise GateRefusal(f"a window of {limit} tokens is too short to move keys in")
    cache = stock_cache()
    starts = torch.tensor((0, *deltas), device=model.device)[:, None]
    with stock_attention(model) if implementation(model) == NAME else nullcontext():
        logits = model(
            input_ids=torch.tensor([sample_ids(model)], device=model.device).expand(
                len(starts), -1
            ),
            position_ids=starts + torch.arange(N_TOKENS, device=model.device),
            past_key_values=cache,
            use_cache=True,
        ).logits.float()
    if not bool(torch.isfinite(logits).all()):
        raise UnusableModel(
            f"outputs are not finite in {str(model.dtype).removeprefix('torch.')}",
            "try --dtype float32",
        )
    layers = stock_states(cache)
    if len(layers) != layer_count(model):
        raise GateRefusal(f"{len(layers)} of {layer_count(model)} layers keep keys")
    states: LayerStates = []
    for index, pair in enumerate(layers):
        if pair is None or any(
            tensor.dim() != 4 or tensor.shape[0] != len(starts) or tensor.shape[2] != N_TOKENS
            for tensor in pair
        ):
            raise GateRefusal(f"layer {index} keeps no plain keys")
        states.append(pair)
    return Sample(deltas, states, logits)


@dataclass(frozen=True, eq=False)
class Fit:
    """One layer's rotation, its relative error at each delta, its lead over the runner-up."""

    rotation: LayerRotation
    errors: Sequence[float]
    margin: float


def fit_layers(model: CausalModel, sample: Sample) -> list[Fit]:
    """Find each layer's rotation; refuse what no rotation explains."""
    candidates = list_candidates(model)
    fits = []
    for index, (keys, values) in enumerate(sample.states):
        tolerance = tolerance_of(_TOLERANCE, keys.dtype)
        fits.append(_fit(index, keys, sample.deltas, candidates, tolerance))
        moved = max(relative_error(row, values[0]) for row in values[1:])
        if not moved <= tolerance:
            raise GateRefusal(f"positions enter the cached values of layer {index}")
    if all(fit.rotation.inv_freq is None for fit in fits):
        raise GateRefusal("no layer rotates its keys: positions enter elsewhere")
    pairings = [
        fit.rotation.pairing
        for fit in fits
        if fit.rotation.inv_freq is not None and len(fit.rotation.inv_freq) > 1
    ]
    # No model pairs dimensions in two ways; one that seems to was put together wrongly.
    if len(set(pairings)) > 1:
        raise GateRefusal("layers differ in which dimensions they pair")
    return fits


def _fit(
    index: int,
    keys: Tensor,
    deltas: Sequence[int],
    candidates: Sequence[LayerRotation],
    tolerance: float,
) -> Fit:
    """Find the candidate that carries keys[0] into keys[1:], shifted by `deltas`, or refuse."""
    tried = _try(keys.float(), deltas, candidates)
    if not max(tried[0][0]) <= tolerance:
        # A few models turn the other way.
        tried = _try(keys.float(), deltas, [reversed_rotation(one) for one in candidates])
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
    return Fit(winner, errors, margin)


def _try(
    keys: Tensor, deltas: Sequence[int], candidates: Sequence[LayerRotation]
) -> list[tuple[list[float], LayerRotation]]:
    """Return the candidates with their relative errors at each delta, the best one first."""
    tried = [
        (
            [
                relative_error(rotate(keys[0], delta, candidate), keys[1 + row])
                for row, delta in enumerate(deltas)
            ],
            candidate,
        )
        for candidate in candidates
        if candidate.inv_freq is None or 2 * len(candidate.inv_freq) <= keys.shape[-1]
    ]
    return sorted(tried, key=lambda entry: max(entry[0]))


def _deltas(limit: int | None) -> tuple[int, ...]:
    """Return the shifts to try: fixed ones and one near the window's end, as far as it reaches."""
    if limit is None:
        return _DELTAS
    end = min(limit - N_TOKENS, _MAX_DELTA)
    return (*(delta for delta in _DELTAS if delta < end), end) if end > 0 else ()


def sample_ids(model: CausalModel) -> list[int]:
    """Return the same short sequence at every load, spread over the vocabulary."""
    generator = torch.Generator().manual_seed(0)
    token_ids: list[int] = torch.randint(
        vocabulary(model), (N_TOKENS,), generator=generator
    ).tolist()
    return token_ids


def tolerance_of(table: Mapping[torch.dtype, float], dtype: torch.dtype) -> float:
    """Look up a dtype's tolerance; types without one get bfloat16's."""
    return table.get(dtype, table[torch.bfloat16])


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return |found - expected| / |expected|, Euclidean norms; NaN counts as infinite."""
    error = float(
        (found.float() - expected.float()).norm() / expected.float().norm().clamp_min(1e-30)
    )
    return float("inf") if math.isnan(error) else error
