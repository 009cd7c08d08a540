"""What the paths given to a watch mean: files, folders, and files for context."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pie_cli.errors import InputError
from pie_cli.watching.files import MissingFile, is_folder, read_watched, real_path
from pie_cli.watching.tree import SourceTree

_TRIED = 8


@dataclass(frozen=True)
class Targets:
    """What is watched; each file is there once, under one path.

    Attributes:
        files: named by the user, to be predicted in.
        trees: folders, the source files of which are predicted in.
        context: named by the user, to come before the prompt; may be files of the above.
        only_context: those of them that are not.
        awaited: files that were not there yet.
    """

    files: tuple[Path, ...]
    trees: tuple[SourceTree, ...]
    context: tuple[Path, ...]
    only_context: tuple[Path, ...]
    awaited: tuple[Path, ...] = ()

    @property
    def several(self) -> bool:
        """Whether more than one file may be predicted in."""
        return bool(self.trees) or len(self.files) > 1

    def texts(self) -> dict[Path, str]:
        """Read all files that the user named and that are there.

        Raises:
            InputError: when one cannot be read.
        """
        texts = ((path, self._text(path)) for path in dict.fromkeys([*self.files, *self.context]))
        return {path: text for path, text in texts if text is not None}

    def first(self) -> tuple[Path, str] | None:
        """Choose what to predict in before anything is saved.

        It is the file named first that is there, else of the folder named first that has any the
        one saved last: most likely the one being worked on, so that its next save finds its session
        open.

        Returns:
            Path and text, or None where there is no such file yet.

        Raises:
            InputError: when a file that the user named cannot be read.
        """
        named = self.first_named()
        if named is not None:
            return named
        for tree in self.trees:
            for real in islice(tree.newest(), _TRIED):
                path = tree.given(real)
                try:
                    return path, read_watched(path, False)
                except InputError:
                    continue
        return None

    def first_named(self) -> tuple[Path, str] | None:
        """Read the file named first that is there.

        Raises:
            InputError: when it cannot be read.
        """
        for path in self.files:
            text = self._text(path)
            if text is not None:
                return path, text
        return None

    def _text(self, path: Path) -> str | None:
        try:
            return read_watched(path, True)
        except MissingFile:
            if path not in self.awaited:
                raise
            return None


def find_targets(paths: Sequence[Path], context: Sequence[Path]) -> Targets:
    """Sort paths out. A file to watch need not be there yet, but its folder must.

    Raises:
        InputError: when one is neither a file nor a folder, or cannot be read.
    """
    folders = [path for path in _once(paths) if is_folder(path)]
    for folder in folders:
        if not os.access(folder, os.R_OK | os.X_OK):
            raise InputError(f"cannot read {folder}: Permission denied", "check its permissions")
    trees = tuple(SourceTree(folder) for folder in folders)
    files = {real_path(path): path for path in _once(paths) if path not in folders}
    before = {real_path(path): path for path in _once(context)}
    known = {real: files.get(real) or _given(real, trees) for real in before}
    awaited = tuple(path for path in files.values() if _is_awaited(path))
    for path in (*files.values(), *before.values()):
        if path not in awaited:
            read_watched(path, True)
    return Targets(
        tuple(files.values()),
        trees,
        tuple(known[real] or path for real, path in before.items()),
        tuple(path for real, path in before.items() if known[real] is None),
        awaited,
    )


def _is_awaited(path: Path) -> bool:
    """Tell whether a file may come where there is none now: nothing is there, but its folder."""
    try:
        read_watched(path, True)
    except MissingFile:
        return is_folder(path.absolute().parent)
    except InputError:
        pass
    return False


def _once(paths: Iterable[Path]) -> list[Path]:
    """Drop what is named again, whatever way it is spelled."""
    return list({real_path(path): path for path in reversed(list(paths))}.values())[::-1]


def _given(real: Path, trees: Iterable[SourceTree]) -> Path | None:
    return next((tree.given(real) for tree in trees if tree.covers(real)), None)
