"""Edits after which the next line must read otherwise, made from Python sources.

Most are substitutions: a name, a value or an operation changes everywhere in the text, so that the
new one no longer has it; the line at the cursor uses it and has to change along. What a prediction
still says of the old one is a stale echo. Two classes hold edits of another kind as well: the
branches of an `if` exchanged, two statements swapped.

The classes:

- names: a function, class, variable, parameter or imported name is renamed;
- values: a literal that is a default or is assigned;
- signatures: a parameter that the line at the cursor passes by its name;
- control flow: which exception is raised or caught; branches exchanged, their condition negated;
- data structure: a list becomes a set, its methods along;
- algorithm: an operation becomes its counterpart (min and max); two statements swapped.
"""

import ast
import keyword
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random

from pie_cli.evaluation.cases.case import EvalCase, Gap
from pie_cli.evaluation.cases.documents import (
    MIN_CONTEXT_LINES,
    Document,
    edit_case,
    is_target,
    reach_start,
)
from pie_cli.evaluation.cases.syntax import (
    assigned_constants,
    definitions,
    empty_list_target,
    is_a_line,
    parse,
    string_lines,
)
from pie_cli.text.edit import split_lines

CLASSES = ("names", "values", "signatures", "control flow", "data structure", "algorithm")
"""Kinds of adversarial cases."""

MAX_USES = 4
"""Lines above the cursor that a substitution may change: with more of them all is fresh anyway."""

_MIN_NAME = 4
_WORD = re.compile(r"[^\W\d]\w*|\d+")
_PLAIN_STRING = re.compile(r"[A-Za-z][\w./-]{3,40}")

_NOUNS = (
    "anchor basket border bucket canvas column corner dealer engine filter garden harbor island "
    "jacket kernel ladder marker needle orchid packet quarry ribbon socket tunnel vessel window"
).split()

_COUNTERPARTS = (
    ("min", "max"),
    ("any", "all"),
    ("startswith", "endswith"),
    ("lower", "upper"),
    ("lstrip", "rstrip"),
    ("removeprefix", "removesuffix"),
    ("sorted", "reversed"),
    ("find", "rfind"),
    ("split", "rsplit"),
    ("index", "rindex"),
    ("isinstance", "issubclass"),
)

_EXCEPTIONS = (
    "ValueError TypeError KeyError IndexError RuntimeError AttributeError LookupError OSError "
    "NotImplementedError ArithmeticError ImportError"
).split()

_SET_METHODS = {"append": "add", "extend": "update", "remove": "discard"}


@dataclass(frozen=True)
class _Substitution:
    """What is put for what, everywhere in the text and in the line that is asked for.

    Attributes:
        word: a word of every line that changes, to find these quickly.
        pairs: patterns and what replaces them.
        definition: line that must be seen to change.
        cursors: lines that may be asked for; None for any that changes.
        obsolete: what the new text no longer has.
    """

    word: str
    pairs: tuple[tuple[re.Pattern[str], str], ...]
    definition: int
    cursors: frozenset[int] | None = None
    obsolete: tuple[str, ...] = ()

    def changes(self, line: str) -> bool:
        """Tell whether a line changes."""
        return any(pattern.search(line) for pattern, _ in self.pairs)

    def apply(self, text: str) -> str:
        """Return the text as it reads then."""
        for pattern, new in self.pairs:
            text = pattern.sub(lambda _, new=new: new, text)  # type: ignore[misc]
        return text


@dataclass(frozen=True)
class _Offer:
    """An edit that a document offers.

    Attributes:
        line: that is asked for, 0-based.
        after: the text after the edit, without that line.
        target: the line as it should read then.
        obsolete: what the new text no longer has.
    """

    line: int
    after: Gap
    target: str
    obsolete: tuple[str, ...] = ()


