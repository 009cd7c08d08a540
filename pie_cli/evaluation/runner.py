"""Run cases: each strategy from a copy of the same cache, beside one full recompute."""

from collections.abc import Iterable, Iterator, Sequence

from pie_cli.engine.slots import SlotCache
from pie_cli.evaluation.cases import EvalCase
from pie_cli.evaluation.cutting import PromptPair, cut
from pie_cli.evaluation.outcomes import Outcome, Record
from pie_cli.evaluation.trial import FULL, Laboratory, Question, Trial, outcome
from pie_cli.plan.plan import Alignment
from pie_cli.plan.strategies import Strategy


class CaseRunner:
    """Runs single cases.

    The prompt before the edit is encoded once a case, full recompute runs once: it is what every
    strategy is compared with, and the strategy `full` itself. The others each start from a copy of
    the cache, in an order that turns from case to case.

    Args:
        laboratory: the model.
        strategies: to run; full recompute runs anyway.
        budget: most tokens of a prompt.
    """

    def __init__(self, laboratory: Laboratory, strategies: Sequence[Strategy], budget: int) -> None:
        self._laboratory = laboratory
        self._others = [strategy for strategy in strategies if strategy != FULL]
        self._budget = budget

    def warm_up(self, cases: Iterable[EvalCase]) -> None:
        """Run the first case that has something to measure, for what only the first run pays."""
        for case in cases:
            pair = self._cut(case)
            if not pair.outside:
                self._outcomes(case, pair, 0)
                return

    def run(self, case: EvalCase, turn: int) -> Record:
        """Run every strategy on one case.

        Args:
            case: any.
            turn: number of the case, which says what strategy begins.
        """
        pair = self._cut(case)
        outcomes: dict[str, Outcome] = {}
        moved = changed = 0
        if not pair.outside:
            outcomes, alignment = self._outcomes(case, pair, turn)
            moved, changed = moved_tokens(alignment), changed_tokens(alignment)
        return Record(
            task=case.task,
            case=case.id,
            save=0,
            saves=0,
            kind=case.kind,
            language=case.language,
            distance=case.distance,
            shares_identifier=case.shares_identifier,
            target=case.target,
            prompt_tokens=len(pair.after),
            truncated=pair.truncated,
            outside=pair.outside,
            moved=moved,
            changed=changed,
            outcomes=outcomes,
        )

    def _cut(self, case: EvalCase) -> PromptPair:
        return cut(self._laboratory.model, case.path, case.before, case.after, self._budget)

    def _outcomes(
        self, case: EvalCase, pair: PromptPair, turn: int
    ) -> tuple[dict[str, Outcome], Alignment]:
        laboratory = self._laboratory
        room = max(len(pair.before), len(pair.after))
        before = laboratory.encode(pair.before, room)
        full = self._try_out(FULL, before, pair)
        # All strategies are compared on the tokens that plain pie keeps, also those of them that
        # one computes anew.
        question = Question(case.target, case.obsolete, _kept_behind_change(full.alignment))
        outcomes = {FULL.name: outcome(full, full, question)}
        for strategy in _rotated(self._others, turn):
            trial = self._try_out(strategy, before, pair, full.line_ids)
            outcomes[strategy.name] = outcome(trial, full, question)
        return outcomes, full.alignment

    def _try_out(
        self, strategy: Strategy, before: SlotCache, pair: PromptPair, draft: Sequence[int] = ()
    ) -> Trial:
        slots = before.clone()
        return self._laboratory.try_out(strategy, slots, pair.before, pair.after, draft)


def moved_tokens(alignment: Alignment) -> int:
    """Return how far the edit moved kept text, in tokens: the farthest of its runs."""
    return max((abs(run.delta) for run in alignment.runs), default=0)


def changed_tokens(alignment: Alignment) -> int:
    """Return how many tokens came and went."""
    kept = sum(run.length for run in alignment.runs)
    return (alignment.new_length - kept) + (alignment.old_length - kept)


def _kept_behind_change(alignment: Alignment) -> list[int]:
    """List the kept positions behind the first change, but for the last, which is always fresh."""
    change, last = alignment.first_change, alignment.new_length - 1
    return [
        position
        for run in alignment.runs
        for position in range(max(change, run.new_start), min(run.new_stop, last))
    ]


def _rotated(strategies: Sequence[Strategy], turn: int) -> Iterator[Strategy]:
    first = turn % len(strategies) if strategies else 0
    yield from (*strategies[first:], *strategies[:first])
