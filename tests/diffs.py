"""Unified diffs for tests: written as git would, placed on texts both ways."""

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from pie_cli.text.applying import FilePatch, PatchDoesNotApply, locate
from pie_cli.text.edit import LineHunk, diff_lines, split_lines

CONTEXT_LINES = 3
NO_NEWLINE = "\\ No newline at end of file\n"

_MUST_QUOTE = re.compile(r'[\x00-\x1f\x7f"\\]')
_LETTERS = {9: "t", 10: "n", 13: "r", 34: '"', 92: "\\"}


def apply(text: str | None, part: FilePatch) -> str:
    """Apply a file's patch to its text."""
    return locate(text, part).edit.after


def reverse(text: str | None, part: FilePatch) -> str:
    """Take a file's patch back from its text."""
    return apply(text, part.reversed())


def fits(text: str | None, part: FilePatch) -> Literal["applies", "reversed", "both", "neither"]:
    """Tell which way a patch can be placed on a text."""
    forward, backward = _can(text, part), _can(text, part.reversed())
    if forward:
        return "both" if backward else "applies"
    return "reversed" if backward else "neither"


def _can(text: str | None, part: FilePatch) -> bool:
    try:
        locate(text, part)
    except PatchDoesNotApply:
        return False
    return True


def unified_diff(old: str, new: str, path: str) -> str:
    """Write the difference between two texts as `git diff` would, but for its line of objects."""
    hunks = diff_lines(old, new)
    if not hunks:
        return ""
    old_lines, new_lines = split_lines(old), split_lines(new)
    source, target = quoted(f"a/{path}"), quoted(f"b/{path}")
    # git ends a name that holds blanks with a tab, to tell it from a date after it.
    tab = "\t" if " " in path else ""
    parts = [f"diff --git {source} {target}\n", f"--- {source}{tab}\n", f"+++ {target}{tab}\n"]
    for group in _grouped(hunks):
        parts += _hunk_text(group, old_lines, new_lines)
    return "".join(parts)


def quoted(path: str) -> str:
    """Quote a path as git does where it holds control characters, quotes or backslashes."""
    if not _MUST_QUOTE.search(path):
        return path

    def spell(match: re.Match[str]) -> str:
        code = ord(match.group())
        return "\\" + _LETTERS.get(code, f"{code:03o}")

    return f'"{_MUST_QUOTE.sub(spell, path)}"'


def _grouped(hunks: Sequence[LineHunk]) -> Iterator[list[LineHunk]]:
    """Group hunks whose context would touch or overlap."""
    group: list[LineHunk] = []
    for hunk in hunks:
        if group and hunk.old_start - group[-1].old_stop > 2 * CONTEXT_LINES:
            yield group
            group = []
        group.append(hunk)
    yield group


def _hunk_text(
    group: Sequence[LineHunk], old_lines: Sequence[str], new_lines: Sequence[str]
) -> Iterator[str]:
    """Write one hunk of a patch: header, context, removed and added lines."""
    lead = min(CONTEXT_LINES, group[0].old_start)
    trail = min(CONTEXT_LINES, len(old_lines) - group[-1].old_stop)
    old_start, old_stop = group[0].old_start - lead, group[-1].old_stop + trail
    new_start, new_stop = group[0].new_start - lead, group[-1].new_stop + trail
    yield f"@@ -{_range(old_start, old_stop)} +{_range(new_start, new_stop)} @@\n"
    at = old_start
    for hunk in group:
        yield from _marked(" ", old_lines[at : hunk.old_start])
        yield from _marked("-", old_lines[hunk.old_start : hunk.old_stop])
        yield from _marked("+", new_lines[hunk.new_start : hunk.new_stop])
        at = hunk.old_stop
    yield from _marked(" ", old_lines[at:old_stop])


def _range(start: int, stop: int) -> str:
    """Write a half-open span as a hunk header does; an empty one names the line before it."""
    length = stop - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield mark + line if line.endswith("\n") else f"{mark}{line}\n{NO_NEWLINE}"
