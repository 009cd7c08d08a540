"""Lines that look done, and last words that are no half words."""

import pytest

from pie_cli.text.done import ends_with_known_word, looks_done


@pytest.mark.parametrize(
    "line",
    [
        "f(a)",
        "x = [1]  ",
        "    return f(g(a))",
        "}",
        "if x:",
        "a = {",
        "b;",
        "s = ''",
        "    a,",
    ],
)
def test_what_closes_or_opens_at_its_end_looks_done(line: str) -> None:
    assert looks_done(line)


@pytest.mark.parametrize(
    "line",
    ["", "    ", "return self.", "x = a +", "x = f(a,", "x = f(g(a)", "return", "f(", "f('a'"],
)
def test_what_is_open_does_not_look_done(line: str) -> None:
    assert not looks_done(line)


@pytest.mark.parametrize(
    ("line", "others", "known"),
    [
        ("return filters", ("filters = []",), True),
        ("return filters", ("filterset = []", "my_filters"), False),
        ("a = a", ("",), True),
        ("return ", ("return",), False),
        ("x = f(", ("f(",), False),
        ("", ("",), False),
    ],
)
def test_a_word_is_known_where_it_is_whole_elsewhere(
    line: str, others: tuple[str, ...], known: bool
) -> None:
    assert ends_with_known_word(line, *others) is known
