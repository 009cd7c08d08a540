"""Tokenized texts that follow an edit at the cost of the edit.

A text is kept as segments between cuts (see `cuts`), each with its ids. A segment's ids are those
of tokenizing it alone, so the ids of a new text are those of the segments that it still has, and of
new segments in between. Nothing is concluded from tokens that line up again.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pie_cli.prompt.cuts import Cuts
from pie_cli.text.matching import common_prefix, common_suffix

SEGMENT_CHARS = 256
"""Characters of a segment, from which on the next cut ends it: about what an edit tokenizes."""

DRIFT_CHARS = 1 << 13
"""How far from its expected place a segment is looked for, between the first and last change."""

_FEW = 4

EncodeBatch: TypeAlias = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """A text with its token ids, and where it can be cut; never changed once made.

    Attributes:
        text: the text.
        token_ids: those of tokenizing it from scratch.
        encoded_chars: characters that were tokenized to make it.
        offsets: where its segments begin, in characters, then its length; all are cuts.
        counts: token ids before each of these.
    """

    text: str
    token_ids: list[int]
    encoded_chars: int
    offsets: list[int]
    counts: list[int]

    def ids_of(self, segment: int) -> list[int]:
        """Return the token ids of one segment."""
        return self.token_ids[self.counts[segment] : self.counts[segment + 1]]


_EMPTY = TokenizedText("", [], 0, [0], [0])


def follow(
    previous: TokenizedText | None, text: str, cuts: Cuts, encode: EncodeBatch
) -> TokenizedText:
    """Tokenize a text, taking over what an earlier one of the same tokenizer has in common with it.

    Args:
        previous: any tokenized text, such as the one before an edit.
        text: the new text.
        cuts: of the tokenizer.
        encode: tokenizes each of several texts alone, from scratch.

    Returns:
        The new text with its ids; `previous` where the texts are equal.
    """
    previous = previous or _EMPTY
    if previous.text == text:
        return previous
    change = _Change(previous, text, cuts)
    segments = list(change.segments())
    fresh = [text[segment.start : segment.stop] for segment in segments if segment.known is None]
    encoded = iter(encode(fresh))
    first, last = change.first, change.last
    ids, counts = previous.token_ids[: previous.counts[first]], previous.counts[:first]
    for segment in segments:
        counts.append(len(ids))
        ids += next(encoded) if segment.known is None else previous.ids_of(segment.known)
    shift = len(ids) - previous.counts[last]
    ids += previous.token_ids[previous.counts[last] :]
    return TokenizedText(
        text=text,
        token_ids=ids,
        encoded_chars=sum(map(len, fresh)),
        offsets=[
            *previous.offsets[:first],
            *(segment.start for segment in segments),
            *(offset + change.moved for offset in previous.offsets[last:]),
        ],
        counts=[*counts, *(count + shift for count in previous.counts[last:])],
    )


@dataclass(frozen=True)
class _Segment:
    """A segment of a new text: an old one, by its number, or one to be tokenized."""

    start: int
    stop: int
    known: int | None = None


class _Change:
    """What differs between a tokenized text and a new one.

    Attributes:
        first: first segment that the change can have touched.
        last: the one after the last such segment.
        moved: characters that what is after has moved by.
        start: where the old segments [first, last) begin, in both texts.
        stop: where they end in the new text.
    """

    def __init__(self, previous: TokenizedText, text: str, cuts: Cuts) -> None:
        old, offsets = previous.text, previous.offsets
        self._previous, self._text, self._cuts = previous, text, cuts
        self.moved = len(text) - len(old)
        prefix = common_prefix(old, text)
        suffix = common_suffix(old, text, min(len(old), len(text)) - prefix)
        # What stays begins or ends at cuts whose proof lies in the equal parts of both texts.
        first = max(0, bisect_right(offsets, prefix - cuts.ahead) - 1)
        last = min(len(offsets) - 1, bisect_left(offsets, len(old) - suffix + 1))
        # A short stretch takes its neighbours along, lest segments become small and many.
        while offsets[last] + self.moved - offsets[first] < SEGMENT_CHARS:
            if last < len(offsets) - 1:
                last += 1
            elif first:
                first -= 1
            else:
                break
        self.first, self.last = first, last
        self.start, self.stop = offsets[first], offsets[last] + self.moved

    def segments(self) -> Iterator[_Segment]:
        """Cover the span [start, stop) of the new text."""
        at = self.start
        for known in self._found_again():
            yield from self._split(at, known.start)
            yield known
            at = known.stop
        yield from self._split(at, self.stop)

    def _found_again(self) -> Iterator[_Segment]:
        """Find old segments between several changes, in order, near where they are expected.

        A segment is right wherever it is found, for its ids depend on nothing else, provided that
        both its ends are cuts in the new text, too.
        """
        offsets, text, at, drift = self._previous.offsets, self._text, self.start, 0
        for index in range(self.first, self.last if self.last - self.first > _FEW else 0):
            low, high = offsets[index], offsets[index + 1]
            if high - low < SEGMENT_CHARS:
                continue
            segment = self._previous.text[low:high]
            start = low + drift
            if start < at or not text.startswith(segment, start, self.stop):
                nearest, farthest = start - DRIFT_CHARS, high + drift + DRIFT_CHARS
                start = text.find(segment, max(at, nearest), min(self.stop, farthest))
            stop = start + high - low
            if start >= 0 and self._cuts.at(text, start) and self._cuts.at(text, stop):
                yield _Segment(start, stop, index)
                at, drift = stop, start - low

    def _split(self, start: int, stop: int) -> Iterator[_Segment]:
        """Split a span at cuts; only where there is none for long a segment becomes long."""
        while stop - start >= 2 * SEGMENT_CHARS:
            least, most = start + SEGMENT_CHARS, stop - SEGMENT_CHARS
            cut = self._cuts.first(self._text, least, most + 1)
            if cut is None:
                break
            yield _Segment(start, cut)
            start = cut
        if start < stop:
            yield _Segment(start, stop)
