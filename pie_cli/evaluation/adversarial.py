"""Edits after which the next line must read otherwise, made from Python sources.

Most are substitutions: a name, a value or an operation changes at its definition and wherever else
it stands before the spot, so that the new text no longer has it; the line at the spot uses it and
has to change along. What a prediction still says of the old one is a stale echo. Two classes hold
edits of another kind as well: the branches of an `if` exchanged, two statements swapped.

The classes:

- names: a function, class, variable, parameter or imported name is renamed;
- values: a literal that is a default or is assigned;
- signatures: a parameter that the line at the spot passes by its name;
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

from pie_cli.evaluation.cases import EvalCase
from pie_cli.evaluation.documents import (
    MIN_CONTEXT_LINES,
    Document,
    edit_case,
    is_target,
    reach_start,
)
from pie_cli.evaluation.syntax import parse, string_lines
from pie_cli.text.edit import split_lines

CLASSES = ("names", "values", "signatures", "control flow", "data structure", "algorithm")
"""Kinds of adversarial cases."""

MAX_USES = 4
"""Lines before the spot that a substitution may change: with more of them all is fresh anyway."""

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
    """What is put for what, everywhere before the spot and in its line.

    Attributes:
        kind: class.
        word: a word of every line that changes, to find these quickly.
        pairs: patterns and what stands in their place.
        definition: line that must be seen to change.
        behind: the spot lies behind this line.
        spots: lines that the spot may be; None for any that changes.
        obsolete: what the new text no longer has.
    """

    kind: str
    word: str
    pairs: tuple[tuple[re.Pattern[str], str], ...]
    definition: int
    behind: int
    spots: frozenset[int] | None
    obsolete: tuple[str, ...]

    def changes(self, line: str) -> bool:
        """Tell whether a line changes."""
        return any(pattern.search(line) for pattern, _ in self.pairs)

    def apply(self, text: str) -> str:
        """Return the text as it reads then."""
        for pattern, new in self.pairs:
            text = pattern.sub(lambda _, new=new: new, text)  # type: ignore[misc]
        return text


@dataclass(frozen=True)
class _Candidate:
    """An edit that a document offers.

    Attributes:
        kind: class.
        before, after: text up to the spot.
        target: the line at the spot as it should read after the edit.
        obsolete: what the new text no longer has.
    """

    kind: str
    before: str
    after: str
    target: str
    obsolete: tuple[str, ...] = ()


def adversarial_cases(document: Document, random: Random, context_tokens: int) -> list[EvalCase]:
    """Make one case of each class that a Python document has an edit for.

    Args:
        document: its own spot does not count: the edit says where to predict.
        random: chooses among the edits of a class.
        context_tokens: the edit's definition stands within so many tokens before the spot.

    Returns:
        At most a case a class; none for other languages and for texts that do not parse.
    """
    if document.language != "python":
        return []
    tree = parse(document.text)
    if tree is None:
        return []
    source = _Source(document.text, tree, context_tokens)
    cases = []
    for kind in CLASSES:
        chosen = _choose(source, kind, random)
        if chosen is not None:
            case_id = f"{document.id}:{kind.replace(' ', '-')}"
            case = edit_case(
                case_id,
                "adversarial",
                document,
                chosen.before,
                chosen.after,
                chosen.target,
                kind,
                chosen.obsolete,
            )
            if case is not None:
                cases.append(case)
    return cases


class _Source:
    """A parsed Python text.

    Attributes:
        lines: with their newlines.
        nodes: of the syntax tree.
        context_tokens: how far a spot sees.
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

    def is_spot(self, line: int) -> bool:
        """Tell whether a line may be asked for."""
        return (
            MIN_CONTEXT_LINES <= line < len(self.lines)
            and line not in self.inside_strings
            and is_target(self.lines[line])
        )

    def sees(self, spot: int, line: int) -> bool:
        """Tell whether a prompt that ends at the spot holds a line."""
        return line >= reach_start(self.lines, spot, self.context_tokens)


