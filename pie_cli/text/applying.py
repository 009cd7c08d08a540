"""What a patch does to one file's text: apply it, take it back, tell whether it is applied."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pie_cli.errors import PatchError
from pie_cli.text.edit import LineHunk, split_lines

Kind = Literal["modify", "add", "delete", "rename", "copy"]
Fit = Literal["applies", "reversed", "both", "neither"]


class PatchDoesNotApply(PatchError):
    """A well-formed patch does not fit a text.

    Attributes:
        hunk: number of the first hunk that has no place, from 1; 0 where no hunk is to blame.
    """

    def __init__(self, cause: str, remedy: str = "", *, hunk: int = 0) -> None:
        """Name the hunk as well."""
        super().__init__(cause, remedy)
        self.hunk = hunk


@dataclass(frozen=True, slots=True)
class PatchHunk:
    """One hunk: a span of old lines, context included, and what replaces it.

    Attributes:
        number: place in its file's hunks, from 1.
        line: line of the patch where it begins, from 1.
        old_start: first old line, from 0, as the patch states it.
        new_start: first new line, likewise.
        body: lines in order; each " ", "-" or "+" and the text with its line end.
    """

    number: int
    line: int
    old_start: int
    new_start: int
    body: tuple[tuple[str, str], ...]

    @property
    def old_lines(self) -> list[str]:
        """The lines that must be there."""
        return [text for mark, text in self.body if mark != "+"]

    @property
    def new_lines(self) -> list[str]:
        """The lines that stand there afterwards."""
        return [text for mark, text in self.body if mark != "-"]

    def reversed(self) -> "PatchHunk":
        """Give the hunk that takes this one back."""
        swap = {" ": " ", "-": "+", "+": "-"}
        body = tuple((swap[mark], text) for mark, text in self.body)
        return replace(self, old_start=self.new_start, new_start=self.old_start, body=body)


@dataclass(frozen=True)
class FilePatch:
    """What a patch does to one file.

    Attributes:
        old_path: path before, as the file system spells it; None for a new file.
        new_path: path afterwards; None for a deleted file.
        kind: what happens to the file as a whole.
        hunks: changes of its text, ascending; none for a pure rename, an empty or a binary file.
        binary: the patch only says that binary contents differ.
        raw_path: the path as the patch spells it, should `path` not be there.
    """

    old_path: str | None
    new_path: str | None
    kind: Kind
    hunks: tuple[PatchHunk, ...]
    binary: bool = False
    raw_path: str = ""

    @property
    def path(self) -> str:
        """The path that the file has afterwards, or had before it was deleted."""
        return self.new_path or self.old_path or ""

    def reversed(self) -> "FilePatch":
        """Give the patch that takes this one back."""
        kinds: dict[Kind, Kind] = {"add": "delete", "delete": "add"}
        return replace(
            self,
            old_path=self.new_path,
            new_path=self.old_path,
            kind=kinds.get(self.kind, self.kind),
            hunks=tuple(hunk.reversed() for hunk in self.hunks),
        )


@dataclass(frozen=True)
class Applied:
    """A text with a patch applied.

    Attributes:
        text: the text afterwards.
        hunks: what changed, context left out, by the lines of the text at hand; ascending.
        offsets: lines by which each hunk of the patch stood off its stated place.
    """

    text: str
    hunks: tuple[LineHunk, ...]
    offsets: tuple[int, ...]


def apply(text: str, file_patch: FilePatch) -> str:
    """Apply a file's patch to its text; see `locate`."""
    return locate(text, file_patch).text


def reverse(text: str, file_patch: FilePatch) -> str:
    """Take a file's patch back from its text; see `locate`."""
    return locate(text, file_patch.reversed()).text


def locate(text: str, file_patch: FilePatch) -> Applied:
    """Apply a file's patch and tell where its hunks went.

    Each hunk must match exactly, line ends included. It is tried at its stated place, moved as the
    hunk before it was, then, if it has context, at the nearest other place behind that hunk. A
    patch without hunks leaves the text as it is.

    Args:
        text: the file's text; empty for a file that is not there yet.
        file_patch: what to do to it.

    Raises:
        PatchDoesNotApply: a hunk has no place in the text, which its number says.
        PatchError: the file is binary.
    """
    if file_patch.binary:
        raise PatchError(
            f"the patch of {file_patch.path} is binary", "name a text file, or leave it out"
        )
    if file_patch.kind == "add" and text:
        raise PatchDoesNotApply(
            f"the patch creates {file_patch.path}, which is there already",
            "take the file as it was before the patch",
        )
    lines = split_lines(text)
    applied = _apply_hunks(lines, file_patch)
    if file_patch.kind == "delete" and applied.text:
        raise PatchDoesNotApply(
            f"the patch deletes {file_patch.path}, which holds more lines than the patch",
            "make the patch from the file as it is",
        )
    return applied


