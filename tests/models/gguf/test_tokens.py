"""Tokenizers of GGUF files give llama.cpp's ids, and those of the tokenizers they came from."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Tokenizer

from pie_cli.errors import ModelError
from pie_cli.models.gguf import sentencepiece as rule
from pie_cli.models.gguf import tokens as tokens_module
from pie_cli.models.gguf.header import read_header
from pie_cli.models.gguf.model import Facts
from pie_cli.models.gguf.pretokenizers import SPLITTINGS
from pie_cli.models.gguf.tokens import TokenizerOfFile, tokenizer_of
from pie_cli.models.loading import load
from pie_cli.prompt.tokenizer import TextTokenizer
from tests.models.gguf.record import RECORDED
from tests.models.gguf.writing import (
    CONTROL,
    MODELS,
    NORMAL,
    USER_DEFINED,
    build,
    byte_level,
    raw_byte_level,
    sentencepiece,
    write_model,
    write_vocabulary,
)
from tests.prompt.kinds import PIECES, PRE_TOKENIZERS, edited, original, sources

LLAMA_CPP = json.loads(RECORDED.read_text())
NAMES = {
    "gpt-2": "gpt-2",
    "llama-3": "dbrx",
    "qwen2.5": "qwen2",
    "deepseek-coder": "deepseek-coder",
    "deepseek-v3": "deepseek-v3",
    "starcoder2": "starcoder",
}
"""The kinds of tests/prompt, by the names that a file gives them."""


def read(path: Path, vocabulary: Callable[[gguf.GGUFWriter], None]) -> TokenizerOfFile:
    write_vocabulary(path / "vocabulary.gguf", vocabulary)
    return tokenizer_of(Facts(read_header(path / "vocabulary.gguf")))


def ids_of(found: TokenizerOfFile, text: str) -> list[int]:
    found.tokenizer.encode_special_tokens = True
    ids: list[int] = found.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("name", [None, *SPLITTINGS], ids=str)
def test_byte_level_ids_are_llama_cpps(name: str | None, tmp_path: Path):
    recorded = LLAMA_CPP["byte_level"][name or ""]
    if isinstance(recorded, str):
        recorded = LLAMA_CPP["byte_level"][recorded]
    found = read(tmp_path, raw_byte_level(LLAMA_CPP["tokens"], LLAMA_CPP["merges"], name))
    assert [ids_of(found, text) for text in LLAMA_CPP["texts"]] == recorded


def test_the_recorded_ids_tell_the_splittings_apart():
    """Negative control: each splitting is recorded with other ids than the others."""
    groups: dict[Any, list[str | None]] = {}
    for name in (None, *SPLITTINGS):
        recorded = LLAMA_CPP["byte_level"][name or ""]
        if isinstance(recorded, str):
            continue
        groups.setdefault(json.dumps(recorded), []).append(name)
    splittings = {(one.regexes, one.whole_first) for one in SPLITTINGS.values()}
    assert len(groups) == len(splittings)


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_ids_are_llama_cpps(prefix: bool, tmp_path: Path):
    vocabulary = sentencepiece(LLAMA_CPP["scores"], space_prefix=prefix)
    found = read(tmp_path, vocabulary)
    recorded = LLAMA_CPP["sentencepiece"][str(prefix)]
    assert [ids_of(found, text) for text in LLAMA_CPP["texts"]] == recorded


def texts() -> list[str]:
    rng = random.Random(3)
    real = [source[:3_000] for source in sources()[::6]]
    return [
        *real,
        *(edited(rng, source) for source in real),
        *("".join(rng.choices(PIECES, k=40)) for _ in range(60)),
    ]


@pytest.mark.parametrize("kind", PRE_TOKENIZERS)
def test_a_byte_level_tokenizer_is_the_one_that_it_was_made_from(kind: str, tmp_path: Path):
    source = original(kind)
    if kind == "qwen2.5":
        # llama.cpp does not normalise; text that is normal already gives equal ids.
        state = json.loads(source.to_str())
        source = Tokenizer.from_str(json.dumps({**state, "normalizer": None}))
    expected = TextTokenizer(source)
    found = TextTokenizer(read(tmp_path, byte_level(source, NAMES[kind])).tokenizer)
    # The models' own regexes ignore case, and so take ſ for an s; llama.cpp's do not.
    for text in (text.replace("ſ", "s") for text in texts()):
        assert found.encode(text) == expected.encode(text)
        ids = found.encode(text)
        assert found.decode(ids) == expected.decode(ids)


@pytest.mark.parametrize("kind", PRE_TOKENIZERS)
def test_cuts_are_proved_for_what_a_file_names(kind: str, tmp_path: Path):
    """An edit can be tokenized around it as often as with the model's own tokenizer."""
    found = TextTokenizer(read(tmp_path, byte_level(original(kind), NAMES[kind])).tokenizer)
    theirs = TextTokenizer(original(kind))
    text = sources()[0]
    cuts, expected = (
        [one._cuts.at(text, place) for place in range(len(text))] for one in (found, theirs)
    )
    assert sum(cuts) >= sum(expected) > len(text) // 20


