"""Which parts of a patch are about one file, through renames and in order of time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pie_cli.text.applying import FilePatch
from pie_cli.text.patches import Patch


@dataclass(frozen=True)
class FileHistory:
    """What a patch does to one file, from its oldest commit to its newest.

    Attributes:
        parts: in order of time.
    """

    parts: tuple[FilePatch, ...]

    @property
    def path(self) -> str:
        """The path that the file has in the end."""
        return self.parts[-1].path

    @property
    def is_predictable(self) -> bool:
        """Whether text changes in it and a text remains."""
        return (
            self.parts[-1].kind != "delete"
            and any(part.hunks for part in self.parts)
            and all(part.is_text for part in self.parts)
        )

    @property
    def has_crlf(self) -> bool:
        """Whether a line of it ends in CRLF."""
        return any(
            text.endswith("\r\n")
            for part in self.parts
            for hunk in part.hunks
            for _, text in hunk.body
        )

    def reversed(self) -> "FileHistory":
        """Give the history that takes this one back."""
        return FileHistory(tuple(part.reversed() for part in self.parts[::-1]))

    def with_lf(self) -> "FileHistory":
        """Give the same with its text's CRLF turned into LF."""
        return FileHistory(tuple(part.with_lf() for part in self.parts))


def histories(patch: Patch) -> tuple[list[FileHistory], list[FileHistory]]:
    """Sort the parts of a patch by file.

    Returns:
        The files in the order in which they were last changed, and the same should the commits be
        in the other order than they seem to be.
    """
    commits = list(_commits(patch.files))
    if patch.newest_first:
        commits.reverse()
    return _histories(commits), _histories(commits[::-1])


def _commits(files: Sequence[FilePatch]) -> Iterator[list[FilePatch]]:
    """Group the parts by commit, each of which names a path once."""
    commit: list[FilePatch] = []
    for part in files:
        if commit and (
            part.commit != commit[-1].commit or any(part.path == one.path for one in commit)
        ):
            yield commit
            commit = []
        commit.append(part)
    yield commit


def _histories(commits: Sequence[Sequence[FilePatch]]) -> list[FileHistory]:
    """Follow each file from commit to commit; a rename is about the tree before its commit."""
    now: dict[str, list[FilePatch]] = {}
    for commit in commits:
        before = dict(now)
        for part in commit:
            if not part.is_file:
                continue
            old = part.old_path or part.path
            if part.kind == "copy":
                parts: list[FilePatch] = []
            elif part.kind == "rename":
                parts = before.get(old, [])
                if now.get(old) is parts:
                    now.pop(old, None)
            else:
                parts = now.get(old, [])
            now.pop(part.path, None)
            now[part.path] = [*parts, part]
    return [FileHistory(tuple(parts)) for parts in now.values()]
