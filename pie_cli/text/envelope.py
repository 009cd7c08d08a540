r"""What surrounds the hunks of a patch: mails, commit messages, git's headers, binary data.

The parts are cut out as `git apply` finds them: a file begins with "diff --git", or with "--- ",
"+++ " and "@@ -" on three lines; its hunks follow at once and end where their line counts say; all
else is text. Lines end at "\n" only: form feeds, lone carriage returns and other separators that
`str.splitlines` knows are part of a line, as for git.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pie_cli.errors import PatchError
from pie_cli.text.applying import Kind
from pie_cli.text.edit import split_lines
from pie_cli.text.gitpaths import unquoted

_NO_NEWLINE = "\\ No newline at end of file\n"

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@", re.ASCII)

_BINARY = re.compile(r"Binary files? (.+) (?:differ|has changed)$")
_MOVED = re.compile(r"(rename|copy) (from|to) (.+)")
_MODE = re.compile(r"(?:old|new|new file|deleted file) mode (\d+)$")
_INDEX = re.compile(r"index ([0-9a-f]{4,64})\.\.([0-9a-f]{4,64})(?: (\d+))?$")
_LOG = re.compile(r"commit [0-9a-f]{7,64}\b")
_LOG_NEXT = ("Author:", "AuthorDate:", "Merge:", "tree ")
_ONE_LINE = re.compile(r"[0-9a-f]{7,64} \S")
_COMBINED = re.compile(r"@@@+ -\d")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m(?:diff |---|\+\+\+|@@)")
_EXTENDED = (
    "--- ",
    "+++ ",
    "old mode ",
    "new mode ",
    "deleted file mode ",
    "new file mode ",
    "copy from ",
    "copy to ",
    "rename from ",
    "rename to ",
    "similarity index ",
    "dissimilarity index ",
    "index ",
)
_CUT_OFF = "make the patch again: it was cut off or edited by hand"


@dataclass
class Part:
    """What a patch holds about one file, not yet read.

    Attributes:
        line: line of the patch where it begins, from 1.
        commit: number of the commit or mail that it came with: text lies between two of them.
        git: what follows "diff --git " in its header; None for plain diff.
        names: the lines "--- old" and "+++ new", if there.
        kind: what git's header says that happens to the file.
        moved: names "from" and "to" of a rename or copy.
        modes: file modes that git's header names.
        ids: abbreviated hashes of git's objects before and after.
        binary: it only says that binary contents differ, or holds them.
        hunks: for each its first line in the patch, from 1, and its lines.
    """

    line: int
    commit: int
    git: str | None = None
    names: tuple[str, str] | None = None
    kind: Kind | None = None
    moved: dict[str, str] = field(default_factory=dict)
    modes: list[str] = field(default_factory=list)
    ids: tuple[str, str] = ("", "")
    binary: bool = False
    hunks: list[tuple[int, list[str]]] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """The file's name for a message about its hunks."""
        old, new = (name[4:].strip().split("\t")[0] for name in self.names or ("", ""))
        return old if new == "/dev/null" else new


@dataclass(frozen=True)
class Envelope:
    """A patch cut into parts.

    Attributes:
        parts: in the order of the patch.
        from_log: commits stand in it as `git log` writes them, newest first by default.
        crlf: all its lines end in CRLF: it is about such a file, or was converted on its way.
    """

    parts: tuple[Part, ...]
    from_log: bool
    crlf: bool


def open_envelope(text: str) -> Envelope:
    """Cut a patch into the parts that are about files.

    Raises:
        PatchError: it is empty, holds no unified diff, or a hunk is malformed.
    """
    lines = split_lines(text.removeprefix("\ufeff"))
    if not any(line.strip() for line in lines):
        raise PatchError("the patch is empty", "change a file first, then make the patch again")
    crlf = all(line.endswith("\r\n") for line in lines[:-1]) and len(lines) > 1
    if not lines[-1].endswith("\n"):
        lines[-1] = lines[-1].removesuffix("\r") + ("\r\n" if crlf else "\n")
    crlf = crlf and lines[-1].endswith("\r\n")
    reader = _Reader(lines)
    reader.read()
    if not reader.parts:
        _explain_no_parts(text, reader.combined)
    return Envelope(tuple(reader.parts), reader.from_log, crlf)


def _explain_no_parts(text: str, combined: int) -> None:
    """Raise the error for a text in which no file's patch was found."""
    if combined:
        raise PatchError(
            f"line {combined} of the patch begins the combined diff of a merge",
            "make the patch against one parent, for instance with git diff HEAD",
        )
    if _COLOUR.search(text):
        raise PatchError("the patch is coloured", "make it with git diff --no-color")
    raise PatchError("the patch holds no unified diff", "make it with git diff or diff -u")


