"""What a model says over an edited cache, against what it says by itself."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from pie_cli.engine.attention import attending, install, stock_attention, takes_mask, uninstall
from pie_cli.engine.forward import encode
from pie_cli.engine.gate.key_fit import (
    N_TOKENS,
    LayerStates,
    Sample,
    relative_error,
    sample_ids,
    tolerance_of,
)
from pie_cli.engine.gate.verdicts import GateRefusal
from pie_cli.engine.model import CausalModel
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.engine.stock import stock_cache
from pie_cli.text.matching import KeptRun

# Deltas whose outputs are compared; slots are allocated up to the largest, so not the window's end.
_DELTAS = (37, 1_000)

# Largest relative error of logits, by dtype.
_TOLERANCE = {torch.float32: 1e-2, torch.float16: 3e-2, torch.bfloat16: 1.5e-1}

# Tokens of a past that lie outside every window, and the longest past that is tried.
_FAR_TOKENS = 64
_MIN_FAR_TOKENS = 8
_MAX_PAST = 16_384


def install_attention(model: CausalModel) -> frozenset[int]:
    """Install the engine's attention, and take it back where the model does not call it.

    Such a model computes attention itself; whether it does so under a mask that it is given, its
    outputs tell.

    Returns:
        The sliding windows that the model asks for, in tokens.
    """
    install(model)
    if takes_mask(model):
        return frozenset()
    cache = SlotCache.for_model(model)
    cache.extend(1)
    this = cache.prepare((0,))
    with attending(this):
        model(
            input_ids=torch.tensor([sample_ids(model)[:1]], device=model.device),
            position_ids=this.index(model.device)[None],
            past_key_values=cache,
            use_cache=True,
        )
    if not this.attended:
        uninstall(model)
    return frozenset(this.windows)


def check_moves(model: CausalModel, rotation: ModelRotation, sample: Sample) -> dict[str, float]:
    """Compare logits over a shifted cache, and of a pass over scattered positions.

    Returns:
        Relative errors against the stock forward pass, by check.
    """
    token_ids = sample_ids(model)
    last = N_TOKENS - 1
    cache = SlotCache.for_model(model)
    cache.splice((), N_TOKENS, None)
    logits = encode(model, cache, token_ids, range(N_TOKENS), range(N_TOKENS))
    errors = {
        "one pass": relative_error(logits, sample.logits[0]),
        "scattered": _check_scattered(model, cache, 0, sample.logits[0]),
    }
    for row, delta in enumerate(sample.deltas):
        if delta not in _DELTAS:
            continue
        moved = cache.clone()
        moved.splice((KeptRun(0, delta, last),), delta + N_TOKENS, rotation)
        logits = encode(model, moved, token_ids[last:], [delta + last], (0,), first_key=delta)
        errors[f"shifted by {delta}"] = relative_error(logits, sample.logits[1 + row, last:])
    return errors


def choose_past(reaches: Iterable[int], limit: int | None) -> tuple[int, int, int | None]:
    """Choose a past that is longer than every window of a model.

    Args:
        reaches: how far back its layers may look, in tokens.
        limit: longest sequence that matters.

    Returns:
        Tokens of the past (0 if no window ends within the limit), how many of them lie outside
        every window, and the limit, lowered to the first window that could not be tried.
    """
    room = min(_MAX_PAST, limit - N_TOKENS if limit is not None else _MAX_PAST)
    ends = sorted(reach for reach in set(reaches) if limit is None or reach < limit)
    tried = [reach for reach in ends if reach + _MIN_FAR_TOKENS <= room]
    untried = ends[len(tried) :]
    if untried:
        limit = untried[0]
    if not tried:
        return 0, 0, limit
    past = min(tried[-1] + _FAR_TOKENS, room)
    return past, past - tried[-1] + 1, limit


def check_long_past(
    model: CausalModel, states: LayerStates, past: int, far: int
) -> dict[str, float]:
    """Compare logits after a past that is longer than every window.

    Running thousands of tokens through a large model would take minutes. Any keys and values will
    do for a past, so the sample's are repeated, with larger values outside the windows and at the
    edge of the longest one: a layer that sees a key too many or too few answers something
    else.

    Args:
        model: with the engine's attention installed.
        states: each layer's keys and values; the first row is used.
        past: tokens.
        far: how many of them, from the first on, lie outside every window.

    Returns:
        Relative errors against the stock forward pass, by check.
    """
    token_ids = sample_ids(model)
    made_up = [_repeated(keys, values, past, far) for keys, values in states]
    stock = stock_cache()
    for index, (keys, values) in enumerate(made_up):
        stock.update(keys, values, index)
    with nullcontext() if takes_mask(model) else stock_attention(model):
        expected = model(
            input_ids=torch.tensor([token_ids], device=model.device),
            position_ids=torch.arange(past, past + N_TOKENS, device=model.device)[None],
            past_key_values=stock,
            use_cache=True,
        ).logits[0]
    del stock
    cache = SlotCache.for_model(model, past + N_TOKENS)
    cache.fill(made_up)
    cache.extend(past + N_TOKENS)
    positions = range(past, past + N_TOKENS)
    logits = encode(model, cache, token_ids, positions, range(N_TOKENS))
    return {
        f"behind {past:,} tokens": relative_error(logits, expected),
        f"scattered behind {past:,} tokens": _check_scattered(model, cache, past, expected),
    }


def require_small(errors: Mapping[str, float], dtype: torch.dtype) -> None:
    """Refuse errors beyond rounding.

    Raises:
        GateRefusal: naming the first check that failed.
    """
    tolerance = tolerance_of(_TOLERANCE, dtype)
    for check, error in errors.items():
        if not error <= tolerance:
            raise GateRefusal(f"outputs differ ({check}): error {error:.2g}, allowed {tolerance:g}")


def _check_scattered(model: CausalModel, cache: SlotCache, start: int, expected: Tensor) -> float:
    """Encode some tokens of a complete sample at `start` again, in one pass; return the error."""
    token_ids = sample_ids(model)
    rows = sorted({*range(1, N_TOKENS, 3), N_TOKENS - 1})
    positions = [start + row for row in rows]
    logits = encode(model, cache, [token_ids[row] for row in rows], positions, range(len(rows)))
    return relative_error(logits, expected[rows])


def _repeated(keys: Tensor, values: Tensor, past: int, far: int) -> tuple[Tensor, Tensor]:
    """Repeat the first row's states [1, H, S, D] to a past whose far values are large."""
    times = -(-past // keys.shape[2])
    keys = keys[:1].repeat(1, 1, times, 1)[:, :, :past]
    values = values[:1].repeat(1, 1, times, 1)[:, :, :past]
    # Far tokens are few; this gives them a say like all others together. The tokens where the
    # sample's windows begin get the same: one of them more or less changes what a query sees.
    values[:, :, :far] *= past / far
    values[:, :, far - 1 : far + N_TOKENS] *= past / N_TOKENS
    return keys, values
