"""One prompt's cache, edited in place: what a session asks of the engine."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from torch import Tensor

from pie_cli.engine.decode import DecodeOptions, Line, decode_after, decode_line
from pie_cli.engine.model import CausalModel
from pie_cli.engine.prefix_cache import Stash
from pie_cli.engine.recompute import RefreshStep, refresh
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.alignment import Alignment
from pie_cli.plan.plan import Plan, make_plan


class PromptCache(Protocol):
    """Keys and values of one prompt, and the model that computes them.

    Between two calls it holds exactly one complete prompt, or nothing.
    """

    @property
    def memory_bytes(self) -> int:
        """Bytes allocated."""
        ...

    def plan(self, strategy: str, alignment: Alignment, refresh: Sequence[int] = ()) -> Plan:
        """Return the plan of a strategy, or of the nearest one that this cache can execute.

        Args:
            strategy: its name.
            alignment: between the cached and the new sequence.
            refresh: positions that the strategy repairs; a plan without stale tokens needs none.
        """
        ...

    def begin(self, length: int) -> None:
        """Make room for a prompt of `length` tokens, of which nothing is encoded yet."""
        ...

    def refresh(
        self,
        token_ids: Sequence[int],
        start: int,
        chunk_tokens: int,
        should_stop: Callable[[], bool],
        draft: Sequence[int] = (),
    ) -> Iterator[RefreshStep]:
        """Encode the prompt from token `start` on, chunk by chunk; see `engine.refresh`."""
        ...

    def decode_line(
        self, plan: Plan, token_ids: Sequence[int], options: DecodeOptions, draft: Sequence[int]
    ) -> Line:
        """Execute a plan and predict the line that follows; see `engine.decode.decode_line`."""
        ...

    def decode_after(
        self, token_ids: Sequence[int], logits: Tensor, options: DecodeOptions, draft: Sequence[int]
    ) -> Line:
        """Predict the line behind a prompt just refreshed; see `engine.decode.decode_after`."""
        ...

    def keep_in(
        self,
        stash: Stash,
        token_ids: Sequence[int],
        exact_until: int,
        should_stop: Callable[[], bool],
    ) -> None:
        """Copy the prompt's exact tokens to a stash, where this cache can take them back."""
        ...

    def clone(self) -> "PromptCache":
        """Copy the cache, the model shared."""
        ...


class EditedCache:
    """A prompt's cache in slots: runs of tokens are moved and re-rotated, single slots written.

    Args:
        model: with the engine's attention installed.
        rotation: found by the gate.
        slots: the storage.
    """

    def __init__(self, model: CausalModel, rotation: ModelRotation, slots: SlotCache) -> None:
        self._model = model
        self._rotation = rotation
        self.slots = slots

    @property
    def memory_bytes(self) -> int:
        """Bytes allocated for keys, values and home copies."""
        return self.slots.memory_bytes

    def plan(self, strategy: str, alignment: Alignment, refresh: Sequence[int] = ()) -> Plan:
        """Return the strategy's plan: this cache executes every one."""
        return make_plan(strategy, alignment, refresh)

    def begin(self, length: int) -> None:
        """Forget what is cached; all `length` tokens are to be encoded."""
        self.slots.splice((), length, None)

    def refresh(
        self,
        token_ids: Sequence[int],
        start: int,
        chunk_tokens: int,
        should_stop: Callable[[], bool],
        draft: Sequence[int] = (),
    ) -> Iterator[RefreshStep]:
        """Encode the prompt from token `start` on, in place; see `engine.refresh`."""
        return refresh(self._model, self.slots, token_ids, start, chunk_tokens, should_stop, draft)

    def decode_line(
        self, plan: Plan, token_ids: Sequence[int], options: DecodeOptions, draft: Sequence[int]
    ) -> Line:
        """Execute a plan in one pass and predict the line; see `engine.decode.decode_line`."""
        return decode_line(self._model, self.slots, plan, token_ids, self._rotation, options, draft)

    def decode_after(
        self, token_ids: Sequence[int], logits: Tensor, options: DecodeOptions, draft: Sequence[int]
    ) -> Line:
        """Predict the line behind a prompt just refreshed; see `engine.decode.decode_after`."""
        return decode_after(self._model, self.slots, len(token_ids), logits, options, draft)

    def keep_in(
        self,
        stash: Stash,
        token_ids: Sequence[int],
        exact_until: int,
        should_stop: Callable[[], bool],
    ) -> None:
        """Copy the prompt's exact tokens to a stash; see `engine.stash`."""
        stash.keep(self.slots, token_ids, exact_until, should_stop)

    def clone(self) -> "EditedCache":
        """Copy the slots."""
        return EditedCache(self._model, self._rotation, self.slots.clone())
