"""Python sources as syntax trees: what is code, what is defined, what is assigned."""

import ast
import warnings
from collections.abc import Iterable, Iterator


def parse(text: str) -> ast.Module | None:
    """Parse a Python text; None for one that does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a text's own odd escapes are not our concern
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def string_lines(nodes: Iterable[ast.AST]) -> set[int]:
    """Collect the lines, from 0, that begin inside a string of several lines."""
    return {
        line
        for node in nodes
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno
        for line in range(node.lineno, node.end_lineno)
    }


def code_of(text: str) -> str | None:
    """Return a Python text's code, without comments, layout and docstrings; None as `parse`."""
    tree = parse(text)
    if tree is None:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_text(statement)]
    return ast.dump(tree)


def definitions(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """Give each name that is defined, with its first line."""
    for node in nodes:
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


def assigned_constants(node: ast.AST) -> Iterator[ast.Constant]:
    """Give the literals of an assignment, a dictionary or a signature."""
    values: list[ast.AST | None] = []
    if isinstance(node, ast.Assign | ast.AnnAssign):
        values = [node.value]
    elif isinstance(node, ast.arguments):
        values = [*node.defaults, *node.kw_defaults]
    elif isinstance(node, ast.Dict):
        values = [*node.keys, *node.values]
    yield from (value for value in values if isinstance(value, ast.Constant))


def empty_list_target(node: ast.AST) -> str | None:
    """Return `name` or `self.name` of `name = []`."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target: ast.expr = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    else:
        return None
    is_list = isinstance(node.value, ast.List) and not node.value.elts
    return ast.unparse(target) if is_list and isinstance(target, ast.Name | ast.Attribute) else None


def is_a_line(statement: ast.stmt) -> bool:
    """Tell whether a statement ends in the line that it begins in."""
    return statement.end_lineno == statement.lineno


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
