r"""Unified diffs: made from two texts, parsed, applied, taken back, recognised as applied.

unidiff parses the hunks; the headers around them are read here, for unidiff refuses or misreads
some that git writes (paths with blanks under --no-prefix, paths that contain " b/", quoted names)
and does not report paths as the file system knows them. Lines end at "\n" only: form feeds, lone
carriage returns and other separators that `str.splitlines` knows are part of a line, as for git.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from pie_cli.errors import PatchError
from pie_cli.text.applying import (
    Applied,
    FilePatch,
    Fit,
    Kind,
    PatchDoesNotApply,
    PatchHunk,
    apply,
    fits,
    locate,
    reverse,
)
from pie_cli.text.edit import LineHunk, diff_lines, split_lines
from pie_cli.text.gitpaths import (
    DEV_NULL,
    Sides,
    file_name,
    git_names,
    quoted,
    settle,
    unquoted,
)

__all__ = [
    "Applied",
    "FilePatch",
    "Fit",
    "Kind",
    "Patch",
    "PatchDoesNotApply",
    "PatchHunk",
    "apply",
    "fits",
    "locate",
    "parse",
    "reverse",
    "unified_diff",
]

CONTEXT_LINES = 3

_NO_NEWLINE = "\\ No newline at end of file\n"
_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_BINARY = re.compile(r"Binary files? (.+) (?:differ|has changed)$")
_MOVED = re.compile(r"(rename|copy) (from|to) (.+)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m(?:diff |---|\+\+\+|@@)")
_CUT_OFF = "make the patch again: it was cut off or edited by hand"


@dataclass(frozen=True)
class Patch:
    """The files that a patch names, in its order."""

    files: tuple[FilePatch, ...]


def unified_diff(old: str, new: str, path: str) -> str:
    r"""Write the difference between two texts as `git diff` would.

    Args:
        old: text before.
        new: text after.
        path: the file's path with "/" between its parts, without a prefix.

    Returns:
        A patch that `git apply` takes; empty for equal texts.
    """
    hunks = diff_lines(old, new)
    if not hunks:
        return ""
    old_lines, new_lines = split_lines(old), split_lines(new)
    source, target = quoted(f"a/{path}"), quoted(f"b/{path}")
    # git ends a name that holds blanks with a tab, to tell it from a date behind it.
    tab = "\t" if " " in path else ""
    parts = [f"diff --git {source} {target}\n", f"--- {source}{tab}\n", f"+++ {target}{tab}\n"]
    for group in _grouped(hunks):
        parts += _hunk_text(group, old_lines, new_lines)
    return "".join(parts)


def parse(patch_text: str) -> Patch:
    """Read a unified diff, of git or plain, of one or more files.

    Text around the files (a commit message, a signature) is skipped.

    Raises:
        PatchError: the patch is empty, malformed, coloured, or the combined diff of a merge; the
            cause names the line or the file and hunk.
    """
    lines = _patch_lines(patch_text)
    if not any(line.strip() for line in lines):
        raise PatchError("the patch is empty", "change a file first, then make the patch again")
    files = tuple(_Reader(lines).files())
    if not files:
        _explain_no_files(patch_text)
    return Patch(files)


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
        yield mark + line if line.endswith("\n") else f"{mark}{line}\n{_NO_NEWLINE}"


def _patch_lines(text: str) -> list[str]:
    """Split a patch into lines; one that was converted to CRLF as a whole is converted back."""
    lines = split_lines(text.removeprefix("\ufeff"))
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if lines and all(line.endswith("\r\n") for line in lines):
        return [line[:-2] + "\n" for line in lines]
    return lines


def _explain_no_files(text: str) -> None:
    """Raise the error for a text in which no file's patch was found."""
    if _COLOUR.search(text):
        raise PatchError("the patch is coloured", "make it with git diff --no-color")
    raise PatchError("the patch holds no unified diff", "make it with git diff or diff -u")


