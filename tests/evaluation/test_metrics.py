"""Metrics say what they say: exact match, similarity, divergence, cosine, stale echo."""

import math

import pytest
import torch

from pie_cli.evaluation.runs.metrics import (
    edit_similarity,
    exact_match,
    first_line,
    has_stale_echo,
    layer_cosines,
    next_token_kl,
)


@pytest.mark.parametrize(
    ("prediction", "target", "same"),
    [
        ("    return size", "    return size", True),
        ("\n\n    return size\n", "return size", True),
        ("return  size", "return size", True),
        ("return sizes", "return size", False),
        ("return size\nreturn area", "return size", True),
        ("", "return size", False),
    ],
)
def test_exact_match_compares_words_of_the_first_line_with_content(prediction, target, same):
    assert exact_match(prediction, target) is same


def test_edit_similarity_is_100_for_the_same_line_and_falls_with_each_edit():
    lines = ["return width", "return with", "yield wit", "zzz"]
    scores = [edit_similarity(line, "    return width") for line in lines]
    assert scores[0] == 100
    assert scores == sorted(scores, reverse=True)
    assert edit_similarity("", "return width") == 0
    assert first_line("\n  a = 1  \nb") == "a = 1"


def test_divergence_is_that_of_the_two_distributions_and_has_a_direction():
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 50, generator=generator)
    expected = torch.nn.functional.kl_div(
        q.double().log_softmax(-1), p.double().log_softmax(-1), log_target=True, reduction="sum"
    )
    assert next_token_kl(p, q) == pytest.approx(float(expected), rel=1e-12)
    assert next_token_kl(p, q) != pytest.approx(next_token_kl(q, p), rel=1e-3)


def test_divergence_of_logits_that_differ_by_a_constant_is_nothing_and_never_negative():
    logits = torch.randn(5_000, generator=torch.Generator().manual_seed(1))
    assert 0 <= next_token_kl(logits, logits + 3.0) < 1e-12
    assert next_token_kl(logits, logits) == 0


def test_divergence_stands_tokens_that_are_ruled_out_and_shows_what_is_no_number():
    logits = torch.tensor([1.0, 2.0, -math.inf])
    assert next_token_kl(logits, torch.tensor([1.0, 2.0, -50.0])) == pytest.approx(0, abs=1e-12)
    assert math.isinf(next_token_kl(torch.tensor([1.0, 2.0, 0.0]), logits))
    assert math.isnan(next_token_kl(logits, torch.full((3,), math.nan)))


@pytest.mark.parametrize(
    ("line", "word", "uses"),
    [
        ("return old_name(x)", "old_name", True),
        ("return old_name2(x)", "old_name", False),
        ("return my_old_name(x)", "old_name", False),
        ("timeout = 300", "300", True),
        ("timeout = 3000", "300", False),
        ("timeout = 1.300", "300", False),
        ("items.append(x)", "items.append", True),
        ("items_append(x)", "items.append", False),
        ("mode = 'fast'", "fast", True),
        ("x -= 1", "-=", True),
        ("anything", "", False),
    ],
)
def test_an_echo_is_a_whole_name_or_value(line: str, word: str, uses: bool):
    assert has_stale_echo(line, "pass", [word]) is uses


def test_what_full_recompute_says_too_is_no_echo():
    assert not has_stale_echo("return old", "print(old)", ["old"])
    assert has_stale_echo("return old + older", "print(old)", ["old", "older"])
    assert not has_stale_echo("return old", "pass", [])


def test_cosines_are_1_for_the_same_cache_and_less_for_one_changed_layer():
    generator = torch.Generator().manual_seed(0)
    states = [tuple(torch.randn(2, 2, 8, 4, generator=generator)) for _ in range(3)]
    other = [(keys.clone(), values.clone()) for keys, values in states]
    other[1][0][:, 3] *= -1
    keys, values = layer_cosines(states, other, range(8))
    assert values == pytest.approx([1.0] * 3)
    assert keys[0] == pytest.approx(1) == keys[2]
    assert keys[1] == pytest.approx((7 - 1) / 8)
    assert layer_cosines(states, other, [3])[0][1] == pytest.approx(-1)
