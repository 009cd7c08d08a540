"""Run cases: every strategy from the same session in the state before the edit."""

from collections.abc import Iterable, Sequence

from pie_cli.evaluation.cases.case import EvalCase
from pie_cli.evaluation.runs.outcomes import Outcome, Record
from pie_cli.evaluation.runs.trial import FULL, Laboratory, Question, score
from pie_cli.plan.plan import Alignment, align
from pie_cli.plan.strategies import Strategy
from pie_cli.prompt.assembly import Prompt
from pie_cli.text.edit import Edit


class CaseRunner:
    """Runs single cases.

    Both texts are cut to the window that `pie complete` has of the text after the edit, so that
    every strategy answers the same prompt. The text before the edit is encoded exactly; each
    strategy starts from a copy of that session, in an order that turns from case to case: full
    recompute first, for it is what the others are compared with.

    Args:
        laboratory: the model.
        strategies: to run; full recompute runs anyway.
    """

    def __init__(self, laboratory: Laboratory, strategies: Sequence[Strategy]) -> None:
        self._laboratory = laboratory
        self._others = [strategy for strategy in strategies if strategy != FULL]

    def warm_up(self, cases: Iterable[EvalCase]) -> None:
        """Run the first case that has something to measure, for what only the first run pays."""
        for case in cases:
            if not self.run(case, 0).outside:
                return

    def run(self, case: EvalCase, turn: int) -> Record:
        """Run every strategy on one case.

        Args:
            case: any.
            turn: number of the case, which says what strategy begins.
        """
        asked = self._laboratory.session(case.path).preview(case.after.text, case.after.cursor)
        edit = Edit.between(case.before.text, case.after.text)
        held = asked.edges.moved(edit.reversed())
        before = case.before.within(held.top, held.bottom)
        after = case.after.within(asked.edges.top, asked.edges.bottom)
        outcomes: dict[str, Outcome] = {}
        alignment, prompt_tokens = Alignment(0, 0, ()), len(asked.token_ids)
        if before.text != after.text:
            session = self._laboratory.roomy_session(case.path)
            session.prime(before.text, at=before.cursor)
            full = self._laboratory.try_out(self._laboratory.fork(session, FULL), after)
            assert session.prompt is not None
            alignment = align(session.prompt.token_ids, full.prompt.token_ids)
            prompt_tokens = alignment.new_length
            question = Question(case.target, case.obsolete, kept_after_change(alignment))
            outcomes[FULL.name] = score(full, full, question)
            first = turn % max(1, len(self._others))
            for strategy in (*self._others[first:], *self._others[:first]):
                twin = self._laboratory.fork(session, strategy)
                trial = self._laboratory.try_out(twin, after)
                outcomes[strategy.name] = score(trial, full, question)
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
            prompt_tokens=prompt_tokens,
            truncated=truncated(asked),
            outside=not outcomes,
            moved=moved_tokens(alignment),
            changed=changed_tokens(alignment),
            outcomes=outcomes,
        )


def truncated(prompt: Prompt) -> bool:
    """Tell whether a prompt leaves text out, above the window or below it."""
    return bool(prompt.edges.top or prompt.dropped_below)


def moved_tokens(alignment: Alignment) -> int:
    """Return how far the edit moved kept text, in tokens: the farthest of its runs."""
    return max((abs(run.delta) for run in alignment.runs), default=0)


def changed_tokens(alignment: Alignment) -> int:
    """Return how many tokens came and went."""
    kept = sum(run.length for run in alignment.runs)
    return (alignment.new_length - kept) + (alignment.old_length - kept)


def kept_after_change(alignment: Alignment) -> list[int]:
    """List the positions after the first change that pie keeps: not the last, always fresh."""
    change, last = alignment.first_change, alignment.new_length - 1
    return [
        position
        for run in alignment.runs
        for position in range(max(change, run.new_start), min(run.new_stop, last))
    ]