@dataclass
class _Header:
    """What is known of a file before its hunks."""

    line: int
    git: str | None = None
    old: str | None = None
    new: str | None = None
    kind: Kind | None = None
    moved_from: str | None = None
    moved_to: str | None = None
    binary: bool = False
    hunks: list[PatchHunk] = field(default_factory=list)


class _Reader:
    """Cuts a patch into files and hunks; each hunk's body goes through unidiff."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._at = 0
        self._header: _Header | None = None

    def files(self) -> Iterator[FilePatch]:
        """Read file by file."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.startswith("diff --git "):
                yield from self._finished()
                self._header = _Header(self._at + 1, git=line[len("diff --git ") :].strip("\r\n"))
                self._at += 1
            elif self._at_file_names():
                yield from self._read_file_names()
            elif _HUNK.match(line):
                self._read_hunk()
            elif line.startswith(("diff --cc ", "diff --combined ", "@@@ ")):
                raise PatchError(
                    f"line {self._at + 1} of the patch begins the combined diff of a merge",
                    "make the patch against one parent, for instance with git diff HEAD",
                )
            elif line.startswith("@@ "):
                raise PatchError(
                    f"line {self._at + 1} of the patch is a malformed hunk header",
                    "make the patch again, with git diff or diff -u",
                )
            else:
                yield from self._read_other(line.rstrip("\r\n"))
        yield from self._finished()

    def _at_file_names(self) -> bool:
        here = self._lines[self._at : self._at + 2]
        return len(here) == 2 and here[0].startswith("--- ") and here[1].startswith("+++ ")

    def _read_file_names(self) -> Iterator[FilePatch]:
        header = self._header
        if header is None or header.git is None or header.old is not None:
            yield from self._finished()
            header = self._header = _Header(self._at + 1)
        header.old = file_name(self._lines[self._at][4:], self._at + 1)
        header.new = file_name(self._lines[self._at + 1][4:], self._at + 2)
        self._at += 2

    def _read_other(self, line: str) -> Iterator[FilePatch]:
        """Read a line of git's extended header, or skip what lies between files."""
        binary = _BINARY.match(line)
        if binary and (self._header is None or self._header.git is None):
            # Plain diff writes this line alone.
            yield from self._finished()
            names = binary.group(1).rsplit(" and ", 1)
            self._header = _Header(self._at + 1, old=names[0], new=names[-1])
        header = self._header
        if header is not None and not header.hunks:
            self._read_extended(header, line, bool(binary))
        self._at += 1

    def _read_extended(self, header: _Header, line: str, is_binary: bool) -> None:
        if is_binary or line == "GIT binary patch":
            header.binary = True
        elif header.git is None:
            return
        elif line.startswith("new file mode "):
            header.kind = "add"
        elif line.startswith("deleted file mode "):
            header.kind = "delete"
        elif match := _MOVED.match(line):
            header.kind = "rename" if match.group(1) == "rename" else "copy"
            name = unquoted(match.group(3), self._at + 1)
            if match.group(2) == "from":
                header.moved_from = name
            else:
                header.moved_to = name

    def _read_hunk(self) -> None:
        start = self._at
        header = self._header
        if header is None or header.old is None or header.new is None:
            raise PatchError(
                f"line {start + 1} of the patch begins a hunk without a file name above it",
                'keep the lines "--- old" and "+++ new" in front of it',
            )
        number = len(header.hunks) + 1
        where = f"hunk {number} of {_shown(header)} (line {start + 1} of the patch)"
        match = _HUNK.match(self._lines[start])
        assert match is not None
        body = self._read_body(match, where)
        old_start, new_start = _starts(match)
        hunk = PatchHunk(number, start + 1, old_start, new_start, _parse_body(match, body, where))
        if header.hunks and hunk.old_start < _old_stop(header.hunks[-1]):
            raise PatchError(f"{where} overlaps the hunk before it")
        header.hunks.append(hunk)

    def _read_body(self, match: re.Match[str], where: str) -> list[str]:
        """Take the lines that the header of a hunk counts, with the marks of missing newlines."""
        old_left, new_left = (_count(match.group(group)) for group in (2, 4))
        body: list[str] = []
        self._at += 1
        while old_left or new_left:
            line = self._lines[self._at] if self._at < len(self._lines) else ""
            # Mail programs and editors strip the blank of an empty line of context.
            mark = " " if line in ("\n", "\r\n") else line[:1]
            if mark == "\\":
                body.append(_NO_NEWLINE)
            elif mark in (" ", "-", "+") and mark:
                body.append(line)
                old_left -= mark != "+"
                new_left -= mark != "-"
            else:
                raise PatchError(f"{where} is shorter than its header says", _CUT_OFF)
            if old_left < 0 or new_left < 0:
                raise PatchError(
                    f"{where} does not have the lines that its header counts", _CUT_OFF
                )
            self._at += 1
        if self._at < len(self._lines) and self._lines[self._at].startswith("\\ "):
            body.append(_NO_NEWLINE)
            self._at += 1
        return body

    def _finished(self) -> Iterator[FilePatch]:
        if self._header is not None:
            yield _file_patch(self._header)
        self._header = None


