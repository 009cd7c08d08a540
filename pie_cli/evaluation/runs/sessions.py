"""Replay editing sessions save by save: how a cache drifts that is never made exact, or seldom.

The cursor is below the bottom-most line that any save so far has changed, at the next line with
content, which is taken out of the text and asked for: so all edits are before the cursor, and one
that follows each save's own bottom-most line does not make the window jump. A save whose edit is
outside the window leaves the prompt as it was; it is counted, not measured.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pie_cli.evaluation.cases.case import EvalSession, Gap
from pie_cli.evaluation.runs.cases import changed_tokens, moved_tokens, truncated
from pie_cli.evaluation.runs.outcomes import Outcome, Record
from pie_cli.evaluation.runs.trial import FULL, Laboratory, Question, Trial, score
from pie_cli.plan.plan import Alignment, align
from pie_cli.plan.strategies import Strategy
from pie_cli.session import EditSession
from pie_cli.text.edit import Edit, split_lines

_EXACT = ("full", "prefix")


@dataclass(frozen=True)
class Policy:
    """A strategy, and how often its cache is made exact.

    Attributes:
        strategy: of every save.
        every: saves from one exact run to the next; 0 for none.
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
        number: counted from 1; 0 for the version before the first save.
        gap: the version, the line that is asked for taken out.
        target: that line; None at the end of the file.
        hunks: places that the save changed.
        distance: lines from the last of them to the cursor; 1 is directly below it.
    """

    number: int
    gap: Gap
    target: str | None = None
    hunks: int = 0
    distance: int = 0


def policies(strategies: Sequence[Strategy], schedules: Sequence[int]) -> list[Policy]:
    """List what is replayed: exact strategies once, each other one by every schedule.

    Strategies that evict are left out: what they leave is no prompt that another save could edit.

    Args:
        strategies: as asked for.
        schedules: saves between two exact runs; 0 for none, which is always among them.
    """
    chosen = dict.fromkeys((0, *schedules))
    return [
        Policy(strategy, every)
        for strategy in strategies
        if strategy.evict is None
        for every in ((0,) if strategy.base in _EXACT else chosen)
    ]


class Replayer:
    """Replays sessions: every policy has its own, which goes through all saves.

    Args:
        laboratory: the model.
        replayed: policies; full recompute runs anyway.
        on_save: told after each save.
    """

    def __init__(
        self,
        laboratory: Laboratory,
        replayed: Sequence[Policy],
        on_save: Callable[[], None] = lambda: None,
    ) -> None:
        self._laboratory = laboratory
        self._policies = [policy for policy in replayed if policy.strategy != FULL]
        self._on_save = on_save

    def run(self, session: EvalSession) -> list[Record]:
        """Replay one session; a version that changes nothing is no save."""
        first, *saves = _saves(session)
        base = self._laboratory.session(session.path)
        base.prime(first.gap.text, at=first.gap.cursor)
        assert base.prompt is not None
        reference = self._laboratory.fork(base, FULL)
        runs = {policy: self._laboratory.fork(base, policy.strategy) for policy in self._policies}
        records: list[Record] = []
        answered, ids = 0, base.prompt.token_ids
        for save in saves:
            full = self._laboratory.try_out(reference, save.gap)
            alignment, outside = align(ids, full.prompt.token_ids), ids == full.prompt.token_ids
            ids = full.prompt.token_ids
            outcomes: dict[str, Outcome] = {}
            if outside:
                for follower in runs.values():
                    follower.update(save.gap.text, at=save.gap.cursor)
            else:
                answered += 1
                outcomes = self._outcomes(runs, full, save, answered)
            records.append(_record(session, save, len(saves), full, alignment, outcomes))
            self._on_save()
        return records

    def _outcomes(
        self, runs: dict[Policy, EditSession], full: Trial, save: _Save, answered: int
    ) -> dict[str, Outcome]:
        """Answer one save by every policy."""
        question = Question(save.target, compared=range(len(full.prompt.token_ids) - 1))
        outcomes = {FULL.name: score(full, full, question)}
        for policy, session in runs.items():
            trial = self._laboratory.try_out(session, save.gap)
            outcome = score(trial, full, question)
            if policy.every and answered % policy.every == 0:
                comparison = session.compare()
                assert comparison is not None
                outcome = replace(outcome, refresh_ms=round(comparison.timings_ms.forward, 3))
            outcomes[policy.name] = outcome
        return outcomes


def count_saves(session: EvalSession) -> int:
    """Count the versions that change something."""
    return sum(old != new for old, new in pairwise(session.versions))


def _saves(session: EvalSession) -> Iterator[_Save]:
    """Give the text before the first save, then each save's own question."""
    number = cursor = 0
    for old, new in pairwise(session.versions):
        edit = Edit.between(old, new)
        if edit.lowest is None:
            continue
        if not number:
            cursor = edit.lowest.old_stop
            yield _Save(0, _asked(old, cursor)[0])
        number += 1
        cursor = max(edit.moved_line(cursor), edit.lowest.new_stop)
        gap, target = _asked(new, cursor)
        yield _Save(number, gap, target, len(edit.hunks), gap.line - edit.lowest.new_stop + 1)


def _asked(text: str, cursor: int) -> tuple[Gap, str | None]:
    """Take the next line with content out of a text; None where it has none."""
    lines = split_lines(text)
    for line in range(cursor, len(lines)):
        if lines[line].strip():
            return Gap.at(text, line), lines[line].removesuffix("\n")
    return Gap(text), None


def _record(
    session: EvalSession,
    save: _Save,
    saves: int,
    full: Trial,
    alignment: Alignment,
    outcomes: dict[str, Outcome],
) -> Record:
    """Return the record of one save; without outcomes, its edit is not in the prompt."""
    return Record(
        task="session",
        case=session.id,
        save=save.number,
        saves=saves,
        kind="multi" if save.hunks > 1 else "single",
        language=session.language,
        distance=save.distance,
        shares_identifier=False,
        target=save.target,
        prompt_tokens=len(full.prompt.token_ids),
        truncated=truncated(full.prompt),
        outside=not outcomes,
        moved=moved_tokens(alignment),
        changed=changed_tokens(alignment),
        outcomes=outcomes,
    )
