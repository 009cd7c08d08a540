"""Cases and sessions from the history of git repositories on disk; nothing is written or fetched.

A commit that changes a file a little is an edit; the file at its only parent is the text before
it. The line to predict lies behind the last hunk, at a distance out of one of three bands in turn.
What is kept out: long and short files, large changes, commits that change comments or layout only,
Python that does not parse, lines that are blank, short, comments or inside a string of several
lines.
"""

import ast
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from random import Random

from pie_cli.errors import InputError
from pie_cli.evaluation.cases import EvalCase, EvalSession
from pie_cli.evaluation.documents import Document, edit_case, is_target, language_of
from pie_cli.evaluation.shapes import Material
from pie_cli.evaluation.syntax import code_of, parse, string_lines
from pie_cli.text.edit import diff_lines, split_lines

MAX_COMMITS = 1_200
"""Commits of a repository that are looked at, newest first."""

MAX_CASES = 60
"""Cases taken from one repository."""

BANDS = (range(1, 4), range(10, 41), range(101, 1_000))
"""Lines from the last hunk to the target: near, mid, far."""

_LINES = range(150, 1_501)
_MAX_CHANGED_LINES = 60
_MAX_HUNKS = 6
_PROMPT_CHARS = range(1_500, 45_000)
_VERSIONS = range(8, 31)
_MAX_SESSION_CHARS = 40_000
_MAX_SESSIONS = 2
SUFFIXES = (".py", ".java", ".ts", ".tsx", ".js", ".go", ".rs", ".c", ".cc", ".cpp", ".h")
_TIMEOUT_S = 120
_COMMENTS = ("//", "#", "*", "/*")
_FOREIGN = {"vendor", "vendored", "_vendor", "node_modules", "third_party", "dist", "build"}


@dataclass(frozen=True)
class _Change:
    """One file changed by one commit."""

    commit: str
    path: str
    before: str
    after: str


def repositories(folder: Path) -> list[Path]:
    """List the git repositories at a folder: itself, or those one or two levels below it."""
    if (folder / ".git").exists():
        return [folder]
    return sorted(git.parent for depth in ("*", "*/*") for git in folder.glob(f"{depth}/.git"))


def read_history(repository: Path, random: Random) -> Iterator[Material]:
    """Cut cases and sessions from one repository's history.

    Args:
        repository: with a `.git`.
        random: chooses files and target lines.

    Yields:
        Cases with their documents, one a commit; then sessions.

    Raises:
        InputError: git is not installed, or cannot read the repository.
    """
    changes = _changes(repository)
    with closing(_Blobs(repository)) as blobs:
        yield from _cases(changes, blobs, random)
        for session in _sessions(changes, blobs):
            yield Material(session=session)


def _cases(changes: list[_Change], blobs: "_Blobs", random: Random) -> Iterator[Material]:
    """Take one file of each commit, the newest commits first."""
    by_commit: defaultdict[str, list[_Change]] = defaultdict(list)
    for change in changes:
        by_commit[change.commit].append(change)
    taken = 0
    for of_commit in by_commit.values():
        random.shuffle(of_commit)
        material = next(filter(None, (_material(c, blobs, taken, random) for c in of_commit)), None)
        if material:
            yield material
            taken += 1
        if taken == MAX_CASES:
            return


def _material(change: _Change, blobs: "_Blobs", turn: int, random: Random) -> Material | None:
    """Make the case of a change, where it is a usual one with a line to ask for behind it."""
    before, after = blobs.text(change.before), blobs.text(change.after)
    if before is None or after is None:
        return None
    edit = _Edit(change, before, after)
    case = edit.case(blobs.name, turn, random) if edit.is_usual else None
    if case is None:
        return None
    document = Document(case.id, case.path, case.language, after, case.after.count("\n"))
    return Material(case=case, document=document)


class _Edit:
    """What one commit did to one file."""

    def __init__(self, change: _Change, before: str, after: str) -> None:
        self._change = change
        self._language = language_of(change.path)
        self._texts = before, after
        self._old, self._new = split_lines(before), split_lines(after)
        self._hunks = diff_lines(before, after)

    @property
    def is_usual(self) -> bool:
        """Whether file and change have a usual size, and code changed."""
        hunks = self._hunks
        changed = sum(h.old_stop - h.old_start + h.new_stop - h.new_start for h in hunks)
        if not 1 <= len(hunks) <= _MAX_HUNKS or changed >= _MAX_CHANGED_LINES:
            return False
        if len(self._old) not in _LINES or len(self._new) not in _LINES:
            return False
        old, new = (_code(text, self._language) for text in self._texts)
        return None not in (old, new) and old != new

    def case(self, repository: str, turn: int, random: Random) -> EvalCase | None:
        """Choose a line behind the last hunk, in the band whose turn it is if it has one."""
        last = self._hunks[-1]
        for step in range(len(BANDS)):
            lines = self._targets(BANDS[(turn + step) % len(BANDS)])
            if lines:
                line = random.choice(lines)
                name = f"{repository}-{self._change.commit[:10]}"
                return edit_case(
                    name,
                    "real",
                    Document(name, self._change.path, self._language, ""),
                    "".join(self._old[: line - last.new_stop + last.old_stop]),
                    "".join(self._new[:line]),
                    self._new[line].rstrip("\r\n"),
                    self._kind,
                )
        return None

    def _targets(self, band: range) -> list[int]:
        """List the lines in a band of distances that are worth asking for."""
        behind = self._hunks[-1].new_stop - 1
        lines = range(behind + band.start, min(behind + band.stop, len(self._new)))
        return [
            line
            for line in lines
            if is_target(self._new[line])
            and line not in self._inside_strings
            and self._offsets[line] in _PROMPT_CHARS
        ]

    @cached_property
    def _offsets(self) -> list[int]:
        """Characters before each line."""
        return [0, *accumulate(map(len, self._new))]

    @cached_property
    def _inside_strings(self) -> set[int]:
        tree = parse(self._texts[1]) if self._language == "python" else None
        return string_lines(ast.walk(tree)) if tree else set()

    @property
    def _kind(self) -> str:
        if len(self._hunks) > 1:
            return "multi"
        hunk = self._hunks[0]
        if hunk.old_start == hunk.old_stop:
            return "insertion"
        return "deletion" if hunk.new_start == hunk.new_stop else "replace"


