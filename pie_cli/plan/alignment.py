"""Alignments: which tokens of a new sequence can be taken over from an old one."""

from collections.abc import Sequence
from dataclasses import dataclass

from pie_cli.text.matching import MIN_RUN, KeptRun, moved_runs

MAX_GAP_AREA = 1 << 22
"""Old times new length up to which a gap is matched by LCS (0.5 MB of bits, some 1 ms)."""


@dataclass(frozen=True)
class Alignment:
    """Which tokens of a new sequence stand in the old one.

    Runs ascend by `new_start`; neither their new nor their old spans overlap. A moved block makes
    the old spans a permutation.

    Attributes:
        old_length: tokens of the old sequence.
        new_length: tokens of the new sequence.
        runs: the kept runs.
    """

    old_length: int
    new_length: int
    runs: tuple[KeptRun, ...]

    @property
    def first_change(self) -> int:
        """Length of the common prefix in tokens: every token before it stands where it stood."""
        if self.runs and self.runs[0].old_start == self.runs[0].new_start == 0:
            return self.runs[0].length
        return 0


def align(old_ids: Sequence[int], new_ids: Sequence[int]) -> Alignment:
    """Find which tokens of a new sequence can be taken over from an old one.

    Not a smallest edit: a run of fewer than `MIN_RUN` tokens is left fresh unless it is the whole
    untouched prefix or suffix, and a block of `MIN_MOVED` tokens or more is found again where it
    was moved to. Every old token is used at most once.

    Args:
        old_ids: token ids before the edit, not negative.
        new_ids: token ids after it.

    Returns:
        The kept runs, ascending in the new sequence.
    """
    old = old_ids if isinstance(old_ids, list) else list(old_ids)
    new = new_ids if isinstance(new_ids, list) else list(new_ids)
    kept = _without_confetti(moved_runs(old, new, MAX_GAP_AREA), len(old), len(new))
    return Alignment(len(old), len(new), tuple(kept))


def _without_confetti(runs: list[KeptRun], old_length: int, new_length: int) -> list[KeptRun]:
    """Drop short runs but for the untouched prefix and suffix."""

    def is_end(run: KeptRun) -> bool:
        starts = run.old_start == run.new_start == 0
        return starts or (run.old_stop == old_length and run.new_stop == new_length)

    return [run for run in runs if run.length >= MIN_RUN or is_end(run)]
