"""Where cases come from: files, folders, data sets, repositories, or what every machine has."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Final, TypeVar, cast

from pie_cli.errors import InputError
from pie_cli.evaluation.cases.adversarial import adversarial_cases
from pie_cli.evaluation.cases.case import TASKS, EvalCase, EvalSession, Gap
from pie_cli.evaluation.cases.documents import Document, built_in_documents
from pie_cli.evaluation.cases.history import read_history, repositories
from pie_cli.evaluation.cases.prose import SHAPES, prose_case, prose_documents
from pie_cli.evaluation.cases.records import (
    Problems,
    Skipped,
    data_set,
    read_records,
    record_files,
)
from pie_cli.evaluation.cases.shapes import MalformedRecord, Material, understand
from pie_cli.evaluation.cases.synthesis import SYNTHETIC, SyntheticTask, synthetic_case
from pie_cli.text.edit import split_lines

LINES: Final = 3
"""Lines that a made-up edit takes out or puts in, at each place."""

PLACES: Final = 4
"""Places of a made-up edit at several ones, insertions and deletions in turn."""

SHORT_TOKENS: Final = 512
"""Tokens, estimated, of the longest short context; the text below the cursor gets a quarter."""

_SHORT_CHARS = 3 * SHORT_TOKENS
_PROSE = (".txt", ".md", ".rst")
_HUB = "hub:"
_Item = TypeVar("_Item")
_Named = TypeVar("_Named", EvalCase, EvalSession)


@dataclass(frozen=True)
class Loaded:
    """What a source gave.

    Attributes:
        cases: ids are unique.
        sessions: likewise.
        skipped: records that were left out.
        source: what was read, for a report.
    """

    cases: tuple[EvalCase, ...]
    sessions: tuple[EvalSession, ...]
    skipped: tuple[Skipped, ...]
    source: str


def load(
    spec: str | None,
    task: str,
    *,
    seed: int = 0,
    limit: int | None = None,
    strict: bool = False,
    context_tokens: int = 2_048,
) -> Loaded:
    """Load or make the cases of a task; the same arguments give the same cases.

    Args:
        spec: a file of records (.jsonl, .jsonl.gz, .parquet), a folder of them, a git repository or
            a folder of some, a text or a folder of texts (prose), "hub:NAME" for a data set; None
            for the Python sources of pie and of the standard library, and for `prose` the texts
            that come with installed packages.
        task: one of `TASKS`.
        seed: of all that is chosen at random.
        limit: most cases of a task, spread evenly over all there are.
        strict: end at the first malformed record instead of leaving it out.
        context_tokens: of the prompts that the cases are for: made-up edits are within it.

    Raises:
        InputError: an unknown task, nothing to read, a malformed record under `strict`, no cases.
        PieError: pyarrow is needed and not installed.
    """
    if task not in TASKS:
        raise InputError(f"unknown task {task!r}", f"use one of {', '.join(TASKS)}")
    stock = _Stock(spec, seed, Problems(strict), context_tokens)
    wanted = [name for name in TASKS if name != "all"] if task == "all" else [task]
    cases: list[EvalCase] = []
    sessions: list[EvalSession] = []
    for name in wanted:
        if name == "session":
            sessions = spread(_unique(stock.sessions()), limit)
        else:
            cases += spread(_unique(stock.cases(name, limit)), limit)
    if not cases and not sessions:
        raise _nothing(spec, task, stock)
    return Loaded(tuple(cases), tuple(sessions), tuple(stock.problems.skipped), stock.name)


def spread(items: Sequence[_Item], limit: int | None) -> list[_Item]:
    """Take at most `limit` items, evenly spread, the first among them."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index * len(items) // limit] for index in range(limit)]


