"""What a patch does to one file's text, as `git apply` places it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from pie_cli.errors import PatchError
from pie_cli.text.edit import Edit, LineHunk, split_lines

Kind = Literal["modify", "add", "delete", "rename", "copy"]


class PatchDoesNotApply(PatchError):
    """A well-formed patch does not fit a text.

    Attributes:
        hunk: number of the first hunk that has no place, from 1; 0 where no hunk is to blame.
        is_close: its lines are in the text, but elsewhere or with other line ends.
    """

    def __init__(
        self, cause: str, remedy: str = "", *, hunk: int = 0, is_close: bool = False
    ) -> None:
        """Name the hunk as well."""
        super().__init__(cause, remedy)
        self.hunk = hunk
        self.is_close = is_close


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
        """The lines that are there afterwards."""
        return [text for mark, text in self.body if mark != "-"]

    @property
    def has_context(self) -> bool:
        """Whether some of its lines stay."""
        return any(mark == " " for mark, _ in self.body)

    def reversed(self) -> "PatchHunk":
        """Give the hunk that takes this one back."""
        swap = {" ": " ", "-": "+", "+": "-"}
        body = tuple((swap[mark], text) for mark, text in self.body)
        return replace(self, old_start=self.new_start, new_start=self.old_start, body=body)


@dataclass(frozen=True)
class FilePatch:
    """What a patch does to one file.

    Attributes:
        old_names: what its path before may be, the likeliest first; none for a new file.
        new_names: what its path afterwards may be, likewise; none for a deleted file.
        kind: what happens to the file as a whole.
        hunks: changes of its text, ascending; none for a pure rename, an empty or a binary file.
        binary: the patch only says that binary contents differ.
        is_file: a regular file; no symbolic link, no submodule.
        by_git: it has git's header, so its path begins at the top of the repository.
        ids: abbreviated hashes of git's objects before and after; empty where not told.
        commit: number of the commit in the patch that it belongs to.
        crlf: the patch has CRLF throughout, its headers too.
        unanchored: made without context (`-U0`), so its hunks belong where they say.
    """

    old_names: tuple[str, ...]
    new_names: tuple[str, ...]
    kind: Kind
    hunks: tuple[PatchHunk, ...]
    binary: bool = False
    is_file: bool = True
    by_git: bool = False
    ids: tuple[str, str] = ("", "")
    commit: int = 0
    crlf: bool = False
    unanchored: bool = False

    @property
    def old_path(self) -> str | None:
        """The path before; None for a new file."""
        return self.old_names[0] if self.old_names else None

    @property
    def new_path(self) -> str | None:
        """The path afterwards; None for a deleted file."""
        return self.new_names[0] if self.new_names else None

    @property
    def path(self) -> str:
        """The path that the file has afterwards, or had before it was deleted."""
        return self.new_path or self.old_path or ""

    @property
    def is_text(self) -> bool:
        """Whether it is about a regular file and all that the patch shows of it is UTF-8."""
        return (
            self.is_file
            and not self.binary
            and all(is_utf8(text) for hunk in self.hunks for _, text in hunk.body)
        )

    def reversed(self) -> "FilePatch":
        """Give the patch that takes this one back."""
        kinds: dict[Kind, Kind] = {"add": "delete", "delete": "add"}
        return replace(
            self,
            old_names=self.new_names,
            new_names=self.old_names,
            kind=kinds.get(self.kind, self.kind),
            ids=self.ids[::-1],
            hunks=tuple(hunk.reversed() for hunk in self.hunks),
        )

    def with_lf(self) -> "FilePatch":
        """Give the same with its text's CRLF turned into LF, as before the patch was converted."""
        hunks = [
            replace(hunk, body=tuple((mark, with_lf(text)) for mark, text in hunk.body))
            for hunk in self.hunks
        ]
        return replace(self, hunks=tuple(hunks), crlf=False)


@dataclass(frozen=True)
class Placed:
    """Patches placed on a text.

    Attributes:
        edit: what they do to it.
        offset: lines by which their hunks were found off their stated places, all added up.
    """

    edit: Edit
    offset: int


def is_utf8(text: str) -> bool:
    """Tell whether a text decoded with `surrogateescape` was UTF-8."""
    return text.isascii() or not any("\udc80" <= char <= "\udcff" for char in text)


def is_blob(text: str, abbreviated: str) -> bool:
    """Tell whether a text is the object that git names so."""
    if not abbreviated.strip("0"):
        return False
    new_hash = hashlib.sha256 if len(abbreviated) > 40 else hashlib.sha1
    data = text.encode("utf-8", "surrogateescape")
    return new_hash(b"blob %d\0" % len(data) + data).hexdigest().startswith(abbreviated)


