"""Tokens: ids equal tokenizing from scratch, text stays text, decoding gives the text back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, trainers
from tokenizers import pre_tokenizers as pre

from pie_cli.errors import ModelError
from pie_cli.prompt import tokenizer as tokens
from pie_cli.prompt.cuts import Cuts
from pie_cli.prompt.tokenizer import TextTokenizer
from tests.prompt.kinds import without_splits

CORPUS = [
    "def add(a, b):\n    return a + b\n\n\nclass Sum:\n\t'''é ü 漢字'''\n",
    "for x in range(10):\r\n        print(x)\r\n  \n \n\n",
    "import os\nimport sys\n\nif __name__ == '__main__':\n    sys.exit(main())\n",
] * 4
CONTROL = [
    "<|endoftext|>",
    "<|fim_middle|>",
    "<\uff5cfim\u2581hole\uff5c>",
    "<fim_prefix>",
    "<pad>",
]
SPLIT_LINES = pre.Split(Regex("[\r\n]"), "isolated")
BYTES = pre.ByteLevel(add_prefix_space=False, use_regex=False)
WORDS = pre.Split(Regex(r"\s?\p{L}+|\s?\p{N}|\s+|[^\s\p{L}\p{N}]+"), "isolated")
NANO = r"\n|[ ]+(?=[ ])|[ ]?[\p{L}_]+|[ ]?\d|[ ]?[^\s\p{L}_\d]+|[^\S\n]+"
GPT2 = pre.ByteLevel(add_prefix_space=False, use_regex=True)


def trained(pre_tokenizer: Any, *, special: bool = True, corpus: list[str] = CORPUS) -> Tokenizer:
    """Train a byte-level tokenizer; its control tokens need not be flagged as special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens([AddedToken(c, special=special, normalized=False) for c in CONTROL])
    return tokenizer


def like_llama() -> Tokenizer:
    """Train a tokenizer of the SentencePiece kind: no splits, a blank in front, byte fallback."""
    tokenizer = without_splits(models.BPE(byte_fallback=True, fuse_unk=True))
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        show_progress=False,
        special_tokens=["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz\u2581\n"),
    )
    tokenizer.train_from_iterator([line for text in CORPUS for line in text.split(" ")], trainer)
    return tokenizer


BY_LINE = {
    "lines, words": trained(pre.Sequence([SPLIT_LINES, WORDS, BYTES])),
    "lines, gpt-2": trained(pre.Sequence([SPLIT_LINES, GPT2])),
    "lines, prefix blanks": trained(
        pre.Sequence([SPLIT_LINES, pre.ByteLevel(add_prefix_space=True)])
    ),
    "newline as a string": trained(
        pre.Sequence([pre.Split("\n", "isolated"), pre.Digits(individual_digits=True), GPT2])
    ),
    "one regex": trained(pre.Sequence([pre.Split(Regex(NANO), "isolated"), BYTES])),
    "nested": trained(pre.Sequence([pre.Sequence([SPLIT_LINES, WORDS]), BYTES])),
}
WHOLE = {
    "gpt-2": trained(GPT2),
    "words over lines": trained(pre.Sequence([WORDS, BYTES])),
    "removed newlines": trained(pre.Sequence([pre.Split("\n", "merged_with_next"), BYTES])),
    "split in second place": trained(pre.Sequence([WORDS, SPLIT_LINES, BYTES])),
}
texts = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [*CONTROL, "def f():", "\n", "\r\n", "\r", "    ", "\t", " ", "x", "é", "漢", "\f", "0"]
        ),
        max_size=30,
    ).map("".join),
)


