"""What git's ignore files say about a path. Alone imports pathspec."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pie_cli.regular import read_regular

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


class IgnoreRules:
    """The ignore rules that hold below a folder: those of the repository around it as well.

    Rules of a deeper folder go before those of one above, and within a file the last that matches
    decides. A folder's rules are read when first asked for.

    Args:
        root: without symbolic links. Where the rules above ignore it itself, they are ignored:
            who names an ignored folder means it.
    """

    def __init__(self, root: Path) -> None:
        self._specs: dict[Path, GitIgnoreSpec | None] = {}
        self._top = root
        top = _repository(root)
        if top is not None:
            self._top = top
            below = root.relative_to(top).parts
            on_the_way = [top.joinpath(*below[: n + 1]) for n in range(len(below))]
            if any(self.ignores(folder, is_folder=True) for folder in on_the_way):
                self._top = root

    def ignores(self, path: Path, *, is_folder: bool) -> bool:
        """Tell whether a path is ignored, none of the folders above it being so.

        Args:
            path: at or below the root, without symbolic links.
            is_folder: some rules are about folders only.
        """
        for folder in path.parents:
            spec = self._spec(folder)
            if spec is not None:
                name = path.relative_to(folder).as_posix() + "/" * is_folder
                decided = spec.check_file(name).include
                if decided is not None:
                    return decided
            if folder == self._top:
                break
        return False

    def reread(self, folder: Path) -> bool:
        """Read the rules that stand in a folder again, and tell whether they changed."""
        before = self._specs.pop(folder, None)
        return self._spec(folder) != before

    def _spec(self, folder: Path) -> "GitIgnoreSpec | None":
        if folder not in self._specs:
            # The repository's own list weighs less than any .gitignore, so it goes first.
            lines = [*_lines(_exclude_file(folder)), *_lines(folder / ".gitignore")]
            self._specs[folder] = _compiled(lines)
        return self._specs[folder]


def _repository(folder: Path) -> Path | None:
    """Return the nearest folder at or above that holds a repository."""
    return next((top for top in (folder, *folder.parents) if (top / ".git").exists()), None)


def _exclude_file(folder: Path) -> Path | None:
    """Return where a repository keeps ignore rules of its own; its worktrees share them."""
    git = folder / ".git"
    with suppress(OSError, ValueError):
        if git.is_file():
            git = folder / read_regular(git).decode("utf-8").removeprefix("gitdir:").strip()
            git /= read_regular(git / "commondir").decode("utf-8").strip()
        if git.is_dir():
            return git / "info" / "exclude"
    return None


def _lines(path: Path | None) -> list[str]:
    with suppress(OSError):
        if path is not None:
            return read_regular(path).decode("utf-8", "replace").splitlines()
    return []


def _compiled(lines: list[str]) -> "GitIgnoreSpec | None":
    """Compile what can be compiled: git, too, passes over lines that it cannot read."""
    from pathspec import GitIgnoreSpec

    good = []
    for line in lines:
        with suppress(ValueError):
            if line.strip() and not line.startswith("#"):
                GitIgnoreSpec.from_lines([line])
                good.append(line)
    return GitIgnoreSpec.from_lines(good) if good else None
