"""What a benchmark runs on: real source text and edits of it, the same on each call."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

from pie_cli.errors import InputError, ModelError
from pie_cli.evaluation.cases.documents import built_in_sources
from pie_cli.prompt.tokenizer import TextTokenizer
from pie_cli.text.edit import split_lines

EDITS = ("insert", "delete", "replace", "multi")
"""Kinds of edit; `multi` is an insertion, a deletion and a replacement in one save.

`multi:N` is N of them in turn.
"""

SWEEP_CONTEXTS = (1_024, 2_048, 4_096, 8_192, 16_384)
SWEEP_EDITS = ("insert", "multi:4", "multi:16", "multi:64")
SWEEP_TOKENS = (1, 4, 16, 64, 256)

MIN_CONTEXT = 64
"""Tokens below which a prompt is hardly more than its head."""

_SINGLE = EDITS[:3]
_MULTI = re.compile(r"multi:([2-9]|[1-9]\d{1,2})")

# An edit may take up this part of its prompt: three have to fit its first half side by side.
_LARGEST_EDIT = 8

# Irrational steps cover an interval evenly however many are taken (Weyl); this one does it best.
_GOLDEN = 0.618034

# Tables and addresses: a text would end far below its limit where such a line does not fit.
_LONGEST_LINE = 48

# Tokens tried from an edit's place onward, for pieces that begin and end between characters.
_SEARCH = 64


@dataclass(frozen=True)
class Workload:
    """Which cases are measured, and how often; validated on construction.

    Attributes:
        context_tokens: lengths of the prompt before the edit.
        edits: kinds, out of `EDITS`, or `multi:N`.
        edit_tokens: sizes of an edit: tokens' worth of text that each of its places changes.
        repeats: measurements of each case, at different places.

    Raises:
        InputError: an unknown kind, a number below 1, or an edit too large for its context.
    """

    context_tokens: tuple[int, ...]
    edits: tuple[str, ...]
    edit_tokens: tuple[int, ...]
    repeats: int

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        for kind in self.edits:
            if kind not in EDITS and not _MULTI.fullmatch(kind):
                raise InputError(
                    f"unknown edit {kind!r}", f"use some of {', '.join(EDITS)}, or multi:N"
                )
        _check_least("--context-tokens", self.context_tokens, MIN_CONTEXT)
        _check_least("--edit-tokens", self.edit_tokens, 1)
        _check_least("--repeats", (self.repeats,), 1)
        if not self.edits:
            raise InputError("no edits to measure", f"use some of {', '.join(EDITS)}")
        check_fits(self.changed_tokens, min(self.context_tokens))

    @property
    def changed_tokens(self) -> int:
        """Tokens of the largest edit, where a few places count as one."""
        return max(
            tokens if places_of(kind) <= len(_SINGLE) else tokens * places_of(kind)
            for kind in self.edits
            for tokens in self.edit_tokens
        )

    @property
    def growth(self) -> int:
        """Tokens that an edit may add to its prompt, merges at its seams included."""
        return 2 * self.changed_tokens + 16


@dataclass(frozen=True)
class Case:
    """One edit.

    Attributes:
        edit: kind.
        edit_tokens: of the workload.
        before: text before the edit.
        after: text after it.
    """

    edit: str
    edit_tokens: int
    before: str
    after: str


def check_fits(edit_tokens: int, context_tokens: int) -> None:
    """Refuse an edit that does not fit its prompt's first half.

    Raises:
        InputError: more than an eighth of the prompt.
    """
    if edit_tokens * _LARGEST_EDIT > context_tokens:
        raise InputError(
            f"edits of {edit_tokens} tokens are too large for a context of {context_tokens}",
            f"an edit may take up an eighth of it: {context_tokens // _LARGEST_EDIT} tokens",
        )


def places_of(kind: str) -> int:
    """Return how many places of the text an edit of this kind changes."""
    if kind == "multi":
        return len(_SINGLE)
    found = _MULTI.fullmatch(kind)
    return int(found[1]) if found else 1


def sweep(window: int, repeats: int) -> Iterator[Workload]:
    """Yield one workload for each context length that fits a window, with the edits that fit it.

    From short to long prompts, from small to large edits, in few and many places.
    """
    for context in SWEEP_CONTEXTS:
        for kind in SWEEP_EDITS:
            places = places_of(kind)
            sizes = tuple(size for size in SWEEP_TOKENS if size * places * _LARGEST_EDIT <= context)
            if context <= window and sizes:
                yield Workload((context,), (kind,), sizes, repeats)


def source_lines() -> Iterator[str]:
    """Yield lines of real Python: pie's own sources, then the standard library's.

    No model was trained on the first; the second serve when more is needed. Each file comes after a
    comment with its path.
    """
    for name, text in built_in_sources():
        if text.strip():
            yield f"# {name}\n"
            yield from split_lines(text if text.endswith("\n") else text + "\n")


def passages(
    lines: Iterable[str], encode: Callable[[str], Sequence[int]], limit: int
) -> Iterator[str]:
    """Cut lines into texts, each as long as fits, none overlapping.

    A text begins with a statement or comment that is not indented, and ends after a newline. Very
    long lines are left out.

    Args:
        lines: each with its newline.
        encode: gives the token ids of a text.
        limit: most tokens of a text.

    Raises:
        InputError: when the lines end before the text that is asked for.
    """
    kept: list[str] = []
    used = 0
    for line in lines:
        if not kept and not (line[0].isalpha() or line[0] in "#@_"):
            continue
        size = len(encode(line))
        if size > _LONGEST_LINE:
            continue
        if used + size <= limit:
            kept.append(line)
            used += size
        elif kept:
            yield _trimmed(kept, encode, limit)
            kept, used = [], 0
    raise InputError(
        f"the source text at hand holds no further {limit} tokens",
        "lower --context-tokens or --repeats",
    )


def cases_of(
    workload: Workload, tokenizer: TextTokenizer, text: str, repeat: int
) -> Iterator[Case]:
    """Give one case of each size and kind; each ends at another line of the text."""
    drop = 0
    for tokens in workload.edit_tokens:
        for kind in workload.edits:
            before = without_last_lines(text, drop)
            yield Case(kind, tokens, before, edit_text(tokenizer, before, kind, tokens, repeat))
            drop += 1


def without_last_lines(text: str, lines: int) -> str:
    """Return a text without its last lines, an eighth of it at most: another end to predict at."""
    kept = split_lines(text)
    return "".join(kept[: len(kept) - min(lines, len(kept) // 8)])


def edit_text(tokenizer: TextTokenizer, text: str, kind: str, tokens: int, repeat: int) -> str:
    """Edit the first half of a text.

    `insert` copies a piece of the second half in, `delete` takes a piece out, `replace` puts a
    piece of the second half in another's place; `multi` does all three, in the first, second and
    third part of the first half. A piece is the text of so many of the text's tokens; the ids of
    the result are those of tokenizing it, so tokens may also change beside a seam. Places differ
    from repeat to repeat and cover the first half evenly.

    Args:
        tokenizer: the model's.
        text: real source text.
        kind: one of `EDITS`, or `multi:N`.
        tokens: size of each piece.
        repeat: counted from 0.

    Returns:
        The text after the edit; it differs from the text before.

    Raises:
        ModelError: when the tokenizer's tokens do not give the text back.
    """
    pieces = _Pieces(tokenizer, text, tokens)
    place = (0.5 + repeat * _GOLDEN) % 1.0
    places = places_of(kind)
    kinds = islice(cycle(_SINGLE), places) if places > 1 else (kind,)
    changes = [
        pieces.change(single, (part + place) / (2 * places)) for part, single in enumerate(kinds)
    ]
    for start, stop, new in reversed(changes):
        text = text[:start] + new + text[stop:]
    return text


class _Pieces:
    """Finds pieces of a text that are a given number of its tokens."""

    def __init__(self, tokenizer: TextTokenizer, text: str, tokens: int) -> None:
        self._tokenizer = tokenizer
        self._text = text
        self._tokens = tokens
        self._ids = tokenizer.encode(text)

    def change(self, kind: str, place: float) -> tuple[int, int, str]:
        """Return the characters to replace, from and to, and what is there then.

        Args:
            kind: insert, delete or replace.
            place: where, as a part of the text, below 0.5.
        """
        start, stop = self._find(place)
        if kind == "delete":
            return start, stop, ""
        first, last = self._find(place + 0.5, unlike=self._text[start:stop])
        return start, start if kind == "insert" else stop, self._text[first:last]

    def _find(self, place: float, unlike: str = "") -> tuple[int, int]:
        """Find the next piece from a place on that is more than blanks, and not `unlike`."""
        # Pieces near the middle or the end are looked for backward, so as not to leave their half.
        last = len(self._ids) // (1 if place >= 0.5 else 2) - self._tokens
        first = min(int(place * len(self._ids)), last)
        backward = range(first - 1, max(-1, first - _SEARCH), -1)
        for token in (*range(first, min(last, first + _SEARCH) + 1), *backward):
            before = self._tokenizer.decode(self._ids[:token])
            through = self._tokenizer.decode(self._ids[: token + self._tokens])
            # A token can end in the midst of a character: then its text is none of ours.
            if self._text.startswith(before) and self._text.startswith(through):
                piece = self._text[len(before) : len(through)]
                if piece.strip() and piece != unlike:
                    return len(before), len(through)
        raise ModelError(
            "the model's tokenizer does not give back the text that it was given",
            "use a model whose tokenizer decodes what it encodes",
        )


def _trimmed(lines: list[str], encode: Callable[[str], Sequence[int]], limit: int) -> str:
    """Join lines, leaving out the last ones where the whole has more tokens than its lines had."""
    while len(encode("".join(lines))) > limit:
        lines.pop()
    return "".join(lines)


def _check_least(what: str, numbers: Iterable[int], least: int) -> None:
    smallest = min(numbers, default=None)
    if smallest is None:
        raise InputError(f"no {what} given", f"name numbers of at least {least}")
    if smallest < least:
        raise InputError(f"{what} is {smallest}", f"it must be at least {least}")
