"""Replay editing sessions save by save: how a cache drifts that is never made exact, or seldom.

The prediction stands below the bottom-most line that any save so far has changed, so that all edits
lie in the prompt, as they would with text on both sides of the spot. (Following each save's own
bottom-most line, a plain prompt would grow and shrink by half the window, and most of what is timed
would be text that comes back.) The true line is the next one with content. A save whose edit lies
above the window leaves the prompt as it was; it is counted, not measured.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pie_cli.engine.slots import SlotCache
from pie_cli.evaluation.cases import EvalSession
from pie_cli.evaluation.cutting import head_of, window
from pie_cli.evaluation.outcomes import Outcome, Record
from pie_cli.evaluation.runner import changed_tokens, moved_tokens
from pie_cli.evaluation.trial import FULL, Laboratory, Question, Trial, outcome
from pie_cli.plan.plan import Alignment
from pie_cli.plan.strategies import Strategy
from pie_cli.prompt.window import Edges
from pie_cli.text.edit import Edit, split_lines

_EXACT = ("full", "prefix")


@dataclass(frozen=True)
class Policy:
    """A strategy, and how often its cache is made exact.

    Attributes:
        strategy: of every save.
        every: saves from one refresh to the next; 0 for never.
    """

    strategy: Strategy
    every: int = 0

    @property
    def name(self) -> str:
        """As records and reports call it: `pie`, `pie@5`."""
        return f"{self.strategy.name}@{self.every}" if self.every else self.strategy.name


@dataclass(frozen=True)
class _Save:
    """One version's question.

    Attributes:
        token_ids: of the prompt: the text above the spot.
        truncated: whether the window leaves lines out.
        target: the true line; None at the end of the file.
        hunks: places that the save changed.
        distance: lines from the last of them to the spot; 1 is directly behind it.
    """

    token_ids: list[int]
    truncated: bool
    target: str | None
    hunks: int
    distance: int


@dataclass
class _Run:
    """A policy at work: its cache and the prompt that it holds."""

    policy: Policy
    slots: SlotCache


def policies(strategies: Sequence[Strategy], schedules: Sequence[int]) -> list[Policy]:
    """List what is replayed: exact strategies once, each other one by every schedule.

    Strategies that evict are left out: what they leave is no prompt that another save could edit.

    Args:
        strategies: as asked for.
        schedules: saves between two refreshes; 0 for never, which is always among them.
    """
    chosen = dict.fromkeys((0, *schedules))
    return [
        Policy(strategy, every)
        for strategy in strategies
        if strategy.evict is None
        for every in ((0,) if strategy.base in _EXACT else chosen)
    ]


class Replayer:
    """Replays sessions.

    Args:
        laboratory: the model.
        replayed: policies; full recompute runs anyway.
        budget: most tokens of a prompt.
        on_save: told after each save.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        replayed: Sequence[Policy],
        budget: int,
        on_save: Callable[[], None] = lambda: None,
    ) -> None:
        self._laboratory = laboratory
        self._policies = [policy for policy in replayed if policy.strategy != FULL]
        self._budget = budget
        self._on_save = on_save

    def run(self, session: EvalSession) -> list[Record]:
        """Replay one session; a version that changes nothing is no save."""
        held, *asked = self._saves(session)
        ids = held.token_ids
        # As a session does: room for some edits before the storage has to grow.
        first = self._laboratory.encode(ids, len(ids) + len(ids) // 8)
        runs = [_Run(policy, first.clone()) for policy in self._policies]
        records: list[Record] = []
        answered = 0
        for number, save in enumerate(asked, 1):
            place = (number, len(asked))
            new_ids = save.token_ids
            if new_ids == ids:
                records.append(_record(session, save, place, Alignment(0, 0, ()), {}))
            else:
                answered += 1
                full = self._laboratory.try_out(FULL, first.clone(), ids, new_ids)
                outcomes = self._outcomes(runs, full, (ids, new_ids), save, answered)
                records.append(_record(session, save, place, full.alignment, outcomes))
            ids = new_ids
            self._on_save()
        return records

    def _outcomes(
        self,
        runs: Sequence[_Run],
        full: Trial,
        prompts: tuple[list[int], list[int]],
        save: _Save,
        answered: int,
    ) -> dict[str, Outcome]:
        """Answer one save by every policy."""
        question = Question(save.target, compared=range(len(save.token_ids) - 1))
        outcomes = {FULL.name: outcome(full, full, question)}
        for run in runs:
            strategy, every = run.policy.strategy, run.policy.every
            trial = self._laboratory.try_out(strategy, run.slots, *prompts, full.line_ids)
            refreshed = bool(every) and answered % every == 0
            refresh_ms = full.first_token_ms if refreshed else 0.0
            outcomes[run.policy.name] = outcome(trial, full, question, refresh_ms)
            if refreshed:
                # What an exact run leaves behind is what full recompute has just computed.
                run.slots = full.slots.clone()
        return outcomes

    def _saves(self, session: EvalSession) -> Iterator[_Save]:
        """Give the prompt before the first save, then each save's own."""
        model = self._laboratory.model
        head = head_of(model, session.path, self._budget)
        room = self._budget - len(head)
        spot = edge = 0
        opened = False
        for old, new in pairwise(session.versions):
            edit = Edit.between(old, new)
            hunks = edit.hunks
            if not hunks:
                continue
            if not opened:
                opened, spot = True, hunks[-1].old_stop
                ids, edge = window(model.tokenizer.encode, split_lines(old)[:spot], 0, room)
                yield _Save([*head, *ids], edge > 0, None, 0, 0)
            spot = max(edit.moved_line(spot), hunks[-1].new_stop)
            lines = split_lines(new)
            ids, edge = window(
                model.tokenizer.encode, lines[:spot], Edges(edge).moved(edit).top, room
            )
            target = next((line for line in lines[spot:] if line.strip()), None)
            yield _Save(
                [*head, *ids],
                edge > 0,
                target and target.removesuffix("\n"),
                len(hunks),
                spot - hunks[-1].new_stop + 1,
            )


def count_saves(session: EvalSession) -> int:
    """Count the versions that change something."""
    return sum(old != new for old, new in pairwise(session.versions))


def _record(
    session: EvalSession,
    save: _Save,
    place: tuple[int, int],
    alignment: Alignment,
    outcomes: dict[str, Outcome],
) -> Record:
    """Return the record of one save; without outcomes, its edit is not in the prompt."""
    return Record(
        task="session",
        case=session.id,
        save=place[0],
        saves=place[1],
        kind="multi" if save.hunks > 1 else "single",
        language=session.language,
        distance=save.distance,
        shares_identifier=False,
        target=save.target,
        prompt_tokens=len(save.token_ids),
        truncated=save.truncated,
        outside=not outcomes,
        moved=moved_tokens(alignment),
        changed=changed_tokens(alignment),
        outcomes=outcomes,
    )
