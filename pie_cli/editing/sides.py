"""Kept runs on the other side of the hole than before: when to encode them anew."""

from typing import Final

from pie_cli.editing.prompts import Prompt
from pie_cli.spans import Alignment, KeptRun

FRESH_BETWEEN_HOLES: Final = 64
"""Tokens between an old and a new hole up to which they are encoded anew.

Their states were computed as text behind the hole, now they stand before it, or the other way
round. A pass over so many tokens costs little more than one over ten, for what it reads is the
weights; beyond that they stay stale until the exact run.
"""


def settled(alignment: Alignment, old: Prompt, new: Prompt) -> Alignment:
    """Leave out the kept runs that changed sides, if they are short together.

    Args:
        alignment: between the two prompts' ids.
        old: the cached prompt.
        new: the new one.
    """
    if old.form != new.form or old.form == "plain":
        return alignment
    crossing = [run for run in alignment.runs if _crosses(run, old, new)]
    if not 0 < sum(run.length for run in crossing) <= FRESH_BETWEEN_HOLES:
        return alignment
    runs = tuple(run for run in alignment.runs if run not in crossing)
    return Alignment(alignment.old_length, alignment.new_length, runs)


def _crosses(run: KeptRun, old: Prompt, new: Prompt) -> bool:
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
