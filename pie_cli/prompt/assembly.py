"""The prompt: a fixed head, other files, the text around the cursor as the window holds it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePath
from typing import Final, Literal, TypeAlias

from pie_cli.errors import CacheCapacityError
from pie_cli.plan.repair import Sides
from pie_cli.prompt.fim import FimFormat, Layout, Order, Part
from pie_cli.prompt.incremental import TokenizedText
from pie_cli.prompt.tokenizer import UNHEALED, Healed, TextTokenizer, heal
from pie_cli.prompt.window import CHARS_PER_TOKEN, Edges, Side, fit
from pie_cli.text.cursor import line_offset

Form: TypeAlias = Literal["plain"] | Order

CONTEXT_SHARE: Final = 0.25
"""Of the room after the head, what other files may take up."""

MIN_CONTEXT_TOKENS: Final = 48
"""Below this, a file's part tells nothing: where files are many, the later ones are left out."""

_SLASH_COMMENTS = frozenset(
    f".{suffix}"
    for suffix in "c cc cpp cs dart go h hpp java js jsx kt m php rs scala swift ts tsx zig".split()
)
_PLAIN: Final[Layout] = ("comment", "prefix")


@dataclass(frozen=True)
class ContextFile:
    """Another file whose text comes before the prompt's own.

    Attributes:
        path: as the path comment above the text shows it.
        text: the whole text.
    """

    path: str
    text: str


@dataclass(frozen=True)
class Prompt:
    """Token ids of a prompt, and what its parts are.

    Attributes:
        token_ids: all of them.
        form: how the text around the cursor is laid out.
        edges: of the window.
        dropped_below: lines below the window, left out.
        sides: the token positions that the text on both sides of the cursor takes up; the
            prediction continues the prefix, so its stop is the prompt's anchor.
        healed: what was left out at the prefix's end.
        context: paths of the other files that are in it.
        parts: each part as tokenized text, for the next prompt to follow.
    """

    token_ids: list[int]
    form: Form = "plain"
    edges: Edges = field(default_factory=Edges)
    dropped_below: int = 0
    sides: Sides = field(default_factory=Sides)
    healed: Healed = UNHEALED
    context: tuple[str, ...] = ()
    parts: Mapping[str, TokenizedText] = field(default_factory=dict, repr=False)

    @property
    def anchor(self) -> int:
        """Position of the last token that the predicted text continues."""
        return self.sides.prefix.stop - 1


