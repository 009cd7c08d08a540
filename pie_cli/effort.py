"""What recomputing a prompt would take, from the last time that it was encoded."""

from dataclasses import dataclass


@dataclass
class Effort:
    """Encodings of one text, measured: the next one takes about as long a token.

    Attributes:
        tokens: of the last encoding.
        ms: that it took.
    """

    tokens: int = 0
    ms: float = 0.0

    def note(self, tokens: int, ms: float) -> None:
        """Take in an encoding of a whole prompt."""
        self.tokens, self.ms = tokens, ms

    def of(self, tokens: int) -> float | None:
        """Return the milliseconds that so many tokens take; None where nothing was measured yet."""
        return self.ms * tokens / self.tokens if self.tokens else None