def _code(text: str, language: str) -> str | None:
    """Return a text without comments and layout; None for Python that does not parse."""
    if language == "python":
        return code_of(text)
    lines = (line.strip() for line in text.split("\n"))
    return "".join("".join(line.split()) for line in lines if not line.startswith(_COMMENTS))


def _sessions(changes: list[_Change], blobs: "_Blobs") -> Iterator[EvalSession]:
    """Follow the files that were changed most often, each commit's text built on the last one's."""
    by_path: defaultdict[str, list[_Change]] = defaultdict(list)
    for change in reversed(changes):
        by_path[change.path].append(change)
    taken = 0
    for path, history in sorted(by_path.items(), key=lambda item: (-len(item[1]), item[0])):
        versions = [] if len(history) < _VERSIONS.start - 1 else _chain(history, blobs)
        if len(versions) in _VERSIONS:
            name = f"{blobs.name}-session-{path.replace('/', '-')}"
            yield EvalSession(name, path, language_of(path), tuple(versions))
            taken += 1
        if taken == _MAX_SESSIONS:
            return


def _chain(history: list[_Change], blobs: "_Blobs") -> list[str]:
    """Return the last versions of a file that follow each other, oldest first."""
    ids: list[str] = []
    for change in history:
        if not ids or ids[-1] != change.before:
            ids = [change.before]
        ids.append(change.after)
    texts = [blobs.text(blob) for blob in ids[-_VERSIONS[-1] :]]
    usable = [text for text in texts if text and len(text) <= _MAX_SESSION_CHARS]
    return usable if len(usable) == len(texts) else []


def _changes(repository: Path) -> list[_Change]:
    """List the changes of source files, newest first, merges and new files left out."""
    log = _git(
        repository,
        "log",
        "--no-merges",
        "--no-renames",
        "--diff-filter=M",
        "--raw",
        "--no-abbrev",
        "-z",
        f"--max-count={MAX_COMMITS}",
        "--format=%x00commit %H",
        "--",
        *(f"*{suffix}" for suffix in SUFFIXES),
    )
    changes = []
    commit, fields = "", iter(log.split("\0"))
    for field in fields:
        text = field.strip("\n")
        if text.startswith("commit "):
            commit = text.removeprefix("commit ")
        elif text.startswith(":"):
            _, mode, before, after, _ = text.split()
            path = next(fields)
            if mode.startswith("100") and not _FOREIGN & set(Path(path).parts[:-1]):
                changes.append(_Change(commit, path, before, after))
    return changes


class _Blobs:
    """Reads files of a repository by their ids, through one git process.

    Attributes:
        name: of the repository.
    """

    def __init__(self, repository: Path) -> None:
        self.name = repository.resolve().name
        self._process = subprocess.Popen(
            _command(repository, "cat-file", "--batch"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )

    def close(self) -> None:
        """End the process: closing its input does."""
        self._process.communicate()

    def text(self, blob: str) -> str | None:
        """Return a file's text with plain newlines; None for what is none, or not there."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None or self._process.poll() is not None:
            return None
        stdin.write(f"{blob}\n".encode())
        stdin.flush()
        header = stdout.readline().split()
        if len(header) != 3:
            return None
        data = stdout.read(int(header[2]) + 1)[:-1]
        try:
            return data.decode().replace("\r\n", "\n")
        except UnicodeDecodeError:
            return None


def _git(repository: Path, *arguments: str) -> str:
    """Run git on a repository.

    Raises:
        InputError: git is not installed, fails, or takes too long.
    """
    try:
        done = subprocess.run(
            _command(repository, *arguments),
            capture_output=True,
            timeout=_TIMEOUT_S,
            env=_environment(),
            check=True,
        )
    except FileNotFoundError as error:
        raise InputError("reading a repository's history needs git", "install git") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().split("\n")[0]
        raise InputError(f"git cannot read {repository}: {said}", "check the repository") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"git took over {_TIMEOUT_S} s for {repository}", "name a smaller repository"
        ) from error
    return done.stdout.decode(errors="replace")


def _command(repository: Path, *arguments: str) -> list[str]:
    # A repository's own settings may name programs to run: none of them here.
    quiet = ["-c", "core.fsmonitor=false", "-c", "log.showSignature=false"]
    return ["git", "-C", str(repository), *quiet, *arguments]


def _environment() -> dict[str, str]:
    # Missing objects of a partial clone are not fetched.
    return {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
