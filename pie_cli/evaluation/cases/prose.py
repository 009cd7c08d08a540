"""Cases from English documents: an edit, then the next sentence, a summary or an answer.

A prediction is a line, so a document is written one sentence a line. No reference summaries or
answers are at hand; what replaces them can be read off the text:

- sentence: the sentence that follows;
- summary: the document's first sentence, taken out and asked for at the end;
- question: which sentence follows a given one.
"""

import re
from collections.abc import Iterator
from importlib import metadata
from itertools import accumulate
from pathlib import Path
from random import Random

from pie_cli.evaluation.cases.case import EvalCase, Gap
from pie_cli.evaluation.cases.documents import Document, edit_case, reach_chars
from pie_cli.regular import read_regular

SHAPES = ("sentence", "summary", "question")
"""Kinds of prose cases."""

MIN_SENTENCES = 12
"""Sentences of the shortest document."""

MAX_CHARS = 40_000
"""Characters of a document that are read."""

_SUFFIXES = (".txt", ".md", ".rst")

# Blocks that are no prose: code, tables, lists, headings, badges.
_NO_PROSE = re.compile(r"^\s*(?:[#|>*+\-=~`:.\[<!]|\d+[.)]|\s{4})")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_SENTENCE_END = re.compile(r"(?<=[a-z)\"'][.!?])\s+(?=[A-Z\"'(])")
_SENTENCE = re.compile(r"[A-Z\"'(].*[.!?][\"')]?")


def prose_documents(path: Path | None) -> Iterator[Document]:
    """Give documents of at least `MIN_SENTENCES` sentences, one sentence a line.

    Args:
        path: a text file, or a folder with some; None for the descriptions and licences of the
            Python packages that are installed, which differ from machine to machine.
    """
    seen: set[str] = set()
    for name, text in _installed_texts() if path is None else _files(path):
        lines = sentences(text[:MAX_CHARS])
        whole = "".join(f"{line}\n" for line in lines)
        if len(lines) >= MIN_SENTENCES and whole not in seen:
            seen.add(whole)
            yield Document(f"prose-{name}", name, "prose", whole)


def sentences(text: str) -> list[str]:
    """Split a text into its sentences; code, tables, lists and headings are left out."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", _without_code(text)):
        lines = paragraph.split("\n")
        if any(_NO_PROSE.match(line) for line in lines):
            continue
        joined = " ".join(line.strip() for line in lines)
        found += [s for s in _SENTENCE_END.split(joined) if len(s) >= 20 and _SENTENCE.fullmatch(s)]
    return found


def prose_case(
    document: Document, shape: str, foreign: list[str], random: Random, context_tokens: int
) -> EvalCase | None:
    """Make one case: a sentence comes back or a foreign one goes, then the shape's question.

    Of a long document the beginning is taken, so that all that is asked about can be seen.

    Args:
        document: one sentence a line.
        shape: one of `SHAPES`.
        foreign: sentences of another document.
        random: chooses the edit, its place and the cursor.
        context_tokens: of the prompt, which the document and the question fill at most.

    Returns:
        The case, or None where the document has no room for the edit.
    """
    lines = document.text.splitlines()
    sizes = accumulate(len(line) + 1 for line in lines)
    lines = lines[: sum(size <= reach_chars(context_tokens) for size in sizes)]
    if len(lines) < MIN_SENTENCES or not foreign:
        return None
    after, question, target = _posed(shape, lines, random)
    ended = [f"{line}\n" for line in after]
    # A few sentences follow it at least.
    place = random.randrange(len(ended) - 3)
    before = list(ended)
    kind = random.choice(("insertion", "deletion"))
    if kind == "insertion":
        del before[place]
    else:
        before.insert(place, f"{random.choice(foreign)}\n")
    return edit_case(
        f"{document.id}:{shape}",
        "prose",
        document,
        Gap("".join([*before, question])),
        Gap("".join([*ended, question])),
        target,
        shape,
    )


def _posed(shape: str, lines: list[str], random: Random) -> tuple[list[str], str, str]:
    """Return the sentences shown, what is asked after them, and the answer."""
    if shape == "summary":
        return lines[1:], "\nThe text above, in one sentence:\n", lines[0]
    if shape == "question":
        asked = random.randrange(len(lines) // 2, len(lines) - 1)
        question = f'\nQuestion: which sentence follows "{lines[asked]}"?\nAnswer:\n'
        return lines, question, lines[asked + 1]
    cursor = random.randrange(len(lines) // 2, len(lines))
    return lines[:cursor], "", lines[cursor]


def _without_code(text: str) -> str:
    """Take fenced blocks out."""
    kept, inside = [], False
    for line in text.replace("\r\n", "\n").split("\n"):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def _files(path: Path) -> Iterator[tuple[str, str]]:
    paths = [path]
    if path.is_dir():
        paths = sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES)
    for file in paths:
        try:
            text = read_regular(file).decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        yield str(file.relative_to(path) if path.is_dir() else file.name), text


def _installed_texts() -> Iterator[tuple[str, str]]:
    """Give the descriptions and licences of installed packages, by name."""
    found: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions():
        found.setdefault((distribution.metadata["Name"] or "").lower(), distribution)
    for name, distribution in sorted(found.items()):
        # `metadata` is an email message whose payload is the description.
        payload = distribution.read_text("METADATA") or ""
        yield f"{name}/README.md", payload.partition("\n\n")[2]
        for file in sorted(str(file) for file in distribution.files or ()):
            if "licen" in file.lower() and file.endswith((".txt", ".md", "LICENSE")):
                try:
                    text = Path(str(distribution.locate_file(file))).read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError):
                    continue
                yield f"{name}/{Path(file).name}", text
