"""The file that a patch is about, and what the patch does to it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pie_cli.errors import InputError, PatchError
from pie_cli.text.applying import FilePatch, PatchDoesNotApply
from pie_cli.text.patches import Patch, parse
from pie_cli.text.reading import Fit, Reading, Side, decide, fit
from pie_cli.text.series import FileHistory, histories
from pie_cli.watching.files import NotText, read_source
from pie_cli.watching.line_ends import checkout_ends

_BOTH: tuple[Side, ...] = ("not applied", "applied")


@dataclass(frozen=True)
class PatchedFile:
    """A file that a patch is about.

    Attributes:
        path: where it is, or will be.
        reading: what the patch does to it.
        other_files: how many other files the patch is about.
    """

    path: Path
    reading: Reading
    other_files: int


@dataclass(frozen=True)
class _Target:
    """A file that may be the one.

    Attributes:
        path: where it is.
        text: what it holds; None where it is not there.
        sides: of the patch, those that it can be on.
    """

    path: Path
    text: str | None
    sides: tuple[Side, ...] = _BOTH


def find_edit(file: Path | None, patch: bytes, side: Side | None = None) -> PatchedFile:
    """Find the file that a patch is about, and its text before and after the patch.

    Args:
        file: the file to complete; None for the one that the patch changes last.
        patch: a unified diff.
        side: what the user says of the file: it holds the patch already, or not.

    Raises:
        InputError: there is no such file, or none that is text.
        PatchError: the patch is malformed, about other files, or does not fit.
    """
    read = parse(patch)
    files, other_order = histories(read)
    usable = [history for history in files if history.is_predictable]
    if not usable:
        raise PatchError("the patch changes no text that remains", _why_none(read))
    chosen = [_named(file, usable)] if file is not None else usable[::-1]
    for number, history in enumerate(chosen, 1):
        orders = [history, *_same_file(history, other_order)]
        try:
            path, reading = _read(file, orders, files, side)
        except NotText:
            if number == len(chosen):
                raise
            continue
        if not reading.edit.hunks:
            raise PatchError(f"the patch leaves {path} as it is", "its parts undo each other")
        return PatchedFile(path, reading, len(files) - 1)
    raise AssertionError("the last file is returned or raises")


def _read(
    file: Path | None,
    orders: Sequence[FileHistory],
    files: Sequence[FileHistory],
    side: Side | None,
) -> tuple[Path, Reading]:
    """Find what fits best: of the files that it may be and the orders of its commits."""
    targets = _targets(orders[0]) if file is None else _named_targets(file, orders[0])
    others = partial(_side_of_others, orders[0], files)
    tried = [
        (target.path, _attempt(target, history, side, others))
        for target in targets
        for history in orders
    ]
    found = [(path, one) for path, one in tried if isinstance(one, Reading)]
    if not found:
        raise next(one for _, one in tried if isinstance(one, PatchDoesNotApply))
    return min(found, key=lambda one: one[1].rank)


def _attempt(
    target: _Target, history: FileHistory, side: Side | None, others: Callable[[], Side | None]
) -> Reading | PatchDoesNotApply:
    try:
        return decide(_fit(target, history, (side,) if side else target.sides), others)
    except PatchDoesNotApply as refusal:
        return refusal


def _fit(target: _Target, history: FileHistory, sides: tuple[Side, ...]) -> Fit:
    return fit(target.text, history, partial(checkout_ends, target.path), sides)


def _side_of_others(one: FileHistory, files: Sequence[FileHistory]) -> Side | None:
    """Tell on which side of the patch its other files are, as far as they are on one only."""
    for other in files:
        if other.parts[0] in one.parts or not other.is_predictable:
            continue
        try:
            target = _targets(other)[0]
            only = _fit(target, other, target.sides).only
        except (InputError, PatchError):
            continue
        if only:
            return only
    return None


def _why_none(patch: Patch) -> str:
    if any(part.binary or not part.is_text for part in patch.files):
        return "give one that edits a file of UTF-8 text"
    return "give one that edits a file"


def _same_file(history: FileHistory, others: Sequence[FileHistory]) -> list[FileHistory]:
    """Find the same file's history should the commits be in the other order."""
    if len(history.parts) == 1:
        return []
    return [other for other in others if other.is_predictable and history.parts[0] in other.parts]