def adversarial_cases(document: Document, random: Random, context_tokens: int) -> list[EvalCase]:
    """Make one case of each class that a Python document has an edit for.

    Args:
        document: its own line to predict does not count: the edit says where.
        random: chooses among the edits of a class.
        context_tokens: the edit's definition is within so many tokens above the cursor.

    Returns:
        At most a case a class; none for other languages and for texts that do not parse.
    """
    tree = parse(document.text) if document.language == "python" else None
    if tree is None:
        return []
    source = _Source(document.text, tree, context_tokens)
    cases = []
    for kind in CLASSES:
        offer = _choose(source, kind, random)
        if offer is None:
            continue
        case = edit_case(
            f"{document.id}:{kind.replace(' ', '-')}",
            "adversarial",
            document,
            Gap.at(document.text, offer.line),
            offer.after,
            offer.target,
            kind,
            offer.obsolete,
        )
        if case is not None:
            cases.append(case)
    return cases


class _Source:
    """A parsed Python text.

    Attributes:
        lines: with their newlines.
        nodes: of the syntax tree.
        context_tokens: how far a cursor sees.
    """

    def __init__(self, text: str, tree: ast.Module, context_tokens: int) -> None:
        self.lines = split_lines(text)
        self.nodes = list(ast.walk(tree))
        self.context_tokens = context_tokens

    @cached_property
    def words(self) -> dict[str, list[int]]:
        """Lines of each word, ascending."""
        words: defaultdict[str, list[int]] = defaultdict(list)
        for index, line in enumerate(self.lines):
            for word in set(_WORD.findall(line)):
                words[word].append(index)
        return words

    @cached_property
    def passed_by_name(self) -> dict[str, frozenset[int]]:
        """Lines in which a call passes a parameter of that name."""
        lines: defaultdict[str, set[int]] = defaultdict(set)
        for node in self.nodes:
            if isinstance(node, ast.keyword) and node.arg:
                lines[node.arg].add(node.lineno - 1)
        return {name: frozenset(found) for name, found in lines.items()}

    @cached_property
    def inside_strings(self) -> set[int]:
        """Lines that begin inside a string."""
        return string_lines(self.nodes)

    def is_cursor(self, line: int) -> bool:
        """Tell whether a line may be asked for."""
        return (
            MIN_CONTEXT_LINES <= line < len(self.lines)
            and line not in self.inside_strings
            and is_target(self.lines[line])
        )

    def sees(self, cursor: int, line: int) -> bool:
        """Tell whether a prompt that ends at the cursor holds a line."""
        return line >= reach_start(self.lines, cursor, self.context_tokens)


def _choose(source: _Source, kind: str, random: Random) -> _Offer | None:
    """Choose one edit of a class: first by what, in random order, then by where."""
    makers = list(_MAKERS[kind])
    random.shuffle(makers)
    for maker in makers:
        offers: list[_Substitution | _Offer] = list(maker(source, random))
        random.shuffle(offers)
        for offer in offers:
            placed = offer if isinstance(offer, _Offer) else _placed(source, offer, random)
            if placed:
                return placed
    return None


def _placed(source: _Source, change: _Substitution, random: Random) -> _Offer | None:
    """Find a line to ask for: one that a substitution changes, few others changing above it."""
    lines = source.lines
    uses = [line for line in source.words[change.word] if change.changes(lines[line])]
    cursors = [
        cursor
        for count, cursor in enumerate(uses[: MAX_USES + 1])
        if count
        and cursor - change.definition >= 2
        and source.is_cursor(cursor)
        and (change.cursors is None or cursor in change.cursors)
        and source.sees(cursor, change.definition)
    ]
    if not cursors:
        return None
    cursor = random.choice(cursors)
    above, below = "".join(lines[:cursor]), "".join(lines[cursor + 1 :])
    after = Gap(change.apply(above), change.apply(below))
    return _Offer(cursor, after, change.apply(lines[cursor].rstrip("\r\n")), change.obsolete)


def _renamed(
    name: str, new: str, definition: int, cursors: frozenset[int] | None = None
) -> _Substitution:
    pattern = re.compile(rf"\b{re.escape(name)}\b")
    return _Substitution(name, ((pattern, new),), definition, cursors, (name,))


