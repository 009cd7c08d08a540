"""Whole texts to cut cases from, and how a case is cut."""

import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from random import Random

import pie_cli
from pie_cli.evaluation.cases.case import EvalCase, Gap, Task
from pie_cli.text.edit import diff_lines, split_lines

MIN_TARGET_CHARS = 8
"""Characters, blanks aside, of the shortest line that is asked for."""

MIN_CONTEXT_LINES = 20
"""Lines before a cursor at least."""

_MIN_NAME = 4
_NAME = re.compile(r"[^\W\d]\w*")

# A token of code is rarely shorter. A window that is full of text begins with room to grow, and a
# quarter of it belongs to the text below the cursor.
_CHARS_PER_TOKEN = 3.0
_REACH = 0.5

_SIZES = range(2_000, 60_000)
"""Characters of the files of the standard library that serve as documents."""

LANGUAGES = {
    ".py": "python",
    ".java": "java",
    ".ts": "typescript",
    ".tsx": "typescript",
    ".js": "javascript",
    ".go": "go",
    ".rs": "rust",
    ".c": "c",
    ".h": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".md": "prose",
    ".rst": "prose",
    ".txt": "prose",
}
"""Languages by the ending of a path."""


@dataclass(frozen=True)
class Document:
    """A whole text.

    Attributes:
        id: unique within its set.
        path: of the file, for the prompt's head.
        language: "python", "java" and so on.
        text: all of it.
        line: 0-based line to predict, where the source names one.
    """

    id: str
    path: str
    language: str
    text: str
    line: int | None = None


def language_of(path: str) -> str:
    """Name the language of a path by its ending; "text" for what is unknown."""
    return LANGUAGES.get(PurePath(path).suffix.lower(), "text")


def identifiers(text: str) -> set[str]:
    """Collect the identifiers of four characters or more."""
    return {name for name in _NAME.findall(text) if len(name) >= _MIN_NAME}


def is_target(line: str) -> bool:
    """Tell whether a line is worth asking for: long enough, and no comment."""
    content = line.strip()
    return len(content) >= MIN_TARGET_CHARS and not content.startswith(("#", "//", "*", "/*"))


def reach_chars(context_tokens: int) -> int:
    """Return how many characters above the cursor a prompt of so many tokens surely holds."""
    return int(context_tokens * _CHARS_PER_TOKEN * _REACH)


def reach_start(lines: Sequence[str], cursor: int, context_tokens: int) -> int:
    """Return the first line before a cursor that a prompt of so many tokens surely holds.

    An edit above it would not be seen.
    """
    left = reach_chars(context_tokens)
    line = cursor
    while line > 0 and left >= len(lines[line - 1]):
        line -= 1
        left -= len(lines[line])
    return line


def cursor_of(document: Document, lines: Sequence[str], random: Random) -> int | None:
    """Return the line to predict: the source's own, or one out of the text's second half."""
    if document.line is not None:
        return document.line
    first = max(MIN_CONTEXT_LINES, len(lines) // 2)
    cursors = [index for index in range(first, len(lines)) if is_target(lines[index])]
    return random.choice(cursors) if cursors else None


def edit_case(
    case_id: str,
    task: Task,
    document: Document,
    before: Gap,
    after: Gap,
    target: str,
    kind: str,
    obsolete: tuple[str, ...] = (),
) -> EvalCase | None:
    """Describe the edit between two texts.

    Returns:
        The case, or None where the texts are equal above the cursor.
    """
    hunks = diff_lines(before.above, after.above)
    if not hunks:
        return None
    old, new = split_lines(before.above), split_lines(after.above)
    changed = [line for hunk in hunks for line in old[hunk.old_start : hunk.old_stop]]
    changed += [line for hunk in hunks for line in new[hunk.new_start : hunk.new_stop]]
    return EvalCase(
        id=case_id,
        task=task,
        path=document.path,
        language=document.language,
        before=before,
        after=after,
        target=target,
        distance=len(new) - hunks[-1].new_stop + 1,
        shares_identifier=bool(identifiers(target) & identifiers("".join(changed))),
        kind=kind,
        obsolete=obsolete,
    )


def built_in_sources() -> Iterator[tuple[str, str]]:
    """Give path and text of the Python that is on every machine: pie's, the standard library's.

    In the order of their paths. The library's differ from one Python version to the next, so a
    result names both.
    """
    package = Path(pie_cli.__file__).parent
    library = Path(sysconfig.get_path("stdlib"))
    for path in (*sorted(package.rglob("*.py")), *sorted(library.glob("*.py"))):
        root = package.parent if path.is_relative_to(package) else library
        try:
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue


def built_in_documents() -> Iterator[Document]:
    """Give the sources of `built_in_sources` that are neither short nor long."""
    for name, text in built_in_sources():
        if len(text) in _SIZES:
            yield Document(f"builtin-{name}", name, "python", text)