def _choose(source: _Source, kind: str, random: Random) -> _Candidate | None:
    """Choose one edit of a class: first by what, in random order, then by where."""
    makers = list(_MAKERS[kind])
    random.shuffle(makers)
    for maker in makers:
        offers: list[_Substitution | _Candidate] = list(maker(source, random))
        random.shuffle(offers)
        for offer in offers:
            if isinstance(offer, _Candidate):
                return offer
            if placed := _placed(source, offer, random):
                return placed
    return None


def _placed(source: _Source, change: _Substitution, random: Random) -> _Candidate | None:
    """Find a spot for a substitution: a line that changes, few others changing before it."""
    lines = source.lines
    uses = [line for line in source.words[change.word] if change.changes(lines[line])]
    spots = [
        spot
        for count, spot in enumerate(uses[: MAX_USES + 1])
        if count
        and spot > change.behind
        and spot - change.definition >= 2
        and source.is_spot(spot)
        and (change.spots is None or spot in change.spots)
        and source.sees(spot, change.definition)
    ]
    if not spots:
        return None
    spot = random.choice(spots)
    before = "".join(lines[:spot])
    target = lines[spot].rstrip("\r\n")
    return _Candidate(
        change.kind, before, change.apply(before), change.apply(target), change.obsolete
    )


def _renamed(
    kind: str,
    name: str,
    new: str,
    definition: int,
    behind: int | None = None,
    spots: frozenset[int] | None = None,
) -> _Substitution:
    pattern = re.compile(rf"\b{re.escape(name)}\b")
    behind = definition if behind is None else behind
    return _Substitution(kind, name, ((pattern, new),), definition, behind, spots, (name,))


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


def _definitions(source: _Source) -> Iterator[tuple[str, int]]:
    """Give each name that is defined, with its first line."""
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno - 1
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno - 1
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno - 1
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if alias.asname or isinstance(node, ast.ImportFrom):
                    yield alias.asname or alias.name, alias.lineno - 1


def _names(source: _Source, random: Random) -> Iterator[_Substitution]:
    """Rename what is defined, at its definition and everywhere."""
    first: dict[str, int] = {}
    for name, line in _definitions(source):
        if _is_own(name) and line <= first.get(name, line):
            first[name] = line
    for name, line in first.items():
        yield _renamed("names", name, _new_name(name, source.words, random), line)


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
        line = node.lineno - 1
        # The old name stands in the new text, qualified: no word of it is obsolete.
        yield _Substitution("names", alias.name, pairs, line, line, None, ())


def _values(source: _Source, random: Random) -> Iterator[_Substitution]:
    """Change a literal that is assigned or a default."""
    for node in source.nodes:
        for constant in _assigned_constants(node):
            value, line = constant.value, constant.lineno - 1
            if type(value) is int and value > 9:
                new = str(random.randrange(10 ** (len(str(value)) - 1), 10 ** len(str(value))))
                if new != str(value):
                    pattern = re.compile(rf"(?<![\w.]){value}(?![\w.])")
                    pairs = ((pattern, new),)
                    old = str(value)
                    yield _Substitution("values", old, pairs, line, line, None, (old,))
            elif isinstance(value, str) and _PLAIN_STRING.fullmatch(value):
                new = _new_name(value if value.isidentifier() else "words", source.words, random)
                pattern = re.compile(rf"""(?<=["']){re.escape(value)}(?=["'])""")
                word = _WORD.search(value)
                if word:
                    pairs = ((pattern, new),)
                    yield _Substitution("values", word[0], pairs, line, line, None, (value,))


def _assigned_constants(node: ast.AST) -> Iterator[ast.Constant]:
    """Give the literals of an assignment, a dictionary or a signature."""
    values: list[ast.AST | None] = []
    if isinstance(node, ast.Assign | ast.AnnAssign):
        values = [node.value]
    elif isinstance(node, ast.arguments):
        values = [*node.defaults, *node.kw_defaults]
    elif isinstance(node, ast.Dict):
        values = [*node.keys, *node.values]
    yield from (value for value in values if isinstance(value, ast.Constant))