def with_lf(text: str) -> str:
    """Turn CRLF into LF."""
    return text.replace("\r\n", "\n")


def locate(text: str | None, *parts: FilePatch, ends: str = "") -> Placed:
    r"""Apply patches of one file to its text, one after the other.

    Each hunk must match exactly. It is tried at its stated place, then at the nearest other one
    that no earlier hunk of the same patch has touched; one that begins with line 1 fits only at the
    beginning of the file, one without context after its changes only at the end. Hunks of a patch
    that was made without context fit where they say or not at all. A patch without hunks leaves
    the text as it is.

    Args:
        text: the file's text; None for a file that is not there.
        parts: what to do to it, in order.
        ends: "" where line ends must match as well; else they need not, and "\n" or "\r\n" is what
            lines that come in shall end with.

    Raises:
        PatchDoesNotApply: a hunk has no place in the text, which its number says.
        PatchError: the file is binary.
    """
    image = _Image(text, ends)
    offset = 0
    for part in parts:
        if part.binary:
            raise PatchError(
                f"the patch of {part.path} is binary", "name a text file, or leave it out"
            )
        if part.kind == "add" and image.is_there:
            raise PatchDoesNotApply(
                f"the patch creates {part.path}, which is there already",
                "take the file as it was before the patch",
                is_close=True,
            )
        offset += image.apply(part)
        if part.kind == "delete" and image.lines:
            raise _holds_more(part)
    return Placed(image.edit(), offset)


def _holds_more(part: FilePatch) -> PatchDoesNotApply:
    return PatchDoesNotApply(
        f"the patch deletes {part.path}, which holds more lines than the patch",
        "make the patch from the file as it is",
        is_close=True,
    )


class _Line(NamedTuple):
    """A line of a text that is being patched.

    Attributes:
        key: what is compared: the text, perhaps with LF at its end whatever it has.
        text: the line with its end.
        origin: its number in the text before all patches, from 0; -1 for one that came in.
        is_patched: whether a hunk of the patch at hand holds it already.
    """

    key: str
    text: str
    origin: int
    is_patched: bool


