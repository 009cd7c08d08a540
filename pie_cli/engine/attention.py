"""Attention by absolute position: the function that models call over a spliced cache."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.torch_version import TorchVersion
from transformers import AttentionInterface

from pie_cli.engine.model import CausalModel
from pie_cli.engine.passes import Block, ForwardPass

NAME = "pie"

# What one more attention call costs, in query-key pairs: some 50 us of a CPU's work; on a GPU a
# launch is worth far more arithmetic.
_GAP_COST_CPU = 4_096
_GAP_COST_ACCELERATOR = 2_000_000

# SDPA's fused kernels share KV heads between query heads up to this head size.
_MAX_SHARED_HEAD_DIM = 256

# Rows up to which the query heads of a group are packed as further rows on a CPU (docs/log.md).
_MAX_PACKED_ROWS = 16

# Rows from which on it pays to attend in two parts on a CPU.
_MIN_TAIL_ROWS = 192

# SDPA's own CPU kernel, which also returns the softmax sums; blocks under a mask serve where it is
# missing.
_flash = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

# Before 2.9 it takes one KV head a query head for granted, and reads beyond fewer ones.
_FLASH_SHARES_HEADS = TorchVersion(torch.__version__) >= "2.9"

# Arguments that change what attention computes and that this function does not know.
_REFUSED = ("s_aux", "position_bias", "alibi", "head_mask")

_active: ContextVar[ForwardPass | None] = ContextVar("active_forward_pass", default=None)


class UnsupportedAttention(Exception):
    """A model asks for an attention that this function does not compute; the gate refuses it."""


@contextmanager
def attending(forward_pass: ForwardPass) -> Iterator[None]:
    """Let every call of the attention function inside this block belong to `forward_pass`.

    The pass travels beside the model rather than through its arguments: families differ in which
    arguments they hand on to attention.
    """
    token = _active.set(forward_pass)
    try:
        yield
    finally:
        _active.reset(token)


def install(model: CausalModel) -> None:
    """Make the model use this attention, where it lets its attention be replaced.

    Models that do not, or that take the name and ignore it, are found out by the gate.

    No mask function is registered under the name: transformers then builds no mask, which is what
    we want.
    """
    model.set_attn_implementation(NAME)


def implementation(model: CausalModel) -> str:
    """Return the registered name of the attention that the model uses."""
    # transformers reads it back nowhere else.
    return str(model.config._attn_implementation)  # noqa: SLF001


def uninstall(model: CausalModel) -> None:
    """Give the model transformers' own attention back."""
    model.set_attn_implementation("sdpa" if getattr(model, "_supports_sdpa", False) else "eager")


def takes_mask(model: CausalModel) -> bool:
    """Whether the model computes its own attention, and needs a mask that says who sees what."""
    return implementation(model) != NAME


@contextmanager
def stock_attention(model: CausalModel) -> Iterator[None]:
    """Run the model with transformers' own attention inside this block.

    The reference for the gate and for benchmarks.
    """
    before = implementation(model)
    uninstall(model)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def attending_by(function: Callable[..., tuple[Tensor, None]]) -> Iterator[None]:
    """Let models that use this attention call another function in the body, to measure it."""
    AttentionInterface.register(NAME, function)
    try:
        yield
    finally:
        AttentionInterface.register(NAME, pie_attention)


def pie_attention(
    module: Any,  # noqa: ARG001 - the signature is transformers'
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from the active pass's positions to the keys at or before them.

    Signature and layout are those of transformers' attention functions. A whole prompt runs through
    the same kernel as transformers' own SDPA attention does, and is bit-equal to it. Everything
    else runs in blocks of queries, each over the keys up to its last position, KV heads shared
    without a copy.

    Shapes:
        B batch, H query heads, G KV heads, S queries, N keys, D head dimension.

    Args:
        module: the attention layer; unused.
        query: [B, H, S, D].
        key: [B, G, N, D], for positions first_key..stop - 1 of the pass.
        value: [B, G, N, D].
        attention_mask: None; positions say it all.
        scaling: factor on the scores, 1 / sqrt(D) if None.
        dropout: ignored, the engine only infers.
        sliding_window: keys that a query sees, itself included.
        softcap: bound of the scores (Gemma 2).
        **kwargs: what models pass along.

    Returns:
        [B, S, H, D] and None, no attention weights.

    Raises:
        UnsupportedAttention: when a model asks for attention sinks, a position bias or a mask of
            its own.
    """
    refused = [name for name in _REFUSED if kwargs.get(name) is not None]
    if refused or attention_mask is not None:
        raise UnsupportedAttention(
            f"attention with {', '.join(refused) or 'a mask of its own'} is not supported"
        )
    this = _active.get()
    if this is None:
        this = ForwardPass(range(key.shape[-2] - query.shape[-2], key.shape[-2]))
    this.attended += 1
    if sliding_window is not None:
        this.windows.add(sliding_window)
    if this.kernels is not None:
        return this.kernels.attend(query, scaling, sliding_window, softcap), None
    if sliding_window is not None and sliding_window >= this.stop - this.first_key:
        sliding_window = None
    if sliding_window is None and softcap is None:
        mixed = _without_mask(this, query, key, value, scaling)
        if mixed is not None:
            return mixed.transpose(1, 2).contiguous(), None
    blocks = this.blocks(_GAP_COST_CPU if query.device.type == "cpu" else _GAP_COST_ACCELERATOR)
    output = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
    for block in blocks:
        start, stop = (
            position - this.first_key for position in this.key_span(block, sliding_window)
        )
        mixed = _attend(
            this,
            block,
            sliding_window,
            softcap,
            query[:, :, block.start : block.stop],
            key[:, :, start:stop],
            value[:, :, start:stop],
            scaling,
        )
        output[:, block.start : block.stop] = mixed.transpose(1, 2)
    return output, None


def _without_mask(
    this: ForwardPass, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor | None:
    """Attend from consecutive queries by a kernel that is told so; None where none fits."""
    if len(this) == 1 or not this.contiguous:
        return None
    if this.whole:
        return _causal(query, key, value, scaling)
    if query.device.type == "cuda":
        return _behind(query, key, value, scaling)
    return _tail(this, query, key, value, scaling) if _is_long_tail(query, key, value) else None


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attend causally from all keys' own positions, the way transformers' SDPA attention does."""
    shared = key.shape[-1] == value.shape[-1] <= _MAX_SHARED_HEAD_DIM
    key, value, shared = _for_queries(query, key, value, shared=shared)
    return F.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=shared
    )