def fits(text: str, file_patch: FilePatch) -> Fit:
    """Tell whether a patch can be applied to a text, or is applied already and can be reversed.

    "both" is possible: a line added among its like, a patch without context, one without hunks.

    Raises:
        PatchError: the file is binary.
    """
    forward, backward = _applies(text, file_patch), _applies(text, file_patch.reversed())
    if forward:
        return "both" if backward else "applies"
    return "reversed" if backward else "neither"


def _applies(text: str, file_patch: FilePatch) -> bool:
    try:
        locate(text, file_patch)
    except PatchDoesNotApply:
        return False
    return True


def _apply_hunks(lines: list[str], file_patch: FilePatch) -> Applied:
    out: list[str] = []
    changed: list[LineHunk] = []
    offsets: list[int] = []
    at = drift = 0
    for hunk in file_patch.hunks:
        place = _find(lines, hunk, hunk.old_start + drift, at)
        if place is None:
            raise _no_place(lines, file_patch, hunk)
        out += lines[at:place]
        changed += _changed_spans(hunk, place, len(out))
        out += hunk.new_lines
        drift = place - hunk.old_start
        offsets.append(drift)
        at = place + len(hunk.old_lines)
    out += lines[at:]
    return Applied("".join(out), tuple(changed), tuple(offsets))


def _find(lines: list[str], hunk: PatchHunk, expected: int, first: int) -> int | None:
    """Find the place nearest to the expected one, not before `first`, where a hunk matches."""
    old, new = hunk.old_lines, hunk.new_lines
    last = len(lines) - len(old)
    # Nothing vouches for another place of a hunk without context.
    has_context = any(mark == " " for mark, _ in hunk.body)
    nearest = max(first, min(expected, last)) if has_context else expected
    reach = max(last - first, 0) if has_context else 0
    for distance in range(reach + 1):
        for place in dict.fromkeys((nearest + distance, nearest - distance)):
            if (
                first <= place <= last
                and lines[place : place + len(old)] == old
                and _joins(lines, new, place, len(old))
            ):
                return place
    return None


def _joins(lines: list[str], new: list[str], place: int, length: int) -> bool:
    """Tell whether no line without a newline would end up in front of another line."""
    at_end = place + length == len(lines)
    if new and not new[-1].endswith("\n") and not at_end:
        return False
    glued = at_end and place > 0 and not lines[place - 1].endswith("\n")
    return not (new and glued)


def _changed_spans(hunk: PatchHunk, place: int, new_at: int) -> Iterator[LineHunk]:
    """Give the spans of a hunk that are not context."""
    old_at = old_start = place
    new_start = new_at
    for mark, _ in [*hunk.body, (" ", "")]:
        if mark == " ":
            if old_at > old_start or new_at > new_start:
                yield LineHunk(old_start, old_at, new_start, new_at)
            old_at, new_at = old_at + 1, new_at + 1
            old_start, new_start = old_at, new_at
        elif mark == "-":
            old_at += 1
        else:
            new_at += 1


def _no_place(lines: list[str], file_patch: FilePatch, hunk: PatchHunk) -> PatchDoesNotApply:
    """Name the hunk that has no place, and why where that can be told."""
    cause = (
        f"hunk {hunk.number} of {len(file_patch.hunks)} for {file_patch.path} (line {hunk.line} of "
        "the patch) does not apply"
    )
    plain = replace(hunk, body=tuple((mark, _bare(text)) for mark, text in hunk.body))
    if _find([_bare(line) for line in lines], plain, hunk.old_start, 0) is not None:
        return PatchDoesNotApply(
            f"{cause}: only the line ends differ",
            "make the patch from the file as it is, with the same line ends",
            hunk=hunk.number,
        )
    return PatchDoesNotApply(
        f"{cause}: its lines are not in the file",
        "make the patch from the file as it is, or take the file as it was before the patch",
        hunk=hunk.number,
    )


def _bare(line: str) -> str:
    return line.rstrip("\r\n") + "\n"