def _named(file: Path, usable: Sequence[FileHistory]) -> FileHistory:
    """Pick the history that is about a file: by its place, else by the longest end of its path."""
    if len(usable) == 1:
        return usable[0]
    for history in usable[::-1]:
        if any(os.path.realpath(path) == os.path.realpath(file) for path in _existing(history)):
            return history

    def score(history: FileHistory) -> tuple[bool, int]:
        names = [
            (name == names[0], name.count("/") + 1)
            for part in history.parts
            for names in (part.new_names, part.old_names)
            for name in names
            if _ends_in(file, name)
        ]
        return max(names, default=(False, 0))

    named = max(usable[::-1], key=score)
    if not score(named)[1]:
        raise PatchError(
            f"the patch is not about {file}", f"it edits {', '.join(one.path for one in usable)}"
        )
    return named


def _ends_in(file: Path, name: str) -> bool:
    """Tell whether a file's path ends in a name, with or without its links followed."""
    spellings = (os.path.normpath(file.absolute()), os.path.realpath(file))
    return any(Path(path).as_posix().endswith("/" + os.path.normpath(name)) for path in spellings)


def _named_targets(file: Path, history: FileHistory) -> list[_Target]:
    """Take the file that the user named; by the other name of a rename, the one there is."""
    names = [
        name
        for part in history.parts
        if part.kind == "rename"
        for name in (*part.old_names, *part.new_names)
    ]
    if not file.exists() and any(_ends_in(file, name) for name in names):
        renamed = _targets(history, missing_ok=True)[:1]
        if renamed:
            return renamed
    is_there = file.exists() or not _creates(history.parts[0])
    return [_Target(file, read_source(file) if is_there else None)]


def _targets(history: FileHistory, *, missing_ok: bool = False) -> list[_Target]:
    """List the files on disk that a history may be about, the likeliest first.

    Raises:
        InputError: there is none.
    """
    first, last = history.parts[0], history.parts[-1]
    top = _folders(last)[0]
    # git renames nothing onto a file that is there.
    moved = any(part.kind in ("rename", "copy") for part in history.parts)
    after, before = _files(last, last.new_names), _files(first, first.old_names)
    paths: list[tuple[Path, tuple[Side, ...]]]
    if after:
        paths = [(path, ("applied",) if moved else _BOTH) for path in after]
        paths += [(path, _BOTH) for path in before if not moved and path not in after]
    elif before:
        paths = [(path, ("not applied",) if moved else _BOTH) for path in before]
    elif _creates(first):
        paths = [(top / name, _BOTH) for name in last.new_names[:1] if _is_inside(top, name)]
    else:
        paths = []
    if not paths and not missing_ok:
        raise InputError(
            f"the patch is about {history.path}, which is not below {top}",
            "run pie inside of the repository, or name the FILE",
        )
    return [_Target(path, _text(path, first), sides) for path, sides in paths]


def _text(path: Path, first: FilePatch) -> str | None:
    """Read a file, unless the patch creates it: not there yet, or in place of a link."""
    if _creates(first) and (path.is_symlink() or not path.exists()):
        return None
    return read_source(path)


def _creates(part: FilePatch) -> bool:
    """Tell whether a patch makes a file, or may: plain diff does not say so."""
    return part.kind == "add" or (
        not part.by_git and not any(hunk.old_lines for hunk in part.hunks)
    )


def _folders(part: FilePatch) -> list[Path]:
    """Return where the patch's paths may begin: git's at the top of the repository."""
    here = Path.cwd()
    tops = [folder for folder in (here, *here.parents) if (folder / ".git").exists()][:1]
    return list(dict.fromkeys((*tops, here) if part.by_git else (here, *tops)))


def _existing(history: FileHistory) -> list[Path]:
    """Find the files of a history's likeliest names."""
    return [
        path
        for part in history.parts[::-1]
        for names in (part.new_names, part.old_names)
        for path in _files(part, names[:1])
    ]


def _files(part: FilePatch, names: Sequence[str]) -> list[Path]:
    """Find the files that these names may mean, but none outside of the tree."""
    paths = (
        folder / name for name in names for folder in _folders(part) if _is_inside(folder, name)
    )
    return [path for path in dict.fromkeys(paths) if _is_file(path)]


def _is_inside(folder: Path, name: str) -> bool:
    """Tell whether a path that a patch names stays below a folder, links followed."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or ".git" in path.parts or "\0" in name:
        return False
    return Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
