"""The engine that edits: runs of a cache are moved and re-rotated, single slots written."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pie_cli.engine.decode import FirstPass, decode_line
from pie_cli.engine.device import memory_sufficing, stamp
from pie_cli.engine.forward import encode, segments
from pie_cli.engine.kept import KeptFile, UnfitFile, write
from pie_cli.engine.layers import StoredRun
from pie_cli.engine.logits import LogitRows
from pie_cli.engine.model import CausalModel
from pie_cli.engine.parked import ParkedText
from pie_cli.engine.prefix_cache import PrefixCache
from pie_cli.engine.protocol import (
    Capability,
    Decoding,
    FromDisk,
    Line,
    RecomputeStep,
    ShouldStop,
    never,
)
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import CacheIntegrityError, SlotCache
from pie_cli.errors import CacheCapacityError
from pie_cli.plan.plan import MIN_PARKED, Alignment, Plan, make_plan, parted

MIN_SNAPSHOT_BYTES = 64 << 20
"""Snapshots may take as much memory as the cache itself, or this if that is more."""

# Large enough that chunking costs under 5 % of one pass, small enough to be stopped quickly
# (docs/log.md). An accelerator needs far larger chunks to be filled; this value is not measured.
CHUNK_TOKENS = 768
_CHUNK_TOKENS_ACCELERATOR = 4_096

_log = logging.getLogger(__name__)


def chunk_tokens_for(device: torch.device) -> int:
    """Return the tokens of a chunk that suit a device."""
    return CHUNK_TOKENS if device.type == "cpu" else _CHUNK_TOKENS_ACCELERATOR


@dataclass(frozen=True, eq=False)
class Executed:
    """An executed plan.

    Attributes:
        logits: float32 [1 + len(draft), vocabulary]: after the prompt, then after each draft token.
        began_at, spliced_at: `perf_counter` seconds before and after the splice.
    """

    logits: Tensor
    began_at: float
    spliced_at: float


def execute(
    model: CausalModel,
    cache: SlotCache,
    plan: Plan,
    token_ids: Sequence[int],
    rotation: ModelRotation | None,
    draft: Sequence[int] = (),
    snapshots: Sequence[StoredRun] = (),
    parked: ParkedText | None = None,
) -> Executed:
    """Turn the cache of the old prompt into that of the new one: splice, then one forward pass.

    The pass runs over all fresh tokens of all hunks together; the draft rides along after the
    prompt. Afterwards the cache holds prompt and draft: `cache.truncate(plan.length)` drops the
    draft.

    Args:
        model: with the engine's attention installed.
        cache: holds the sequence that the plan was made from.
        plan: for the new prompt.
        token_ids: of the whole new prompt.
        rotation: found by the gate; may be None where the plan does not rotate.
        draft: token ids that may follow the prompt.
        snapshots: what the plan takes from snapshots.
        parked: the text that its kept runs beyond the cached sequence are taken from.

    Raises:
        ValueError: when plan and prompt differ in length, or a rotating plan comes without a
            rotation.
    """
    if len(token_ids) != plan.length:
        raise ValueError(f"a plan for {plan.length} tokens, a prompt of {len(token_ids)}")
    if plan.rotate and rotation is None and plan.shifted:
        raise ValueError(f"strategy {plan.strategy} needs the model's rotation")
    began_at = stamp(model.device)
    cached, returning = parted(plan.kept, cache.length)
    cache.splice(cached, plan.length, rotation if plan.rotate else None)
    if returning and parked and rotation:
        parked.put_back(cache, returning, rotation)
    for run in snapshots:
        cache.put(run)
    cache.extend(plan.length + len(draft))
    spliced_at = stamp(model.device)
    positions: Sequence[int] = [*plan.fresh, *range(plan.length, plan.length + len(draft))]
    fresh_ids = [token_ids[position] for position in plan.fresh]
    last = plan.encoded - 1
    logits = encode(
        model, cache, [*fresh_ids, *draft], positions, range(last, last + 1 + len(draft))
    )
    return Executed(logits, began_at, spliced_at)


class EditedEngine:
    """A prompt's cache in slots, and snapshots of what was exact.

    Args:
        model: with the engine's attention installed.
        rotation: found by the gate.
        slots: the storage.
        limit: longest prompt in tokens whose cache may be edited; None without such a limit.

    Attributes:
        slots: the storage, for who looks in from outside: probes and tests.
    """

    def __init__(
        self,
        model: CausalModel,
        rotation: ModelRotation,
        slots: SlotCache,
        limit: int | None = None,
    ) -> None:
        self._model = model
        self._rotation = rotation
        self._limit = limit
        self.slots = slots
        self._snapshots: PrefixCache | None = None
        self._token_ids: Sequence[int] = ()
        self._parked: ParkedText | None = None
        # After the last chunk of a recompute: what `predict_after` starts from.
        self._recomputed: LogitRows | None = None

    @property
    def capability(self) -> Capability:
        """What the cache can do: everything."""
        return Capability(
            edits=True, limit=self._limit, chunk_tokens=chunk_tokens_for(self._model.device)
        )

    @property
    def memory_bytes(self) -> int:
        """Bytes allocated for keys, values, home copies, snapshots and parked text."""
        stores = (self._snapshots, self._parked)
        return self.slots.memory_bytes + sum(store.memory_bytes for store in stores if store)

    @property
    def parked(self) -> Sequence[int]:
        """Token ids of the text that left the prompt's end last."""
        return self._parked.token_ids if self._parked else ()

    def plan(self, strategy: str, alignment: Alignment, repair: Sequence[int] = ()) -> Plan:
        """Return the strategy's plan: this cache executes every one."""
        return make_plan(strategy, alignment, repair)

    def find_snapshots(self, token_ids: Sequence[int], start: int) -> tuple[range, ...]:
        """Find the tokens that exact keys and values are kept of."""
        runs = self._snapshots.find(token_ids, start) if self._snapshots else ()
        return tuple(range(run.start, run.stop) for run in runs)

    def keep_snapshots(
        self, token_ids: Sequence[int], exact_until: int, should_stop: ShouldStop
    ) -> None:
        """Copy the prompt's exact tokens; where memory is short, keep none at all."""
        if self._snapshots is None:
            self._snapshots = PrefixCache(max(MIN_SNAPSHOT_BYTES, self.slots.memory_bytes))
        try:
            with memory_sufficing():
                self._snapshots.keep(self.slots, token_ids, exact_until, should_stop)
        except CacheCapacityError:
            # Snapshots are a convenience.
            self._snapshots.clear()

    @memory_sufficing()
    def predict(
        self, plan: Plan, token_ids: Sequence[int], decoding: Decoding, draft: Sequence[int] = ()
    ) -> Line:
        """Execute a plan in one pass and predict the line that follows."""
        draft = tuple(draft[: decoding.max_tokens - 1])
        snapshots: tuple[StoredRun, ...] = ()
        if plan.snapshots and self._snapshots:
            snapshots = self._snapshots.find(token_ids, plan.snapshots[0].start)
        parked = self._parked
        if plan.rotate:
            self._parked = self._left_over(plan)
        try:
            executed = execute(
                self._model, self.slots, plan, token_ids, self._rotation, draft, snapshots, parked
            )
            self._token_ids = token_ids
            first = FirstPass(
                LogitRows(executed.logits), draft, executed.began_at, executed.spliced_at
            )
            return decode_line(_Steps(self._model, self.slots), plan.length, first, decoding)
        finally:
            self.slots.truncate(min(plan.length, self.slots.length))

    def _left_over(self, plan: Plan) -> ParkedText | None:
        """Return the text that a plan has no use for: of the prompt's end, then of the parked text.

        Of the prompt only what a jump leaves, not what typing replaces. No more is kept than the
        cache has slots for, and nothing where memory is short.
        """
        length, rest = self.slots.length, self._parked
        try:
            with memory_sufficing():
                if rest and plan.reached > length:
                    rest = rest.part(plan.reached - length, len(rest.token_ids))
                if length - plan.reached >= MIN_PARKED and len(self._token_ids) == length:
                    left = ParkedText.of(self.slots, self._token_ids, plan.reached)
                    rest = left.then(rest) if rest else left
                if rest and len(rest.token_ids) > self.slots.capacity:
                    rest = rest.part(0, self.slots.capacity)
        except CacheCapacityError:
            return None
        return rest

    def begin(self, length: int) -> None:
        """Forget what is cached; all `length` tokens are to be encoded."""
        self._token_ids, self._parked = (), None
        with memory_sufficing():
            self.slots.truncate(0)
            self.slots.splice((), length, None)

    def recompute(
        self,
        token_ids: Sequence[int],
        start: int,
        chunk_tokens: int,
        should_stop: ShouldStop = never,
        draft: Sequence[int] = (),
    ) -> Iterator[RecomputeStep]:
        """Encode the prompt from token `start` on, in ascending chunks, in place.

        Raises:
            ValueError: when the prompt and the cache differ in length, or `start` leaves no token
                to encode.
        """
        length, slots = len(token_ids), self.slots
        if length != slots.length:
            raise ValueError(f"a prompt of {length} tokens, but {slots.length} in the cache")
        if not 0 <= start < length:
            raise ValueError(f"cannot start at token {start} of {length}")
        self._token_ids = token_ids
        for chunk in segments(start, length, chunk_tokens):
            if should_stop():
                return
            with memory_sufficing():
                began = stamp(self._model.device)
                if chunk.stop < length:
                    encode(self._model, slots, token_ids[chunk.start : chunk.stop], chunk, ())
                else:
                    slots.extend(length + len(draft))
                    rows = range(chunk.start, length + len(draft))
                    last = len(chunk) - 1
                    ids = [*token_ids[chunk.start :], *draft]
                    wanted = range(last, last + 1 + len(draft))
                    self._recomputed = LogitRows(encode(self._model, slots, ids, rows, wanted))
                step = RecomputeStep(chunk.stop, stamp(self._model.device) - began)
            yield step

    @memory_sufficing()
    def predict_after(
        self, token_ids: Sequence[int], decoding: Decoding, draft: Sequence[int] = ()
    ) -> Line:
        """Predict the line after a prompt that was recomputed to its end just now.

        Raises:
            ValueError: when it was not, or not with this draft.
        """
        rows, self._recomputed = self._recomputed, None
        if rows is None or len(rows) != 1 + len(draft):
            raise ValueError(f"no logits of a recompute with a draft of {len(draft)} tokens")
        try:
            now = stamp(self._model.device)
            first = FirstPass(rows, tuple(draft), now, now)
            return decode_line(_Steps(self._model, self.slots), len(token_ids), first, decoding)
        finally:
            self.slots.truncate(len(token_ids))

    def read_states(self, path: Path, token_ids: Sequence[int], model: str) -> FromDisk | None:
        """Fill the first tokens of a prompt from a file, layer by layer."""
        try:
            kept = KeptFile(path, model)
            shared = kept.shared(token_ids)
            if shared:
                with memory_sufficing():
                    # Allocates the layers, and shows whether the file is this model's.
                    encode(self._model, self.slots, token_ids[:1], range(1), ())
                    run = StoredRun(0, shared, (kept.layers(self.slots, shared),))
                    self.slots.put(run)
        except UnfitFile as unfit:
            _log.debug("%s is not used: %s", path, unfit)
            self.begin(len(token_ids))
            return None
        return FromDisk(shared, kept.token_ids, kept.facts)

    def write_states(
        self,
        path: Path,
        token_ids: Sequence[int],
        model: str,
        facts: Mapping[str, str],
        most_bytes: int,
    ) -> int:
        """Write the prompt's keys and values to a file."""
        if len(token_ids) != self.slots.length:
            return 0
        try:
            with memory_sufficing():
                return write(path, self.slots, token_ids, model, facts, most_bytes)
        except (CacheCapacityError, CacheIntegrityError) as error:
            _log.debug("the cache is not kept: %s", error)
            return 0

    @memory_sufficing()
    def clone(self) -> "EditedEngine":
        """Copy the slots; snapshots and parked text are shared, for nothing changes them."""
        twin = EditedEngine(self._model, self._rotation, self.slots.clone(), self._limit)
        twin._token_ids, twin._parked = self._token_ids, self._parked
        twin._snapshots = self._snapshots.clone() if self._snapshots else None
        return twin


class _Steps:
    """Steps in slots."""

    def __init__(self, model: CausalModel, cache: SlotCache) -> None:
        self._model = model
        self._cache = cache

    def now(self) -> float:
        return stamp(self._model.device)

    def run(self, token_ids: Sequence[int]) -> LogitRows:
        start = self._cache.length
        positions = range(start, start + len(token_ids))
        self._cache.extend(positions.stop)
        rows = range(len(token_ids))
        return LogitRows(encode(self._model, self._cache, token_ids, positions, rows))

    def truncate(self, length: int) -> None:
        self._cache.truncate(length)
