"""One forward pass: the positions that it computes, the keys that they see."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

# Rows of queries per attention call: enough to fill the kernel, few enough that the keys after
# each block's last query are left out (measured, docs/log.md).
MAX_BLOCK_ROWS = 256

# Masks are shared by the layers up to this size; a long pass builds the rest again in each.
MAX_MASK_BYTES = 256 * 2**20


class Block(NamedTuple):
    """Queries that attend in one call.

    Attributes:
        start, stop: rows of the pass.
        first, last: absolute positions of the first and the last of these rows.
    """

    start: int
    stop: int
    first: int
    last: int


class Kernels(Protocol):
    """What attends in a pass that is captured to be replayed at other positions."""

    def attend(
        self, query: Tensor, scaling: float | None, window: int | None, softcap: float | None
    ) -> Tensor:
        """Attend from [1, H, S, D] to the keys of the layer written last; [1, S, H, D]."""
        ...


class ForwardPass:
    """The positions of one forward pass and what follows from them.

    A query at position p sees the keys at positions first_key..p (or the last `window` of them).
    Index tensors, blocks and masks are built once and shared by all layers.

    Attributes:
        positions: absolute positions of the queries, strictly ascending.
        first_key: lowest position that any query sees; above 0 only in the gate, which encodes at
            far positions with nothing before them.
        stop: one after the last position; no key from here on is seen.
        contiguous: whether the positions have no gaps.
        whole: whether the queries are all the keys there are: plain causal attention.
        attended: calls of the engine's attention function so far; 0 at the end tells of a model
            that does not call it.
        windows: the sliding windows that these calls asked for, in tokens.
        kernels: attend instead of the engine's attention function; None in nearly all passes.
    """

    def __init__(
        self,
        positions: Sequence[int],
        first_key: int = 0,
        kernels: Kernels | None = None,
    ) -> None:
        if not len(positions):
            raise ValueError("a forward pass needs at least one position")
        if not isinstance(positions, range) and any(a >= b for a, b in pairwise(positions)):
            raise ValueError("positions of a forward pass must ascend strictly")
        if positions[0] < first_key:
            raise ValueError(f"position {positions[0]} lies before the first key {first_key}")
        self.positions = positions
        self.first_key = first_key
        self.kernels = kernels
        self.stop = positions[-1] + 1
        self.contiguous = self.stop - positions[0] == len(positions)
        self.whole = self.contiguous and positions[0] == first_key
        self.attended = 0
        self.windows: set[int] = set()
        self._indices: dict[torch.device, Tensor] = {}
        self._blocks: dict[int, list[Block]] = {}
        self._masks: dict[tuple[Block, int | None, int, torch.dtype, torch.device], Tensor] = {}
        self._mask_bytes = 0

    def __len__(self) -> int:
        return len(self.positions)

    def index(self, device: torch.device) -> Tensor:
        """Return the positions as a tensor [S] of int64 on `device`."""
        index = self._indices.get(device)
        if index is None:
            index = self._indices[device] = torch.tensor(list(self.positions), device=device)
        return index

    def blocks(self, gap_cost: int) -> list[Block]:
        """Cut the queries into attention calls.

        A call computes scores for every row against all keys up to its last position. Where
        positions jump, the rows before the jump would pay for keys that they may not see; a new
        call is cheaper once rows x jump exceeds `gap_cost`.

        Args:
            gap_cost: what one more call costs, in query-key pairs.
        """
        blocks = self._blocks.get(gap_cost)
        if blocks is None:
            blocks = self._blocks[gap_cost] = self._cut(gap_cost)
        return blocks

    def _cut(self, gap_cost: int) -> list[Block]:
        positions = self.positions
        if self.contiguous:
            starts = list(range(0, len(positions), MAX_BLOCK_ROWS))
        else:
            starts = [0]
            for row in range(1, len(positions)):
                rows = row - starts[-1]
                wasted = rows * (positions[row] - positions[row - 1] - 1)
                if rows == MAX_BLOCK_ROWS or wasted > gap_cost:
                    starts.append(row)
        stops = [*starts[1:], len(positions)]
        return [
            Block(a, b, positions[a], positions[b - 1]) for a, b in zip(starts, stops, strict=True)
        ]

    def full_mask(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the mask of all queries at once, [1, 1, S, keys]; see `mask`.

        For models that do not call the engine's attention function but add a mask they are given.
        """
        block = Block(0, len(self), self.positions[0], self.stop - 1)
        return self.mask(block, None, 1, dtype, device)[None, None]

    def key_span(self, block: Block, window: int | None) -> tuple[int, int]:
        """Return the positions [start, stop) of the keys that any query of the block sees."""
        start = self.first_key if window is None else max(self.first_key, block.first - window + 1)
        return start, block.last + 1

    def mask(
        self,
        block: Block,
        window: int | None,
        groups: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Return which keys each query of a block sees, as a term to add to the scores.

        Additive rather than boolean: SDPA would turn a boolean mask into this in every layer.

        Args:
            block: one of `blocks`.
            window: keys that a query sees, itself included; None for all before it.
            groups: times the rows are repeated, for queries of several heads packed as rows.
            dtype: the queries'.
            device: where the mask is needed.

        Returns:
            [groups * rows, keys] of 0 and -inf, over the keys of `key_span`.
        """
        key = (block, window, groups, dtype, device)
        mask = self._masks.get(key)
        if mask is None:
            queries = self.index(device)[block.start : block.stop, None]
            keys = torch.arange(*self.key_span(block, window), device=device)[None]
            hidden = keys > queries
            if window is not None:
                hidden |= keys <= queries - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
            mask = mask.masked_fill_(hidden, float("-inf")).repeat(groups, 1)
            size = mask.numel() * mask.element_size()
            if self._mask_bytes + size <= MAX_MASK_BYTES:
                self._mask_bytes += size
                self._masks[key] = mask
        return mask
