"""Spans of tokens that an edit keeps: the one vocabulary shared by diffing and the engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeptRun:
    """A run of tokens found again, unchanged, in the new sequence.

    Attributes:
        old_start: first token in the old sequence.
        new_start: first token in the new sequence.
        length: tokens.
    """

    old_start: int
    new_start: int
    length: int

    @property
    def old_stop(self) -> int:
        """First old token behind the run."""
        return self.old_start + self.length

    @property
    def new_stop(self) -> int:
        """First new token behind the run."""
        return self.new_start + self.length

    @property
    def delta(self) -> int:
        """New minus old position, in tokens."""
        return self.new_start - self.old_start


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
