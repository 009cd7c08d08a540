"""What closes a bracket or quote that was open before, in any line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.text.brackets import closed_by, written_again

LINES = st.text("()[]{}\"'`\\a, :", max_size=12)


@pytest.mark.parametrize(
    ("typed", "line", "closing"),
    [
        ("f(", "a, b)", [4]),
        ("f(", "g(x)", []),
        ("f(g(", "x))", [1, 2]),
        ('print("', 'hi", name)', [2, 9]),
        ('print("', "(it's)\", name)", [6, 13]),
        ('print("', '\\"hi', []),
        ("", "a)", []),
        ("f(]", "x)", [1]),
        ("# don't load(", "it)", [2]),
        ("print(f'", "it's')", [2, 5]),
        ("print(rb'", "a')", [1, 2]),
    ],
)
def test_what_was_open_before_is_closed_once(typed: str, line: str, closing: list[int]) -> None:
    assert closed_by(typed, line) == closing


@pytest.mark.parametrize(
    ("typed", "line", "rest", "taken"),
    [
        ("def f(", "self, x):", ")", 1),
        ("f(", "a, b)", "):", 1),
        ("if f(", "a, b):", "):", 2),
        ('print("', 'hi", name)', '")', 2),
        ("f(", "a)", " )", 2),
        ("f(", "g(x)", ")", 0),
        ("f(", "a]", ")", 0),
        ("f(", "a)", ", b)", 0),
    ],
)
def test_what_an_editor_closed_already_is_written_again(
    typed: str, line: str, rest: str, taken: int
) -> None:
    assert written_again(typed, line, rest) == taken


@given(LINES, LINES, LINES)
def test_no_more_is_taken_than_there_is_and_only_what_the_line_has(
    typed: str, line: str, rest: str
) -> None:
    places = closed_by(typed, line)
    assert places == sorted(set(places))
    assert all(line[place] in ")]}\"'`" for place in places)
    taken = written_again(typed, line, rest)
    assert 0 <= taken <= len(rest)
    remaining = iter(line)
    assert all(character in remaining for character in rest[:taken] if not character.isspace())
