"""The vocabulary as bytes: pieces make up the text, and no way to begin a text is left out."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pie_cli.prompt.tokenizer import TextTokenizer
from tests.prompt.kinds import CONTROL, PIECES, original, sources, tokenizer_of

KINDS = ("pie-nano", "gpt-2", "starcoder2", "sentencepiece")


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(text=st.lists(st.sampled_from(["x", *PIECES]), max_size=20).map("".join))
def test_the_pieces_of_a_text_make_it_up(kind: str, text: str) -> None:
    tokenizer = tokenizer_of(kind)
    ids = tokenizer.encode(text)
    whole = b"".join(tokenizer.pieces(ids)).decode("utf-8", "replace")
    assert whole == tokenizer.decode_continuation(ids, skip_special=False)


@pytest.mark.parametrize("kind", KINDS)
def test_every_piece_is_what_decoding_it_adds(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    for i in range(tokenizer.vocab_size):
        (piece,) = tokenizer.pieces([i])
        if piece:
            assert piece.decode("utf-8", "replace") == tokenizer.decode_continuation([i])


@pytest.mark.parametrize("kind", KINDS)
def test_the_ways_to_begin_are_all_found(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    pieces = dict(enumerate(tokenizer.pieces(range(tokenizer.vocab_size))))
    rng = random.Random(kind)
    text = rng.choice(sources())
    starts = (rng.randrange(len(text)) for _ in range(60))
    prefixes = [text[start : start + rng.choice([1, 2, 5, 12])].encode() for start in starts]
    for prefix in [*prefixes, b"", b"\xff", b"\xff\xff", b"\xc3", "é".encode(), b"\n\n    "]:
        found = tokenizer.tokens_starting_with(prefix)
        assert len(found) == len(set(found))
        assert set(found) == {
            i
            for i, piece in pieces.items()
            if piece and (piece.startswith(prefix) or prefix.startswith(piece))
        }


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_can_be_spelled_by_the_tokens_found_for_what_is_left(kind: str) -> None:
    """What token healing does: any choice among them leads to the text, or past it."""
    tokenizer = tokenizer_of(kind)
    rng = random.Random(kind)
    for text in ("    return self.text", "漢é\r\n\tx", "<|fim_middle|>"):
        left = text.encode()
        while left:
            (piece,) = tokenizer.pieces([rng.choice(tokenizer.tokens_starting_with(left))])
            assert piece.startswith(left) or left.startswith(piece)
            left = left[len(piece) :]


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_begin_nothing(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    control = {tokenizer.token_id(token) for token in (*CONTROL, "<unk>")} - {None}
    assert control
    assert not control & set(tokenizer.tokens_starting_with(""))
    assert not control & set(tokenizer.tokens_starting_with("<"))
    assert set(tokenizer.pieces([i for i in control if i is not None])) == {b""}


def test_ordinary_added_tokens_begin_a_text() -> None:
    tokenizer = TextTokenizer(original("starcoder2"))
    blanks = tokenizer.token_id(" " * 8)
    assert blanks in tokenizer.tokens_starting_with("   ")
    assert blanks in tokenizer.tokens_starting_with(" " * 9)
    assert blanks not in tokenizer.tokens_starting_with("x")