def by_hand(text: str, ids: Mapping[str, int], scores: Sequence[float]) -> list[str]:
    """Join neighbours one pair at a time: the best score, the leftmost of several."""
    pieces = list(text)
    while True:
        joined = [
            (-scores[ids[left + right]], place)
            for place, (left, right) in enumerate(pairwise(pieces))
            if left + right in ids
        ]
        if not joined:
            return pieces
        _, place = min(joined)
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]


def scored(seed: int) -> dict[str, float]:
    """Make a vocabulary as trained ones are: each token made of two earlier ones, worse by rank."""
    rng = random.Random(seed)
    chosen = dict.fromkeys("abcdef\u2581\n-", 0.0)
    while len(chosen) < 120:
        piece = rng.choice(list(chosen)) + rng.choice(list(chosen))
        if len(piece) < 8:
            chosen.setdefault(piece, 0.0)
    return {piece: float(-rank) for rank, piece in enumerate(chosen)}


@pytest.mark.parametrize("seed", range(4))
def test_the_rule_is_followed_step_by_step(seed: int):
    scores = scored(seed)
    ids = {piece: index for index, piece in enumerate(scores)}
    ranks = list(scores.values())
    rng = random.Random(seed)
    for _ in range(200):
        text = "".join(rng.choices("abcdef\u2581\n-", k=rng.randint(1, 30)))
        assert rule.tokens_of(text, ids, ranks) == [
            ids[piece] for piece in by_hand(text, ids, ranks)
        ]


@pytest.mark.parametrize("prefix", [True, False])
def test_a_sentencepiece_tokenizer_joins_by_score(prefix: bool, tmp_path: Path):
    scores = scored(1)
    found = read(tmp_path, sentencepiece(scores, space_prefix=prefix))
    ids = {piece: 259 + index for index, piece in enumerate(scores)}
    ranks = [0.0] * 259 + list(scores.values())
    rng = random.Random(2)
    for _ in range(300):
        text = "".join(rng.choices("abcdef \n-", k=rng.randint(1, 30)))
        spelled = ("\u2581" if prefix else "") + text.replace(" ", "\u2581")
        assert ids_of(found, text) == [ids[piece] for piece in by_hand(spelled, ids, ranks)]
        assert found.tokenizer.decode(ids_of(found, text)) == text
    # What is in no token becomes bytes, and comes back.
    assert found.tokenizer.decode(ids_of(found, "a é漢 b")) == "a é漢 b"


