"""The engine for models whose cache cannot be edited: exact prediction on their own cache."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from typing_extensions import override

from pie_cli.engine.decode import FirstPass, decode_line
from pie_cli.engine.device import memory_sufficing, stamp
from pie_cli.engine.edited import chunk_tokens_for
from pie_cli.engine.forward import segments
from pie_cli.engine.gate.verdicts import PlainAbility
from pie_cli.engine.logits import LogitRows
from pie_cli.engine.model import CausalModel
from pie_cli.engine.plain.model import PlainState
from pie_cli.engine.protocol import (
    Capability,
    Decoding,
    Engine,
    Line,
    RecomputeStep,
    ShouldStop,
    never,
)
from pie_cli.plan.plan import Alignment, Plan, make_plan
from pie_cli.text.matching import KeptRun

# Tokens that are rather appended one by one than encoded with all before them: a pass over one
# token reads every weight.
_MAX_STEPS = 32


class PlainEngine(Engine):
    """A prompt's cache as transformers keeps it: cropped where it can be, else only appended to.

    Every prediction is exact. Where the cache cannot be cropped, it stays as it was at the prompt's
    end, and a copy of it decodes: so appends go on from there.

    Args:
        model: with transformers' attention, or with the engine's, which is then put aside.
        ability: of the model's cache.
        keeps: whether the cache is of any use to the next prompt.
    """

    def __init__(self, model: CausalModel, ability: PlainAbility, keeps: bool = True) -> None:
        self._model = model
        self._ability = ability
        self._keeps = keeps and ability.copies
        self._state: PlainState | None = None
        self._recomputed: LogitRows | None = None

    @property
    @override
    def capability(self) -> Capability:
        chunk = chunk_tokens_for(self._model.device)
        return Capability(edits=False, instead=self._ability.summary, chunk_tokens=chunk)

    @property
    @override
    def memory_bytes(self) -> int:
        return self._state.memory_bytes if self._state is not None else 0

    @override
    def plan(self, strategy: str, alignment: Alignment, repair: Sequence[int] = ()) -> Plan:
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

    @override
    def find_snapshots(self, token_ids: Sequence[int], start: int) -> tuple[range, ...]:
        return ()

    @override
    def keep_snapshots(
        self, token_ids: Sequence[int], exact_until: int, should_stop: ShouldStop
    ) -> None:
        """Keep nothing: single tokens cannot be put back into such a cache."""

    @override
    def begin(self, length: int) -> None:
        self._state = None

    @override
    def recompute(
        self,
        token_ids: Sequence[int],
        start: int,
        chunk_tokens: int,
        should_stop: ShouldStop = never,
        draft: Sequence[int] = (),
    ) -> Iterator[RecomputeStep]:
        """Encode the prompt again, beside the cache that there is, which a completed run replaces.

        Where the cache cannot be cropped, it starts from token 0 whatever `start` is, and no draft
        rides along.
        """
        state, start = self._from(start)
        chunk = chunk_tokens if self._ability.appends else len(token_ids)
        draft = draft if self._ability.crops else ()
        for positions in segments(start, len(token_ids), chunk):
            if should_stop():
                return
            with memory_sufficing():
                began = stamp(self._model.device)
                if positions.stop < len(token_ids):
                    state.run(token_ids[positions.start : positions.stop], 1)
                else:
                    logits = state.run([*token_ids[positions.start :], *draft], 1 + len(draft))
                    self._recomputed, self._state = LogitRows(logits), state
                step = RecomputeStep(positions.stop, stamp(self._model.device) - began)
            yield step

    def _from(self, start: int) -> tuple[PlainState, int]:
        """Return a state to encode into, and the first token that it lacks."""
        if not (start and self._ability.crops and self._state is not None):
            return PlainState(self._model, self._ability), 0
        state = self._state.copy()
        state.crop(start)
        return state, len(state)

    @override
    @memory_sufficing()
    def predict(
        self, plan: Plan, token_ids: Sequence[int], decoding: Decoding, draft: Sequence[int] = ()
    ) -> Line:
        draft = tuple(draft[: decoding.max_tokens - 1]) if self._ability.crops else ()
        began_at = stamp(self._model.device)
        state, self._state = self._state, None
        if state is None or not plan.kept:
            state = PlainState(self._model, self._ability)
        state.crop(plan.reused)
        spliced_at = stamp(self._model.device)
        logits = state.run([*token_ids[plan.reused :], *draft], 1 + len(draft))
        first = FirstPass(LogitRows(logits), draft, began_at, spliced_at)
        return self._decode(state, plan.length, first, decoding)

    @override
    @memory_sufficing()
    def predict_after(
        self, token_ids: Sequence[int], decoding: Decoding, draft: Sequence[int] = ()
    ) -> Line:
        rows, self._recomputed = self._recomputed, None
        if rows is None or self._state is None:
            raise ValueError("no logits of a recompute")
        now = stamp(self._model.device)
        # A draft that did not ride along is not there to be verified.
        first = FirstPass(rows, tuple(draft[: len(rows) - 1]), now, now)
        return self._decode(self._state, len(token_ids), first, decoding)

    def _decode(self, state: PlainState, length: int, first: FirstPass, decoding: Decoding) -> Line:
        """Decode; afterwards the cache holds exactly the prompt, or nothing."""
        if not self._ability.crops:
            # What was drafted in vain could not be taken back.
            decoding = replace(decoding, look_up=None)
        # Where nothing can be taken back, the prompt's end is kept and a copy goes on.
        steps = _Steps(self._model, state, self._keeps and not self._ability.crops)
        line = decode_line(steps, length, first, decoding)
        state.crop(length)
        self._state = state if self._keeps else None
        return line

    @override
    @memory_sufficing()
    def clone(self) -> "PlainEngine":
        twin = PlainEngine(self._model, self._ability, self._keeps)
        twin._state = self._state.copy() if self._state is not None else None
        return twin


class _Steps:
    """Steps in a model's own cache, or in a copy of it that the first step makes."""

    def __init__(self, model: CausalModel, state: PlainState, copies: bool) -> None:
        self._model = model
        self._state = state
        self._must_copy = copies

    def now(self) -> float:
        return stamp(self._model.device)

    def run(self, token_ids: Sequence[int]) -> LogitRows:
        if self._must_copy:
            self._state, self._must_copy = self._state.copy(), False
        return LogitRows(self._state.run(token_ids, len(token_ids)))

    def truncate(self, length: int) -> None:
        self._state.crop(length)
