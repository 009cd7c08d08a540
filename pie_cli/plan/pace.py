"""The pace of a machine: what a forward pass costs here by its tokens, learned from passes."""

from collections.abc import Sequence

PROBES = (1, 64)
"""Tokens of the passes that a pace is first learned from."""

_WEIGHT = 0.25
"""Share of the newest pass in the estimate of what passes take."""

_MOST_AT_ONCE = 8
"""Times as long as expected that a pass counts for at most: it may have been stalled."""

_MOST_SLOWER = 2.0
"""Where a plain pass takes longer than asked for, repair may lengthen it so many times."""

_MOST_SLOWER_DRAFTED = 1.5
"""The same of a pass that the whole line may come out of: then it is the time of the line."""

_LINE_SHARE = 1.0
"""What all repair of a line in doubt may take, as a share of the time that it takes without.

Two lines of five are in doubt, so that all together take some 1.3 times (docs/log.md).
"""


class Pace:
    """A line through measured passes, and by how much the machine is slower now than it was then.

    One for each model on its device; every pass that a session makes corrects it.
    """

    def __init__(self) -> None:
        self._base_ms = 0.0
        self._token_ms = 0.0
        self._slowness = 1.0

    @property
    def known(self) -> bool:
        """Whether passes were measured."""
        return self._base_ms > 0

    def learn(self, tokens: Sequence[int], times_ms: Sequence[float]) -> None:
        """Take over the first measurements.

        Args:
            tokens: of two passes, ascending.
            times_ms: that they took.
        """
        (few, many), (short, long) = tokens, times_ms
        self._token_ms = max(0.0, (long - short) / (many - few))
        self._base_ms = max(1e-3, short - few * self._token_ms)

    def observe(self, tokens: int, time_ms: float) -> None:
        """Correct the estimate by one more pass: of a busy machine perhaps, or of many tokens.

        A pass whose tokens take most of its time tells what tokens cost in such passes: more than
        in those that were measured first.
        """
        if not self.known:
            return
        base_ms, tokens_ms = self.pass_ms(0), self.pass_ms(tokens) - self.pass_ms(0)
        if tokens_ms > base_ms:
            ratio = max(0.0, time_ms - base_ms) / tokens_ms
            self._token_ms *= 1 + _WEIGHT * (min(ratio, _MOST_AT_ONCE) - 1)
        else:
            ratio = time_ms / (base_ms + tokens_ms)
            self._slowness *= 1 + _WEIGHT * (min(ratio, _MOST_AT_ONCE) - 1)

    def pass_ms(self, tokens: int) -> float:
        """Return what a pass over so many tokens is expected to take now, in milliseconds."""
        return self._slowness * (self._base_ms + tokens * self._token_ms)

    def room(self, latency_ms: float, needed: int, *, is_drafted: bool = False) -> int:
        """Return how many tokens may run in a pass besides those that must.

        Args:
            latency_ms: that the pass may take, or, where that is longer, twice what the needed
                tokens alone take; half as much again where the pass may be all of the line.
            needed: tokens that must run.
            is_drafted: whether it may: the last line is verified in it.
        """
        slower = _MOST_SLOWER_DRAFTED if is_drafted else _MOST_SLOWER
        limit = max(latency_ms, slower * self.pass_ms(needed))
        if not self._token_ms:
            return 1 << 20
        return max(0, int((limit - self.pass_ms(needed)) / (self._slowness * self._token_ms)))

    def room_again(self, needed: int, repaired: int, passes: int, more: int = 0) -> int:
        """Return how many tokens a second look may compute.

        Args:
            needed: tokens that had to run in the first pass.
            repaired: tokens that ran there besides, and those that are decided again.
            passes: of the whole line, as far as that is known.
            more: passes that the second look adds to these.
        """
        if not self._token_ms:
            return 1 << 20
        rows = needed + passes - 1
        line_ms = passes * self._base_ms + rows * self._token_ms
        left_ms = _LINE_SHARE * line_ms - more * self._base_ms
        return max(0, int(left_ms / self._token_ms) - repaired)