def _behind(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attend causally from the last of the keys' positions, on a GPU.

    Its kernel for that takes no mask, which would cost it ten times the time (docs/log.md). In
    float32 it does not share KV heads.
    """
    key, value, shared = _for_queries(query, key, value, shared=query.dtype != torch.float32)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=causal_lower_right(query.shape[2], key.shape[2]),
        scale=scaling,
        enable_gqa=shared,
    )


def _for_queries(
    query: Tensor, key: Tensor, value: Tensor, *, shared: bool
) -> tuple[Tensor, Tensor, bool]:
    """Return keys and values for as many heads as there are queries', or whether they share."""
    groups = query.shape[1] // key.shape[1]
    if groups == 1 or shared:
        return key, value, groups > 1
    return key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1), False


def _is_long_tail(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether many consecutive queries follow cached keys, where `_tail` can run."""
    return (
        _flash is not None
        and query.device.type == "cpu"
        and query.shape[2] >= _MIN_TAIL_ROWS
        and key.shape[-1] == value.shape[-1]
        and (_FLASH_SHARES_HEADS or key.shape[1] == query.shape[1])
    )


def _tail(
    this: ForwardPass, query: Tensor, key: Tensor, value: Tensor, scaling: float | None
) -> Tensor:
    """Attend from a long run of queries to the cached keys, unmasked, and to themselves, causally.

    The two parts are merged by the logarithms of their softmax sums. A mask over both would cost
    6 % more: half of each block's own square is computed and thrown away.
    """
    assert _flash is not None
    split = this.positions[0] - this.first_key
    before, before_sum = _flash(
        query, key[:, :, :split], value[:, :, :split], 0.0, False, scale=scaling
    )
    own, own_sum = _flash(query, key[:, :, split:], value[:, :, split:], 0.0, True, scale=scaling)
    share = torch.sigmoid(own_sum - before_sum)[..., None]
    return torch.lerp(before.float(), own.float(), share).to(query.dtype)


def _attend(
    this: ForwardPass,
    block: Block,
    window: int | None,
    softcap: float | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
) -> Tensor:
    """Attend from one block of queries; returns [B, H, S, D]."""
    batch, heads, rows, _ = query.shape
    groups = heads // key.shape[1]
    # On a CPU, SDPA shares KV heads under a mask too, but few rows fill its kernel better when the
    # query heads of a group are further rows; GPU kernels do not share, and always take them so.
    few = rows <= _MAX_PACKED_ROWS
    pack = few or query.device.type != "cpu" or softcap is not None
    repeats = groups if pack else 1
    # A single query sees every key that it is given.
    mask = None if rows == 1 else this.mask(block, window, repeats, query.dtype, query.device)
    if pack:
        query = query.reshape(batch, key.shape[1], groups * rows, query.shape[-1])
    if softcap is not None:
        mixed = _softcapped(query, key, value, mask, scaling, softcap)
    elif query.shape[2] == 1 and query.device.type == "cpu" and query.dtype != torch.float32:
        # One row of 16-bit queries misses SDPA's fast path on a CPU: two rows take a third of its
        # time.
        query = query.expand(-1, -1, 2, -1)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=scaling)[:, :, :1]
    else:
        shared = not pack and groups > 1
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=shared
        )
    return mixed.reshape(batch, heads, rows, value.shape[-1])


def _softcapped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float,
) -> Tensor:
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query, key.transpose(-1, -2)).float() * scale
    scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores + mask
    return torch.matmul(torch.softmax(scores, dim=-1).to(value.dtype), value)


AttentionInterface.register(NAME, pie_attention)
