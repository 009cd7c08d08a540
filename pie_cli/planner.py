"""The way from one prompt's cache to the next: what is kept, and what there is time to repair."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.engine.protocol import Decoding, Engine, Line
from pie_cli.plan.pace import PROBES
from pie_cli.plan.plan import MIN_PARKED, Alignment, Plan, align, restoring
from pie_cli.plan.repair import (
    AGAIN_TOKENS,
    LEAST_AGAIN,
    MAX_TOKENS,
    again_positions,
    repair_positions,
    settled,
)
from pie_cli.plan.strategies import parse
from pie_cli.prompt.assembly import Prompt
from pie_cli.text.matching import KeptRun
from pie_cli.timing import elapsed_ms

USUAL_PASSES: Final = 8
"""Of a line: as many as most need (docs/log.md)."""

DOUBT: Final = 0.5
"""Margin below which a token is decided again: those that were wrong had up to 0.3."""


class Planner:
    """Makes the plans of one document's edits, by one strategy.

    Args:
        model: prepared; its pace is learned here.
        settings: strategy and latency.

    Raises:
        InputError: when the strategy is none.
    """

    def __init__(self, model: EditableModel, settings: Settings) -> None:
        self._model = model
        self._latency_ms = settings.latency
        self._strategy = parse(settings.strategy)
        self._name = self._strategy.name

    def plan(
        self,
        engine: Engine,
        old: Prompt,
        new: Prompt,
        stale_from: int,
        riding: int = 0,
        before_ms: float = 0.0,
        *,
        is_drafted: bool = False,
    ) -> Plan:
        """Plan the way from the cached prompt to a new one.

        Args:
            engine: holds the old prompt.
            old: cached.
            new: wanted.
            stale_from: every token of the old one before it is as full recompute would have it.
            riding: tokens of a draft that ride in the same pass.
            before_ms: what comes before the pass and counts towards the latency as well.
            is_drafted: whether that is the last line, which may be the whole of this one as well.
        """
        ids, held = new.token_ids, old.token_ids
        alignment = align(held, ids)
        if engine.parked and self._strategy.base == "pie" and alignment.fresh >= MIN_PARKED:
            longer = [*held, *engine.parked]
            further = align(longer, ids)
            if further.fresh <= alignment.fresh - MIN_PARKED:
                held, alignment = longer, further
        if old.form == new.form:
            alignment = settled(alignment, old.sides, new.sides)
        needed = alignment.fresh + riding
        pace, left_ms = self._model.pace, self._latency_ms - before_ms
        room = pace.room(left_ms, needed, is_drafted=is_drafted) if pace.known else None
        repair = repair_positions(
            self._strategy,
            alignment,
            held,
            ids,
            self._model.tokenizer.pieces,
            anchor=new.anchor,
            exact=stale_from,
            room=room,
        )
        plan = engine.plan(self._name, alignment, repair)
        if not plan.rotate:
            # The other strategies are baselines: they have what their namesakes have.
            return plan
        exact = min(stale_from, alignment.first_change)
        return restoring(plan, engine.find_snapshots(ids, exact))

    def doubt(self, plan: Plan, stale_from: int) -> float | None:
        """Return the margin below which a token is worth a second look; None for no token.

        Args:
            plan: of the first look.
            stale_from: every token before it is as full recompute would have it, once executed.
        """
        return DOUBT if self._strategy.again and stale_from < plan.length else None

    def second_look(
        self,
        engine: Engine,
        plan: Plan,
        stale_from: int,
        riding: int,
        first: Line,
        anchor: int | None = None,
    ) -> Plan | None:
        """Plan a second look at a prompt, one pass over `again_positions`.

        Args:
            engine: holds the prompt.
            plan: of the first look.
            stale_from: every token of the prompt before it is as full recompute would have it.
            riding: tokens of a draft that rode in the first look's pass.
            first: the line so far, which is decided again.
            anchor: position after which the prediction continues, where that is not the prompt's
                end.

        Returns:
            The plan; None where a finished line is not worth a pass more.
        """
        wish, length = self._strategy.again, plan.length
        is_finished = first.stopped_by != "doubt"
        if wish and wish.budget:
            room = wish.budget.of(length)
        elif self._model.pace.known:
            room = self._room_again(plan, riding, first, is_finished)
            if is_finished and room < LEAST_AGAIN:
                return None
        else:
            room = AGAIN_TOKENS
        repair = again_positions(plan, stale_from, min(room, MAX_TOKENS), anchor)
        whole = Alignment(length, length, (KeptRun(0, 0, length),))
        return engine.plan(self._name, whole, repair)

    def _room_again(self, plan: Plan, riding: int, first: Line, is_finished: bool) -> int:
        """Return how many tokens there is time for, after a first look, until the line is done.

        A finished line is known, and the second look a pass more. Any other one is expected to take
        as many passes as most do, one of which the second look takes the place of.
        """
        passes = first.passes if is_finished else max(USUAL_PASSES, first.passes + 1)
        repaired = len(plan.repaired)
        return self._model.pace.room_again(
            plan.encoded - repaired + riding,
            repaired + len(first.token_ids),
            passes,
            int(is_finished),
        )

    def learn_pace(self, engine: Engine, token_ids: Sequence[int], decoding: Decoding) -> None:
        """Measure two passes over tokens that are exact, and stay so, where that is of use.

        Args:
            engine: holds the prompt, all of it exact.
            token_ids: of the prompt.
            decoding: of its line, which is not wanted.
        """
        length, pace = len(token_ids), self._model.pace
        wanted = self._model.capability.edits and self._strategy.takes_time
        if pace.known or not wanted or length <= PROBES[-1]:
            return
        whole = Alignment(length, length, (KeptRun(0, 0, length),))
        once = replace(decoding, max_tokens=1)
        times = []
        for tokens in PROBES:
            plan = engine.plan("pie", whole, range(length - tokens, length - 1))
            lines = [engine.predict(plan, token_ids, once) for _ in range(2)]
            times.append(min(elapsed_ms(line.spliced_at, line.first_token_at) for line in lines))
        pace.learn(PROBES, times)
