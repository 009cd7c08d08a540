"""The KV cache: slot i holds the key and value of position i.

Layout, defined here once: each layer has keys and values [1, H, C, D] with H KV heads, C slots
allocated (the capacity) and D the head dimension. Slots below `length` are valid; the length is
stored, never inferred.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from pie_cli.engine import crew
from pie_cli.engine.gpu.moving import move_at_once
from pie_cli.engine.layers import LayerStates, Moves, SlotLayer, StoredRun, grown
from pie_cli.engine.model import CausalModel, layer_count, window
from pie_cli.engine.passes import ForwardPass
from pie_cli.engine.rope import ModelRotation, Turn, make_turn
from pie_cli.plan.plan import uncovered
from pie_cli.text.matching import KeptRun

_GROWTH = 1.5
_GRANULE = 64

# Storage types whose rounding adds up over repeated rotations; float32's does not matter
# (docs/log.md).
_ROUNDING_DTYPES = (torch.float16, torch.bfloat16)

# Relative error up to which a key may differ from its re-rotated home: some roundings of bfloat16.
_HOME_TOLERANCE = 0.02


class CacheIntegrityError(RuntimeError):
    """The cache contradicts itself, by a bug or a pass broken off; the message has the numbers."""


class SlotCache(Cache):
    """A KV cache that can be edited: runs of tokens move, single slots are written again.

    A forward pass is `prepare(positions)`, the model's calls of `update`, `commit()`. Splices
    happen between passes. Storage is allocated at the first pass, when shapes and dtype are known,
    and grows geometrically.

    Drift: a rotation rounds in the storage type. In float16 and bfloat16 the first rotating splice
    makes a copy of the keys as computed (their homes), and every shift rotates from home by new
    minus home position.

    Attributes:
        capacity: slots allocated.
        length: tokens of the sequence.
        limit: slots beyond which the cache grows by what is needed only, where the model has a
            window: no prompt will ever fill the rest.
        pending: positions below `length` that the next passes must write, ascending.
    """

    def __init__(self, n_layers: int, capacity: int = 0, limit: int | None = None) -> None:
        self.capacity = _rounded(capacity)
        self.limit = limit
        self.slot_layers = [SlotLayer(self.capacity) for _ in range(n_layers)]
        super().__init__(layers=list(self.slot_layers))
        self.length = 0
        self.pending: tuple[int, ...] = ()
        self._pass: ForwardPass | None = None
        self._written: set[int] = set()
        self._rotation: ModelRotation | None = None
        # Where each slot's home copy was computed; None until homes are kept. On the host: plans
        # are made there.
        self._home_positions: Tensor | None = None

    @classmethod
    def for_model(cls, model: CausalModel, capacity: int = 0) -> "SlotCache":
        """Make an empty cache for a model, `capacity` slots to begin with."""
        return cls(layer_count(model), capacity, window(model))

    # Splicing

    @torch.inference_mode()
    def splice(
        self, kept: Sequence[KeptRun], new_length: int, rotation: ModelRotation | None
    ) -> None:
        """Turn the cache of the old sequence into that of the new one, but for its fresh positions.

        In place. Runs may overlap and change order. Positions that no run covers become `pending`.

        Args:
            kept: runs ascending by `new_start`, inside the old length.
            new_length: tokens of the new sequence.
            rotation: re-rotates the keys of moved runs; None leaves them as they are (the strategy
                cfe).

        Raises:
            CacheIntegrityError: when the old sequence is not complete in the cache.
            ValueError: when a run leaves the old or the new sequence.
        """
        if self._pass is not None:
            raise CacheIntegrityError("a splice in the midst of a forward pass")
        for run in kept:
            if run.old_start < 0 or run.old_stop > self.length or run.new_stop > new_length:
                raise ValueError(f"{run} leaves sequences of {self.length} and {new_length} tokens")
        if self.pending and any(
            run.old_start <= slot < run.old_stop for run in kept for slot in self.pending
        ):
            raise CacheIntegrityError(
                f"a kept run covers slots never written, the first of them {self.pending[0]}"
            )
        self.reserve(new_length)
        moves = Moves(kept)
        if moves:
            self._move(moves, rotation)
        self.length = new_length
        self.pending = uncovered(kept, new_length)

    def _move(self, moves: Moves, rotation: ModelRotation | None) -> None:
        if rotation is not None:
            self._settle(rotation)
        deltas = self._deltas(moves) if rotation is not None else None
        first = self.slot_layers[0]
        on_gpu = first.is_initialized and first.keys.device.type == "cuda"
        if not (on_gpu and move_at_once(self.slot_layers, moves, rotation, deltas)):
            self._move_layers(moves, rotation, deltas)
        if self._home_positions is not None:
            sources = moves.sources()
            homes = self._home_positions[sources]
            # A key moved without rotation keeps its own angle: its home moves along.
            shift = 0 if rotation is not None else moves.targets() - sources
            self._home_positions[moves.targets()] = homes + shift

    def _move_layers(
        self, moves: Moves, rotation: ModelRotation | None, deltas: Tensor | int | None
    ) -> None:
        """Move runs layer by layer."""
        turns: dict[tuple[int, torch.device, bool], Turn] = {}
        run_deltas = moves.deltas()
        crew.begin()
        for index, layer in enumerate(self.slot_layers):
            if not layer.is_initialized:
                continue
            turn = None
            if rotation is not None and deltas is not None:
                spec = rotation.layers[index]
                key = (id(spec), layer.keys.device, layer.homes is None)
                if key not in turns:
                    turns[key] = make_turn(
                        run_deltas if layer.homes is None else deltas, spec, layer.keys.device
                    )
                turn = turns[key]
            layer.move(moves, turn)
            crew.give_way()

    def _settle(self, rotation: ModelRotation) -> None:
        """Make home copies before the first rotating splice, where the storage type rounds."""
        self._rotation = rotation
        for layer, spec in zip(self.slot_layers, rotation.layers, strict=True):
            rounds = layer.is_initialized and layer.keys.dtype in _ROUNDING_DTYPES
            if rounds and layer.homes is None and spec.inv_freq is not None:
                layer.settle(self.length)
                if self._home_positions is None:
                    self._home_positions = torch.arange(self.capacity)

    def _deltas(self, moves: Moves) -> Tensor | int:
        """Return how far each moved token will be from its home, in tokens."""
        if self._home_positions is None:
            return moves.deltas()
        return moves.targets() - self._home_positions[moves.sources()]

    # Copies

    @torch.inference_mode()
    def take(self, start: int, stop: int) -> tuple[LayerStates, ...]:
        """Copy the states of the tokens [start, stop), computed where they are.

        Returns:
            Keys and values [1, H, stop - start, D] of each layer.

        Raises:
            CacheIntegrityError: when one of the tokens was never written, or was moved here.
        """
        missing = [slot for slot in self.pending if start <= slot < stop]
        if not 0 <= start <= stop <= self.length or missing or self._pass is not None:
            raise CacheIntegrityError(
                f"cannot copy tokens {start} to {stop} of {self.length}, {len(missing)} not written"
            )
        if self._home_positions is not None:
            homes = self._home_positions[start:stop]
            if not torch.equal(homes, torch.arange(start, stop)):
                raise CacheIntegrityError(f"tokens {start} to {stop} hold keys that were moved")
        return tuple(
            (layer.keys[:, :, start:stop].clone(), layer.values[:, :, start:stop].clone())
            if layer.is_initialized
            else None
            for layer in self.slot_layers
        )

    @torch.inference_mode()
    def put(self, run: StoredRun) -> None:
        """Fill the slots of a run with its copies, as if it had been computed there.

        Raises:
            ValueError: when the run leaves the sequence.
        """
        if not 0 <= run.start <= run.stop <= self.length:
            raise ValueError(f"tokens {run.start} to {run.stop} leave a sequence of {self.length}")
        for layer, *parts in zip(self.slot_layers, *run.parts, strict=True):
            states = [part for part in parts if part is not None]
            if states:
                layer.fill(run.start, run.stop, states)
        if self._home_positions is not None:
            self._home_positions[run.start : run.stop] = torch.arange(run.start, run.stop)
        self.pending = tuple(slot for slot in self.pending if not run.start <= slot < run.stop)

    @torch.inference_mode()
    def lift(self, start: int, stop: int) -> tuple[tuple[LayerStates, ...], Tensor]:
        """Copy the states of the tokens [start, stop), wherever they were computed.

        Returns:
            Keys and values [1, H, S, D] of each layer, and int64 [S] on the host: the positions
            that these keys are rotated to.
        """
        states = tuple(
            (
                (layer.keys if layer.homes is None else layer.homes)[:, :, start:stop].clone(),
                layer.values[:, :, start:stop].clone(),
            )
            if layer.is_initialized
            else None
            for layer in self.slot_layers
        )
        if self._home_positions is None:
            return states, torch.arange(start, stop)
        return states, self._home_positions[start:stop].clone()

    @torch.inference_mode()
    def lower(
        self,
        start: int,
        states: Sequence[LayerStates],
        computed_at: Tensor,
        rotation: ModelRotation,
    ) -> None:
        """Fill the slots from `start` on with what was lifted, re-rotated to where it is now.

        Raises:
            ValueError: when it leaves the sequence.
        """
        stop = start + len(computed_at)
        if not 0 <= start <= stop <= self.length:
            raise ValueError(f"tokens {start} to {stop} leave a sequence of {self.length}")
        self._settle(rotation)
        deltas = torch.arange(start, stop) - computed_at
        for layer, spec, pair in zip(self.slot_layers, rotation.layers, states, strict=True):
            if pair is None:
                continue
            keys, values = pair
            layer.keys[:, :, start:stop] = make_turn(deltas, spec, keys.device).apply(keys)
            layer.values[:, :, start:stop] = values
            if layer.homes is not None:
                layer.homes[:, :, start:stop] = keys
        if self._home_positions is not None:
            self._home_positions[start:stop] = computed_at
        self.pending = tuple(slot for slot in self.pending if not start <= slot < stop)

    # Forward passes

    @torch.inference_mode()
    def prepare(self, positions: Sequence[int], first_key: int = 0) -> ForwardPass:
        """Open a forward pass that writes the slots at `positions` (ascending, below `length`).

        Raises:
            CacheIntegrityError: when a query would see a slot that was never written.
        """
        this = ForwardPass(positions, first_key)
        if this.stop > self.length:
            raise CacheIntegrityError(
                f"a pass up to position {this.stop - 1} over {self.length} tokens"
            )
        if self.pending:
            written = set(positions)
            left = tuple(slot for slot in self.pending if slot not in written)
            if left and left[0] < this.stop and left[-1] >= first_key:
                unseen = [slot for slot in left if first_key <= slot < this.stop]
                if unseen:
                    raise CacheIntegrityError(
                        f"a pass would read slot {unseen[0]}, which was never written"
                    )
        self._pass = this
        self._written = set()
        return this

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's states [1, H, S, D] in the pass's slots; return what it may see."""
        this = self._pass
        if this is None:
            raise CacheIntegrityError("update outside a forward pass: call prepare first")
        layer = self.slot_layers[layer_idx]
        layer.write(this, key_states, value_states)
        self._written.add(layer_idx)
        if this.whole:
            return key_states, value_states
        return layer.keys[:, :, this.first_key : this.stop], layer.values[
            :, :, this.first_key : this.stop
        ]

    def written(self) -> None:
        """Take note that every layer's states of the pass stand in its slots."""
        self._written.update(range(len(self.slot_layers)))

    def commit(self) -> None:
        """Close the forward pass.

        Raises:
            CacheIntegrityError: when the model did not write every layer that has storage.
        """
        this = self._pass
        if this is None:
            raise CacheIntegrityError("commit outside a forward pass")
        missing = [
            i
            for i, layer in enumerate(self.slot_layers)
            if layer.is_initialized and i not in self._written
        ]
        if missing or not self._written:
            raise CacheIntegrityError(
                f"the pass wrote {len(self._written)} layers, but not layers {missing}"
            )
        if self._home_positions is not None:
            index = this.index(torch.device("cpu"))
            self._home_positions[index] = index
        if self.pending:
            written = set(this.positions)
            self.pending = tuple(slot for slot in self.pending if slot not in written)
        self._pass = None

    # Length

    @torch.inference_mode()
    def reserve(self, slots: int) -> None:
        """Make room for `slots`, growing by half at least, but not beyond the limit unasked."""
        if slots <= self.capacity:
            return
        generous = math.ceil(self.capacity * _GROWTH)
        capacity = _rounded(max(slots, min(generous, self.limit or generous)))
        for layer in self.slot_layers:
            layer.grow(capacity, self.length)
        if self._home_positions is not None:
            homes = torch.arange(capacity)
            homes[: self.length] = self._home_positions[: self.length]
            self._home_positions = homes
        self.capacity = capacity

    @torch.inference_mode()
    def fit(self) -> None:
        """Give back the slots after the last token."""
        capacity = _rounded(self.length)
        for layer in self.slot_layers:
            layer.grow(capacity, self.length)
        if self._home_positions is not None:
            self._home_positions = self._home_positions[:capacity].clone()
        self.capacity = capacity

    def extend(self, length: int) -> None:
        """Lengthen the sequence to `length` tokens; the new positions are pending."""
        if length > self.length:
            self.reserve(length)
            self.pending += tuple(range(self.length, length))
            self.length = length

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on; a pass that was broken off is forgotten, too."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} tokens to {length}")
        if self._pass is not None:
            # What a broken pass wrote is unknown: its slots count as never written.
            broken = set(self.pending) | set(self._pass.positions)
            self.pending = tuple(sorted(broken))
            self._pass = None
        self.length = length
        self.pending = tuple(slot for slot in self.pending if slot < length)

    def clear(self) -> None:
        """Forget all tokens; storage stays allocated, home copies are dropped."""
        self._pass = None
        self.length, self.pending = 0, ()
        self._home_positions, self._rotation = None, None
        for layer in self.slot_layers:
            layer.homes = None

    @torch.inference_mode()
    def fill(self, states: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Hold these keys and values [1, H, S, D], a pair a layer, as if they had been computed."""
        length = states[0][0].shape[2]
        self.splice((), length, None)
        self.prepare(range(length))
        for index, (keys, values) in enumerate(states):
            self.update(keys, values, index)
        self.commit()

    # Looking in

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values, home copies left out."""
        return sum(
            states.shape[1] * states.shape[3] * states.element_size()
            for layer in self.slot_layers
            if layer.is_initialized
            for states in (layer.keys, layer.values)
        )

    @property
    def memory_bytes(self) -> int:
        """Bytes allocated for keys, values and home copies."""
        return sum(layer.memory_bytes() for layer in self.slot_layers)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """Return `length`."""
        return self.length

    @torch.inference_mode()
    def clone(self) -> "SlotCache":
        """Copy the cache: for benchmarks and tests that start several edits from one state."""
        copy = SlotCache(len(self.slot_layers), self.capacity, self.limit)
        self.copy_into(copy)
        return copy

    @torch.inference_mode()
    def copy_into(self, copy: "SlotCache") -> None:
        """Copy the state into an empty cache of the same capacity, for as many layers as it has."""
        copy.length, copy.pending = self.length, self.pending
        copy._rotation = self._rotation  # noqa: SLF001 - a cache, too
        for ours, theirs in zip(copy.slot_layers, self.slot_layers, strict=False):
            if theirs.is_initialized:
                ours.keys = grown(theirs.keys, self.capacity, self.length)
                ours.values = grown(theirs.values, self.capacity, self.length)
                ours.homes = (
                    None
                    if theirs.homes is None
                    else grown(theirs.homes, self.capacity, self.length)
                )
                ours.is_initialized = True
        if self._home_positions is not None:
            copy._home_positions = self._home_positions.clone()  # noqa: SLF001

    @torch.inference_mode()
    def check_integrity(self) -> None:
        """Check what must always hold between two passes.

        Every token below `length` is written, finite and inside the storage; all layers agree on
        their shapes; each key equals its home copy rotated from where it was computed.

        Raises:
            CacheIntegrityError: with the numbers that disagree.
        """
        if self._pass is not None:
            raise CacheIntegrityError(
                f"a pass over {len(self._pass)} positions was never committed"
            )
        if not 0 <= self.length <= self.capacity:
            raise CacheIntegrityError(f"length {self.length} outside the capacity {self.capacity}")
        if self.pending:
            raise CacheIntegrityError(
                f"{len(self.pending)} slots never written, the first of them {self.pending[0]}"
            )
        if self.length and not any(layer.is_initialized for layer in self.slot_layers):
            raise CacheIntegrityError(f"{self.length} tokens, but no layer has storage")
        for index, layer in enumerate(self.slot_layers):
            if layer.is_initialized:
                self._check_layer(index, layer)

    def _check_layer(self, index: int, layer: SlotLayer) -> None:
        for name, slots in (("keys", layer.keys), ("values", layer.values), ("homes", layer.homes)):
            if slots is None:
                continue
            if (
                slots.shape[0] != 1
                or slots.shape[2] != self.capacity
                or slots.shape[1] != layer.keys.shape[1]
            ):
                raise CacheIntegrityError(
                    f"layer {index}: {name} {list(slots.shape)} for {self.capacity} slots"
                )
            finite = torch.isfinite(slots[:, :, : self.length]).all(-1).all(1)[0]
            if not bool(finite.all()):
                slot = int((~finite).nonzero()[0])
                raise CacheIntegrityError(
                    f"layer {index}: {name} of slot {slot} of {self.length} are not finite"
                )
        if layer.homes is not None and self.length:
            self._check_homes(index, layer)

    def _check_homes(self, index: int, layer: SlotLayer) -> None:
        if self._home_positions is None or self._rotation is None or layer.homes is None:
            raise CacheIntegrityError(f"layer {index}: home copies without their positions")
        deltas = torch.arange(self.length) - self._home_positions[: self.length]
        turn = make_turn(deltas, self._rotation.layers[index], layer.keys.device)
        expected = turn.apply(layer.homes[:, :, : self.length]).float()
        found = layer.keys[:, :, : self.length].float()
        error = float((found - expected).norm() / expected.norm().clamp_min(1e-30))
        if error > _HOME_TOLERANCE:
            raise CacheIntegrityError(
                f"layer {index}: keys are {error:.2%} away from their rotated homes"
            )


def _rounded(slots: int) -> int:
    return -(-slots // _GRANULE) * _GRANULE
