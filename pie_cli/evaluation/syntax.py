"""Python sources as syntax trees: parsed silently, what is code told from what is not."""

import ast
import warnings
from collections.abc import Iterable


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


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
