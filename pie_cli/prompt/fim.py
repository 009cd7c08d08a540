"""Fill in the middle: which control tokens a model knows, in which order its parts stand."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

Order: TypeAlias = Literal["prefix-suffix-middle", "suffix-prefix-middle"]
Part: TypeAlias = Literal["comment", "prefix", "suffix"]
Layout: TypeAlias = tuple[int | Part, ...]

PSM: Final = "prefix-suffix-middle"
SPM: Final = "suffix-prefix-middle"

_PARTS: Final[dict[str, Part]] = {"C": "comment", "P": "prefix", "S": "suffix"}


@dataclass(frozen=True)
class Family:
    """What is known of one family of tokenizers.

    A layout is spelled in letters: C the comment with the path, P the prefix, S the suffix; b, h
    and e the three tokens.

    Attributes:
        name: of the family.
        tokens: the three control tokens, in the order of prefix-suffix-middle.
        psm: layout with the prefix first.
        spm: layout with the suffix first, where the model was trained on it; None where that is
            not known for sure.
        file: token that stands before each file where several follow each other.
        stops: further tokens that end a middle, where the vocabulary has them.
        also: tokens that must be there too: they tell families with the same three apart.
    """

    name: str
    tokens: tuple[str, str, str]
    psm: str = "bCPhSe"
    spm: str | None = None
    file: str | None = None
    stops: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


FAMILIES: Final = (
    # Its recipe puts the comment before the tokens (models/nano/stream.py).
    Family(
        "pie-nano",
        ("<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"),
        psm="CbPhSe",
        spm="CbhSeP",
        file="<|endoftext|>",
    ),
    Family(
        "deepseek-coder", ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"), stops=("<|EOT|>",)
    ),
    Family(
        "codegemma",
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        file="<|file_separator|>",
        also=("<|file_separator|>",),
    ),
    Family(
        "qwen2.5-coder",
        ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        file="<|file_sep|>",
        stops=("<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|im_start|>", "<|im_end|>"),
    ),
    # StarCoder, StarCoder2, Granite code and others with this tokenizer.
    Family(
        "starcoder",
        ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
        file="<file_sep>",
        stops=("<|endoftext|>", "<fim_pad>", "<repo_name>", "<filename>", "<reponame>"),
    ),
    # The blank in front belongs to the tokens; the text behind them gets none (see
    # `TextTokenizer.continuing`). It was trained on both orders, but its authors' infilling used
    # this one, and the other was not measured here.
    Family("codellama", ("▁<PRE>", "▁<SUF>", "▁<MID>"), stops=("▁<EOT>",)),
)
"""Families in the order in which they are tried."""


@dataclass(frozen=True)
class FimFormat:
    """How one model is asked to fill in a middle, in its own token ids.

    Attributes:
        family: what it was recognised as.
        layouts: by order; control tokens as ids, parts by name. The middle follows the last one.
        stop_ids: tokens that end a middle besides the model's own end of text.
        file_id: token before each of several files, or None.
    """

    family: str
    layouts: dict[Order, Layout]
    stop_ids: frozenset[int]
    file_id: int | None

    @property
    def order(self) -> Order:
        """The order to use: suffix first where the model knows it.

        Then an edit just above the hole is an edit at the prompt's end: little is encoded, nothing
        becomes stale.
        """
        return SPM if SPM in self.layouts else PSM

    def only(self, order: Order) -> "FimFormat":
        """Give the format with one of its orders, to measure or to test it."""
        return replace(self, layouts={order: self.layouts[order]})


def find_format(token_id: Callable[[str], int | None]) -> FimFormat | None:
    """Recognise a tokenizer's fill-in-the-middle tokens.

    Args:
        token_id: gives the id of a token of the vocabulary, None where there is none.

    Returns:
        The format, or None for a tokenizer without such tokens, or with unknown ones.
    """
    for family in FAMILIES:
        ids = [token_id(token) for token in family.tokens]
        if None in ids or any(token_id(token) is None for token in family.also):
            continue
        control = dict(zip("bhe", (i for i in ids if i is not None), strict=True))
        file_id = token_id(family.file) if family.file else None
        stops = [*control.values(), file_id, *map(token_id, family.stops)]
        layouts: dict[Order, Layout] = {PSM: _layout(family.psm, control)}
        if family.spm:
            layouts[SPM] = _layout(family.spm, control)
        return FimFormat(
            family.name, layouts, frozenset(i for i in stops if i is not None), file_id
        )
    return None


def _layout(spelled: str, control: dict[str, int]) -> Layout:
    return tuple(control[letter] if letter in control else _PARTS[letter] for letter in spelled)
