"""Cases and sessions from the history of git repositories on disk; nothing is written or fetched.

A commit that changes a file a little is an edit; the file at its only parent is the text before
it. The line to predict is below the last hunk, at a distance out of one of three bands in turn.
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
from itertools import accumulate
from pathlib import Path
from random import Random

from pie_cli.errors import InputError
from pie_cli.evaluation.cases.case import EvalSession, Gap
from pie_cli.evaluation.cases.documents import Document, edit_case, is_target, language_of
from pie_cli.evaluation.cases.shapes import Material
from pie_cli.evaluation.cases.syntax import code_of, parse, string_lines
from pie_cli.text.edit import Edit, split_lines

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
    """Make the case of a change, where it is a usual one with a line to ask for below it."""
    before, after = blobs.text(change.before), blobs.text(change.after)
    if before is None or after is None:
        return None
    edit, language = Edit.between(before, after), language_of(change.path)
    targets = _Targets(after, language) if _is_usual(edit, language) else None
    if edit.lowest is None or targets is None:
        return None
    for step in range(len(BANDS)):
        lines = targets.below(edit.lowest.new_stop, BANDS[(turn + step) % len(BANDS)])
        if lines:
            line = random.choice(lines)
            name = f"{blobs.name}-{change.commit[:10]}"
            document = Document(name, change.path, language, after, line)
            line_before = line - edit.lowest.new_stop + edit.lowest.old_stop
            case = edit_case(
                name,
                "real",
                document,
                Gap.at(before, line_before),
                Gap.at(after, line),
                targets.lines[line].rstrip("\r\n"),
                _kind(edit),
            )
            return Material(case=case, document=document)
    return None


def _is_usual(edit: Edit, language: str) -> bool:
    """Tell whether file and change have a usual size, and code changed."""
    if not 1 <= len(edit.hunks) <= _MAX_HUNKS:
        return False
    if edit.lines_added + edit.lines_removed >= _MAX_CHANGED_LINES:
        return False
    texts = edit.before, edit.after
    if not all(len(split_lines(text)) in _LINES for text in texts):
        return False
    old, new = (_code(text, language) for text in texts)
    return None not in (old, new) and old != new


def _kind(edit: Edit) -> str:
    if len(edit.hunks) > 1:
        return "multi"
    if not edit.lines_removed:
        return "insertion"
    return "replace" if edit.lines_added else "deletion"


class _Targets:
    """The lines of a text that are worth asking for."""

    def __init__(self, text: str, language: str) -> None:
        self.lines = split_lines(text)
        self._offsets = [0, *accumulate(map(len, self.lines))]
        tree = parse(text) if language == "python" else None
        self._inside_strings = string_lines(ast.walk(tree)) if tree else set()

    def below(self, line: int, band: range) -> list[int]:
        """List those in a band of distances, 1 being the given line itself."""
        lines = range(line - 1 + band.start, min(line - 1 + band.stop, len(self.lines)))
        return [
            line
            for line in lines
            if is_target(self.lines[line])
            and line not in self._inside_strings
            and self._offsets[line] in _PROMPT_CHARS
        ]


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
        *"log --no-merges --no-renames --diff-filter=M --raw --no-abbrev -z".split(),
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