def _new_name(old: str, taken: Iterable[str], random: Random) -> str:
    """Invent a name in the style of the old one: as many words, joined and capitalised alike."""
    words = len(re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", old)) or 1
    for _ in range(100):
        parts = random.sample(_NOUNS, min(words, 3))
        name = _styled(parts, old)
        if name not in taken:
            return name
    return f"{name}_{random.randrange(10, 100)}"


def _styled(parts: list[str], like: str) -> str:
    lead = "_" * (len(like) - len(like.lstrip("_")))
    if like.isupper():
        return lead + "_".join(parts).upper()
    if "_" in like.strip("_") or like.islower():
        return lead + "_".join(parts)
    joined = "".join(part.capitalize() for part in parts)
    return lead + (joined if like.lstrip("_")[:1].isupper() else joined[0].lower() + joined[1:])


def _is_own(name: str) -> bool:
    """Tell whether a name is long enough and nobody else's: no dunder, no keyword."""
    return len(name) >= _MIN_NAME and not name.startswith("__") and not keyword.iskeyword(name)


def _names(source: _Source, random: Random) -> Iterator[_Substitution]:
    """Rename what is defined, at its definition and everywhere."""
    first: dict[str, int] = {}
    for name, line in definitions(source.nodes):
        if _is_own(name) and line <= first.get(name, line):
            first[name] = line
    for name, line in first.items():
        yield _renamed(name, _new_name(name, source.words, random), line)


def _qualified_imports(source: _Source, _: Random) -> Iterator[_Substitution]:
    """Take `from a import b` away for `import a`: what was b is a.b then."""
    for node in source.nodes:
        if not isinstance(node, ast.ImportFrom) or node.level or not node.module:
            continue
        alias = node.names[0]
        if len(node.names) > 1 or alias.asname or not _is_own(alias.name):
            continue
        module = re.escape(node.module)
        statement = re.compile(rf"^from {module} import {alias.name}$", re.MULTILINE)
        use = re.compile(rf"(?<![\w.]){alias.name}\b")
        pairs = ((statement, f"import {node.module}"), (use, f"{node.module}.{alias.name}"))
        # The new text has the old name, qualified: no word of it is obsolete.
        yield _Substitution(alias.name, pairs, node.lineno - 1)


def _values(source: _Source, random: Random) -> Iterator[_Substitution]:
    """Change a literal that is assigned or a default."""
    for node in source.nodes:
        for constant in assigned_constants(node):
            value, old = constant.value, str(constant.value)
            if type(value) is int and value > 9:
                new = str(random.randrange(10 ** (len(old) - 1), 10 ** len(old)))
                word, pattern = old, rf"(?<![\w.]){old}(?![\w.])"
            elif isinstance(value, str) and _PLAIN_STRING.fullmatch(value):
                new = _new_name(value if value.isidentifier() else "words", source.words, random)
                word, pattern = _WORD.findall(value)[0], rf"""(?<=["']){re.escape(value)}(?=["'])"""
            else:
                continue
            if new != old:
                pairs = ((re.compile(pattern), new),)
                yield _Substitution(word, pairs, constant.lineno - 1, None, (old,))


def _signatures(source: _Source, random: Random) -> Iterator[_Substitution]:
    """Rename a parameter that a call after the function passes by its name."""
    for node in source.nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.end_lineno:
            continue
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            name = argument.arg
            passed = source.passed_by_name.get(name, ())
            calls = frozenset(line for line in passed if line >= node.end_lineno)
            if calls and _is_own(name):
                new = _new_name(name, source.words, random)
                yield _renamed(name, new, argument.lineno - 1, calls)


def _exceptions(source: _Source, random: Random) -> Iterator[_Substitution]:
    """Raise and catch another exception."""
    for name in _EXCEPTIONS:
        lines = source.words.get(name)
        others = [other for other in _EXCEPTIONS if other not in source.words]
        if lines and others:
            yield _renamed(name, random.choice(others), lines[0])


def _branches(source: _Source, _: Random) -> Iterator[_Offer]:
    """Negate a condition and exchange its branches, a line each; the second is asked for."""
    lines = source.lines
    for node in source.nodes:
        if not isinstance(node, ast.If) or len(node.body) != 1 or len(node.orelse) != 1:
            continue
        head, first, second = (n.lineno - 1 for n in (node, node.body[0], node.orelse[0]))
        plain = (first, second) == (head + 1, head + 3) and lines[head + 2].strip() == "else:"
        condition = re.fullmatch(r"(\s*)if (.+):\n", lines[head])
        if plain and condition and is_a_line(node.body[0]) and is_a_line(node.orelse[0]):
            negated = f"{condition[1]}if not ({condition[2]}):\n"
            above = [*lines[:head], negated, lines[second], *lines[head + 2 : second]]
            yield from _exchanged(source, first, second, above)


def _exchanged(source: _Source, first: int, second: int, above: list[str]) -> Iterator[_Offer]:
    """Offer an exchange of two lines: what was the first is asked for below `above`."""
    lines = source.lines
    if source.is_cursor(second) and is_target(lines[first]):
        after = Gap("".join(above), "".join(lines[second + 1 :]))
        yield _Offer(second, after, lines[first].rstrip("\r\n"))


def _sets(source: _Source, _: Random) -> Iterator[_Substitution]:
    """Make a list a set, its methods along."""
    for node in source.nodes:
        target = empty_list_target(node)
        if target is None or not _is_own(target.split(".")[-1]):
            continue
        name = re.escape(target)
        opened = re.compile(rf"(?<![\w.])({name}\b[^=\n]*=\s*)\[\]")
        line = node.lineno - 1  # type: ignore[attr-defined]
        match = opened.search(source.lines[line])
        if match is None:
            continue
        pairs = [(re.compile(re.escape(match[0])), f"{match[1]}set()")]
        for old, new in _SET_METHODS.items():
            pairs.append((re.compile(rf"(?<![\w.]){name}\.{old}(?=\()"), f"{target}.{new}"))
        used = re.compile(rf"(?<![\w.]){name}\.(?:{'|'.join(_SET_METHODS)})\(")
        word = target.split(".")[-1]
        uses = frozenset(i for i in source.words[word] if used.search(source.lines[i]))
        obsolete = tuple(f"{target}.{old}" for old in _SET_METHODS)
        yield _Substitution(word, tuple(pairs), line, uses, obsolete)


def _operations(source: _Source, _: Random) -> Iterator[_Substitution]:
    """Put an operation's counterpart in its place."""
    for pair in _COUNTERPARTS:
        for old, new in (pair, pair[::-1]):
            called = re.compile(rf"\b{old}(?=\()")
            lines = [i for i in source.words.get(old, ()) if called.search(source.lines[i])]
            if lines:
                pairs = ((called, new),)
                yield _Substitution(old, pairs, lines[0], None, (old,))


def _swaps(source: _Source, _: Random) -> Iterator[_Offer]:
    """Swap two statements of a line each; the second is asked for."""
    for node in source.nodes:
        body = getattr(node, "body", None)
        for pair in pairwise(body) if isinstance(body, list) else ():
            first, second = (statement.lineno - 1 for statement in pair)
            plain = all(
                isinstance(one, ast.Assign | ast.Expr | ast.AugAssign) and is_a_line(one)
                for one in pair
            )
            if plain and second == first + 1:
                above = [*source.lines[:first], source.lines[second]]
                yield from _exchanged(source, first, second, above)


_Maker = Callable[[_Source, Random], Iterator[_Substitution] | Iterator[_Offer]]

_MAKERS: dict[str, tuple[_Maker, ...]] = {
    "names": (_names, _names, _names, _qualified_imports),
    "values": (_values,),
    "signatures": (_signatures,),
    "control flow": (_exceptions, _branches),
    "data structure": (_sets,),
    "algorithm": (_operations, _operations, _swaps),
}
# A maker that is named more often is tried first more often.
