"""Paths as unified diffs spell them: quoting, prefixes, names with blanks."""

import re
from dataclasses import dataclass

from pie_cli.errors import PatchError

DEV_NULL = "/dev/null"

_PREFIX = re.compile(r"[abciow12]/")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb'\\([0-7]{3}|[abtnvfr"\\])')
_CODES = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13, b'"': 34, b"\\": 92}
_LETTERS = {code: letter.decode() for letter, code in _CODES.items()}
_MUST_QUOTE = re.compile(r'[\x00-\x1f\x7f"\\]')


@dataclass(frozen=True, slots=True)
class Sides:
    """The names of one file on both sides of a patch.

    Attributes:
        old: path before; that after where the file is new.
        new: path after; that before where the file is deleted.
        raw: the new name with its prefix, should what looks like one be a folder.
    """

    old: str
    new: str
    raw: str


def quoted(path: str) -> str:
    """Quote a path as git does where it holds control characters, quotes or backslashes."""
    if not _MUST_QUOTE.search(path):
        return path

    def spell(match: re.Match[str]) -> str:
        code = ord(match.group())
        return "\\" + _LETTERS.get(code, f"{code:03o}")

    return f'"{_MUST_QUOTE.sub(spell, path)}"'


def unquoted(name: str, line: int) -> str:
    """Undo git's quoting of a path: C escapes and octal bytes between double quotes.

    Args:
        name: the name as spelled, quoted or not.
        line: line of the patch, for the error.

    Raises:
        PatchError: a quotation mark opens and none closes.
    """
    if not name.startswith('"'):
        return name
    match = _QUOTED.match(name)
    if match is None:
        raise PatchError(f"line {line} of the patch holds a quoted path without an end")
    return _unescaped(match.group(1))


def file_name(rest: str, line: int) -> str:
    """Read what follows "--- " or "+++ ": a name, perhaps with a date behind a tab."""
    rest = rest.rstrip("\r\n")
    return unquoted(rest if rest.startswith('"') else rest.split("\t", 1)[0], line)


def git_names(header: str, line: int) -> tuple[str, str] | None:
    """Split what follows "diff --git ": two names that nothing marks off from each other.

    Without a rename both are equal but for the prefix, which decides among the blanks.

    Returns:
        Both names with their prefixes; None where the header alone does not tell.
    """
    if header.startswith('"') and (match := _QUOTED.match(header)):
        return _unescaped(match.group(1)), unquoted(header[match.end() :].lstrip(" "), line)
    if header.endswith('"') and (at := header.find(' "')) > 0:
        return header[:at], unquoted(header[at + 1 :], line)
    splits = [(header[: m.start()], header[m.end() :]) for m in re.finditer(" ", header)]
    for old, new in splits:
        behind = old.partition("/")[2]
        if old == new or (behind and behind == new.partition("/")[2]):
            return old, new
    return splits[0] if len(splits) == 1 else None


def settle(old: str, new: str, from_git: tuple[str, str] | None, *, by_git: bool) -> Sides:
    """Take prefixes off the names of a file that is not renamed.

    Whether there are any is seen from both sides: git spells each of them in its header, also for
    new and deleted files, and without prefixes both are the same.

    Args:
        old: name behind "--- ", empty where the patch has none.
        new: name behind "+++ ", likewise.
        from_git: the names in git's header, where it tells.
        by_git: the patch has git's header for this file.
    """
    old, new = from_git or (old, new)
    if DEV_NULL in (old, new):
        name = new if old == DEV_NULL else old
        path = name[2:] if _PREFIX.match(name) else name
        return Sides(path, path, name)
    if by_git or (old.startswith("a/") and new.startswith("b/")):
        if path := _common_tail(old, new):
            return Sides(path, path, new)
        return Sides(old, new, new)
    # Plain diff compares some other file, perhaps a copy, with the file itself: the new name.
    return Sides(new, new, new)


def _common_tail(old: str, new: str) -> str:
    """Give the last components that two paths share; git's prefixes are the first ones."""
    shared: list[str] = []
    for one, other in zip(old.split("/")[::-1], new.split("/")[::-1], strict=False):
        if one != other:
            break
        shared.append(one)
    return "/".join(shared[::-1])


def _unescaped(text: str) -> str:
    def unescape(match: re.Match[bytes]) -> bytes:
        code = match.group(1)
        return bytes([_CODES[code] if code in _CODES else int(code, 8) & 0xFF])

    raw = text.encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(unescape, raw).decode("utf-8", "surrogateescape")
