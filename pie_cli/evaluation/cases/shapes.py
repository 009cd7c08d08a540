"""What a record means: a real edit, a session, a text to complete."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pie_cli.evaluation.cases.case import EvalCase, EvalSession, Gap
from pie_cli.evaluation.cases.documents import Document, edit_case, language_of
from pie_cli.evaluation.cases.records import Record

_REPOBENCH_CODE = ("cropped_code", "code", "all_code")
_REPOBENCH_ENDINGS = {"python": ".py", "java": ".java"}


class MalformedRecord(ValueError):
    """A record that cannot be used; the message says why."""


@dataclass(frozen=True)
class Material:
    """What one record gives.

    Attributes:
        case: a real edit, where the record has one.
        session: versions of a file, where the record has them.
        document: the whole text, to cut further cases from.
        short: whether the text is a small task by itself (HumanEval).
    """

    case: EvalCase | None = None
    session: EvalSession | None = None
    document: Document | None = None
    short: bool = False


def understand(record: Record, where: str) -> Material:
    """Read a record in one of the known shapes, which its fields tell.

    - a real edit: `before, after, target_line, target_line_before`, as in docs/cli.md;
    - a session: `versions`, each a text or `{text}`;
    - RepoBench: `next_line` with `cropped_code`, `code` or `all_code`, and before it
      `context` (snippets of other files) and `import_statement`;
    - HumanEval: `prompt, canonical_solution`.

    Args:
        record: fields.
        where: it is: its name where it has none.

    Raises:
        MalformedRecord: an unknown shape, a field missing or of a wrong type, a target line outside
            the text.
    """
    for field, reader in _READERS:
        if field in record:
            return reader(record, where)
    names = ", ".join(sorted(record)[:6]) or "nothing"
    raise MalformedRecord(f"none of the known shapes: it has {names}")


def _real_edit(record: Record, where: str) -> Material:
    before, after = _text(record, "before"), _text(record, "after")
    line, line_before = _count(record, "target_line"), _count(record, "target_line_before")
    path = _text(record, "path")
    language = _text(record, "lang", language_of(path))
    old, new = before.split("\n"), after.split("\n")
    for side, number, lines in (("after", line, new), ("before", line_before, old)):
        if number >= len(lines) or (number == len(lines) - 1 and not lines[number]):
            raise MalformedRecord(f"target line {number} outside the {len(lines)} lines of {side}")
    target = new[line]
    if record.get("target", target) != target:
        raise MalformedRecord(f"line {line} of after is not the target that it names")
    document = Document(_text(record, "id", where), path, language, after, line)
    case = edit_case(
        document.id,
        "real",
        document,
        Gap.at(before, line_before),
        Gap.at(after, line),
        target,
        _text(record, "task", "edit"),
    )
    if case is None:
        raise MalformedRecord("before and after are the same up to the target line")
    # What the record says of itself counts: another diff may cut the same edit otherwise.
    distance, shares = record.get("distance"), record.get("shares_ident")
    if type(distance) is int and distance > 0:
        case = replace(case, distance=distance)
    if isinstance(shares, bool):
        case = replace(case, shares_identifier=shares)
    return Material(case=case, document=document)


def _session(record: Record, where: str) -> Material:
    versions = record["versions"]
    if not isinstance(versions, list):
        raise MalformedRecord("versions is no list")
    texts = [_text(v, "text") if isinstance(v, dict) else v for v in versions]
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise MalformedRecord("versions holds fewer than two texts")
    path = _text(record, "path")
    language = _text(record, "lang", language_of(path))
    session = EvalSession(_text(record, "id", where), path, language, tuple(texts))
    return Material(session=session)


def _repobench(record: Record, where: str) -> Material:
    code = next((record[name] for name in _REPOBENCH_CODE if record.get(name)), None)
    if not isinstance(code, str):
        raise MalformedRecord(f"none of {', '.join(_REPOBENCH_CODE)} holds a text")
    target = _text(record, "next_line").strip("\n")
    if not target.strip():
        raise MalformedRecord("next_line is empty")
    path = _text(record, "file_path")
    mark = "#" if language_of(path) == "python" else "//"
    imports = _text(record, "import_statement", "")
    # In RepoBench's own order: snippets of other files, each below its path, then this file.
    parts = [*_snippets(record.get("context"), mark), imports, _without_imports(code, imports)]
    text = "".join(f"{part.rstrip()}\n" for part in parts if part.strip())
    name = f"{_text(record, 'repo_name', '')}/{path}"
    document = Document(
        f"{where}:{name}", path, language_of(path), f"{text}{target}\n", text.count("\n")
    )
    return Material(document=document)


def _snippets(context: Any, mark: str) -> list[str]:
    """Return the snippets of other files; a text is taken as it is."""
    if context is None or isinstance(context, str):
        return [context or ""]
    if not isinstance(context, list) or not all(isinstance(entry, dict) for entry in context):
        raise MalformedRecord("context is neither a text nor a list of snippets")
    return [
        f"{mark} Path: {entry.get('path', '')}\n{entry.get('snippet') or ''}" for entry in context
    ]


def _without_imports(code: str, imports: str) -> str:
    """Drop imports that stand at the top of the code as well (`all_code`)."""
    return code.lstrip("\n").removeprefix(imports.strip()) if imports.strip() else code


def _humaneval(record: Record, where: str) -> Material:
    prompt, solution = _text(record, "prompt"), _text(record, "canonical_solution")
    lines = solution.split("\n")
    first = next((index for index, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise MalformedRecord("canonical_solution is empty")
    head = "".join(f"{line}\n" for line in lines[:first])
    text = prompt if prompt.endswith("\n") else prompt + "\n"
    cursor = (text + head).count("\n")
    name = _text(record, "task_id", where)
    document = Document(name, f"{name.split('/')[-1]}.py", "python", text + solution, cursor)
    return Material(document=document, short=True)


def _text(record: Record, field: str, default: str | None = None) -> str:
    value = record.get(field)
    if value is None:
        value = default
    if value is None:
        raise MalformedRecord(f"it has no {field}")
    if not isinstance(value, str):
        raise MalformedRecord(f"{field} is no text")
    return value


def _count(record: Record, field: str) -> int:
    value = record.get(field)
    if type(value) is not int or value < 0:
        raise MalformedRecord(f"{field} is no line number")
    return value


_READERS: tuple[tuple[str, Callable[[Record, str], Material]], ...] = (
    ("versions", _session),
    ("target_line", _real_edit),
    ("next_line", _repobench),
    ("canonical_solution", _humaneval),
)
