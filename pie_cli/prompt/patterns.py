r"""Regexes of pre-tokenizers, taken apart: which characters one match may hold side by side.

Tokenizers split a text by regexes such as ` ?\p{L}+|\s+(?!\S)|\s+`, searched from left to right. To
tell where such a search can be cut in two, one need not run it. It is enough to know which classes
of characters can follow one another inside a match, or be looked at after one, and which
characters are a match by themselves. Both follow from the regex's structure, as in Glushkov's
construction (1961). What a class holds is left to the regex engine, see `cuts`.

Only what is understood is taken: alternatives, groups, greedy repetition, classes of single
characters, look-ahead at one character, and `(?i:...)` over plain letters. For anything else, such
as look-behind, anchors, back-references, possessive repetition, there is no answer.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

_CLASS = r"\[\^?(?!\])(?:\\.|[^\[\]\\])+\]"
_ESCAPE = r"\\(?:[pP]\{\^?\w+\}|[sSdDwWrntf]|[^\w\s])"
_LITERAL = r"[^\\^$.|?*+()\[\]{}]"
_ATOM = re.compile(f"{_CLASS}|{_ESCAPE}|{_LITERAL}", re.DOTALL)
_LOOK_AHEAD = re.compile(rf"\(\?[=!]({_CLASS}|{_ESCAPE}|{_LITERAL})\)", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(i?):|(?!\?))")
_REPEAT = re.compile(r"([?*+]|\{(\d*)(,?)(\d*)\})(?![?*+{])")
_PLAIN = re.compile(r"[A-Za-z']|\[[A-Za-z]+\]")

# Pairs of letters that are equal to one character when case is ignored: ß, ﬀ, ﬁ, ﬂ, ﬆ.
_FOLDED = frozenset({"ss", "ff", "fi", "fl", "st"})


@dataclass(frozen=True)
class Pattern:
    """What a regex allows, in classes: regexes of a single character each.

    Attributes:
        pairs: (x, y) where a match may take a character of x and then take one of y, or look at
            whether one of y follows.
        single: classes of which each character, whatever follows it, is a match by itself.
        first: classes that a match may begin with, or look at before anything is taken.
        last: classes that a match may end with.
        empty: whether nothing at all can match, look-ahead permitting.
        surely_empty: whether nothing at all matches, whatever follows.
    """

    pairs: frozenset[tuple[str, str]] = frozenset()
    single: frozenset[str] = frozenset()
    first: frozenset[str] = frozenset()
    last: frozenset[str] = frozenset()
    empty: bool = True
    surely_empty: bool = True


_NOTHING = Pattern()


class _UnknownError(Exception):
    """A construct that is not understood."""


def parse(regex: str) -> Pattern | None:
    """Take a regex of Oniguruma's syntax apart, as the `tokenizers` library uses it.

    Returns:
        What it allows; None where it holds anything that is not understood, or matches nothing
        at all (an empty match).
    """
    try:
        pattern, stop = _alternatives(regex, 0, ignore_case=False)
    except _UnknownError:
        return None
    if stop < len(regex) or pattern.empty or _folds(pattern):
        return None
    return pattern


def one_of(classes: Iterable[str], *, run: bool = False) -> Pattern:
    """Return the pattern of one character of any of the classes, or of a run of them."""
    one = frozenset(classes)
    pairs = frozenset((x, y) for x in one for y in one) if run else frozenset()
    return Pattern(pairs, one, one, one, empty=False, surely_empty=False)


def spelled(text: str) -> Pattern:
    """Return the pattern of a text itself."""
    found = _NOTHING
    for char in text:
        escaped = char if re.fullmatch(_LITERAL, char, re.DOTALL) else f"\\{char}"
        found = _joined(found, one_of([escaped]))
    return found


def _alternatives(regex: str, at: int, *, ignore_case: bool) -> tuple[Pattern, int]:
    found, at = _sequence(regex, at, ignore_case=ignore_case)
    while regex[at : at + 1] == "|":
        other, at = _sequence(regex, at + 1, ignore_case=ignore_case)
        found = Pattern(
            found.pairs | other.pairs,
            found.single | other.single,
            found.first | other.first,
            found.last | other.last,
            found.empty or other.empty,
            found.surely_empty or other.surely_empty,
        )
    return found, at


def _sequence(regex: str, at: int, *, ignore_case: bool) -> tuple[Pattern, int]:
    found = _NOTHING
    while at < len(regex) and regex[at] not in "|)":
        item, at = _item(regex, at, ignore_case=ignore_case)
        repeat = _REPEAT.match(regex, at)
        if repeat:
            if ignore_case:
                raise _UnknownError
            item, at = _repeated(item, repeat), repeat.end()
        found = _joined(found, item)
    return found, at


def _item(regex: str, at: int, *, ignore_case: bool) -> tuple[Pattern, int]:
    """Read a look-ahead, a group or a single character's class."""
    ahead = _LOOK_AHEAD.match(regex, at)
    if ahead and not ignore_case:
        # Whether it demands or forbids the character: where none follows, the answer is the one
        # that any character outside the class would give.
        return replace(_NOTHING, first=frozenset({ahead[1]}), surely_empty=False), ahead.end()
    group = _GROUP.match(regex, at)
    if group:
        inside = ignore_case or group[1] == "i"
        found, at = _alternatives(regex, group.end(), ignore_case=inside)
        if regex[at : at + 1] != ")":
            raise _UnknownError
        return found, at + 1
    atom = _ATOM.match(regex, at)
    if not atom or "&&" in atom[0] or (ignore_case and not _PLAIN.fullmatch(atom[0])):
        raise _UnknownError
    return one_of([f"(?i:{atom[0]})" if ignore_case else atom[0]]), atom.end()


def _joined(left: Pattern, right: Pattern) -> Pattern:
    """Return the pattern of one after the other."""
    across = frozenset((x, y) for x in left.last for y in right.first)
    single: frozenset[str] = frozenset()
    if right.surely_empty:
        single |= left.single
    if left.surely_empty:
        single |= right.single
    return Pattern(
        left.pairs | right.pairs | across,
        single,
        left.first | right.first if left.empty else left.first,
        left.last | right.last if right.empty else right.last,
        left.empty and right.empty,
        left.surely_empty and right.surely_empty,
    )


def _repeated(item: Pattern, repeat: "re.Match[str]") -> Pattern:
    """Return the pattern of an item under `?`, `*`, `+` or `{m,n}`."""
    sign, least, comma, most = repeat.groups()
    if sign in ("?", "*", "+"):
        fewest, once = int(sign == "+"), sign == "?"
    elif least or most:
        fewest = int(least or 0)
        once = (most if comma else least) == "1"
    else:
        raise _UnknownError
    across = frozenset((x, y) for x in item.last for y in item.first)
    return replace(
        item,
        pairs=item.pairs if once else item.pairs | across,
        single=item.single if fewest <= 1 else frozenset(),
        empty=item.empty or fewest == 0,
        surely_empty=item.surely_empty or fewest == 0,
    )


def _folds(pattern: Pattern) -> bool:
    """Tell whether two neighbours could be equal to a single character, their case ignored."""
    letters = [
        (x.removeprefix("(?i:")[:-1], y.removeprefix("(?i:")[:-1])
        for x, y in pattern.pairs
        if x.startswith("(?i:") and y.startswith("(?i:")
    ]
    return any("[" in x + y or (x + y).lower() in _FOLDED for x, y in letters)