class _Stock:
    """What one source holds, read once; cases are made from it for one task after the other.

    Attributes:
        name: of the source.
        problems: what had to be left out.
        materials: what was read.
    """

    def __init__(
        self, spec: str | None, seed: int, problems: Problems, context_tokens: int
    ) -> None:
        self.name = spec or "built-in Python sources"
        self.problems = problems
        self._seed = seed
        self._context_tokens = context_tokens
        self._built_in = spec is None
        self._prose_path = Path(spec) if spec and _holds_prose(Path(spec)) else None
        self.materials = self._read(spec)

    def cases(self, task: str, limit: int | None) -> list[EvalCase]:
        """Return the cases of a task, or somewhat more than `limit` of them."""
        if task == "real":
            return [item.case for item in self.materials if item.case]
        if task == "prose":
            return list(self._prose())
        if task == "short":
            return list(self._short())
        if task == "adversarial":
            # Parsing takes some 20 ms a file: no more files than are needed.
            enough = None if limit is None else 16 + 2 * limit
            found = [
                case
                for document in spread(self._documents, enough)
                for case in adversarial_cases(
                    document, self._random(document.id, task), self._context_tokens
                )
            ]
            # Class by class, so that taking some evenly takes some of each.
            return sorted(found, key=lambda case: case.kind)
        return list(
            self._synthetic(
                cast("SyntheticTask", task), self._documents, LINES, PLACES, self._context_tokens
            )
        )

    def sessions(self) -> list[EvalSession]:
        """Return the sessions."""
        return [item.session for item in self.materials if item.session]

    @property
    def _documents(self) -> list[Document]:
        return [item.document for item in self.materials if item.document]

    def _random(self, *about: str) -> Random:
        """Return a generator that depends on the seed and on what it is for, on nothing else."""
        return Random("\0".join([str(self._seed), *about]))

    def _read(self, spec: str | None) -> list[Material]:
        if spec is None:
            return [Material(document=document) for document in built_in_documents()]
        if self._prose_path:
            return []
        path = data_set(spec.removeprefix(_HUB)) if spec.startswith(_HUB) else Path(spec)
        files = record_files(path)
        if files:
            return list(self._records(files))
        found = repositories(path)
        if not found:
            raise InputError(
                f"no cases in {path}: neither records nor git repositories",
                "name a folder with .jsonl, .jsonl.gz or .parquet files, or repositories",
            )
        return [material for repository in found for material in self._history(repository)]

    def _history(self, repository: Path) -> list[Material]:
        try:
            return list(read_history(repository, self._random(repository.name)))
        except InputError as error:
            self.problems.skip(str(repository), error.cause)
            return []

    def _records(self, files: Iterable[Path]) -> Iterator[Material]:
        for file in files:
            for where, record in read_records(file, self.problems):
                if record.keys() == {"repo", "license", "head", "texts"}:
                    continue  # licence texts lie beside the edits
                try:
                    yield understand(record, where)
                except MalformedRecord as error:
                    self.problems.skip(where, str(error))

    def _synthetic(
        self,
        task: SyntheticTask,
        documents: Sequence[Document],
        lines: int,
        places: int,
        context_tokens: int,
    ) -> Iterator[EvalCase]:
        for document, other in _with_foreign(documents):
            random = self._random(document.id, task)
            foreign = split_lines(other.text)
            case = synthetic_case(
                task,
                document,
                foreign,
                random,
                lines=lines,
                places=places,
                context_tokens=context_tokens,
            )
            if case:
                yield case

    def _prose(self) -> Iterator[EvalCase]:
        if not self._built_in and not self._prose_path:
            return
        documents = list(prose_documents(self._prose_path))
        for shape in SHAPES:
            for document, other in _with_foreign(documents):
                random = self._random(document.id, shape)
                foreign = other.text.splitlines()
                case = prose_case(document, shape, foreign, random, self._context_tokens)
                if case:
                    yield case

    def _short(self) -> Iterator[EvalCase]:
        """Cut real edits short; edit small tasks and the beginnings of other texts by a line."""
        for item in self.materials:
            if item.case and (cut := _cut(item.case)):
                yield cut
        documents = [
            item.document
            if item.short
            else replace(item.document, text=item.document.text[:_SHORT_CHARS])
            for item in self.materials
            if item.document and not item.case and (item.short or item.document.line is None)
        ]
        for index, name in enumerate(SYNTHETIC):
            for case in self._synthetic(
                name, documents[index :: len(SYNTHETIC)], 1, 2, SHORT_TOKENS
            ):
                yield replace(case, id=f"{case.id}:short", task="short")


def _with_foreign(documents: Sequence[Document]) -> Iterator[tuple[Document, Document]]:
    """Pair each document with one whose lines are foreign to it, of its language if there is one.

    Neighbours may be versions of one file, so the other is taken half the set away.
    """
    by_language: defaultdict[str, list[Document]] = defaultdict(list)
    for document in documents:
        by_language[document.language].append(document)
    for group in by_language.values():
        half = len(group) // 2
        others = [*group[half:], *group[:half]] if half else [next(built_in_documents())]
        yield from zip(group, others, strict=True)


def _cut(case: EvalCase) -> EvalCase | None:
    """Cut both texts to the lines around the cursor; None where the edit would be cut away."""
    before, after = split_lines(case.before.above), split_lines(case.after.above)
    common = next((i for i, (a, b) in enumerate(zip_longest(before, after)) if a != b), len(after))
    below = _fitting(split_lines(case.after.below or ""), _SHORT_CHARS // 4)
    start = len(after) - _fitting(after[::-1], 3 * _SHORT_CHARS // 4)
    if start > common or start == len(after):
        return None
    return replace(
        case,
        id=f"{case.id}:short",
        task="short",
        before=_shortened(case.before, start, below),
        after=_shortened(case.after, start, below),
    )


def _fitting(lines: Sequence[str], characters: int) -> int:
    """Count the first lines that have so many characters at most."""
    count = 0
    while count < len(lines) and len(lines[count]) <= characters:
        characters -= len(lines[count])
        count += 1
    return count


def _shortened(gap: Gap, start: int, below: int) -> Gap:
    above = split_lines(gap.above)[start:]
    return Gap("".join(above), "".join(split_lines(gap.below or "")[:below]))


def _unique(items: Sequence[_Named]) -> list[_Named]:
    """Number the ids that occur again; the items stay in order."""
    seen: dict[str, int] = {}
    unique: list[_Named] = []
    for item in items:
        count = seen[item.id] = seen.get(item.id, 0) + 1
        unique.append(item if count == 1 else replace(item, id=f"{item.id}#{count}"))
    return unique


def _holds_prose(path: Path) -> bool:
    """Tell whether a path is a text of prose, or a folder with some and nothing else to read."""
    if path.is_file():
        return path.suffix in _PROSE
    if not path.is_dir() or record_files(path) or repositories(path):
        return False
    return any(file.suffix in _PROSE for file in path.rglob("*"))


def _nothing(spec: str | None, task: str, stock: _Stock) -> InputError:
    if spec is None:
        return InputError(
            f"task {task} has no built-in cases", "name some with --cases, such as a git repository"
        )
    skipped = stock.problems.skipped
    if skipped and not stock.materials:
        first = skipped[0]
        return InputError(
            f"{spec} holds no cases: all {len(skipped)} records were left out, the first for "
            f"{first.where}: {first.reason}",
            "mend them",
        )
    if task == "real" and stock.materials:
        return InputError(
            f"the records of {spec} have no edits of their own",
            "let some be made: --task insertion, deletion or multi",
        )
    return InputError(f"{spec} holds no cases for task {task}", "try another task, or other cases")