def from_scratch(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokenize by a fresh copy without any added token: control tokens can only be text."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = []
    ids: list[int] = Tokenizer.from_str(json.dumps(state)).encode(text).ids
    return ids


@pytest.mark.parametrize("name", BY_LINE)
@given(text=texts)
def test_line_by_line_gives_the_ids_of_the_whole_text(name: str, text: str) -> None:
    tokenizer = TextTokenizer(BY_LINE[name])
    assert tokenizer.by_line
    assert tokenizer.encode(text) == from_scratch(BY_LINE[name], text)
    assert tokenizer.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize("name", WHOLE)
@given(text=texts)
def test_other_tokenizers_work_on_the_whole_text(name: str, text: str) -> None:
    tokenizer = TextTokenizer(WHOLE[name])
    assert not tokenizer.by_line
    assert tokenizer.encode(text) == from_scratch(WHOLE[name], text)


def test_the_proof_is_needed() -> None:
    """Negative control: for a tokenizer without the split, lines tokenized alone differ."""
    text = "if x:\n\n    y\n"
    tokenizer = TextTokenizer(WHOLE["gpt-2"])
    by_line = [i for line in text.splitlines(keepends=True) for i in tokenizer.encode(line)]
    assert by_line != tokenizer.encode(text)


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (AddedToken("  ", normalized=False), True),
        (AddedToken("a\nb", normalized=False), False),
        (AddedToken("<x>", special=True, lstrip=True), True),
        (AddedToken("xyz", lstrip=True), False),
        (AddedToken("xyz", rstrip=True), False),
        (AddedToken("xyz", single_word=True), False),
    ],
)
def test_added_tokens_that_reach_over_lines_forbid_tokenizing_by_line(
    added: AddedToken, expected: bool
) -> None:
    tokenizer = trained(pre.Sequence([SPLIT_LINES, BYTES]))
    tokenizer.add_tokens([added])
    wrapped = TextTokenizer(tokenizer)
    assert wrapped.by_line is expected
    text = "a\n  \n  a\nb xyz\n xyz \n"
    tokenizer.encode_special_tokens = True
    assert wrapped.encode(text) == tokenizer.encode(text).ids


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel"}},
        {"model": {"type": "BPE", "dropout": 0.1}},
    ],
)
def test_parts_that_break_the_proof(change: dict[str, Any]) -> None:
    state = json.loads(BY_LINE["lines, words"].to_str())
    assert Cuts(state).after("\n")
    assert not Cuts(state | change).after("\n")
    assert Cuts(state | {"normalizer": {"type": "Sequence", "normalizers": []}}).after("\n")
    for step in ({"type": "Metaspace"}, {"type": "Unknown"}):
        steps = [*state["pre_tokenizer"]["pretokenizers"], step]
        last = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
        assert not Cuts(state | last).after("\n")


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        ("\n", True),
        (r"\n", True),
        ("[\r\n]", True),
        (r"[\r\n]", True),
        (r"\r|\n", True),
        (NANO, True),
        (r"[A-Za-z]+|\n|[^\s]", True),
        (r"\n+", False),
        (r"[\r\n]+", False),
        (r"[\r]", False),
        (r"\n|\s+", False),
        (r"\n| ?\p{L}+|\s", True),
        (r"\n|[^\S]+", False),
        (r"\n|[^\\n]+", False),
        (r"\n|[^a]+", False),
        (r"\n|\P{L}+", False),
        (r"\n|\p{Cc}+", False),
        (r"\n|.+", False),
        (r"\n|\d*", False),
        (r"\n|\d(?=\n[ ])", False),
        (r"\n|(?<=\n)\d", False),
        (r"\n|^\d", False),
        (r"\n\d", False),
        (NANO.replace(r"[^\S\n]", r"\s"), False),
        ("", False),
    ],
)
def test_only_regexes_that_keep_newlines_apart_are_taken(regex: str, expected: bool) -> None:
    state = json.loads(BY_LINE["lines, words"].to_str())
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    assert Cuts(state | {"pre_tokenizer": split}).after("\n") is expected
    merged = split | {"behavior": "MergedWithNext"}
    assert not Cuts(state | {"pre_tokenizer": merged}).after("\n")
    assert not Cuts(state | {"pre_tokenizer": split | {"invert": True}}).after("\n")


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("control", CONTROL)
def test_control_tokens_in_a_text_stay_text(special: bool, control: str) -> None:
    original = trained(pre.Sequence([SPLIT_LINES, WORDS, BYTES]), special=special)
    tokenizer = TextTokenizer(original)
    ids = tokenizer.encode(f"x = '{control}'\n")
    assert tokenizer.token_id(control) == original.token_to_id(control) is not None
    assert tokenizer.token_id(control) not in ids
    assert tokenizer.decode(ids) == f"x = '{control}'\n"


