"""Token healing: what is left of a prompt is a beginning of whatever text it goes on to."""

import random

import pytest

from pie_cli.prompt.tokenizer import UNHEALED, heal
from tests.prompt.kinds import PROVEN, sources, tokenizer_of

KINDS = (*PROVEN, "sentencepiece")


def cuts(seed: int, count: int) -> list[tuple[str, str]]:
    """Cut real texts: within words, at the beginning of a line, behind its indentation."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        text = rng.choice(sources())
        cut = rng.randrange(1, len(text))
        if (where := rng.randrange(3)) > 0:
            cut = text.rfind("\n", 0, cut) + 1
            while where == 2 and text[cut : cut + 1] == " ":
                cut += 1
        found.append((text[max(0, cut - 400) : cut], text[cut : cut + 100]))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_begins_the_whole_text_as_well(kind: str) -> None:
    """The control: without healing many do not, half of them and more with most tokenizers."""
    tokenizer = tokenizer_of(kind)
    healed = unhealed = 0
    pairs = cuts(5, 120)
    for before, behind in pairs:
        ids, whole = tokenizer.encode(before), tokenizer.encode(before + behind)
        taken = heal(tokenizer, before, ids)
        left = ids[: len(ids) - len(taken.token_ids)]
        assert before.endswith(taken.text)
        assert list(taken.token_ids) == ids[len(left) :]
        assert b"".join(tokenizer.pieces(taken.token_ids)) == taken.text.encode()
        healed += whole[: len(left)] == left
        unhealed += whole[: len(ids)] == ids
    assert healed >= 0.97 * len(pairs)
    # A twelfth with SentencePiece; the texts are pie's own, so the share moves with them.
    assert healed - unhealed > 0.05 * len(pairs)


def test_nothing_is_taken_back_where_no_token_crosses_a_newline() -> None:
    tokenizer = tokenizer_of("pie-nano")
    for text in ("import os\n", "def f():\n\n\n", "    x = 1\r\n", ""):
        assert heal(tokenizer, text, tokenizer.encode(text)) == UNHEALED


def test_a_run_of_newlines_is_taken_back_where_it_could_grow() -> None:
    tokenizer = tokenizer_of("llama-3")
    text = "import os\n\n"
    taken = heal(tokenizer, text, tokenizer.encode(text))
    assert taken.text.strip("\n") == ""
    assert taken.text


def test_a_character_is_taken_back_whole_or_not_at_all() -> None:
    tokenizer = tokenizer_of("gpt-2")
    for text in ("x = '\U0001f600", "漢字", "# é", "가" * 30):
        taken = heal(tokenizer, text, tokenizer.encode(text))
        assert text.endswith(taken.text)
        assert "\ufffd" not in taken.text


def test_a_text_that_the_tokenizer_changes_is_left_alone() -> None:
    """It could not be spelled as the file has it."""
    tokenizer = tokenizer_of("qwen2.5")
    text = "e\u0301"
    assert heal(tokenizer, text, tokenizer.encode(text)) == UNHEALED