def _count(group: str | None) -> int:
    return 1 if group is None else int(group)


def _starts(match: re.Match[str]) -> tuple[int, int]:
    """Give a hunk's first lines from 0; an empty span's number names the line before it."""
    starts = []
    for start, count in ((1, 2), (3, 4)):
        number = int(match.group(start))
        starts.append(number - 1 if _count(match.group(count)) and number else number)
    return starts[0], starts[1]


def _old_stop(hunk: PatchHunk) -> int:
    return hunk.old_start + len(hunk.old_lines)


def _parse_body(match: re.Match[str], body: list[str], where: str) -> tuple[tuple[str, str], ...]:
    """Have unidiff parse a hunk under stand-in file names; take missing newlines off its lines."""
    if not any(line[0] in "+-" for line in body):
        raise PatchError(f"{where} changes nothing")
    header = match.group() + "\n"
    try:
        hunk = PatchSet(["--- a/file\n", "+++ b/file\n", header, *body])[0][0]
    except UnidiffParseError as error:
        raise PatchError(f"{where} is malformed ({error})".replace("\n", " ")) from error
    pairs: list[tuple[str, str]] = []
    for line in hunk:
        if line.line_type == "\\" and pairs:
            mark, text = pairs[-1]
            pairs[-1] = (mark, text.removesuffix("\n"))
        elif line.line_type in (" ", "-", "+"):
            pairs.append((line.line_type, line.value))
    for side in ("+", "-"):
        inner = [text for mark, text in pairs if mark != side][:-1]
        if not all(text.endswith("\n") for text in inner):
            raise PatchError(f"{where} marks a missing newline in the middle of the file")
    return tuple(pairs)


def _shown(header: _Header) -> str:
    return (
        next((name for name in (header.new, header.old) if name not in (None, DEV_NULL)), "") or ""
    )


def _file_patch(header: _Header) -> FilePatch:
    """Settle a file's paths and what happens to it."""
    sides = _sides(header)
    kind: Kind = header.kind or "modify"
    if header.old == DEV_NULL:
        kind = "add"
    elif header.new == DEV_NULL:
        kind = "delete"
    if kind == "add" and any(hunk.old_lines for hunk in header.hunks):
        raise PatchError(f"line {header.line} of the patch creates {sides.new} out of other lines")
    if kind == "delete" and any(hunk.new_lines for hunk in header.hunks):
        raise PatchError(f"line {header.line} of the patch deletes {sides.old} but keeps lines")
    return FilePatch(
        old_path=None if kind == "add" else sides.old,
        new_path=None if kind == "delete" else sides.new,
        kind=kind,
        hunks=tuple(header.hunks),
        binary=header.binary,
        raw_path=sides.raw,
    )


def _sides(header: _Header) -> Sides:
    if header.moved_from is not None and header.moved_to is not None:
        return Sides(header.moved_from, header.moved_to, header.moved_to)
    by_git = header.git is not None
    from_git = git_names(header.git, header.line) if header.git is not None else None
    return settle(header.old or "", header.new or "", from_git, by_git=by_git)