class _Reader:
    """Goes through the lines of a patch once."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._at = 0
        self._commit = 0
        self._text_seen = False
        self.parts: list[Part] = []
        self.from_log = False
        self._maybe_combined = self.combined = 0

    def read(self) -> None:
        """Find the parts."""
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.startswith("diff --git ") and self._line(1).startswith(_EXTENDED):
                self._read_git_header(line)
            elif self._at_plain_header():
                part = self._begin()
                part.names = self._names()
                self._read_hunks(part)
            elif _HUNK.match(line):
                raise PatchError(
                    f"line {self._at + 1} of the patch begins a hunk without a file name above it",
                    'keep the lines "--- old" and "+++ new" in front of it',
                )
            else:
                self._read_text(line.rstrip("\r\n"))

    def _line(self, ahead: int) -> str:
        at = self._at + ahead
        return self._lines[at] if at < len(self._lines) else ""

    def _begin(self) -> Part:
        self._commit += self._text_seen
        self._text_seen = False
        self.parts.append(Part(self._at + 1, self._commit))
        return self.parts[-1]

    def _at_names(self) -> bool:
        return self._line(0).startswith("--- ") and self._line(1).startswith("+++ ")

    def _at_plain_header(self) -> bool:
        if not self._at_names() or not self._line(2).startswith("@@ "):
            return False
        if not _HUNK.match(self._line(2)):
            raise PatchError(
                f"line {self._at + 3} of the patch is a malformed hunk header",
                "make the patch again, with git diff or diff -u",
            )
        return True

    def _names(self) -> tuple[str, str]:
        names = (self._line(0).rstrip("\r\n"), self._line(1).rstrip("\r\n"))
        self._at += 2
        return names

    def _read_text(self, line: str) -> None:
        """Skip what lies between files; note what it says of their order, and what is no text."""
        if not self.parts:
            is_log = _LOG.match(line) and self._line(1).startswith(_LOG_NEXT)
            self.from_log |= bool(is_log or (self._at == 0 and _ONE_LINE.match(line)))
        if binary := _BINARY.match(line):
            # Plain diff writes this line alone.
            part = self._begin()
            names = binary.group(1).rsplit(" and ", 1)
            part.names, part.binary = (f"--- {names[0]}", f"+++ {names[-1]}"), True
        elif line.startswith(("diff --cc ", "diff --combined ")):
            self._maybe_combined = self._at + 1
        elif _COMBINED.match(line):
            self.combined = self.combined or self._maybe_combined or self._at + 1
        else:
            self._text_seen |= bool(line.strip())
        self._at += 1

    def _read_git_header(self, line: str) -> None:
        part = self._begin()
        part.git = line[len("diff --git ") :].strip("\r\n")
        self._at += 1
        while self._line(0).startswith(_EXTENDED):
            if self._at_names():
                part.names = self._names()
                break
            self._read_extended(part, self._line(0).rstrip("\r\n"))
            self._at += 1
        here = self._line(0).rstrip("\r\n")
        if here == "GIT binary patch" or _BINARY.match(here):
            part.binary = True
            while self._line(0).strip() or self._line(1).startswith(("literal ", "delta ")):
                self._at += 1
                if self._line(0).startswith("diff --git "):
                    break
        elif part.names:
            self._read_hunks(part)

    def _read_extended(self, part: Part, line: str) -> None:
        if match := _MODE.match(line):
            part.modes.append(match.group(1))
            if line.startswith("new file"):
                part.kind = "add"
            elif line.startswith("deleted"):
                part.kind = "delete"
        elif match := _INDEX.match(line):
            part.ids = (match.group(1), match.group(2))
            part.modes += [match.group(3)] if match.group(3) else []
        elif match := _MOVED.match(line):
            part.kind = "rename" if match.group(1) == "rename" else "copy"
            part.moved[match.group(2)] = unquoted(match.group(3), self._at + 1)

    def _read_hunks(self, part: Part) -> None:
        while match := _HUNK.match(self._line(0)):
            start = self._at
            where = f"hunk {len(part.hunks) + 1} of {part.shown} (line {start + 1} of the patch)"
            part.hunks.append((start + 1, [match.group() + "\n", *self._read_body(match, where)]))

    def _read_body(self, match: re.Match[str], where: str) -> list[str]:
        """Take the lines that the header of a hunk counts, with the marks of missing newlines."""
        old_left, new_left = (_count(match.group(group)) for group in (2, 4))
        body: list[str] = []
        self._at += 1
        while old_left or new_left:
            line = self._line(0)
            # Mail programs and editors strip the blank of an empty line of context.
            mark = " " if line in ("\n", "\r\n") else line[:1]
            if mark == "\\":
                body.append(_NO_NEWLINE)
            elif mark and mark in " -+":
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
        if self._line(0).startswith("\\ "):
            body.append(_NO_NEWLINE)
            self._at += 1
        if not any(line[0] in "+-" for line in body):
            raise PatchError(f"{where} changes nothing")
        return body


def _count(group: str | None) -> int:
    return 1 if group is None else int(group)
