"""Indentation: the next line begins where the language and the lines above say that it can."""

import ast
import textwrap
from pathlib import Path

import pytest

import pie_cli
from pie_cli.text.answer import columns
from pie_cli.text.indent import Indent, next_indent


@pytest.mark.parametrize(
    ("above", "path", "lowest", "deepest"),
    [
        ("", "a.py", 0, 0),
        ("def go(self):", "a.py", 1, 4),
        ("class A:\n  def f(self):", "a.py", 3, 4),
        ("class A:\n    def f(self):\n        if x:  # why: because", "a.py", 9, 12),
        ("    return x", "a.py", 0, 4),
        ("    return {'a': 1, ':': 2}", "a.py", 0, 4),
        ("x = f(a,", "a.py", 0, 6),
        ("x = f(", "a.py", 0, 4),
        ("x = {\n    'a': [1,", "a.py", 0, 10),
        ("if a and \\", "a.py", 0, 4),
        ('    """Do.\n\n    Args:\n        x: of it', "a.py", 0, 12),
        ("x = '('\ny = 1", "a.py", 0, 0),
        ("func f() {", "a.go", 0, 4),
        ("func f() {\n\tif x {", "a.go", 0, 16),
        ("  const x = f()", "a.ts", 0, 6),
        ("jobs:\n  - name: x", "a.yml", 0, 4),
    ],
)
def test_the_next_line_is_no_deeper_than_it_can_be(
    above: str, path: str, lowest: int, deepest: int
) -> None:
    assert next_indent(above, path) == Indent(lowest, deepest)


@pytest.mark.parametrize(
    ("above", "below", "lowest"),
    [
        ("class A:\n    def f(self):\n        return 1", "    def g(self):", 4),
        ("    a = 1", "    b = 2", 4),
        ("    a = 1", "b = 2", 0),
        ("a = 1", "    b = 2", 0),
        ("def f():", "    b = 2", 1),
        ("    a = 1", None, 0),
        ("", "    b = 2", 0),
    ],
)
def test_the_next_line_does_not_part_its_neighbours(
    above: str, below: str | None, lowest: int
) -> None:
    assert next_indent(above, "a.py", below).lowest == lowest


def test_whatever_people_wrote_is_allowed() -> None:
    """On pie's own sources, line by line; a wrong rule would forbid what is right."""
    refused = total = 0
    for source in sorted(Path(pie_cli.__file__).parent.rglob("*.py")):
        lines = source.read_text(encoding="utf-8").split("\n")
        for number in range(1, len(lines), 11):
            if lines[number].strip() and any(line.strip() for line in lines[:number]):
                indent = next_indent("\n".join(lines[:number]), source.name)
                total += 1
                refused += not indent.lowest <= columns(lines[number]) <= indent.deepest
    assert total > 1_000
    assert refused / total < 0.001


def test_what_is_refused_is_no_python() -> None:
    """Deeper than a line that opens nothing, or no deeper than one that opens a block."""
    above = textwrap.dedent("""
        def f(x):
            y = x
    """).rstrip()
    indent = next_indent(above, "a.py")
    for depth in range(indent.deepest + 1, 12):
        with pytest.raises(IndentationError):
            ast.parse(f"{above}\n{' ' * depth}z = 1\n")
    opener = above.rsplit("\n", 1)[0]
    assert next_indent(opener, "a.py").lowest == 1
    with pytest.raises(IndentationError):
        ast.parse(f"{opener}\nz = 1\n")


@pytest.mark.parametrize(
    ("begun", "fits"),
    [("", True), ("    ", True), ("     ", False), ("    x", True), ("   x", True), ("x", False)],
)
def test_a_line_that_is_begun_fits_as_long_as_it_may_still_begin_there(
    begun: str, fits: bool
) -> None:
    assert Indent(1, 4).fits(begun) is fits
    assert Indent(1, 4).fits("      \n\n" + begun) is fits
