r"""Cuts: places where a tokenizer provably splits a text, whatever is on either side.

At a cut, the ids of a text are those of its left part followed by those of its right part, each
tokenized alone. Whether a place is one depends on the two characters around it, and is proved
step by step for what the tokenizer does to a text:

- A step is *independent* of the place when no match of it can reach across: its regex never takes
  the left character and then the right one, nor looks ahead at the right one after the left. It
  then finds the same matches as in the two parts alone. So long as every step is independent, the
  only thing that can join the parts is a piece of text between matches.
- A step *splits* there when, besides, one of the two characters always belongs to some match: a
  match ends or begins at the place. What comes after looks at single pieces.

Added tokens come first: a place inside the spelling of one is never a cut. NFC comes next: two
ASCII characters with a third after them stay as they are. What is in a class of
characters is asked of the very engine that will split the text.
"""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from tokenizers import Regex
from tokenizers.pre_tokenizers import Digits, Split

from pie_cli.prompt.patterns import Pattern, one_of, parse, spelled

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # built in
_NUMERIC = "numeric"
_LOCAL_STEPS = frozenset({"Split", "Digits", "Punctuation", "ByteLevel", "Whitespace"})
_MAX_PAIRS = 1 << 14
_MAX_CHARS = 1 << 12
_ANYTHING = -1

Part: TypeAlias = Mapping[str, Any]
Member: TypeAlias = Callable[[str], bool]


@dataclass(frozen=True)
class _Step:
    """One step that splits a text: bits stand for classes of characters.

    Attributes:
        reach: for each class (a bit), the classes that a match may reach on to after it.
        single: the classes of which each character belongs to a match, wherever it is.
    """

    reach: tuple[tuple[int, int], ...]
    single: int

    def is_independent(self, left: int, right: int) -> bool:
        """Tell whether no match can reach from a left to a right character, given their classes."""
        return not any(bit & left and reached & right for bit, reached in self.reach)


class Cuts:
    """Finds the cuts of one tokenizer.

    Where nothing is proved there are none, but for a text's beginning and end.

    Args:
        state: the tokenizer as its JSON form.

    Attributes:
        ahead: characters after a cut that its proof depends on; of those before it, it is one.
    """

    def __init__(self, state: Part) -> None:
        normalizers = parts(state.get("normalizer"), "normalizers")
        nfc = [part["type"] for part in normalizers] == ["NFC"]
        self.ahead = 2 if nfc else 1
        added = state.get("added_tokens") or ()
        self._added = frozenset(spelling for token in added for spelling in _spellings(token, nfc))
        self._classes: dict[str, int] = {}
        self._members: list[Member] = []
        self._steps: list[_Step] = []
        steps = parts(state.get("pre_tokenizer"), "pretokenizers")
        unproven = (
            (bool(normalizers) and not nfc)
            or any(_looks_around(token) for token in added)
            or (state.get("model") or {}).get("dropout")
        )
        if not unproven:
            self._read(steps)
        self._mask = lru_cache(_MAX_CHARS)(self._classes_of)
        self._pair = lru_cache(_MAX_PAIRS)(self._is_pair)

    def at(self, text: str, place: int) -> bool:
        """Tell whether there is a cut before the character `place` of a text."""
        if place in (0, len(text)):
            return True
        if self.ahead == 1:
            return self._pair(text[place - 1 : place + 1])
        around = text[place - 1 : place + 2]
        return len(around) == 3 and around.isascii() and self._pair(around[:2])

    def first(self, text: str, start: int, stop: int) -> int | None:
        """Find the first cut of a text in [start, stop), if there is one."""
        if not self._steps:
            return None
        return next((place for place in range(start, stop) if self.at(text, place)), None)

    def after(self, char: str) -> bool:
        """Tell whether there is a cut after every such character."""
        if self.ahead != 1 or any(char in spelling[:-1] for spelling in self._added):
            return False
        mask = self._mask(char)
        return self._splits(mask, _ANYTHING, mask)

    def _is_pair(self, pair: str) -> bool:
        """Tell whether there is a cut between two characters."""
        # Lone surrogates are tokenized as replacement characters.
        pair = "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in pair)
        if any(pair in spelling for spelling in self._added):
            return False
        left, right = self._mask(pair[0]), self._mask(pair[1])
        return self._splits(left, right, left | right)

    def _splits(self, left: int, right: int, sure: int) -> bool:
        for step in self._steps:
            if not step.is_independent(left, right):
                return False
            if step.single & sure:
                return True
        return False

    def _classes_of(self, char: str) -> int:
        return sum(1 << bit for bit, holds in enumerate(self._members) if holds(char))

    def _read(self, steps: list[Part]) -> None:
        """Read the steps up to the first one of which nothing is known."""
        for index, step in enumerate(steps):
            pattern = _pattern(step)
            if pattern is None:
                break
            # What comes after a split must look at each piece alone.
            if all(part["type"] in _LOCAL_STEPS for part in steps[index + 1 :]):
                self._steps.append(self._as_bits(pattern))
            else:
                self._steps.append(_Step(self._as_bits(pattern).reach, 0))

    def _as_bits(self, pattern: Pattern) -> _Step:
        reach: dict[int, int] = {}
        for left, right in sorted(pattern.pairs):
            bit = 1 << self._class(left)
            reach[bit] = reach.get(bit, 0) | 1 << self._class(right)
        return _Step(
            tuple(reach.items()), sum(1 << self._class(name) for name in sorted(pattern.single))
        )

    def _class(self, name: str) -> int:
        if name not in self._classes:
            self._classes[name] = len(self._members)
            self._members.append(_member(name))
        return self._classes[name]


def parts(step: Part | None, key: str) -> list[Part]:
    """Flatten a part of a tokenizer that may be nothing, one step or a (nested) sequence."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [part for inner in step[key] for part in parts(inner, key)]
    return [step]


def _pattern(step: Part) -> Pattern | None:
    """Return what a pre-tokenizer's matches can be; None where nothing is known."""
    kind = step["type"]
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        regex, string = step["pattern"].get("Regex"), step["pattern"].get("String")
        return parse(regex) if regex is not None else spelled(string)
    if kind == "Digits":
        return one_of([_NUMERIC], run=not step["individual_digits"])
    # A blank in front of the first piece makes what follows depend on being first.
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return parse(_GPT2) if step.get("use_regex", True) else Pattern()
    return None


def _member(name: str) -> Member:
    """Return the test whether a character belongs to a class."""
    if name == _NUMERIC:
        digits = Digits(individual_digits=True)
        return lambda char: len(digits.pre_tokenize_str("a" + char)) == 2
    split = Split(Regex(name), "removed")
    return lambda char: not split.pre_tokenize_str(char)


def _spellings(token: Part, nfc: bool) -> Iterable[str]:
    """Give an added token as it can be in a text."""
    yield token["content"]
    if nfc:
        yield unicodedata.normalize("NFC", token["content"])


def _looks_around(token: Part) -> bool:
    """Tell whether a token that is matched in text depends on what is beside it."""
    looks = token["lstrip"] or token["rstrip"] or token["single_word"]
    return bool(looks and not token["special"])
