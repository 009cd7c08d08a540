"""Kept runs on the other side of the hole than before: when to encode them anew."""

from dataclasses import dataclass
from typing import Final

from pie_cli.plan.alignment import Alignment
from pie_cli.text.matching import KeptRun

FRESH_BETWEEN_HOLES: Final = 64
"""Tokens between an old and a new hole up to which they are encoded anew.

Their states were computed as text behind the hole, now they stand before it, or the other way
round. A pass over so many tokens costs little more than one over ten, for what it reads is the
weights; beyond that they stay stale until the exact run.
"""


@dataclass(frozen=True, slots=True)
class Sides:
    """Where the text on both sides of a hole is in a prompt.

    Attributes:
        prefix: token positions of the text before it.
        suffix: of the text after it; empty in a prompt without.
    """

    prefix: range = range(0)
    suffix: range = range(0)


def settled(alignment: Alignment, old: Sides, new: Sides) -> Alignment:
    """Leave out the kept runs that changed sides, if they are short together.

    Args:
        alignment: between the two prompts' ids.
        old: of the cached prompt.
        new: of the new one, laid out the same way.
    """
    crossing = [run for run in alignment.runs if _crosses(run, old, new)]
    if not 0 < sum(run.length for run in crossing) <= FRESH_BETWEEN_HOLES:
        return alignment
    runs = tuple(run for run in alignment.runs if run not in crossing)
    return Alignment(alignment.old_length, alignment.new_length, runs)


def _crosses(run: KeptRun, old: Sides, new: Sides) -> bool:
    """Tell whether a run is of the prefix on one side and of the suffix on the other.

    Between the two stands a control token, so no run is of both, unless it holds that token: then
    it has not changed sides.
    """
    before, behind = range(run.old_start, run.old_stop), range(run.new_start, run.new_stop)
    if _overlap(before, old.prefix) and _overlap(before, old.suffix):
        return False
    return (_overlap(before, old.prefix) and _overlap(behind, new.suffix)) or (
        _overlap(before, old.suffix) and _overlap(behind, new.prefix)
    )


def _overlap(one: range, other: range) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)
