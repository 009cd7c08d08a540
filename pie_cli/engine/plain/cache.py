"""Exact prediction on transformers' own cache, where pie's cannot be used."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from pie_cli.engine.clock import stamp
from pie_cli.engine.decode import DecodeOptions, Executed, Line, finish
from pie_cli.engine.forward import segments
from pie_cli.engine.model import CausalModel
from pie_cli.engine.plain.model import StockAbility, StockState
from pie_cli.engine.prefix_cache import Stash
from pie_cli.engine.recompute import RefreshStep
from pie_cli.plan.alignment import Alignment
from pie_cli.plan.plan import Plan, make_plan
from pie_cli.text.matching import KeptRun

# Tokens that are rather appended one by one than encoded with all before them: a pass over one
# token reads every weight.
_MAX_STEPS = 32


class StockCache:
    """A prompt's cache as transformers keeps it: cropped where it can be, else only appended to.

    Every prediction is exact. Where the cache cannot be cropped, it stays as it was at the prompt's
    end, and a copy of it decodes: so appends go on from there.

    Args:
        model: with transformers' attention, or with the engine's, which is then put aside.
        ability: of the model's cache.
        keeps: whether the cache is of any use to the next prompt.
    """

    def __init__(self, model: CausalModel, ability: StockAbility, keeps: bool = True) -> None:
        self._model = model
        self._ability = ability
        self._keeps = keeps and ability.copies
        self._state: StockState | None = None

    @property
    def memory_bytes(self) -> int:
        """Bytes of the tensors in the cache."""
        return self._state.memory_bytes if self._state is not None else 0

    def plan(
        self,
        strategy: str,
        alignment: Alignment,
        refresh: Sequence[int] = (),  # noqa: ARG002 - nothing exact needs repair
    ) -> Plan:
        """Return the plan of `full`, or of `prefix` where the cache can execute it."""
        kept = 0 if strategy == "full" else self._reusable(alignment)
        if not kept:
            return make_plan("full", alignment)
        run = KeptRun(0, 0, kept)
        return make_plan("prefix", Alignment(alignment.old_length, alignment.new_length, (run,)))

    def _reusable(self, alignment: Alignment) -> int:
        """Return how many tokens from the first on can stay in the cache."""
        held = len(self._state) if self._state is not None and self._keeps else 0
        if self._ability.crops:
            return min(held, alignment.first_change)
        appended = alignment.new_length - held
        if not alignment.first_change == held == alignment.old_length or appended < 1:
            return 0
        return held if self._ability.appends or appended <= _MAX_STEPS else 0

    def begin(self, length: int) -> None:  # noqa: ARG002 - storage grows by itself
        """Forget what is cached."""
        self._state = None

    def refresh(
        self,
        token_ids: Sequence[int],
        start: int,
        chunk_tokens: int,
        should_stop: Callable[[], bool],
        draft: Sequence[int] = (),
    ) -> Iterator[RefreshStep]:
        """Encode the prompt again, beside the cache that there is, which a completed run replaces.

        Where the cache cannot be cropped, it starts from token 0 whatever `start` is, and no draft
        rides along: the last step then has one row of logits.
        """
        state, start = self._from(start)
        chunk = chunk_tokens if self._ability.appends else len(token_ids)
        draft = draft if self._ability.crops else ()
        for positions in segments(start, len(token_ids), chunk):
            if should_stop():
                return
            began = stamp(self._model.device)
            logits = None
            if positions.stop < len(token_ids):
                state.run(token_ids[positions.start : positions.stop], 1)
            else:
                logits = state.run([*token_ids[positions.start :], *draft], 1 + len(draft))
                self._state = state
            yield RefreshStep(positions.stop, stamp(self._model.device) - began, logits)

    def _from(self, start: int) -> tuple[StockState, int]:
        """Return a state to encode into, and the first token that it lacks."""
        if not (start and self._ability.crops and self._state is not None):
            return StockState(self._model, self._ability), 0
        state = self._state.copy()
        state.crop(start)
        return state, len(state)

    def decode_line(
        self, plan: Plan, token_ids: Sequence[int], options: DecodeOptions, draft: Sequence[int]
    ) -> Line:
        """Encode what the plan has fresh, and predict the line that follows."""
        draft = tuple(draft[: options.max_tokens - 1]) if self._ability.crops else ()
        began_at = stamp(self._model.device)
        state, self._state = self._state, None
        if state is None or not plan.kept:
            state = StockState(self._model, self._ability)
        state.crop(plan.reused)
        spliced_at = stamp(self._model.device)
        logits = state.run([*token_ids[plan.reused :], *draft], 1 + len(draft))
        return self._finish(
            state, plan.length, Executed(logits, began_at, spliced_at), options, draft
        )

    def decode_after(
        self, token_ids: Sequence[int], logits: Tensor, options: DecodeOptions, draft: Sequence[int]
    ) -> Line:
        """Predict the line behind a prompt just refreshed."""
        assert self._state is not None
        now = stamp(self._model.device)
        # A draft that did not ride along is not there to be verified.
        rode = tuple(draft[: len(logits) - 1])
        return self._finish(self._state, len(token_ids), Executed(logits, now, now), options, rode)

    def _finish(
        self,
        state: StockState,
        length: int,
        executed: Executed,
        options: DecodeOptions,
        draft: tuple[int, ...],
    ) -> Line:
        """Decode; afterwards the cache holds exactly the prompt, or nothing."""
        # Where nothing can be taken back, the prompt's end is kept and a copy goes on.
        copies = self._keeps and not self._ability.crops
        steps = _StockSteps(self._model, state, copies)
        line = finish(steps, length, executed, options, draft)
        state.crop(length)
        self._state = state if self._keeps else None
        return line

    def keep_in(
        self,
        stash: Stash,
        token_ids: Sequence[int],
        exact_until: int,
        should_stop: Callable[[], bool],
    ) -> None:
        """Keep nothing: single tokens cannot be put back into a stock cache."""

    def clone(self) -> "StockCache":
        """Copy the cache."""
        twin = StockCache(self._model, self._ability, self._keeps)
        twin._state = self._state.copy() if self._state is not None else None
        return twin


class _StockSteps:
    """Steps in a stock cache, or in a copy of it that the first step makes."""

    def __init__(self, model: CausalModel, state: StockState, copies: bool) -> None:
        self._model = model
        self._state = state
        self._must_copy = copies

    @property
    def device(self) -> torch.device:
        return self._model.device

    def step(self, token_id: int) -> Tensor:
        if self._must_copy:
            self._state, self._must_copy = self._state.copy(), False
        return self._state.run([token_id], 1)

    def truncate(self, length: int) -> None:
        self._state.crop(length)
