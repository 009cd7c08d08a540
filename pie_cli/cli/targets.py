"""What the paths given to a watch mean: files, folders, and files for context."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pie_cli.errors import InputError
from pie_cli.watching.files import read_watched
from pie_cli.watching.tree import SourceTree

_TRIED = 8


@dataclass(frozen=True)
class Targets:
    """What is watched; each file stands there once, under one path.

    Attributes:
        files: named by the user, to be predicted in.
        trees: folders, the source files of which are predicted in.
        context: named by the user, to stand before the prompt; may be files of the above.
        only_context: those of them that are not.
    """

    files: tuple[Path, ...]
    trees: tuple[SourceTree, ...]
    context: tuple[Path, ...]
    only_context: tuple[Path, ...]

    @property
    def several(self) -> bool:
        """Whether more than one file may be predicted in."""
        return bool(self.trees) or len(self.files) > 1

    def texts(self) -> dict[Path, str]:
        """Read all files that the user named.

        Raises:
            InputError: when one cannot be read.
        """
        return {path: read_watched(path, True) for path in {*self.files, *self.context}}

    def first(self) -> tuple[Path, str] | None:
        """Choose what to predict in before anything is saved.

        It is the file named first, else of the folder named first that has any the one saved last:
        most likely the one being worked on, so that its next save finds its session open.

        Returns:
            Path and text, or None where no folder holds a source file.

        Raises:
            InputError: when a file that the user named cannot be read.
        """
        if self.files:
            return self.files[0], read_watched(self.files[0], True)
        for tree in self.trees:
            for real in islice(tree.newest(), _TRIED):
                path = tree.given(real)
                try:
                    return path, read_watched(path, False)
                except InputError:
                    continue
        return None


def find_targets(paths: Sequence[Path], context: Sequence[Path]) -> Targets:
    """Sort paths out.

    Raises:
        InputError: when one is neither a file nor a folder, or cannot be read.
    """
    folders = [path for path in _once(paths) if path.is_dir()]
    for folder in folders:
        if not os.access(folder, os.R_OK | os.X_OK):
            raise InputError(f"cannot read {folder}: Permission denied", "check its permissions")
    trees = tuple(SourceTree(folder) for folder in folders)
    files = {path.resolve(): path for path in _once(paths) if path not in folders}
    before = {path.resolve(): path for path in _once(context)}
    known = {real: files.get(real) or _given(real, trees) for real in before}
    for path in (*files.values(), *before.values()):
        read_watched(path, True)
    return Targets(
        tuple(files.values()),
        trees,
        tuple(known[real] or path for real, path in before.items()),
        tuple(path for real, path in before.items() if known[real] is None),
    )


def _once(paths: Iterable[Path]) -> list[Path]:
    """Drop what is named again, whatever way it is spelled."""
    return list({path.resolve(): path for path in reversed(list(paths))}.values())[::-1]


def _given(real: Path, trees: Iterable[SourceTree]) -> Path | None:
    return next((tree.given(real) for tree in trees if tree.covers(real)), None)
