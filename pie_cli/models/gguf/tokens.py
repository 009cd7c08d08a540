"""The tokenizer of a GGUF model, built from its metadata so that it gives llama.cpp's ids.

Two kinds are read: byte-level BPE ("gpt2"), whose way of splitting a text has a name, and
SentencePiece ("llama"), whose tokens have scores. As everywhere in pie, control tokens in a text
stay text; tokens that stand for text (runs of blanks, for instance) are matched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pie_cli.errors import ModelError
from pie_cli.models.gguf.model import Facts
from pie_cli.models.gguf.pretokenizers import SPLITTINGS, UNNAMED, Splitting
from pie_cli.models.gguf.sentencepiece import BLANK, merges_of, sample_texts, tokens_of

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4

_FIM_KEYS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "prefix": ("fim_pre", "prefix"),
        "suffix": ("fim_suf", "suffix"),
        "middle": ("fim_mid", "middle"),
        "pad": ("fim_pad",),
        "repository": ("fim_rep",),
        "file": ("fim_sep", "fsep"),
    }
)
"""Tokens for filling in a middle: their names here, and their keys, the newer one first."""

# Tokens that end a text by their looks, flagged or not, and control tokens of a middle.
_ENDS: Final = frozenset(
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <end_of_turn> <|endoftext|> </s> <|eom_id|>"
    " <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos>"
    " <｜end▁of▁sentence｜>".split()
)


@dataclass(frozen=True, eq=False)
class TokenizerOfFile:
    """A tokenizer, and what its file says of its tokens.

    Attributes:
        tokenizer: built.
        tokens: by id.
        bos: the token that a text begins with; None where it begins with none.
        eos_ids: tokens that end a text, the main one first.
        fim: ids of tokens for filling in a middle, by role; empty where the file names none.
    """

    tokenizer: Tokenizer
    tokens: Sequence[str]
    bos: str | None
    eos_ids: tuple[int, ...]
    fim: Mapping[str, int]


def tokenizer_of(facts: Facts) -> TokenizerOfFile:
    """Build a model's tokenizer.

    Raises:
        ModelError: of a kind that is not read, or damaged.
    """
    kind = facts.text("tokenizer.ggml.model")
    tokens = _tokens(facts)
    types = _types(facts, len(tokens))
    if kind == "gpt2":
        splitting = _splitting(facts)
        tokenizer = _byte_level(facts, tokens, splitting)
        begins = splitting.bos
    elif kind == "llama":
        tokenizer = _sentencepiece(facts, tokens, types)
        begins = True
    else:
        raise ModelError(
            f"{facts.path} has a tokenizer of the kind {kind!r}, which pie does not read",
            "give a model whose tokenizer is byte-level BPE or SentencePiece, or its safetensors",
        )
    _add_tokens(facts, tokenizer, tokens, types)
    bos_id = _id(facts, ("bos",), tokens)
    begins = facts.flag("tokenizer.ggml.add_bos_token", begins) and bos_id is not None
    fim = {role: _id(facts, names, tokens) for role, names in _FIM_KEYS.items()}
    return TokenizerOfFile(
        tokenizer,
        tokens,
        tokens[bos_id] if begins and bos_id is not None else None,
        _eos_ids(facts, tokens, types),
        {role: found for role, found in fim.items() if found is not None},
    )


def _tokens(facts: Facts) -> list[str]:
    tokens = facts.strings("tokenizer.ggml.tokens")
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    if not tokens or len(set(tokens)) != len(tokens):
        raise _damaged(facts, "a vocabulary with a token twice" if tokens else "no vocabulary")
    if any("\udc80" <= char <= "\udcff" for token in tokens for char in token):
        raise _damaged(facts, "a token that is not UTF-8")
    return tokens


def _types(facts: Facts, count: int) -> list[int]:
    if "tokenizer.ggml.token_type" not in facts:
        return [_NORMAL] * count
    types = facts.array("tokenizer.ggml.token_type")
    if len(types) < count:
        raise _damaged(facts, f"the types of {len(types):,} of {count:,} tokens")
    return [int(kind) for kind in types[:count].tolist()]


def _splitting(facts: Facts) -> Splitting:
    if "tokenizer.ggml.pre" not in facts:
        return UNNAMED
    name = facts.text("tokenizer.ggml.pre")
    if name not in SPLITTINGS:
        raise ModelError(
            f"{facts.path} has a tokenizer that splits text as {name!r}, which pie does not read",
            "give the model as safetensors",
        )
    return SPLITTINGS[name]


def _byte_level(facts: Facts, tokens: Sequence[str], splitting: Splitting) -> Tokenizer:
    ids = {token: index for index, token in enumerate(tokens)}
    merges: dict[tuple[str, str], None] = {}
    for merge in facts.strings("tokenizer.ggml.merges"):
        cut = merge.find(" ", 1)
        left, right = merge[:cut], merge[cut + 1 :]
        if cut < 0 or left not in ids or right not in ids or left + right not in ids:
            raise _damaged(facts, "a merge of what are no tokens")
        # The first of two equal ones counts, elsewhere it would be the last.
        merges.setdefault((left, right))
    tokenizer = Tokenizer(models.BPE(ids, list(merges), ignore_merges=splitting.whole_first))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(regex), "isolated") for regex in splitting.regexes),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentencepiece(facts: Facts, tokens: Sequence[str], types: Sequence[int]) -> Tokenizer:
    ids = {token: index for index, token in enumerate(tokens)}
    missing = [byte for byte in range(256) if f"<0x{byte:02X}>" not in ids]
    if missing:
        raise ModelError(
            f"{facts.path} has a vocabulary without a token for the byte {missing[0]}",
            "give a model whose tokenizer falls back to bytes",
        )
    scores = facts.array("tokenizer.ggml.scores")
    if len(scores) < len(tokens):
        raise _damaged(facts, f"the scores of {len(scores):,} of {len(tokens):,} tokens")
    scored = [float(score) for score in scores.tolist()]
    unknown = next(
        (token for token, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None
    )
    tokenizer = Tokenizer(
        models.BPE(
            ids, merges_of(ids, scored), unk_token=unknown, fuse_unk=True, byte_fallback=True
        )
    )
    _check(facts, tokenizer, ids, scored)
    blanks = normalizers.Replace(" ", BLANK)
    begins = facts.flag("tokenizer.ggml.add_space_prefix", True)
    steps = [normalizers.Prepend(BLANK), blanks] if begins else [blanks]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tail = [decoders.Strip(" ", 1, 0)] if begins else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), *tail]
    )
    return tokenizer


def _check(
    facts: Facts, tokenizer: Tokenizer, ids: Mapping[str, int], scores: Sequence[float]
) -> None:
    """Refuse a vocabulary that ranked pairs do not reproduce."""
    for text in sample_texts(ids, scores):
        expected: list[int] = []
        for found in tokens_of(text, ids, scores):
            bytes_of = found.encode() if isinstance(found, str) else b""
            expected += (
                [found] if isinstance(found, int) else [ids[f"<0x{b:02X}>"] for b in bytes_of]
            )
        if tokenizer.encode(text, add_special_tokens=False).ids != expected:
            raise ModelError(
                f"{facts.path} has a SentencePiece vocabulary that cannot be followed exactly",
                "give the model as safetensors, with its tokenizer.json",
            )


def _add_tokens(
    facts: Facts, tokenizer: Tokenizer, tokens: Sequence[str], types: Sequence[int]
) -> None:
    """Tell the tokenizer which tokens steer the model, and which are matched in a text."""
    # Phi-3's tokenizer takes blanks after its own tokens with them; only its name tells.
    strip = "phi3" in facts.text("general.name", "").lower().replace("-", "")
    control = [
        AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in {_CONTROL, _UNKNOWN} or (kind != _NORMAL and token in _ENDS)
    ]
    matched = [
        AddedToken(token, special=False, normalized=False, rstrip=strip)
        for token, kind in zip(tokens, types, strict=True)
        if kind == _USER_DEFINED and token not in _ENDS
    ]
    tokenizer.add_special_tokens(control)
    tokenizer.add_tokens(matched)


def _eos_ids(facts: Facts, tokens: Sequence[str], types: Sequence[int]) -> tuple[int, ...]:
    named = [_id(facts, (role,), tokens) for role in ("eos", "eot", "eom")]
    fill = [_id(facts, _FIM_KEYS[role], tokens) for role in ("pad", "repository", "file")]
    looks = [
        index for index, token in enumerate(tokens) if token in _ENDS and types[index] != _NORMAL
    ]
    found = (index for index in (*named, *fill, *looks) if index is not None)
    return tuple(dict.fromkeys(found))


def _id(facts: Facts, names: Sequence[str], tokens: Sequence[str]) -> int | None:
    """Return the id that a file gives a token under any of several names; None beyond the rest."""
    for name in names:
        key = f"tokenizer.ggml.{name}_token_id"
        if key in facts:
            found = facts.integer(key)
            if 0 <= found < len(tokens):
                return found
    return None


def _damaged(facts: Facts, what: str) -> ModelError:
    return ModelError(f"{facts.path} has {what}", "download or convert the model again")


def fields_of(found: TokenizerOfFile, window: int) -> dict[str, Any]:
    """Return what tokenizer_config.json says of a tokenizer."""
    fields: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": window,
    }
    if found.bos is not None:
        fields["bos_token"] = found.bos
    if found.eos_ids:
        fields["eos_token"] = found.tokens[found.eos_ids[0]]
    return fields