class PromptBuilder:
    """Builds the prompts of one file.

    The ids of each part (comment, text before the cursor, text after it, each other file) are
    those of tokenizing it from scratch; of the text before the cursor, what healing took back is
    left out.

    Args:
        tokenizer: the model's.
        bos_id: beginning-of-text token, where the model has one: the attention sink.
        path: of the file; the head's comment shows it, of an absolute one only the name, for
            where a project lies tells the model nothing.
        budget: most tokens of a prompt.
        fim: how the model fills in a middle; None for a model that cannot.
        order: of the parts; the format's own by default.

    Raises:
        CacheCapacityError: when the budget leaves no room after the head.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        bos_id: int | None,
        path: str,
        budget: int,
        fim: FimFormat | None = None,
        order: Order | None = None,
    ) -> None:
        # All but the prompt's first text continue another one.
        self._tokenizer = tokenizer.continuing
        self._bos = [] if bos_id is None else [bos_id]
        self._file = [] if fim is None or fim.file_id is None else [fim.file_id]
        self._comment = comment_ids(tokenizer, path)
        self._layouts: dict[Form, Layout] = {"plain": _PLAIN}
        self._order: Form = "plain"
        if fim is not None:
            self._order = order or fim.order
            self._layouts[self._order] = fim.layouts[order or fim.order]
        self.head = [*self._bos, *self._comment]
        control = sum(isinstance(part, int) for part in self._layouts[self._order])
        # Several files are told apart by one more token before this one.
        self._room = budget - len(self.head) - control - len(self._file)
        self._plain_room = budget - len(self.head)
        if self._room < 1:
            raise CacheCapacityError(
                f"a context of {budget} tokens has no room after the head of {budget - self._room}",
                "raise --context-tokens, lower --max-tokens or shorten the path",
            )

    def build(
        self,
        before: str,
        after: str | None = None,
        edges: Edges = Edges(),  # noqa: B008 (frozen)
        context: Sequence[ContextFile] = (),
        last: Prompt | None = None,
        *,
        healing: bool = False,
    ) -> Prompt:
        """Return the prompt for a cursor.

        Args:
            before: everything before the cursor.
            after: everything after it; None for a plain prompt, as for a model that cannot fill
                in a middle.
            edges: the last prompt's, moved along with the text.
            context: other files, in their order.
            last: the prompt before, whose parts are followed at the cost of what changed.
            healing: leave out the prefix's last tokens that might merge with what follows; the
                prediction has to spell their text first.
        """
        form: Form = "plain" if after is None else self._order
        if form == "plain":
            after = None
        parts = dict(last.parts) if last else {}
        room = self._plain_room if form == "plain" and not context else self._room
        others, paths = self._context(context, room, parts)
        above = Side(before, partial(self._tokenized, parts, "prefix"))
        _keep_from(above, before, edges.top, room - len(others))
        below = None
        if after is not None:
            below = Side(after, partial(self._tokenized, parts, "suffix"), below=True)
            if edges.bottom is not None:
                _keep_to(below, after, edges.bottom - before.count("\n"))
        fit(above, below, room - len(others))
        prefix = above.part
        healed = heal(self._tokenizer, prefix.text, prefix.token_ids) if healing else UNHEALED
        prefix_ids = prefix.token_ids[: len(prefix.token_ids) - len(healed.token_ids)]
        suffix_ids = below.part.token_ids if below else []
        start = [*self._bos, *others] if others else self._bos
        token_ids, spans = self._laid_out(self._layouts[form], start, prefix_ids, suffix_ids)
        return Prompt(
            token_ids=token_ids,
            form=form,
            edges=_edges(before, after, above, below),
            dropped_below=count_lines(after[below.span.stop :]) if after and below else 0,
            sides=Sides(spans["prefix"], spans.get("suffix", range(0))),
            healed=healed,
            context=paths,
            parts={
                name: part
                for name, part in parts.items()
                if name in ("prefix", "suffix") or name.removeprefix("context:") in paths
            },
        )

    def _laid_out(
        self, layout: Layout, start: list[int], prefix: list[int], suffix: list[int]
    ) -> tuple[list[int], dict[Part, range]]:
        """Put the parts into their order; return the ids and each part's span."""
        parts = {"comment": self._comment, "prefix": prefix, "suffix": suffix}
        token_ids = list(start)
        spans: dict[Part, range] = {}
        for part in layout:
            if isinstance(part, int):
                token_ids.append(part)
                continue
            begin = len(token_ids)
            token_ids += parts[part]
            spans[part] = range(begin, len(token_ids))
        return token_ids, spans

    def _context(
        self, files: Sequence[ContextFile], room: int, parts: dict[str, TokenizedText]
    ) -> tuple[list[int], tuple[str, ...]]:
        """Return the ids of the other files, the separator before the own one included.

        Each gets the same share, and what shorter ones leave of theirs; a longer one is cut after
        its beginning, where imports and definitions are.
        """
        budget = int(CONTEXT_SHARE * room)
        files = [file for file in files if file.text][: budget // MIN_CONTEXT_TOKENS]
        if not files:
            return [], ()
        heads = [[*self._file, *comment_ids(self._tokenizer, file.path)] for file in files]
        sides = [
            Side(file.text, partial(self._tokenized, parts, f"context:{file.path}"), below=True)
            for file in files
        ]
        # Estimated first: what is cut off must not be tokenized at each save only to be counted.
        level = _level(
            [len(head) + _estimate(file) for head, file in zip(heads, files, strict=True)], budget
        )
        for side in sides:
            side.bound(level, per_token=CHARS_PER_TOKEN)
        level = _level(
            [len(head) + side.tokens for head, side in zip(heads, sides, strict=True)], budget
        )
        ids: list[int] = []
        for head, side in zip(heads, sides, strict=True):
            while side.tokens and len(head) + side.tokens > level:
                side.shrink(max(0, level - len(head)), fill=1.0)
            ids += [*head, *side.part.token_ids]
        ids += self._file
        if self._bos == self._file:
            del ids[: len(self._file)]  # the beginning of the text is the first file's as well
        return ids, tuple(file.path for file in files)

    def _tokenized(self, parts: dict[str, TokenizedText], name: str, text: str) -> TokenizedText:
        """Tokenize a part, following what it was before."""
        parts[name] = self._tokenizer.retokenize(parts.get(name), text)
        return parts[name]


def header(path: str) -> str:
    """Return the comment line that names a file to the model, without its end."""
    pure = PurePath(path)
    mark = "//" if pure.suffix in _SLASH_COMMENTS else "#"
    return f"{mark} {pure.name if pure.is_absolute() else path}"


def comment_ids(tokenizer: TextTokenizer, path: str) -> list[int]:
    """Return the ids of a file's header."""
    return tokenizer.encode(f"{header(path)}\n")


def _keep_from(side: Side, before: str, top: int, room: int) -> None:
    """Begin at the line where the last prompt began; choose again where the text is shorter now."""
    offset = line_offset(before, top)
    if offset is None:
        side.bound(room, per_token=0)
    else:
        side.keep(len(before) - offset)


def _keep_to(side: Side, after: str, lines: int) -> None:
    """End before the line before which the last prompt ended."""
    offset = line_offset(after, lines) if lines > 0 else 0
    side.keep(len(after) if offset is None else offset)


def _estimate(file: ContextFile) -> int:
    return int(len(file.text) / CHARS_PER_TOKEN) + 1


def _edges(before: str, after: str | None, above: Side, below: Side | None) -> Edges:
    top = before.count("\n", 0, above.span.start)
    if after is None or below is None or below.whole:
        return Edges(top)
    return Edges(top, before.count("\n") + after.count("\n", 0, below.span.stop))


def count_lines(text: str) -> int:
    """Return how many lines a text has; the last one may be without a newline."""
    return text.count("\n") + bool(text and not text.endswith("\n"))


def _level(sizes: Sequence[int], budget: int) -> int:
    """Return the most that each may take so that all together take `budget` at most."""
    left = budget
    ascending = sorted(sizes)
    for place, size in enumerate(ascending):
        share = left // (len(ascending) - place)
        if size > share:
            return share
        left -= size
    return budget
