"""Tokenizers of every kind that code models have, trained small; texts and edits to try them on."""

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre

from pie_cli.models.registry import EMBEDDED_FOLDER
from pie_cli.prompt.tokenizer import TextTokenizer

ROOT = Path(__file__).parents[2]
CONTROL = ("<|endoftext|>", "<|fim_middle|>", "<fim_prefix>")
BYTES = pre.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre.ByteLevel(add_prefix_space=False, use_regex=True)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def isolated(regex: str) -> Any:
    return pre.Split(Regex(regex), "isolated")


PRE_TOKENIZERS = {
    "gpt-2": GPT2,
    "llama-3": pre.Sequence([isolated(LLAMA3), BYTES]),
    "qwen2.5": pre.Sequence([isolated(QWEN), BYTES]),
    "deepseek-coder": pre.Sequence(
        [
            isolated("[\r\n]"),
            isolated(r"\s?\p{L}+"),
            isolated(r"\s?\p{P}+"),
            isolated("[一-龥ࠀ-一가-퟿]+"),
            pre.Digits(individual_digits=True),
            BYTES,
        ]
    ),
    "deepseek-v3": pre.Sequence(
        [isolated(r"\p{N}{1,3}"), isolated("[一-龥぀-ゟ゠-ヿ]+"), isolated(DEEPSEEK_V3), BYTES]
    ),
    "starcoder2": pre.Sequence([pre.Digits(individual_digits=True), GPT2]),
}
PROVEN = ("pie-nano", *PRE_TOKENIZERS)
"""Kinds that have cuts; "sentencepiece" has none."""

PIECES = [
    *CONTROL,
    *"<|fim _middle|> fim| <fim_ |>".split(),
    *[
        "\n",
        "\n\n\n",
        "\r\n",
        "\r",
        " ",
        "    ",
        "\t",
        "\f",
        "\v",
        "\x85",
        "\u2028",
        "\xa0",
        " \n \n",
    ],
    *["'", "'s", "'LL", "'r", "'ſ", "0", "123", "4567", "Ⅷ", "x", "  x", "S", "_", "(", "):", "/*"],
    *[
        "é",
        "e\u0301",
        "\u0301",
        "\u0338",
        "\u1161",
        "가",
        "漢字",
        "。",
        "ǅ",
        "\U0001f600",
        "\u200d",
    ],
    *["\ud800", "\udc80", "\ufffd"],
]
"""What cutting a text goes wrong with, if anything."""


@cache
def sources() -> list[str]:
    """Return real text: this project's own modules and documents."""
    paths = sorted([*ROOT.glob("pie_cli/**/*.py"), *ROOT.glob("docs/*.md")])
    return [path.read_text(encoding="utf-8") for path in paths]


@cache
def original(kind: str) -> Tokenizer:
    """Train a tokenizer of a kind; pie-nano's is the embedded one."""
    if kind == "pie-nano":
        return Tokenizer.from_file(str(EMBEDDED_FOLDER / "tokenizer.json"))
    if kind == "sentencepiece":
        return _sentencepiece()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[kind]
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "qwen2.5":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=1_200, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*sources()[::4], "漢字。가é" * 9], trainer)
    tokenizer.add_special_tokens([AddedToken(CONTROL[0], normalized=False)])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in CONTROL[1:]])
    if kind == "starcoder2":
        tokenizer.add_tokens([AddedToken("        ", normalized=False), "  x"])
    return tokenizer


@cache
def tokenizer_of(kind: str) -> TextTokenizer:
    return TextTokenizer(original(kind))


def without_splits(model: models.BPE) -> Tokenizer:
    """Make a tokenizer of the SentencePiece kind: no splits, a blank in front, blanks a letter."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


def _sentencepiece() -> Tokenizer:
    """Train a tokenizer without splits: blanks become a letter, bytes stand in for the unknown."""
    tokenizer = without_splits(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        show_progress=False,
        special_tokens=["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        max_token_length=12,
    )
    lines = [line for text in sources()[:6] for line in text.splitlines(keepends=True)]
    tokenizer.train_from_iterator(lines, trainer)
    # Bytes are ordinary tokens, which the trainer knows no way to say.
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if "0x" not in t["content"]]
    return Tokenizer.from_str(json.dumps(state))


def edited(rng: random.Random, text: str) -> str:
    """Edit a text at random: a few places, small and large, with what is awkward to tokenize."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at, gone = rng.randint(0, len(text)), rng.choice([0, 0, 1, 2, 5, 40, 400])
        put = "".join(rng.choices(PIECES, k=rng.choice([0, 1, 1, 2, 5, 60])))
        if rng.random() < 0.2:
            start = rng.randint(0, len(text))
            put = text[start : start + rng.choice([10, 100, 1_000])]
        text = text[:at] + put + text[at + gone :]
    return text
