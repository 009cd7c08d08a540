"""Starts of the kernels: what they are given, and in how many programs they run."""

from collections.abc import Sequence
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from pie_cli.engine.gpu import kernels
from pie_cli.engine.layers import SlotLayer
from pie_cli.engine.rope import Turn
from pie_cli.text.matching import KeptRun

# Programs that fill a GPU of today: two on each multiprocessor.
_PROGRAMS = 256

_MOST_SPLITS = 64

# Tokens that a program moves at once.
_MOVE_TOKENS = 64

_TL_DTYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


class Addresses:
    """Where a cache's keys, values and homes lie, on the device.

    Args:
        layers: of the model.
        device: a CUDA device.

    Attributes:
        table: int64 [L, 3].
        capacity: int64 [1].
    """

    def __init__(self, layers: int, device: torch.device) -> None:
        self._numbers = torch.zeros(3 * layers + 1, dtype=torch.int64, device=device)
        self.table = self._numbers[: 3 * layers].view(layers, 3)
        self.capacity = self._numbers[3 * layers :]
        self._held: list[int] = []
        self._known = False

    def point_at(self, layers: Sequence[SlotLayer]) -> bool:
        """Take over a cache's addresses, where they are others than before.

        Returns:
            Whether the kernels know its layout: all layers alike, on this device.
        """
        if not all(layer.is_initialized for layer in layers):
            return False
        held = [layer.capacity for layer in layers[:1]]
        for layer in layers:
            held += (layer.keys.data_ptr(), layer.values.data_ptr())
            held.append(0 if layer.homes is None else layer.homes.data_ptr())
        if held != self._held:
            self._held = held
            self._known = _alike(layers, self._numbers.device)
            if self._known:
                self._numbers.copy_(torch.tensor([*held[1:], held[0]]))
        return self._known


def _alike(layers: Sequence[SlotLayer], device: torch.device) -> bool:
    """Whether all layers' slots have one shape and type, dense and on one device."""
    first = layers[0].keys
    return all(
        slots is None
        or (
            slots.shape == first.shape
            and slots.dtype == first.dtype
            and slots.device == device
            and slots.is_contiguous()
        )
        for layer in layers
        for slots in (layer.keys, layer.values, layer.homes)
    )


def write(
    addresses: Addresses, layer: int, positions: Tensor, keys: Tensor, values: Tensor
) -> None:
    """Write a layer's states [1, G, S, D] in the slots at `positions` [S]."""
    _, heads, rows, size = keys.shape
    keys, values = _dense_rows(keys), _dense_rows(values)
    kernels.write_kernel[rows, heads](
        keys,
        values,
        addresses.table,
        layer,
        positions,
        addresses.capacity,
        keys.stride(1),
        keys.stride(2),
        values.stride(1),
        values.stride(2),
        D=size,
        BLOCK_D=triton.next_power_of_2(size),
        DTYPE=_TL_DTYPES[keys.dtype],
    )


