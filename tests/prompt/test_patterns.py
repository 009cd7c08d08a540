"""Regexes taken apart: what may stand side by side, and what is not understood."""

import pytest

from pie_cli.prompt.patterns import Pattern, parse, spelled
from tests.prompt.kinds import DEEPSEEK_V3, LLAMA3, QWEN


@pytest.mark.parametrize(
    ("regex", "pairs", "single"),
    [
        ("a", set(), {"a"}),
        ("ab", {("a", "b")}, set()),
        ("a|b", set(), {"a", "b"}),
        ("a+", {("a", "a")}, {"a"}),
        ("a?b", {("a", "b")}, {"b"}),
        ("ab?", {("a", "b")}, {"a"}),
        ("ab*c", {("a", "b"), ("b", "b"), ("b", "c"), ("a", "c")}, set()),
        ("(?:ab)+", {("a", "b"), ("b", "a")}, set()),
        ("(a|b)c", {("a", "c"), ("b", "c")}, set()),
        ("a{1,3}", {("a", "a")}, {"a"}),
        ("a{,3}b", {("a", "a"), ("a", "b")}, {"b"}),
        ("a{2}", {("a", "a")}, set()),
        ("a{0,1}b{1}", {("a", "b")}, {"b"}),
        (r"\s+(?!\S)", {(r"\s", r"\s"), (r"\s", r"\S")}, set()),
        ("a(?=b)|c", {("a", "b")}, {"c"}),
        ("(?!a)b", set(), set()),
        ("(?i:'s|'t)", {("(?i:')", "(?i:s)"), ("(?i:')", "(?i:t)")}, set()),
        (r"[^\]\\a-z]\p{L}", {(r"[^\]\\a-z]", r"\p{L}")}, set()),
    ],
)
def test_what_may_stand_side_by_side(
    regex: str, pairs: set[tuple[str, str]], single: set[str]
) -> None:
    pattern = parse(regex)
    assert pattern is not None
    assert (pattern.pairs, pattern.single) == (pairs, single)


@pytest.mark.parametrize("regex", [LLAMA3, QWEN, DEEPSEEK_V3, "[\r\n]", r"'(?i:[sdmt]|ll|ve|re)"])
def test_the_regexes_of_code_models_are_understood(regex: str) -> None:
    assert parse(regex) is not None


@pytest.mark.parametrize(
    "regex",
    [
        *["", "a?", "a*|b", "(?=a)", "a|", "(?:)"],
        *["^a", "a$", r"\ba", r"\Aa", r"a\z", r"\Ga", r"a\K", "."],
        *["(?<=a)b", "(?<!a)b", "a(?=bc)", "a(?!b|c)", "(?>a)", "(?<n>a)", r"(a)\1"],
        *["a++", "a+?", "a?+", "a{1,2}?", "a{1,2}+", "a**", "a{", "a{}", "a{,}b", "{", "a{1}{2}"],
        *["[a", "a]", "[]a]", "[^]a]", "[[:alpha:]]", "[a&&b]", "[a[b]]", "(a", "a)", "(?:a"],
        *["(?i)a", "(?x:a b)", "(?m:a)", "(?i:[^a])", r"(?i:\p{L})", "(?i:a+)", "(?i:ß)"],
        *["(?i:ss)", "(?i:sT)", "(?i:f[fl])", "(?i:s)+", "(?i:a(?=b))"],
        *[r"\h", r"\R", r"\X", r"\u0041", "\\", r"\p", r"a\Qb"],
    ],
)
def test_anything_else_has_no_answer(regex: str) -> None:
    assert parse(regex) is None


@pytest.mark.parametrize("text", ["\n", "(", "a.", "]", "\\"])
def test_a_text_is_the_pattern_of_its_characters(text: str) -> None:
    pattern = spelled(text)
    assert isinstance(pattern, Pattern)
    assert len(pattern.pairs) == len(text) - 1
    assert bool(pattern.single) == (len(text) == 1)
    assert not pattern.empty
