"""Fill in the middle: which control tokens a model knows, in which order its parts come."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
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
        file: token before each file where several follow each other.
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
    # Its recipe puts the comment before the tokens (models/nano/recipe/stream.py).
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
    # The blank in front belongs to the tokens; the text after them gets none (see
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


def find_format(
    token_id: Callable[[str], int | None],
    named: Mapping[str, int] = MappingProxyType({}),
    rows: int | None = None,
) -> FimFormat | None:
    """Recognise a tokenizer's fill-in-the-middle tokens.

    Args:
        token_id: gives the id of a token of the vocabulary, None where there is none.
        named: ids that the model's own file gives to such tokens: "prefix", "suffix" and "middle",
            and those that end a middle. They count for more than how tokens look.
        rows: of the model's embedding: tokens beyond them cannot be used. None for no such bound.

    Returns:
        The format, or None for a tokenizer without such tokens, or with unknown ones.
    """

    def usable(token: str) -> int | None:
        found = token_id(token)
        return None if found is None or (rows is not None and found >= rows) else found

    named = {role: found for role, found in named.items() if rows is None or found < rows}
    wanted = tuple(named.get(role) for role in ("prefix", "suffix", "middle"))
    families: tuple[Family, ...] = FAMILIES
    if None not in wanted:
        # The family tells the rest: what stands where, and which order it learned.
        families = tuple(one for one in FAMILIES if tuple(map(usable, one.tokens)) == wanted)
    found = _by_looks(families, usable)
    if found is None and None not in wanted:
        return _as_named({role: named[role] for role in named})
    if found is None:
        return None
    return replace(found, stop_ids=found.stop_ids | _ends(named))


def _as_named(named: Mapping[str, int]) -> FimFormat:
    """Return the usual layout with the tokens that a model's file names."""
    control = {"b": named["prefix"], "h": named["suffix"], "e": named["middle"]}
    layouts: dict[Order, Layout] = {PSM: _layout("bCPhSe", control)}
    stops = frozenset(control.values()) | _ends(named)
    return FimFormat("as its file names them", layouts, stops, named.get("file"))


def _ends(named: Mapping[str, int]) -> frozenset[int]:
    return frozenset(named[role] for role in ("pad", "repository", "file") if role in named)


def _by_looks(
    families: Iterable[Family], token_id: Callable[[str], int | None]
) -> FimFormat | None:
    for family in families:
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