def attend(
    addresses: Addresses,
    layer: int,
    positions: Tensor,
    query: Tensor,
    kv_heads: int,
    scaling: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Attend from the queries [1, H, S, D] at `positions` [S] to the slots up to theirs.

    Returns:
        [1, S, H, D].
    """
    _, heads, rows, size = query.shape
    query = _dense_rows(query)
    groups = heads // kv_heads
    packed = rows * groups
    block_rows = min(64, max(16, triton.next_power_of_2(packed)))
    blocks = triton.cdiv(packed, block_rows)
    splits = _splits(kv_heads * blocks)
    sums = query.new_empty(splits, heads, rows, size, dtype=torch.float32)
    maxima, totals = (query.new_empty(splits, heads, rows, dtype=torch.float32) for _ in range(2))
    block_dims = triton.next_power_of_2(size)
    wide = query.dtype == torch.float32 or size > 128
    kernels.attend_kernel[splits, kv_heads, blocks](
        query,
        addresses.table,
        layer,
        positions,
        addresses.capacity,
        sums,
        maxima,
        totals,
        query.stride(1),
        query.stride(2),
        size**-0.5 if scaling is None else scaling,
        softcap or 1.0,
        rows,
        groups,
        WINDOW=window or 0,
        SOFTCAP=softcap is not None,
        SPLITS=splits,
        D=size,
        BLOCK_D=max(16, block_dims),
        BLOCK_M=block_rows,
        BLOCK_N=32 if wide else 64,
        DTYPE=_TL_DTYPES[query.dtype],
        PRECISION="ieee",
        num_warps=4,
        num_stages=2 if wide else 3,
    )
    output = query.new_empty(1, rows, heads, size)
    kernels.merge_kernel[rows, heads](
        sums, maxima, totals, output, SPLITS=splits, D=size, BLOCK_D=block_dims
    )
    return output


def _splits(programs: int) -> int:
    """Return in how many parts keys are read so that the chip is filled: a power of two."""
    return min(_MOST_SPLITS, int(triton.next_power_of_2(triton.cdiv(_PROGRAMS, programs))))


def _dense_rows(states: Tensor) -> Tensor:
    """Return [1, H, S, D] whose last dimension is dense."""
    return states if states.stride(-1) == 1 else states.contiguous()


def shift(
    addresses: Addresses,
    layers: Sequence[SlotLayer],
    runs: Sequence[KeptRun],
    turn: Turn | None,
) -> None:
    """Move runs of all layers to other slots, keys turned from their homes if there are any.

    Args:
        addresses: of these layers.
        layers: all with homes, or all without.
        runs: that neither overlap nor change order, each with a delta, ascending.
        turn: with cosines and sines [S or 1, R/2] for the runs' S tokens; None leaves keys as they
            are.
    """
    slots = layers[0].keys
    _, heads, _, size = slots.shape
    starts = [0, *accumulate(run.length for run in runs)]
    numbered = list(zip(runs, starts, strict=False))
    up = [one for one in reversed(numbered) if one[0].delta > 0]
    down = [one for one in numbered if one[0].delta < 0]
    numbers = [[run.old_start, run.new_start, run.length, first] for run, first in up + down]
    cos = sin = slots
    half, stride = 0, 0
    if turn is not None and turn.cos is not None and turn.sin is not None:
        cos, sin, half = turn.cos, turn.sin, turn.cos.shape[-1]
        stride = half if len(cos) > 1 else 0
    kernels.shift_kernel[2, heads, len(layers)](
        addresses.table,
        addresses.capacity,
        torch.tensor(numbers, device=slots.device),
        len(numbers),
        cos,
        sin,
        stride,
        D=size,
        BLOCK_D=triton.next_power_of_2(size),
        R=half,
        BLOCK_R=triton.next_power_of_2(max(1, half)),
        HALF=turn is not None and turn.pairing == "half",
        HOMES=layers[0].homes is not None,
        BLOCK_S=_MOVE_TOKENS,
        DTYPE=_TL_DTYPES[slots.dtype],
        num_warps=8,
        num_stages=1,
    )


def normed(states: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Divide rows [..., W] by their root mean squares and scale them by a weight [W]."""
    states = states.contiguous()
    width = states.shape[-1]
    output = torch.empty_like(states)
    kernels.norm_kernel[states.numel() // width,](
        states, weight, output, eps, WIDTH=width, BLOCK=triton.next_power_of_2(width)
    )
    return output


def turned(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys [1, H, S, D] by angles whose cosines and sines are [1, S, D]."""
    _, heads, rows, size = states.shape
    states, cos, sin = _dense_rows(states), cos.contiguous(), sin.contiguous()
    output = states.new_empty(states.shape)
    kernels.turn_kernel[rows, heads](
        states,
        cos,
        sin,
        output,
        states.stride(1),
        states.stride(2),
        size,
        HALF_D=size // 2,
        BLOCK=triton.next_power_of_2(size // 2),
    )
    return output
