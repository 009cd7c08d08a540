"""Paths as unified diffs spell them: quoting, prefixes, dates, names with blanks."""

import re
from dataclasses import dataclass

from pie_cli.errors import PatchError

DEV_NULL = "/dev/null"

_PREFIX = re.compile(r"[abciow12]/")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb'\\([0-7]{3}|[abtnvfr"\\])')
_CODES = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13, b'"': 34, b"\\": 92}
_DATE = re.compile(
    r"[ \t]+(?:\d\d)?\d\d-\d\d-\d\d(?: \d\d:\d\d:\d\d(?:\.\d+)?)?(?: [-+]\d\d:?\d\d)?$"
)
_EPOCH = re.compile(
    r"(1969-12-31|1970-01-01) (\d\d):(\d\d):00(?:\.0+)? ([-+])(\d\d):?(\d\d)$", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Sides:
    """What the names of one file on both sides of a patch may mean, the likeliest first.

    Attributes:
        old: paths before; those after where the file is new.
        new: paths after; those before where the file is deleted.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]


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


def undated(name: str) -> str:
    """Take the date off a name of plain diff whose tab became blanks on the way."""
    return name if name.startswith('"') else _DATE.sub("", name)


def is_epoch(date: str | None) -> bool:
    """Tell whether a date is the beginning of 1970: plain diff's sign for a file not there."""
    match = _EPOCH.match(date or "")
    if match is None:
        return False
    day, hours, minutes, sign, zone_hours, zone_minutes = match.groups()
    zone = int(zone_hours) * 60 + int(zone_minutes)
    local = int(hours) * 60 + int(minutes) - (24 * 60 if day == "1969-12-31" else 0)
    return local == (-zone if sign == "-" else zone)


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
        path = old.partition("/")[2]
        if old == new or (path and path == new.partition("/")[2]):
            return old, new
    return splits[0] if len(splits) == 1 else None


def settle(old: str, new: str, from_git: tuple[str, str] | None, *, by_git: bool) -> Sides:
    """Take prefixes off the names of a file that is not renamed.

    Whether there are any is seen from both sides: git spells each of them in its header, also for
    new and deleted files, and without prefixes both are the same.

    Args:
        old: name after "--- ", empty where the patch has none.
        new: name after "+++ ", likewise.
        from_git: the names in git's header, where it tells.
        by_git: the patch has git's header for this file.
    """
    if from_git and (DEV_NULL in (old, new) or not new):
        old, new = from_git
    if DEV_NULL in (old, new):
        name = new if old == DEV_NULL else old
        paths = _distinct(_bare(name), name)
        return Sides(paths, paths)
    prefixed = old[:2] != new[:2] and bool(_PREFIX.match(old) and _PREFIX.match(new))
    if old == new and by_git:
        paths = _distinct(new, _below(new))
        return Sides(paths, paths)
    if prefixed and (by_git or (old.startswith("a/") and new.startswith("b/"))):
        # Two names differ where `git diff --no-index` compared two files.
        return Sides(
            _distinct(_below(old), old), _distinct(_below(new), _common_tail(old, new), new)
        )
    if by_git and (tail := _common_tail(old, new)):
        return Sides(_distinct(tail, old), _distinct(tail, new, _below(new)))
    if by_git:
        return Sides(_distinct(old, _below(old)), _distinct(new, _below(new)))
    if new != old and new.startswith(old):
        # A name with something tacked on is that of a copy, as git sees it.
        old, new = new, old
    # Plain diff compares some other file, perhaps a copy, with the file itself: the new name.
    paths = _distinct(new, _below(new), old, _below(old))
    return Sides(paths, paths)


def _distinct(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def _bare(name: str) -> str:
    return name[2:] if _PREFIX.match(name) else name


def _below(name: str) -> str:
    """Give a name without its first component; empty where it has only one."""
    return name.partition("/")[2].lstrip("/")


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
