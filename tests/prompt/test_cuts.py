"""Cuts: whatever stands on either side, the parts tokenized alone give the whole."""

import json
import random
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, normalizers
from tokenizers import pre_tokenizers as pre

from pie_cli.prompt import cuts as cuts_module
from pie_cli.prompt.cuts import Cuts
from pie_cli.prompt.patterns import Pattern, parse
from tests.prompt.kinds import PIECES, PROVEN, edited, original, sources, tokenizer_of

texts = st.lists(st.sampled_from([*PIECES, "def f", "self.", "x1", "=", "\n"]), max_size=30).map(
    "".join
)
classes = st.sampled_from(["a", "b", "1", " ", "[ab]", "[^a]", r"\s", r"\S", r"\d", "[^ab ]"])


def joined(tree: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.lists(tree, min_size=2, max_size=3).map("".join),
        st.lists(tree, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(tree, st.sampled_from(["?", "*", "+", "{1,2}", "{2}"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        st.tuples(tree, st.sampled_from(["(?=", "(?!"]), classes).map(
            lambda parts: f"{parts[0]}{parts[1]}{parts[2]})"
        ),
    )


regexes = st.recursive(classes, joined, max_leaves=6)


def of(*steps: Any) -> Cuts:
    """Return the cuts of a tokenizer with these pre-tokenizers."""
    return Cuts(state(*steps))


def state(*steps: Any) -> dict[str, Any]:
    tokenizer = Tokenizer(original("gpt-2").model)
    tokenizer.pre_tokenizer = pre.Sequence(list(steps))
    loaded: dict[str, Any] = json.loads(tokenizer.to_str())
    return loaded


def pieces(step: Any, text: str) -> list[str]:
    return [piece for piece, _ in step.pre_tokenize_str(text)]


def split(regex: str) -> Any:
    return pre.Split(Regex(regex), "isolated")


def places(cuts: Cuts, text: str) -> Iterator[int]:
    return (place for place in range(1, len(text)) if cuts.at(text, place))


@settings(max_examples=300)
@given(regex=regexes, second=regexes, text=st.text(alphabet="ab1 \n", max_size=14))
def test_any_regex_that_is_understood_splits_at_its_cuts(
    regex: str, second: str, text: str
) -> None:
    """Two random regexes in a row: the proof, not just the patterns that models have."""
    steps = pre.Sequence([split(regex), split(second)])
    cuts = of(split(regex), split(second))
    for place in places(cuts, text):
        assert pieces(steps, text) == pieces(steps, text[:place]) + pieces(steps, text[place:])


@pytest.mark.parametrize(
    ("forget", "regex", "text"),
    [("pairs", r"a+|\s", "xaa"), ("pairs", r"\s+(?!\S)|\s|\S", "  a"), ("single", "b", "aa")],
)
def test_every_part_of_the_proof_is_needed(
    monkeypatch: pytest.MonkeyPatch, forget: str, regex: str, text: str
) -> None:
    """Negative control: without the pairs, or with every class single, a cut is no cut."""
    pattern = parse(regex)
    assert pattern is not None
    wrong = {"pairs": {"pairs": frozenset()}, "single": {"single": frozenset({r"\S", "a"})}}[forget]
    broken = Pattern(**(vars(pattern) | wrong))
    monkeypatch.setattr(cuts_module, "parse", lambda _: broken)
    cuts = of(split(regex))
    monkeypatch.undo()
    place = len(text) - 1
    assert not of(split(regex)).at(text, place)
    assert cuts.at(text, place)
    whole = pieces(split(regex), text)
    assert whole != pieces(split(regex), text[:place]) + pieces(split(regex), text[place:])


@pytest.mark.parametrize("kind", PROVEN)
@settings(deadline=None)
@given(text=texts)
def test_the_parts_beside_a_cut_give_the_ids_of_the_whole(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    cuts = tokenizer._cuts
    whole = tokenizer.encode(text)
    assert [i for part in parts_at(cuts, text) for i in tokenizer.encode(part)] == whole


def parts_at(cuts: Cuts, text: str) -> list[str]:
    return [text[i:j] for i, j in pairwise([0, *places(cuts, text), len(text)])]


@pytest.mark.parametrize("kind", PROVEN)
def test_code_has_cuts_every_few_characters(kind: str) -> None:
    cuts = tokenizer_of(kind)._cuts
    for text in sources()[:5]:
        assert max(map(len, parts_at(cuts, text))) < 100
        assert len(list(places(cuts, text))) > len(text) / 12


def test_a_tokenizer_without_splits_has_no_cuts() -> None:
    cuts = tokenizer_of("sentencepiece")._cuts
    text = sources()[0]
    assert not list(places(cuts, text))
    assert cuts.first(text, 1, len(text)) is None
    assert cuts.at(text, 0)
    assert cuts.at(text, len(text))


@pytest.mark.parametrize(
    "steps",
    [
        [pre.Metaspace()],
        [pre.ByteLevel(add_prefix_space=True)],
        [pre.Split("\n", "merged_with_next")],
        [pre.Split("\n", "removed")],
        [pre.Split(Regex(r"\S+"), "isolated", invert=True)],
        [split(r"\b"), split(r"\s|\S")],
        [split("a"), pre.Metaspace()],
        [pre.Whitespace()],
    ],
)
def test_what_is_not_proved_has_no_cuts(steps: list[Any]) -> None:
    assert not list(places(of(*steps), "a b\na1\n\n"))


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": json.loads(normalizers.Lowercase().__getstate__())},
        {"normalizer": {"type": "NFKC"}},
        {"model": {"type": "BPE", "dropout": 0.1}},
        {
            "added_tokens": [
                {
                    "content": "z",
                    "lstrip": True,
                    "rstrip": False,
                    "single_word": False,
                    "special": False,
                }
            ]
        },
    ],
)
def test_what_changes_the_text_or_looks_around_forbids_cuts(changes: dict[str, Any]) -> None:
    plain = state(split(r"\s|\S"))
    assert list(places(Cuts(plain), "a b")) == [1, 2]
    assert not list(places(Cuts(plain | changes), "a b"))


def test_no_cut_lies_in_the_spelling_of_an_added_token() -> None:
    tokenizer = Tokenizer.from_str(original("gpt-2").to_str())
    tokenizer.add_tokens([AddedToken("b =", normalized=False)])
    cuts = Cuts(json.loads(tokenizer.to_str()))
    assert list(places(cuts, "a b =")) == [1]
    assert list(places(cuts, "b c =")) == [3]


def test_nfc_asks_for_ascii_on_both_sides_and_behind() -> None:
    cuts = tokenizer_of("qwen2.5")._cuts
    assert cuts.at("a (x", 1)
    assert not cuts.at("a \u0301", 1)
    assert not cuts.at("é (", 1)
    assert not cuts.at("a ", 1)


@pytest.mark.parametrize("seed", range(3))
def test_cuts_of_edited_code_are_cuts(seed: int) -> None:
    rng = random.Random(seed)
    for kind in PROVEN:
        tokenizer = tokenizer_of(kind)
        text = edited(rng, rng.choice(sources())[:4_000])
        parts = parts_at(tokenizer._cuts, text)
        ids = [i for part in tokenizer._encode_each(parts) for i in part]
        assert ids == tokenizer.encode(text)
