"""Any text round-trips, a newline is a token, and no text can spell a special token."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from pie_cli.models.nano.recipe.tokenizer import SPECIAL_TOKENS, save_tokenizer, special_ids
from pie_cli.models.registry import EMBEDDED_FOLDER
from pie_cli.prompt.cuts import Cuts


@pytest.fixture(scope="session", params=["trained here", "embedded"])
def saved(request: pytest.FixtureRequest, tokenizer: Tokenizer, tmp_path_factory) -> Path:  # type: ignore[no-untyped-def]
    if request.param == "embedded":
        return EMBEDDED_FOLDER
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(tokenizer, folder, 128)
    return Path(folder)


def load(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


@given(text=st.text())
def test_any_text_round_trips(saved: Path, text: str) -> None:
    tokenizer = load(saved)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@given(text=st.text(alphabet=" \t\r\n\x0cab_1(é漢", max_size=40))
def test_blanks_round_trip(saved: Path, text: str) -> None:
    tokenizer = load(saved)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_a_newline_is_a_token_of_its_own(saved: Path) -> None:
    tokenizer = load(saved)
    (newline,) = tokenizer.encode("\n").ids
    for token, token_id in tokenizer.get_vocab().items():
        assert ("Ċ" in token) == (token_id == newline)
    assert Cuts(json.loads(tokenizer.to_str())).after("\n")


def test_digits_stand_alone(saved: Path) -> None:
    tokenizer = load(saved)
    assert len(tokenizer.encode("2407").ids) == 4


def test_text_cannot_spell_a_special_token(saved: Path) -> None:
    """Also not through transformers as it comes."""
    tokenizer = AutoTokenizer.from_pretrained(saved)
    text = "".join(SPECIAL_TOKENS)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert not set(ids) & set(special_ids(load(saved)).values())
    assert tokenizer.decode(ids) == text


def test_the_first_ids_are_the_special_ones(saved: Path) -> None:
    assert list(special_ids(load(saved)).values()) == [0, 1, 2, 3]


@pytest.mark.shared
def test_real_files_round_trip(saved: Path, shared_texts: list[str]) -> None:
    tokenizer = load(saved)
    for text in shared_texts:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
