"""Triton kernels over caches whose addresses stand in a table: write, attend, shift.

Layouts, for L layers, G KV heads, C slots and D head dimensions:

    table      int64 [L, 3]: addresses of a layer's keys, values and homes (0 where none are kept),
               each [G, C, D] contiguous
    capacity   int64 [1]: C
    positions  int64 [S]: absolute positions of a pass's queries, ascending; the last may repeat

`launches` starts them; sizes in capitals are known when a kernel is compiled.
"""

import triton
import triton.language as tl

# A score that no real one falls below; finite, so that a row without keys gives no NaN.
_NOTHING = tl.constexpr(-1e30)


@triton.jit
def _storage(table, entry, DTYPE: tl.constexpr):
    """Return the storage whose address stands in the table; torch aligns by more than 16 bytes."""
    return tl.multiple_of(tl.load(table + entry).to(tl.pointer_type(DTYPE)), 16)


@triton.jit(do_not_specialize=["layer"])
def write_kernel(
    keys,
    values,
    table,
    layer,
    positions,
    capacity,
    key_head_stride,
    key_row_stride,
    value_head_stride,
    value_row_stride,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Program (row, head) stores one key and one value [D] in the row's slot."""
    row, head = tl.program_id(0), tl.program_id(1)
    dims = tl.arange(0, BLOCK_D)
    inside = dims < D
    slot = head.to(tl.int64) * tl.load(capacity) + tl.load(positions + row)
    key = tl.load(keys + head * key_head_stride + row * key_row_stride + dims, mask=inside)
    value = tl.load(values + head * value_head_stride + row * value_row_stride + dims, mask=inside)
    tl.store(_storage(table, layer * 3, DTYPE) + slot * D + dims, key, mask=inside)
    tl.store(_storage(table, layer * 3 + 1, DTYPE) + slot * D + dims, value, mask=inside)
    kept = inside & (tl.load(table + layer * 3 + 2) != 0)
    tl.store(_storage(table, layer * 3 + 2, DTYPE) + slot * D + dims, key, mask=kept)


@triton.jit(do_not_specialize=["layer"])
def attend_kernel(
    query,
    table,
    layer,
    positions,
    capacity,
    sums,
    maxima,
    totals,
    query_head_stride,
    query_row_stride,
    scale,
    softcap,
    rows,
    groups,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SPLITS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    DTYPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Program (split, KV head, block of rows) attends to one part of the keys.

    The query heads of a group are further rows. Each part leaves its weighted values, the highest
    score and the sum of the weights; `merge_kernel` joins them.
    """
    split, head, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    packed = block * BLOCK_M + tl.arange(0, BLOCK_M)
    real = packed < rows * groups
    row = packed % rows
    query_head = head * groups + packed // rows
    dims = tl.arange(0, BLOCK_D)
    inside = dims < D
    position = tl.load(positions + row, mask=real, other=-1)
    total = tl.max(position, 0) + 1
    part = tl.cdiv(tl.cdiv(total, SPLITS), BLOCK_N) * BLOCK_N
    start = split * part
    stop = tl.minimum(start + part, total)
    addresses = query_head * query_head_stride + row * query_row_stride
    queries = tl.load(
        query + addresses[:, None] + dims[None], mask=real[:, None] & inside[None], other=0.0
    )
    offset = head.to(tl.int64) * tl.load(capacity) * D
    keys = _storage(table, layer * 3, DTYPE) + offset
    values = _storage(table, layer * 3 + 1, DTYPE) + offset
    highest = tl.full([BLOCK_M], _NOTHING, tl.float32)
    weight = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for first in range(start, stop, BLOCK_N):
        slot = first + tl.arange(0, BLOCK_N)
        there = slot < stop
        at = slot[:, None] * D + dims[None]
        held = there[:, None] & inside[None]
        key = tl.load(keys + at, mask=held, other=0.0)
        scores = tl.dot(queries, tl.trans(key), input_precision=PRECISION) * scale
        if SOFTCAP:
            bounded = scores / softcap
            scores = softcap * (2.0 / (1.0 + tl.exp(-2.0 * bounded)) - 1.0)
        seen = there[None] & (slot[None] <= position[:, None])
        if WINDOW > 0:
            seen = seen & (slot[None] > position[:, None] - WINDOW)
        scores = tl.where(seen, scores, _NOTHING)
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.where(seen, tl.exp(scores - higher[:, None]), 0.0)
        fading = tl.exp(highest - higher)
        value = tl.load(values + at, mask=held, other=0.0)
        mixed = mixed * fading[:, None] + tl.dot(
            weights.to(DTYPE), value, input_precision=PRECISION
        )
        weight = weight * fading + tl.sum(weights, 1)
        highest = higher
    heads = tl.num_programs(1) * groups
    place = (split * heads + query_head) * rows + row
    tl.store(maxima + place, highest, mask=real)
    tl.store(totals + place, weight, mask=real)
    tl.store(sums + place[:, None] * D + dims[None], mixed, mask=real[:, None] & inside[None])


@triton.jit
def merge_kernel(
    sums,
    maxima,
    totals,
    output,
    SPLITS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program (row, head) joins the parts of one query; output is [S, H, D]."""
    row, head = tl.program_id(0), tl.program_id(1)
    rows, heads = tl.num_programs(0), tl.num_programs(1)
    dims = tl.arange(0, BLOCK_D)
    inside = dims < D
    place = (tl.arange(0, SPLITS) * heads + head) * rows + row
    highest = tl.load(maxima + place)
    share = tl.exp(highest - tl.max(highest, 0))
    parts = tl.load(sums + place[:, None] * D + dims[None], mask=inside[None], other=0.0)
    mixed = tl.sum(parts * share[:, None], 0) / tl.sum(tl.load(totals + place) * share, 0)
    tl.store(
        output + (row * heads + head) * D + dims, mixed.to(output.dtype.element_ty), mask=inside
    )


@triton.jit(do_not_specialize=["count"])
def shift_kernel(
    table,
    capacity,
    runs,
    count,
    cos,
    sin,
    turn_stride,
    D: tl.constexpr,
    BLOCK_D: tl.constexpr,
    R: tl.constexpr,
    BLOCK_R: tl.constexpr,
    HALF: tl.constexpr,
    HOMES: tl.constexpr,
    BLOCK_S: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """Program (kind, head, layer) moves all runs, a block of tokens after the other, in place.

    Kind 0 are keys and their homes, kind 1 values. Each block is read before it is written, and no
    block is written over one that is read later: runs that move up come first, from the last to the
    first and each from its end, then those that move down.

    runs is int64 [count, 4]: old and new start, length, tokens that `cos` and `sin` have before it.
    """
    kind, head, layer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    dims = tl.arange(0, BLOCK_D)
    pair = tl.arange(0, BLOCK_R)
    offset = head.to(tl.int64) * tl.load(capacity) * D
    keys = _storage(table, layer * 3, DTYPE) + offset
    values = _storage(table, layer * 3 + 1, DTYPE) + offset
    origin = keys
    if HOMES:
        origin = _storage(table, layer * 3 + 2, DTYPE) + offset
    for index in range(count):
        run = runs + index * 4
        source, target, length = tl.load(run), tl.load(run + 1), tl.load(run + 2)
        before = tl.load(run + 3)
        blocks = tl.cdiv(length, BLOCK_S)
        for step in range(blocks):
            block = tl.where(target > source, blocks - 1 - step, step)
            token = block * BLOCK_S + tl.arange(0, BLOCK_S)
            real = token < length
            whole = real[:, None] & (dims < D)[None]
            old = (source + token) * D
            new = (target + token) * D
            if kind == 1:
                value = tl.load(values + old[:, None] + dims[None], mask=whole)
                tl.debug_barrier()
                tl.store(values + new[:, None] + dims[None], value, mask=whole)
            else:
                key = tl.load(keys + old[:, None] + dims[None], mask=whole)
                home = tl.load(origin + old[:, None] + dims[None], mask=whole)
                if R > 0:
                    turned = real[:, None] & (pair < R)[None]
                    angle = (before + token)[:, None] * turn_stride + pair[None]
                    c = tl.load(cos + angle, mask=turned, other=1.0)
                    s = tl.load(sin + angle, mask=turned, other=0.0)
                    first = 2 * pair
                    second = first + 1
                    if HALF:
                        first = pair
                        second = pair + R
                    x = tl.load(origin + old[:, None] + first[None], mask=turned).to(tl.float32)
                    y = tl.load(origin + old[:, None] + second[None], mask=turned).to(tl.float32)
                    tl.debug_barrier()
                    rest = whole & (dims >= 2 * R)[None]
                    tl.store(keys + new[:, None] + dims[None], home, mask=rest)
                    tl.store(
                        keys + new[:, None] + first[None], (x * c - y * s).to(DTYPE), mask=turned
                    )
                    tl.store(
                        keys + new[:, None] + second[None], (y * c + x * s).to(DTYPE), mask=turned
                    )
                else:
                    tl.debug_barrier()
                    tl.store(keys + new[:, None] + dims[None], key, mask=whole)
                if HOMES:
                    tl.store(origin + new[:, None] + dims[None], home, mask=whole)
            tl.debug_barrier()


@triton.jit
def norm_kernel(states, weight, output, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Program (row) divides a row [WIDTH] by its root mean square, rounding as Llama's does."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < WIDTH
    dtype = output.dtype.element_ty
    x = tl.load(states + row * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)
    normed = (x * scale).to(dtype).to(tl.float32)
    gain = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(output + row * WIDTH + at, (gain * normed).to(dtype), mask=inside)


@triton.jit
def turn_kernel(
    states,
    cos,
    sin,
    output,
    head_stride,
    row_stride,
    angle_stride,
    HALF_D: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program (row, head) rotates one query or key, rounding as Llama's function does."""
    row, head = tl.program_id(0), tl.program_id(1)
    rows = tl.num_programs(0)
    at = tl.arange(0, BLOCK)
    inside = at < HALF_D
    dtype = output.dtype.element_ty
    source = states + head * head_stride + row * row_stride + at
    x = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(source + HALF_D, mask=inside, other=0.0).to(tl.float32)
    angle = row * angle_stride + at
    cos_x = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
    cos_y = tl.load(cos + angle + HALF_D, mask=inside, other=0.0).to(tl.float32)
    sin_x = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)
    sin_y = tl.load(sin + angle + HALF_D, mask=inside, other=0.0).to(tl.float32)
    to = output + (head * rows + row) * (2 * HALF_D) + at
    turned_x = (x * cos_x).to(dtype).to(tl.float32) - (y * sin_x).to(dtype).to(tl.float32)
    turned_y = (y * cos_y).to(dtype).to(tl.float32) + (x * sin_y).to(dtype).to(tl.float32)
    tl.store(to, turned_x.to(dtype), mask=inside)
    tl.store(to + HALF_D, turned_y.to(dtype), mask=inside)
