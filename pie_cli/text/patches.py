"""Unified diffs: what unidiff reads in them, file by file.

What surrounds the hunks comes off first (`envelope`), for unidiff refuses or misreads some that
git writes: paths with blanks under --no-prefix, paths that contain " b/", quoted names, messages
that look like headers. What remains, names and hunks of all files, it reads in one go.
"""

from dataclasses import dataclass, replace

from unidiff.errors import UnidiffParseError
from unidiff.patch import Hunk, PatchedFile, PatchSet

from pie_cli.errors import PatchError
from pie_cli.text.applying import FilePatch, Kind, PatchHunk
from pie_cli.text.envelope import Part, open_envelope
from pie_cli.text.gitpaths import DEV_NULL, Sides, git_names, is_epoch, settle, undated, unquoted


@dataclass(frozen=True)
class Patch:
    """The files that a patch names.

    Attributes:
        files: in the patch's order; a series may name one several times.
        newest_first: of its commits the newest is at the top, as in `git log`.
    """

    files: tuple[FilePatch, ...]
    newest_first: bool = False


def parse(patch: str | bytes) -> Patch:
    """Read a unified diff, of git or plain, of one or more files or commits.

    Text around the files (a commit message, a signature) is skipped. What is not UTF-8 in it is
    kept as lone surrogates, so that one file in another encoding leaves the others readable.

    Raises:
        PatchError: the patch is empty, malformed, coloured, or nothing but the combined diff of a
            merge; the cause names the line or the file and hunk.
    """
    if isinstance(patch, bytes):
        if patch.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise PatchError("the patch is in UTF-16", "write it in UTF-8, as git does")
        patch = patch.decode("utf-8", "surrogateescape")
    envelope = open_envelope(patch)
    read = iter(_read_by_unidiff([part for part in envelope.parts if part.hunks]))
    files = [
        _file_patch(part, next(read) if part.hunks else None, crlf=envelope.crlf)
        for part in envelope.parts
    ]
    return Patch(_unanchored(files), _newest_first(files, from_log=envelope.from_log))


def _read_by_unidiff(parts: list[Part]) -> PatchSet:
    """Have unidiff read names and hunks of all files."""
    lines: list[str] = []
    for part in parts:
        assert part.names is not None
        lines += [name + "\n" for name in part.names]
        for _, hunk in part.hunks:
            lines += hunk
    try:
        files = PatchSet(lines)
    except UnidiffParseError as error:
        raise PatchError(f"the patch is malformed ({error})".replace("\n", " ")) from error
    if [len(file) for file in files] != [len(part.hunks) for part in parts]:
        raise PatchError("the patch is malformed", "make it again, with git diff or diff -u")
    return files


def _file_patch(part: Part, file: PatchedFile | None, *, crlf: bool) -> FilePatch:
    """Put together what git's header says of a file and what unidiff read."""
    sides = _sides(part, file)
    hunks = tuple(
        _hunk(number, line, hunk, part.shown, "\r\n" if crlf else "\n")
        for number, ((line, _), hunk) in enumerate(zip(part.hunks, file or (), strict=True), 1)
    )
    kind = part.kind or _plain_kind(part, file)
    if kind == "add" and any(hunk.old_lines for hunk in hunks):
        raise PatchError(f"line {part.line} of the patch creates {sides.new[0]} out of other lines")
    if kind == "delete" and any(hunk.new_lines for hunk in hunks):
        raise PatchError(f"line {part.line} of the patch deletes {sides.old[0]} but keeps lines")
    return FilePatch(
        old_names=() if kind == "add" else sides.old,
        new_names=() if kind == "delete" else sides.new,
        kind=kind,
        hunks=hunks,
        binary=part.binary,
        is_file=not any(mode.startswith(("120", "160")) for mode in part.modes),
        by_git=part.git is not None,
        ids=part.ids,
        commit=part.commit,
        crlf=crlf,
    )


def _sides(part: Part, file: PatchedFile | None) -> Sides:
    if len(part.moved) == 2:
        return Sides((part.moved["from"],), (part.moved["to"],))
    old, new = ("", "")
    if file is not None:
        old, new = file.source_file, file.target_file
    elif part.names:
        old, new = (name[4:] for name in part.names)
    if part.git is None:
        old, new = undated(old), undated(new)
    line = part.line
    from_git = git_names(part.git, line) if part.git is not None else None
    return settle(unquoted(old, line), unquoted(new, line), from_git, by_git=part.git is not None)


def _plain_kind(part: Part, file: PatchedFile | None) -> Kind:
    """Tell whether a plain diff creates or deletes its file: by name, or by a date of 1970."""
    if file is None or part.git is not None:
        return "modify"
    if file.source_file == DEV_NULL or (is_epoch(file.source_timestamp) and not _old(file)):
        return "add"
    if file.target_file == DEV_NULL or (is_epoch(file.target_timestamp) and not _new(file)):
        return "delete"
    return "modify"


def _old(file: PatchedFile) -> int:
    return sum(hunk.source_length for hunk in file)


def _new(file: PatchedFile) -> int:
    return sum(hunk.target_length for hunk in file)


def _hunk(number: int, line: int, hunk: Hunk, path: str, newline: str) -> PatchHunk:
    """Take over a hunk; a mark of a missing newline takes that of the line above it."""
    body: list[tuple[str, str]] = []
    for read in hunk:
        if read.line_type == "\\" and body:
            body[-1] = (body[-1][0], body[-1][1].removesuffix(newline))
        elif read.line_type in (" ", "-", "+"):
            body.append((read.line_type, read.value))
    for side in "+-":
        inner = [text for mark, text in body if mark != side][:-1]
        if not all(text.endswith("\n") for text in inner):
            raise PatchError(
                f"hunk {number} of {path} (line {line} of the patch) marks a missing newline "
                "in the middle of the file"
            )
    return PatchHunk(
        number,
        line,
        _start(hunk.source_start, hunk.source_length),
        _start(hunk.target_start, hunk.target_length),
        tuple(body),
    )


def _start(stated: int, length: int) -> int:
    """Give a hunk's first line from 0; an empty span's number names the line before it."""
    return stated - 1 if length and stated else stated


def _unanchored(files: list[FilePatch]) -> tuple[FilePatch, ...]:
    """Mark the files whose hunks have no context although there are lines to show.

    A single hunk without context that begins with line 1 may be a whole file, with context or
    without; then the other files of the patch tell how it was made.
    """

    def surely(file: FilePatch) -> bool:
        hunks = file.hunks
        return not any(hunk.has_context for hunk in hunks) and (
            len(hunks) > 1 or any(hunk.old_start or hunk.new_start for hunk in hunks)
        )

    is_bare = any(map(surely, files)) and not any(
        hunk.has_context for file in files for hunk in file.hunks
    )
    return tuple(replace(file, unanchored=is_bare or surely(file)) for file in files)


def _newest_first(files: list[FilePatch], *, from_log: bool) -> bool:
    """Tell the order of the commits, by git's objects where they show it."""
    seen: dict[str, FilePatch] = {}
    for file in files:
        before = seen.get(file.path)
        if before is not None and all(before.ids) and all(file.ids):
            if _same(before.ids[1], file.ids[0]):
                return False
            if _same(before.ids[0], file.ids[1]):
                return True
        seen[file.path] = file
    return from_log


def _same(one: str, other: str) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]
