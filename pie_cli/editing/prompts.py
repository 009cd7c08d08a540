"""The prompt: a fixed head, then as much of the text before the spot as the window holds."""

from dataclasses import dataclass
from pathlib import PurePath

from pie_cli.editing.spots import line_offset
from pie_cli.editing.tokens import TextTokenizer
from pie_cli.errors import CacheCapacityError

_SLASH_COMMENTS = frozenset(
    f".{suffix}"
    for suffix in "c cc cpp cs dart go h hpp java js jsx kt m php rs scala swift ts tsx zig".split()
)

# When the window's edge must move it moves far, so that it stays for many edits.
_FILL = 0.75
_REFILL = 0.4
_CHARS_PER_TOKEN = 3.0
_MAX_CHARS_PER_TOKEN = 16


@dataclass(frozen=True)
class ContextFile:
    """Another file whose text stands before the prompt's own.

    Attributes:
        path: as the path comment above the text shows it.
        text: the whole text.
    """

    path: str
    text: str


@dataclass(frozen=True)
class Prompt:
    """Token ids of a prompt.

    Attributes:
        token_ids: of head and text.
        edge: 0-based line from which on the text is in the prompt; the lines above it were dropped.
    """

    token_ids: list[int]
    edge: int


class PromptBuilder:
    """Builds the prompts of one file.

    The ids of head and text are each those of tokenizing it from scratch.

    Args:
        tokenizer: the model's.
        bos_id: beginning-of-text token, where the model has one: the attention sink.
        path: of the file; the head's comment shows it, of an absolute one only the name, for
            where a project lies tells the model nothing.
        budget: most tokens of a prompt.

    Raises:
        CacheCapacityError: when the budget leaves no room behind the head.
    """

    def __init__(
        self, tokenizer: TextTokenizer, bos_id: int | None, path: str, budget: int
    ) -> None:
        self._tokenizer = tokenizer
        pure = PurePath(path)
        mark = "//" if pure.suffix in _SLASH_COMMENTS else "#"
        comment = tokenizer.encode(f"{mark} {pure.name if pure.is_absolute() else path}\n")
        self.head = [*([] if bos_id is None else [bos_id]), *comment]
        self._room = budget - len(self.head)
        if self._room < 1:
            raise CacheCapacityError(
                f"a context of {budget} tokens has no room behind the head of {len(self.head)}",
                "raise --context-tokens, lower --max-tokens or shorten the path",
            )

    def build(self, text: str, edge: int = 0) -> Prompt:
        """Return the prompt for the text before the spot.

        Args:
            text: everything before the spot.
            edge: the last prompt's edge, moved along with the text.
        """
        offset = line_offset(text, edge)
        if offset is None or len(text) - offset > self._room * _MAX_CHARS_PER_TOKEN:
            offset = self._retreat(text, self._room)
        ids = self._tokenizer.encode(text[offset:])
        if offset > 0 and len(ids) < _REFILL * self._room:
            # What is known of the text's density tells how far back to reach.
            density = max(_CHARS_PER_TOKEN, (len(text) - offset) / max(1, len(ids)))
            offset = min(offset, self._retreat(text, int(_FILL * self._room), density))
            ids = self._tokenizer.encode(text[offset:])
        while len(ids) > self._room:
            density = (len(text) - offset) / len(ids)
            offset = max(offset + 1, self._retreat(text, int(_FILL * self._room), density))
            ids = self._tokenizer.encode(text[offset:])
        return Prompt([*self.head, *ids], text.count("\n", 0, offset))

    def _retreat(self, text: str, tokens: int, density: float = _CHARS_PER_TOKEN) -> int:
        """Return an offset about `tokens` before the end, at a line's beginning if one is near."""
        span = int(tokens * density)
        offset = len(text) - span
        if offset <= 0:
            return 0
        newline = text.find("\n", offset - 1, offset + span // 4)
        if 0 <= newline < len(text) - 1:
            return newline + 1
        # Inside a huge line: on a coarse grid, where the edge stays while the text grows.
        grid = 1 << (span // 8).bit_length()
        return min(-(-offset // grid) * grid, len(text))
