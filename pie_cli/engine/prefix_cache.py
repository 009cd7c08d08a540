"""Snapshots: exact keys and values kept for when a text comes back, as after an undo.

What follows an edit has another left context than before, so its exact keys and values are
gone from the cache with the edit. They come back with the text: a token's key and value are a
function of the tokens up to it. So copies are kept under a hash of these, block by block, each
block's hash taken over its own ids and the hash before it. Versions that share a beginning share
its blocks.

Copies are made in idle time, of what is exact by then: nothing is copied on the way of a save.
"""

from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from pie_cli.engine.layers import LayerStates, StoredRun
from pie_cli.engine.slots import SlotCache
from pie_cli.text.matching import common_prefix

BLOCK_TOKENS = 64
"""Tokens hashed and evicted together: few enough that little of a long text misses its block."""

_ROOT = b""


@dataclass(frozen=True, eq=False)
class _Block:
    """Some consecutive tokens with their states.

    Attributes:
        parent: hash of all that is before them.
        ids: their token ids; fewer than a full block's at a text's end.
        states: of each layer.
        size: bytes of the states.
    """

    parent: bytes
    ids: "array[int]"
    states: tuple[LayerStates, ...]
    size: int


class PrefixCache:
    """Keys and values by left context, the least recently used dropped first.

    One for each session. It holds tensors of its cache's own dtype, on their devices.

    Args:
        limit_bytes: most bytes of keys and values.
        block_tokens: tokens of a block.

    Attributes:
        memory_bytes: bytes of keys and values held.
    """

    def __init__(self, limit_bytes: int, block_tokens: int = BLOCK_TOKENS) -> None:
        self.memory_bytes = 0
        self._limit = limit_bytes
        self._block_tokens = block_tokens
        self._blocks: OrderedDict[bytes, _Block] = OrderedDict()
        # By what is before them: where a text leaves a known one inside a block, the block's first
        # tokens are still good.
        self._children: dict[bytes, list[bytes]] = {}

    def keep(
        self,
        slots: SlotCache,
        token_ids: Sequence[int],
        exact_until: int,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Copy what is exact and not held yet; for idle time, between two passes.

        Of a text that exceeds the limit by itself, the last tokens are kept: the first ones are
        likely to be still in the cache when it comes back.

        Args:
            slots: hold the tokens; not changed.
            token_ids: of the whole prompt.
            exact_until: every token before it has the keys and values of a full recompute.
            should_stop: asked before each block is copied; what is copied is kept.

        Returns:
            Tokens copied.

        Raises:
            CacheIntegrityError: when one of these tokens was moved there, or never written.
            ValueError: when the slots hold fewer.
        """
        ids = array("q", token_ids[:exact_until])
        if len(ids) > slots.length:
            raise ValueError(f"{len(ids)} exact tokens of {slots.length}")
        copied = 0
        room = self._limit // max(1, slots.token_bytes)
        for start, parent, block_hash in self._chain(ids):
            block_ids = ids[start : start + self._block_tokens]
            stop = start + len(block_ids)
            if self._longest(block_hash, parent, block_ids)[1] == len(block_ids):
                continue
            if start < len(ids) - room:
                continue
            if should_stop():
                break
            self._add(block_hash, parent, block_ids, slots.take(start, stop))
            copied += stop - start
        return copied

    def find(self, token_ids: Sequence[int], start: int = 0) -> tuple[StoredRun, ...]:
        """Find the tokens of a prompt whose exact keys and values are held.

        Never the last one: its logits are wanted, so it must run through the model.

        Args:
            token_ids: of the whole prompt.
            start: position before which nothing is wanted: the cache has it exactly.

        Returns:
            Runs at or after `start`, ascending, not overlapping.
        """
        ids = array("q", token_ids[:-1])
        runs: list[tuple[int, int, list[_Block]]] = []
        for at, parent, block_hash in self._chain(ids):
            if at + self._block_tokens <= start:
                continue
            block, length = self._longest(block_hash, parent, ids[at : at + self._block_tokens])
            first = max(at, start)
            if block is None or at + length <= first:
                continue
            if runs and runs[-1][1] == first:
                runs[-1] = (runs[-1][0], at + length, [*runs[-1][2], block])
            else:
                runs.append((first, at + length, [block]))
        return tuple(
            StoredRun(first, stop, tuple(self._cut(blocks, first, stop)))
            for first, stop, blocks in runs
        )

    def clone(self) -> "PrefixCache":
        """Copy what is held; the tensors, which nothing changes, are shared."""
        twin = PrefixCache(self._limit, self._block_tokens)
        twin.memory_bytes, twin._blocks = self.memory_bytes, self._blocks.copy()
        twin._children = {parent: list(blocks) for parent, blocks in self._children.items()}
        return twin

    def clear(self) -> None:
        """Forget everything."""
        self._blocks.clear()
        self._children.clear()
        self.memory_bytes = 0

    def _cut(
        self, blocks: list[_Block], start: int, stop: int
    ) -> Iterator[tuple[LayerStates, ...]]:
        """Give the blocks' states, of the first and the last one what lies in the run only."""
        begin = start - start % self._block_tokens
        for place, block in enumerate(blocks):
            at = begin + place * self._block_tokens
            low, high = max(start - at, 0), min(stop - at, len(block.ids))
            if high - low == len(block.ids):
                yield block.states
            else:
                yield tuple(
                    states and (states[0][:, :, low:high], states[1][:, :, low:high])
                    for states in block.states
                )

    def _longest(
        self, block_hash: bytes, parent: bytes, ids: "array[int]"
    ) -> tuple[_Block | None, int]:
        """Find the block that begins with most of these ids, and how many."""
        whole = self._blocks.get(block_hash)
        if whole is not None:
            self._blocks.move_to_end(block_hash)
            return whole, len(ids)
        best, length, found = None, 0, _ROOT
        for child in self._children.get(parent, ()):
            block = self._blocks[child]
            equal = common_prefix(block.ids, ids)
            if equal > length:
                best, length, found = block, equal, child
        if best is not None:
            self._blocks.move_to_end(found)
        return best, length

    def _chain(self, ids: "array[int]") -> Iterator[tuple[int, bytes, bytes]]:
        """Give each block's start, the hash of all before it, and the hash with it."""
        data, width = memoryview(ids).cast("B"), ids.itemsize * self._block_tokens
        parent = _ROOT
        for place, offset in enumerate(range(0, len(data), width)):
            digest = blake2b(data[offset : offset + width], digest_size=16, key=parent).digest()
            yield place * self._block_tokens, parent, digest
            parent = digest

    def _add(
        self, block_hash: bytes, parent: bytes, ids: "array[int]", states: tuple[LayerStates, ...]
    ) -> None:
        size = sum(
            tensor.numel() * tensor.element_size() for pair in states if pair for tensor in pair
        )
        for child in list(self._children.get(parent, ())):
            # A text's end that has grown since.
            if self._blocks[child].ids == ids[: len(self._blocks[child].ids)]:
                self._drop(child)
        while self._blocks and self.memory_bytes + size > self._limit:
            self._drop(next(iter(self._blocks)))
        if size <= self._limit:
            self._blocks[block_hash] = _Block(parent, ids, states, size)
            self._children.setdefault(parent, []).append(block_hash)
            self.memory_bytes += size

    def _drop(self, block_hash: bytes) -> None:
        block = self._blocks.pop(block_hash)
        self.memory_bytes -= block.size
        siblings = self._children[block.parent]
        siblings.remove(block_hash)
        if not siblings:
            del self._children[block.parent]