class _Image:
    """A text that is being patched, each line with where it comes from."""

    def __init__(self, text: str | None, ends: str) -> None:
        self._before = text or ""
        self._ends = ends
        self.is_there = text is not None
        self.lines = [
            _Line(self._key(line), line, number, False)
            for number, line in enumerate(split_lines(self._before))
        ]

    def apply(self, part: FilePatch) -> int:
        """Apply a patch; return by how many lines its hunks were off."""
        self.lines = [line._replace(is_patched=False) for line in self.lines]
        stated = part.unanchored or (
            not any(hunk.has_context for hunk in part.hunks)
            and is_blob("".join(line.key for line in self.lines), part.ids[0])
        )
        self.is_there = part.kind != "delete"
        offset = 0
        for hunk in part.hunks:
            place = self._stated(hunk) if stated else self._nearest(hunk)
            if place is None:
                raise self._no_place(part, hunk)
            offset += abs(place - hunk.new_start)
            self.lines[place : place + len(hunk.old_lines)] = self._replaced(hunk, place)
        return offset

    @property
    def text(self) -> str:
        """The text as it is by now."""
        return "".join(line.text for line in self.lines)

    def edit(self) -> Edit:
        """Tell what was done to the text."""
        after = self.text
        if not all(line.text.endswith("\n") for line in self.lines[:-1]):
            # git joins two lines where the patch takes away the newline between them.
            return Edit.between(self._before, after)
        return Edit(self._before, after, tuple(self._hunks()))

    def _hunks(self) -> Iterator[LineHunk]:
        """Give the gaps between the lines that stayed, but none that a later patch undid."""
        old_lines = split_lines(self._before)
        old_at = new_at = 0
        origins = [line.origin for line in self.lines]
        for new, old in enumerate([*origins, len(old_lines)]):
            if old < 0:
                continue
            now = [line.text for line in self.lines[new_at:new]]
            if old_lines[old_at:old] != now:
                yield LineHunk(old_at, old, new_at, new)
            old_at, new_at = old + 1, new + 1

    def _key(self, line: str) -> str:
        return with_lf(line) if self._ends else line

    def _replaced(self, hunk: PatchHunk, place: int) -> Iterator[_Line]:
        """Give what a hunk puts in place of its old lines; context stays the line it was."""
        for mark, text in hunk.body:
            if mark == " " and self.lines[place].key == self._key(text):
                yield self.lines[place]._replace(is_patched=True)
            elif mark != "-":
                spelled = text
                if self._ends and text.endswith("\n"):
                    spelled = with_lf(text)[:-1] + self._ends
                yield _Line(self._key(text), spelled, -1, True)
            place += mark != "+"

    def _expected(self, hunk: PatchHunk) -> int:
        """Return where the search for a hunk begins."""
        if hunk.old_start == 0:
            return 0
        if hunk.body[-1][0] != " ":
            return max(len(self.lines) - len(hunk.old_lines), 0)
        return max(min(hunk.new_start, len(self.lines)), 0)

    def _nearest(self, hunk: PatchHunk, *, anchored: bool = True) -> int | None:
        """Find the place of a hunk nearest to the stated one, the later one of two."""
        old = [self._key(text) for text in hunk.old_lines]
        expected = self._expected(hunk)
        last = len(self.lines) - len(old)
        at_start = anchored and hunk.old_start == 0
        at_end = anchored and hunk.body[-1][0] != " "
        if last < 0 or (at_start and at_end and last):
            return None
        if at_start or at_end:
            places = [0 if at_start else last]
        elif not old:
            places = [expected]
        else:
            first = old[0].removesuffix("\n") if len(old) == 1 else old[0]
            places = [
                at for at, line in enumerate(self.lines[: last + 1]) if line.key.startswith(first)
            ]
            places.sort(key=lambda place: (abs(place - expected), place < expected))
        return next((at for at in places if self._matches(old, at, to_end=at_end)), None)

    def _matches(self, old: Sequence[str], place: int, *, to_end: bool) -> bool:
        """Tell whether lines are there as they are.

        The last of them may lack a newline that the text has: git compares no further than the
        patch goes, unless it goes to the end of the file.
        """
        here = self.lines[place : place + len(old)]
        if any(line.is_patched for line in here):
            return False
        keys = [line.key for line in here]
        if keys == old:
            return True
        return (
            not to_end
            and bool(old)
            and not old[-1].endswith("\n")
            and keys[:-1] == old[:-1]
            and keys[-1].startswith(old[-1])
            and not keys[-1][len(old[-1]) :].strip(" \t\r\n")
        )

    def _stated(self, hunk: PatchHunk) -> int | None:
        """Return the place that a hunk states if it matches there, and joins no two lines."""
        old = [self._key(text) for text in hunk.old_lines]
        new = hunk.new_lines
        place = hunk.new_start
        at_end = place + len(old) == len(self.lines)
        if place + len(old) > len(self.lines) or not self._matches(old, place, to_end=True):
            return None
        if new and not new[-1].endswith("\n") and not at_end:
            return None
        if new and at_end and place > 0 and not self.lines[place - 1].key.endswith("\n"):
            return None
        return place

    def _no_place(self, part: FilePatch, hunk: PatchHunk) -> PatchDoesNotApply:
        """Name the hunk that has no place, and why where that can be told."""
        cause = (
            f"hunk {hunk.number} of {len(part.hunks)} for {part.path} (line {hunk.line} of the "
            "patch) does not apply"
        )
        remedy = "make the patch from the file as it is"
        bare = _Image("".join(map(_bare, split_lines(self.text))), "")
        plain = replace(hunk, body=tuple((mark, _bare(text)) for mark, text in hunk.body))
        if self._nearest(hunk, anchored=False) is not None:
            where = "beginning" if hunk.old_start == 0 else "end"
            if part.kind == "delete":
                return _holds_more(part)
            if part.unanchored:
                cause += ": it has no context, and its lines are elsewhere in the file"
                remedy = "make the patch with context lines, or from the file as it is"
            elif not hunk.has_context:
                cause += ": it has no context, and the file holds more than it"
                remedy = "make the patch with context lines, or from the file as it is"
            else:
                cause += f": its lines are in the file, but not at its {where}, where they belong"
        elif bare._nearest(plain, anchored=False) is not None:
            cause += ": only the line ends differ"
            remedy += ", with the same line ends"
        else:
            cause += ": its lines are not in the file"
            remedy += ", or take the file as it was before the patch"
            return PatchDoesNotApply(cause, remedy, hunk=hunk.number)
        return PatchDoesNotApply(cause, remedy, hunk=hunk.number, is_close=True)


def _bare(line: str) -> str:
    return line.rstrip("\r\n") + "\n"