def test_the_tokenizer_of_the_caller_is_left_as_it_is() -> None:
    original = trained(GPT2)
    original.enable_truncation(3)
    before = original.to_str()
    tokenizer = TextTokenizer(original)
    assert len(tokenizer.encode("one two three four five")) > 3
    assert original.to_str() == before
    assert not original.encode_special_tokens
    assert original.encode(CONTROL[0]).ids == [original.token_to_id(CONTROL[0])]


def test_ordinary_added_tokens_are_matched_and_named_control_tokens_are_not() -> None:
    original = trained(GPT2)
    original.add_tokens(["~~~~", "[[HOLE]]"])
    text = "~~~~[[HOLE]]"
    matched = [original.token_to_id("~~~~"), original.token_to_id("[[HOLE]]")]
    assert TextTokenizer(original).encode(text) == matched
    named = TextTokenizer(original, control=["[[HOLE]]"])
    assert named.encode(text)[0] == matched[0]
    assert matched[1] not in named.encode(text)


@given(text=texts)
def test_decoding_gives_the_text_back(text: str) -> None:
    tokenizer = TextTokenizer(BY_LINE["lines, words"])
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_continuation(ids) == text


@given(
    st.text(alphabet="abc \né", max_size=20).map(lambda text: "x" + text),
    st.integers(1, 10),
)
def test_a_continuation_keeps_the_blanks_that_a_whole_text_loses(text: str, at: int) -> None:
    tokenizer = TextTokenizer(like_llama_tokenizer)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    whole = "".join(tokenizer.decode_continuation([i]) for i in ids)
    if "é" not in text:
        assert whole == " " + text
    assert tokenizer.decode_continuation(ids) == " " + text


like_llama_tokenizer = like_llama()


def test_a_blank_in_front_of_a_continuation_is_kept() -> None:
    tokenizer = TextTokenizer(like_llama_tokenizer)
    ids = tokenizer.encode("return")
    assert tokenizer.decode(ids) == "return"
    assert tokenizer.decode_continuation(ids) == " return"
    assert not tokenizer.by_line


def test_half_a_character_decodes_to_a_replacement_character() -> None:
    tokenizer = TextTokenizer(trained(BYTES, corpus=["x"]))
    ids = tokenizer.encode("é")
    assert len(ids) == 2
    assert tokenizer.decode(ids[:1]) == "\ufffd"
    assert tokenizer.decode_continuation(ids[:1]) == "\ufffd"


def test_control_tokens_in_a_prediction_are_left_out_or_spelled() -> None:
    tokenizer = TextTokenizer(trained(GPT2))
    end = tokenizer.token_id(CONTROL[0])
    assert end is not None
    ids = [*tokenizer.encode("x"), end]
    assert tokenizer.decode_continuation(ids) == tokenizer.decode(ids) == "x"
    assert tokenizer.decode(ids, skip_special=False) == "x" + CONTROL[0]


def test_lone_surrogates_are_read_as_replacement_characters() -> None:
    for original in (BY_LINE["lines, words"], WHOLE["gpt-2"]):
        tokenizer = TextTokenizer(original)
        assert "\ufffd" in tokenizer.decode(tokenizer.encode("a\udc80b\n"))


def test_long_lines_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_LINE_CHARS", 10)
    tokenizer = TextTokenizer(BY_LINE["lines, words"])
    text = "short\n" * 3 + "x" * 11 + "\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer._remembered.cache_info().currsize == 1


def test_a_python_only_tokenizer_is_refused() -> None:
    class Slow:
        """Stands for transformers' Python tokenizers: no backend."""

    with pytest.raises(ModelError, match="Slow") as caught:
        TextTokenizer(Slow())  # type: ignore[arg-type]
    assert "tokenizer.json" in caught.value.remedy


def test_a_transformers_tokenizer_is_taken_by_its_backend() -> None:
    class Fast:
        """The one attribute of a fast transformers tokenizer that is used."""

        backend_tokenizer = WHOLE["gpt-2"]

    tokenizer = TextTokenizer(Fast())
    assert tokenizer.encode("a b") == from_scratch(WHOLE["gpt-2"], "a b")
    assert tokenizer.vocab_size == WHOLE["gpt-2"].get_vocab_size()