def test_a_vocabulary_that_ranked_pairs_do_not_follow_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The check does find a difference: here the pairs are ranked the wrong way round."""
    real = tokens_module.merges_of
    monkeypatch.setattr(tokens_module, "merges_of", lambda *args: real(*args)[::-1])
    with pytest.raises(ModelError, match="cannot be followed exactly"):
        read(tmp_path, sentencepiece(scored(1)))


@pytest.mark.parametrize(
    ("vocabulary", "cause"),
    [
        (raw_byte_level(["a", "b", "ab"], ["a b"], "moonshine"), "splits text as 'moonshine'"),
        (raw_byte_level(["a", "b", "ab"], ["a c"], "gpt-2"), "merge of what are no tokens"),
        (raw_byte_level(["a", "b", "ab"], ["ab"], "gpt-2"), "merge of what are no tokens"),
        (raw_byte_level(["a", "b", "a"], ["a b"], "gpt-2"), "token twice"),
        (raw_byte_level(["a", "b", "ab"], ["a b"], "gpt-2", [NORMAL]), "types of 1 of 3"),
        (lambda writer: writer.add_tokenizer_model("gpt2"), "lacks tokenizer.ggml.tokens"),
        (lambda writer: writer.add_string("x", "y"), "lacks tokenizer.ggml.model"),
    ],
)
def test_what_is_not_read_is_refused_in_one_line(vocabulary: Any, cause: str, tmp_path: Path):
    with pytest.raises(ModelError, match=cause) as caught:
        read(tmp_path, vocabulary)
    assert "\n" not in caught.value.cause


def test_other_kinds_of_tokenizers_are_named(tmp_path: Path):
    def vocabulary(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("rwkv")
        writer.add_token_list(["a", "b"])

    with pytest.raises(ModelError, match="kind 'rwkv'"):
        read(tmp_path, vocabulary)


def test_a_vocabulary_without_all_bytes_is_refused(tmp_path: Path):
    def vocabulary(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["<unk>", "a"])
        writer.add_token_scores([0.0, -1.0])

    with pytest.raises(ModelError, match="without a token for the byte"):
        read(tmp_path, vocabulary)


def special(**settings: Any) -> Callable[[gguf.GGUFWriter], None]:
    """Return a vocabulary with control tokens, and what the file says of them."""
    tokens = [
        *LLAMA_CPP["tokens"],
        "<|bos|>",
        "<|eos|>",
        "<PRE>",
        "<SUF>",
        "<MID>",
        "<|im_end|>",
        "\t\t",
    ]
    types = [NORMAL] * len(LLAMA_CPP["tokens"]) + [CONTROL] * 6 + [USER_DEFINED]
    first = len(LLAMA_CPP["tokens"])

    def write(writer: gguf.GGUFWriter) -> None:
        raw_byte_level(tokens, LLAMA_CPP["merges"], "gpt-2", types)(writer)
        writer.add_bos_token_id(first)
        writer.add_eos_token_id(first + 1)
        for key, value in settings.items():
            if isinstance(value, bool):
                writer.add_bool(f"tokenizer.ggml.{key}", value)
            else:
                writer.add_uint32(f"tokenizer.ggml.{key}", first + value)

    return write


FIRST = len(LLAMA_CPP["tokens"])


@pytest.mark.parametrize(
    ("settings", "bos"),
    [({}, None), ({"add_bos_token": False}, None), ({"add_bos_token": True}, "<|bos|>")],
)
def test_a_text_begins_with_a_token_only_where_the_file_says_so(
    settings: dict[str, bool], bos: str | None, tmp_path: Path
):
    assert read(tmp_path, special(**settings)).bos == bos


def test_a_sentencepiece_text_begins_with_a_token_unless_the_file_says_no(tmp_path: Path):
    assert read(tmp_path, sentencepiece(scored(1))).bos == "<s>"

    def without(writer: gguf.GGUFWriter) -> None:
        sentencepiece(scored(1))(writer)
        writer.add_add_bos_token(False)

    assert read(tmp_path, without).bos is None


def test_what_ends_a_text_is_collected_with_the_main_one_first(tmp_path: Path):
    found = read(tmp_path, special(fim_pad_token_id=4))
    assert found.eos_ids == (FIRST + 1, FIRST + 4, FIRST + 5)


@pytest.mark.parametrize(
    "names", [("fim_pre", "fim_suf", "fim_mid"), ("prefix", "suffix", "middle")]
)
def test_tokens_for_a_middle_are_read_under_both_names(names: tuple[str, str, str], tmp_path: Path):
    settings = {f"{name}_token_id": 2 + place for place, name in enumerate(names)}
    found = read(tmp_path, special(**settings))
    assert found.fim == {"prefix": FIRST + 2, "suffix": FIRST + 3, "middle": FIRST + 4}


def test_ids_beyond_the_vocabulary_are_left_out(tmp_path: Path):
    found = read(tmp_path, special(fim_pre_token_id=1_000, bos_token_id_=1))
    assert found.fim == {}


def test_control_tokens_in_a_text_stay_text_and_tokens_for_text_are_matched(tmp_path: Path):
    tokenizer = TextTokenizer(read(tmp_path, special()).tokenizer)
    ids = tokenizer.encode("a<|eos|>\t\tb")
    assert FIRST + 1 not in ids
    assert FIRST + 6 in ids
    assert tokenizer.decode(ids) == "a<|eos|>\t\tb"


def test_what_a_file_says_of_its_tokens_reaches_the_loaded_model(tmp_path: Path):
    path = tmp_path / "model.gguf"
    settings = {"fim_pre_token_id": 2, "fim_suf_token_id": 3, "fim_mid_token_id": 4}
    model = build("llama", MODELS["llama"][2], FIRST + 7)
    write_model(path, "llama", model, vocabulary=special(add_bos_token=True, **settings))
    loaded = load(str(path), "cpu", "float32")
    assert loaded.bos_id == FIRST
    assert loaded.eos_ids == {FIRST + 1, FIRST + 5}
    assert loaded.fim_ids == {"prefix": FIRST + 2, "suffix": FIRST + 3, "middle": FIRST + 4}
    write_model(path, "llama", model, vocabulary=special())
    loaded = load(str(path), "cpu", "float32")
    assert (loaded.bos_id, loaded.fim_ids) == (None, {})


def test_a_vocabulary_is_followed_or_refused(tmp_path: Path):
    """Scores that many tokens have in common: what is accepted gives the rule's ids."""
    accepted = 0
    for seed in range(1, 24, 2):
        rng = random.Random(seed)
        scores = dict.fromkeys("abcdef\u2581\n-", -1_000.0)
        while len(scores) < 100:
            piece = "".join(rng.choices("abcdef\u2581\n-", k=rng.randint(2, 6)))
            scores.setdefault(piece, float(-rng.randint(1, 30)))
        try:
            found = read(tmp_path, sentencepiece(scores, space_prefix=False))
        except ModelError:
            continue
        accepted += 1
        ids = {piece: 259 + index for index, piece in enumerate(scores)}
        ranks = [0.0] * 259 + list(scores.values())
        for _ in range(300):
            text = "".join(rng.choices("abcdef\u2581\n-", k=rng.randint(1, 40)))
            assert ids_of(found, text) == [ids[piece] for piece in by_hand(text, ids, ranks)]
    assert 0 < accepted < 12
