"""Tokenized texts that follow edits: always the ids from scratch, at the cost of the edit."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_cli.prompt import incremental
from pie_cli.prompt.incremental import SEGMENT_CHARS, TokenizedText
from pie_cli.prompt.tokenizer import TextTokenizer
from tests.prompt.kinds import CONTROL, PIECES, PROVEN, edited, sources, tokenizer_of

KINDS = (*PROVEN, "sentencepiece")
EXACT = "the ids are those of tokenizing from scratch"


def check(tokenizer: TextTokenizer, tokenized: TokenizedText, text: str) -> None:
    """Compare with tokenizing from scratch, and look at what the next edit relies on."""
    assert tokenized.text == text
    assert tokenized.token_ids == tokenizer.encode(text), EXACT
    assert (tokenized.offsets[0], tokenized.counts[0]) == (0, 0)
    assert (tokenized.offsets[-1], tokenized.counts[-1]) == (len(text), len(tokenized.token_ids))
    assert tokenized.offsets == sorted(set(tokenized.offsets))
    assert len(tokenized.offsets) <= 2 + 2 * len(text) // SEGMENT_CHARS
    assert all(tokenizer._cuts.at(text, offset) for offset in tokenized.offsets)


def follow(tokenizer: TextTokenizer, versions: list[str]) -> TokenizedText:
    tokenized = None
    for text in versions:
        tokenized = tokenizer.retokenize(tokenized, text)
        check(tokenizer, tokenized, text)
    assert tokenized is not None
    return tokenized


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(
    seed=st.integers(0, 99),
    at=st.integers(0, 400),
    gone=st.integers(0, 30),
    put=st.lists(st.sampled_from([*PIECES, ""]), max_size=4).map("".join),
)
def test_an_edit_anywhere_in_awkward_text(
    kind: str, seed: int, at: int, gone: int, put: str
) -> None:
    """Newline runs, blanks, CRLF, digits, apostrophes, accents, surrogates, control tokens."""
    text = "".join(random.Random(seed).choices([*PIECES, "self", ".x", "\n    "], k=300))
    follow(tokenizer_of(kind), [text, text[:at] + put + text[at + gone :]])


@pytest.mark.parametrize("kind", KINDS)
def test_many_edits_of_real_files(kind: str) -> None:
    rng = random.Random(kind)
    for text in rng.sample(sources(), 3):
        versions = [text]
        for _ in range(6):
            versions.append(edited(rng, versions[-1]))
        follow(tokenizer_of(kind), [*versions, versions[0]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("token", CONTROL)
def test_a_control_token_that_an_edit_completes_or_breaks_stays_text(kind: str, token: str) -> None:
    tokenizer = tokenizer_of(kind)
    text = sources()[0][:3_000] + token + sources()[1][:3_000]
    half = len(token) // 2
    torn = text.replace(token, token[:half] + token[half + 1 :])
    tokenized = follow(tokenizer, [torn, text, torn, text])
    assert tokenizer.token_id(token) not in tokenized.token_ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "versions",
    [
        ["", "", "a", ""],
        ["a", "ab", "b", ""],
        ["\n", "\n\n", "\n\n \n", " \n"],
        ["a" * 5_000, "a" * 2_500 + "\n" + "a" * 2_500, "a" * 4_999],
        [" " * 3_000, " " * 3_001, " " * 1_500 + "\n" + " " * 1_500],
        ["\n" * 3_000 + "x", "\n" * 3_001 + "x", "\n" * 3_000],
        ["1" * 2_999, "1" * 3_000, "2" + "1" * 3_000],
        ["x = 1\r\n" * 500, "x = 1\n" * 500, "x = 1\r" * 500],
    ],
)
def test_the_ends_of_what_texts_can_be(kind: str, versions: list[str]) -> None:
    follow(tokenizer_of(kind), versions)


@pytest.mark.parametrize("kind", PROVEN)
def test_one_edit_tokenizes_little_however_long_the_file(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    text = "".join(sources()[:12])
    for whole in (text, text.replace("\n", ";")):
        first = tokenizer.tokenize(whole)
        for at in (0, len(whole) // 2, len(whole)):
            after = tokenizer.retokenize(first, whole[:at] + "return size" + whole[at:])
            assert after.encoded_chars < 4 * SEGMENT_CHARS
            assert after.token_ids == tokenizer.encode(after.text), EXACT


@pytest.mark.parametrize("kind", PROVEN)
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("position", "place"),
        lambda text: "import os\n" + text[: len(text) // 2] + text[len(text) // 2 + 99 :] + "\nx\n",
        lambda text: text[700:] + text[:30],
    ],
    ids=["rename", "three places", "moved window"],
)
def test_several_edits_tokenize_what_they_touch(kind: str, change: Callable[[str], str]) -> None:
    tokenizer = tokenizer_of(kind)
    text = "".join(sources()[:20])
    tokenized = follow(tokenizer, [text, change(text)])
    assert tokenized.encoded_chars < len(text) / 2


def test_without_cuts_everything_is_tokenized() -> None:
    text = sources()[0]
    tokenized = follow(tokenizer_of("sentencepiece"), [text, text + "x"])
    assert tokenized.encoded_chars == len(text) + 1


def test_an_equal_text_costs_nothing_and_nothing_given_is_changed() -> None:
    tokenizer = tokenizer_of("pie-nano")
    text = sources()[0]
    first = tokenizer.tokenize(text)
    kept = list(first.token_ids), list(first.offsets), list(first.counts)
    assert tokenizer.retokenize(first, "".join(text)) is first
    tokenizer.retokenize(first, edited(random.Random(0), text))
    assert (first.token_ids, first.offsets, first.counts) == kept


def test_segments_stay_few_over_many_edits() -> None:
    """Growing by single letters, then falling to pieces: `check` counts them each time."""
    tokenizer = tokenizer_of("gpt-2")
    rng = random.Random(5)
    text = sources()[3]
    versions = [text[:at] for at in range(len(text) - 400, len(text))]
    for _ in range(200):
        at = rng.randint(0, len(text))
        text = text[:at] + text[at + 100 :]
        versions.append(text)
    follow(tokenizer, versions)


def test_that_cuts_need_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: with cuts anywhere, the ids of an edited text differ."""
    monkeypatch.setattr(incremental.Cuts, "at", lambda *_: True)
    text = sources()[0]
    with pytest.raises(AssertionError, match=EXACT):
        follow(TextTokenizer(tokenizer_of("gpt-2")._tokenizer), [text, text + "x", "y" + text])


@pytest.mark.shared
@pytest.mark.parametrize("kind", KINDS)
def test_random_edits_of_other_peoples_files(kind: str, shared_texts: list[str]) -> None:
    rng = random.Random(kind)
    for text in rng.sample(shared_texts, 6):
        follow(tokenizer_of(kind), [text, edited(rng, text), edited(rng, text)])