def _signatures(source: _Source, random: Random) -> Iterator[_Substitution]:
    """Rename a parameter that a later call passes by its name."""
    for node in source.nodes:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.end_lineno:
            continue
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        for argument in arguments:
            name = argument.arg
            if _is_own(name) and name in source.passed_by_name:
                passed = source.passed_by_name[name]
                new = _new_name(name, source.words, random)
                line = argument.lineno - 1
                yield _renamed("signatures", name, new, line, node.end_lineno - 1, passed)


def _exceptions(source: _Source, random: Random) -> Iterator[_Substitution]:
    """Raise and catch another exception."""
    for name in _EXCEPTIONS:
        lines = source.words.get(name)
        others = [other for other in _EXCEPTIONS if other not in source.words]
        if lines and others:
            yield _renamed("control flow", name, random.choice(others), lines[0])


def _branches(source: _Source, _: Random) -> Iterator[_Candidate]:
    """Negate a condition and exchange its branches, one line each; the spot is the second one."""
    lines = source.lines
    for node in source.nodes:
        if not isinstance(node, ast.If) or len(node.body) != 1 or len(node.orelse) != 1:
            continue
        head, first = node.lineno - 1, node.body[0].lineno - 1
        second = node.orelse[0].lineno - 1
        plain = (
            first == head + 1
            and second == head + 3
            and lines[head + 2].strip() == "else:"
            and node.body[0].end_lineno == first + 1
            and node.orelse[0].end_lineno == second + 1
        )
        condition = re.fullmatch(r"(\s*)if (.+):\n", lines[head])
        if plain and condition and source.is_spot(second) and is_target(lines[first]):
            negated = f"{condition[1]}if not ({condition[2]}):\n"
            before = "".join(lines[:second])
            after = "".join([*lines[:head], negated, lines[second], *lines[head + 2 : second]])
            yield _Candidate("control flow", before, after, lines[first].rstrip("\r\n"))


def _sets(source: _Source, _: Random) -> Iterator[_Substitution]:
    """Make a list a set, its methods along."""
    for node in source.nodes:
        target = _empty_list_target(node)
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
        yield _Substitution("data structure", word, tuple(pairs), line, line, uses, obsolete)


def _empty_list_target(node: ast.AST) -> str | None:
    """Return `name` or `self.name` of `name = []`."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target: ast.expr = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    else:
        return None
    is_list = isinstance(node.value, ast.List) and not node.value.elts
    return ast.unparse(target) if is_list and isinstance(target, ast.Name | ast.Attribute) else None


def _operations(source: _Source, _: Random) -> Iterator[_Substitution]:
    """Put an operation's counterpart in its place."""
    for pair in _COUNTERPARTS:
        for old, new in (pair, pair[::-1]):
            called = re.compile(rf"\b{old}(?=\()")
            lines = [i for i in source.words.get(old, ()) if called.search(source.lines[i])]
            if lines:
                pairs = ((called, new),)
                yield _Substitution("algorithm", old, pairs, lines[0], lines[0], None, (old,))


def _swaps(source: _Source, _: Random) -> Iterator[_Candidate]:
    """Swap two statements of a line each; the spot is the second one."""
    lines = source.lines
    for node in source.nodes:
        body = getattr(node, "body", None)
        for one, two in pairwise(body) if isinstance(body, list) else ():
            first, second = one.lineno - 1, two.lineno - 1
            plain = (
                isinstance(one, ast.Assign | ast.Expr | ast.AugAssign)
                and isinstance(two, ast.Assign | ast.Expr | ast.AugAssign)
                and one.end_lineno == first + 1
                and two.end_lineno == second + 1
                and second == first + 1
            )
            if plain and source.is_spot(second) and is_target(lines[first]):
                before = "".join(lines[:second])
                after = "".join([*lines[:first], lines[second]])
                yield _Candidate("algorithm", before, after, lines[first].rstrip("\r\n"))


_Maker = Callable[[_Source, Random], Iterator[_Substitution] | Iterator[_Candidate]]

_MAKERS: dict[str, tuple[_Maker, ...]] = {
    "names": (_names, _names, _names, _qualified_imports),
    "values": (_values,),
    "signatures": (_signatures,),
    "control flow": (_exceptions, _branches),
    "data structure": (_sets,),
    "algorithm": (_operations, _operations, _swaps),
}
# A maker that stands more often is tried first more often.
