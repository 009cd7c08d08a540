"""Answers: of what a model says, the lines that are the prediction, and no more."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.text.answer import Answer, Extent

SAID = st.text(alphabet="ab{}: \n\r", max_size=40)
LINES = st.text(alphabet="ab{} ", max_size=4)
EXTENTS = st.builds(
    Extent, st.sampled_from(["line", "rest", "either"]), st.integers(1, 4), LINES, LINES, LINES
)


def read(said: str, extent: Extent) -> str:
    answer = extent.read(said)
    assert answer.complete
    return answer.text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("limit\n", Answer("limit", complete=True, completes_line=True)),
        ("limit", Answer("limit", complete=False, completes_line=True)),
        ("\n    x = 1\n", Answer("    x = 1", complete=True, completes_line=False)),
        ("\r\n    x = 1\r\n", Answer("    x = 1", complete=True, completes_line=False)),
        ("  \n\ny\n", Answer("\ny", complete=True, completes_line=False)),
        ("\n\n", Answer("\n", complete=False, completes_line=False)),
        ("", Answer("", complete=False, completes_line=False)),
    ],
)
def test_a_newline_first_says_that_the_line_is_done(said: str, expected: Answer) -> None:
    assert Extent("either").read(said) == expected


def test_a_new_line_keeps_the_blank_ones_before_it() -> None:
    assert read("\n  \nx\n", Extent()) == "\n  \nx"


def test_at_the_top_of_a_file_there_are_no_blank_lines_before_it() -> None:
    assert read("\n  \n\n  x\n", Extent(is_top=True)) == "  x"
    assert read("\n\nx\n\ny\n", Extent(lines=2, is_top=True)) == "x\n\ny"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("# b.py\n", ""),
        ("\n\n# b.py\nimport os\n", ""),
        ("x = 1\n\n# b.py\nimport os\n", "x = 1"),
        ("# b.py is another file\n# a\n", "# b.py is another file\n# a"),
        ("    # b.py\n    x\n", "    # b.py\n    x"),
    ],
)
def test_the_header_of_a_file_in_the_prompt_ends_the_answer(said: str, expected: str) -> None:
    assert read(said, Extent(lines=2, headers=frozenset({"# b.py"}))) == expected


def test_the_rest_of_a_line_may_be_nothing() -> None:
    assert read("\n", Extent("rest")) == ""


def test_what_the_line_goes_on_with_anyway_is_left_out() -> None:
    assert read("a, b)\n", Extent("rest", typed="f(", rest=")")) == "a, b"
    assert read("a, b]\n", Extent("rest", typed="f(", rest=")")) == "a, b]"
    assert read("g(x))\n", Extent("rest", typed="f(", rest=")")) == "g(x)"


def test_what_closes_the_text_s_own_brackets_is_no_part_of_the_rest() -> None:
    """A model that fills in a middle sees the rest, and does not say it."""
    assert read("g(x)\n", Extent("rest", typed="f(", rest=")")) == "g(x)"
    assert read('x["a"]\n', Extent("rest", typed="y[", rest="]")) == 'x["a"]'
    assert read("a + c\n", Extent("rest", typed="b = ", rest=" + c")) == "a"


def test_what_follows_anyway_is_not_said_again() -> None:
    extent = Extent("either", 3, "    a = 1", "    b = 2")
    assert read("\n    b = 2\n", extent) == ""
    assert read("\n\n    b = 2  \r\n", extent) == ""
    assert read("\n    c = 3\n\n    b = 2\n", extent) == "    c = 3"
    assert read("0\n    b = 2\n", extent) == "0"


def test_what_stands_a_little_further_below_is_not_said_again() -> None:
    further = ("class Stock(Exception):", "    amount = price", "class Item:")
    extent = Extent("either", 3, "LOW = 5", 'CURRENCY = "EUR"', further=further)
    assert read("\n\n\nclass Stock(Exception):\n", extent) == ""
    assert read("\nHIGH = 50\nclass Stock(Exception):\n", extent) == "HIGH = 50"
    assert read("\nclass Item:\n", extent) == ""
    assert read("\n    amount = price\n", replace(extent, lines=1)) == "    amount = price"


@pytest.mark.parametrize("line", ["}  // the end", "try:", "    return None"])
def test_what_may_well_come_twice_is_said(line: str) -> None:
    """What closes, what is short, and what is in another block of the same depth."""
    further = ("  b = 1", "}  // the end", "try:", "if b:", "    return None")
    assert read(f"\n{line}\n", Extent("either", 1, "if a:", "if c:", further=further)) == line


def test_several_lines_end_where_as_many_are_said() -> None:
    extent = Extent("either", 3, "a = 1")
    assert read("\nb\n\nc\nd\n", extent) == "b\n\nc\nd"
    assert read("0\nb\n\nc\n", extent) == "0\nb\n\nc"
    assert read("b\nc\nd\n", Extent("line", 3)) == "b\nc\nd"


@pytest.mark.parametrize(
    ("typed", "said", "expected"),
    [
        ("def f():", "\n    a\n    b\nc\n", "    a\n    b"),
        ("def f():", "\n    a\n\n\ndef g():\n", "    a"),
        ("    x = 1", "\n    y\nz\n", "    y"),
        ("    return", "\n\ndef g():\n    a\nb\nc\n", "\ndef g():"),
        ("func f() {", "\n\ta\n}\n\nfunc g() {\n", "\ta\n}"),
        ("f(", "\n    a,\n)\nb\n", "    a,\n)"),
        ("if a then", "\n  b\nend\nc\n", "  b\nend"),
    ],
)
def test_several_lines_stay_in_the_block_of_the_cursor(
    typed: str, said: str, expected: str
) -> None:
    assert read(said, Extent("either", 9, typed)) == expected


def test_several_lines_end_before_one_is_said_again() -> None:
    assert read("\nb\nc\nb\n", Extent("either", 9, "a")) == "b\nc"
    assert read("\nb\na\n", Extent("either", 9, "a")) == "b"
    assert read("b\nab\n", Extent("either", 9, "a")) == "b"


@given(SAID, SAID, EXTENTS)
def test_a_complete_answer_stays_what_it_is(said: str, more: str, extent: Extent) -> None:
    """Nothing that follows changes it, so that decoding may end there."""
    answer = extent.read(said)
    if answer.complete:
        assert extent.read(said + more) == answer


@given(SAID, EXTENTS)
def test_an_answer_has_no_more_lines_than_asked_for(said: str, extent: Extent) -> None:
    answer = extent.read(said)
    found = [line for line in answer.text.split("\n") if line.strip()]
    assert len(found) <= extent.lines
    if answer.complete:
        assert not answer.text.endswith("\n") or not found
        new = found[1:] if answer.completes_line else found
        assert extent.below not in [line.rstrip() for line in new]
