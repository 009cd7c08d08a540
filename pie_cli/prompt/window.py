"""The window: which part of the text on both sides of a cursor a prompt holds."""

from collections.abc import Callable
from dataclasses import dataclass

from pie_cli.prompt.incremental import TokenizedText
from pie_cli.text.edit import Edit

# When an edge of the window must move it moves far, so that it stays for many edits.
_FILL = 0.75
_REFILL = 0.4
_MAX_CHARS_PER_TOKEN = 16

CHARS_PER_TOKEN = 3.0
"""Of code, a little less than usual: an estimate before anything is tokenized."""

SUFFIX_SHARE = 0.25
"""Of the room for text, what the text below the cursor gets where neither side fits."""


@dataclass(frozen=True, slots=True)
class Edges:
    """The lines that the window ends at, counted from 0 in the whole text.

    Attributes:
        top: first line in the prompt; those above it are left out.
        bottom: first line below the prompt; None where nothing is left out.
    """

    top: int = 0
    bottom: int | None = None

    def moved(self, edit: Edit) -> "Edges":
        """Return where the edges are after an edit; the top of the text stays the top."""
        top = edit.moved_line(self.top) if self.top else 0
        bottom = None if self.bottom is None else edit.moved_line(self.bottom)
        return Edges(top, bottom)


class Side:
    """The text on one side of a cursor, of which the characters nearest to it are kept.

    Args:
        text: all of it.
        tokenize: gives a text's ids.
        below: whether it is after the cursor, so that its end is cut off, not its beginning.
    """

    def __init__(
        self, text: str, tokenize: Callable[[str], TokenizedText], *, below: bool = False
    ) -> None:
        self._text = text
        self._tokenize = tokenize
        self._below = below
        self.keep(len(text))

    def keep(self, characters: int) -> None:
        """Cut to so many characters; nothing is tokenized before somebody asks."""
        self._kept = characters
        self._part: TokenizedText | None = None

    @property
    def part(self) -> TokenizedText:
        """The kept text, tokenized."""
        if self._part is None:
            self._part = self._tokenize(self._text[self.span])
        return self._part

    @property
    def span(self) -> slice:
        """The characters that are kept."""
        if self._below:
            return slice(0, self._kept)
        return slice(len(self._text) - self._kept, len(self._text))

    @property
    def tokens(self) -> int:
        """Tokens of the kept text."""
        return len(self.part.token_ids)

    @property
    def whole(self) -> bool:
        """Whether nothing is left out."""
        return self._kept == len(self._text)

    def bound(self, room: int, per_token: float = _MAX_CHARS_PER_TOKEN) -> None:
        """Cut to about `room` tokens what is longer than that, before it is tokenized.

        Args:
            room: tokens.
            per_token: characters a token may have before the text counts as longer.
        """
        if self._kept > room * per_token:
            self.keep(self._reach(room, CHARS_PER_TOKEN))

    def refill(self, room: int) -> None:
        """Reach out where an edge left less than it might hold."""
        if self.whole or self.tokens >= _REFILL * room:
            return
        # What is known of the text's density tells how far to reach.
        density = max(CHARS_PER_TOKEN, self._kept / max(1, self.tokens))
        self.keep(max(self._kept, self._reach(int(_FILL * room), density)))

    def shrink(self, room: int, fill: float = _FILL) -> None:
        """Give up what is farthest from the cursor, to leave about `fill` of the room taken."""
        density = self._kept / self.tokens
        self.keep(min(self._kept - 1, self._reach(int(fill * room), density)))

    def _reach(self, tokens: int, density: float) -> int:
        """Return about how many characters hold `tokens`, up to a line's end if one is near."""
        span = int(tokens * density)
        if span >= len(self._text):
            return len(self._text)
        return self._reach_below(span) if self._below else self._reach_above(span)

    def _reach_above(self, span: int) -> int:
        text = self._text
        offset = len(text) - span
        newline = text.find("\n", offset - 1, offset + span // 4)
        if 0 <= newline < len(text) - 1:
            return len(text) - newline - 1
        # Inside a huge line: on a coarse grid, where the edge stays while the text grows.
        grid = _grid(span)
        return len(text) - min(-(-offset // grid) * grid, len(text))

    def _reach_below(self, span: int) -> int:
        newline = self._text.rfind("\n", span - span // 4, span)
        if newline >= 0:
            return newline + 1
        return span // _grid(span) * _grid(span)


def fit(before: Side, after: Side | None, room: int) -> None:
    """Cut both sides so that they hold `room` tokens at most.

    Where both have more than fits, the text after the cursor gets `SUFFIX_SHARE`; where one is
    short, the other gets its room. An edge that need not move stays.

    Args:
        before: the text before the cursor, cut at the last prompt's edge.
        after: the text after it; None for a prompt without.
        room: tokens, at least 1.
    """
    sides = [before] if after is None else [before, after]
    for side in sides:
        side.bound(room)
    for side, its in zip(sides, _rooms(before, after, room), strict=False):
        side.refill(its)
    while sum(side.tokens for side in sides) > room:
        for side, its in zip(sides, _rooms(before, after, room), strict=False):
            if side.tokens > its:
                side.shrink(its)


def _rooms(before: Side, after: Side | None, room: int) -> tuple[int, int]:
    """Return the tokens that each side may take; what is cut could fill any room."""
    if after is None:
        return room, 0
    before_has = before.tokens if before.whole else room
    behind_has = after.tokens if after.whole else room
    behind_room = max(int(SUFFIX_SHARE * room), room - before_has)
    return room - min(behind_has, behind_room), behind_room


def _grid(span: int) -> int:
    return 1 << (span // 8).bit_length()
