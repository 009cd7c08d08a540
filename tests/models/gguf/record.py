"""Record llama.cpp's ids for small vocabularies: python -m tests.models.gguf.record

Needs the package llama-cpp-python, which pie itself does not. The vocabularies hold what their
splitting would be told by: merges across blanks, digits, letters, marks and newlines.
"""

import ctypes
import json
import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

RECORDED = Path(__file__).with_name("llama_cpp.json")

_TEXTS = [
    "def f(self, x):\n    return self.items[x + 1]\n\n\nclass A:\n\tpass\r\n",
    "it's, IT'S, we'll, WE'LL, don't, 'tis, 're'RE",
    "12 12 12 123 123 123 12",
    "1 12 123 1234 12345 x1y22 3.14 0xFF 1e-9 ½ ²³ Ⅷ ٣٤",
    "aBaB aBaB aB'sc aB'sc we'llabc we'llabc 'sc'sc",
    "camelCase HTTPServer snake_case UPPER_CASE ÉcoleÀ",
    " a  b   c    d     e\t\tf \n g\n\n\nh\r\n\r\ni   ",
    "if (a<=b && c!=d) { x += y->z; } // ~^$%&*`|#@?!",
    "“quotes” – dash … « » € £ ∑ → ≤",
    "漢字かなカナ。、！ 가나다 ａＡ０ Ω ж अ आ",
    "e\u0301 n\u0303 \u0301 a\u200db \ufeffx y\u00a0z \u2028 \u3000 \u0085 end",
    "😀👍🏽 \U0001f468\u200d\U0001f469 \U00010400",
    "$var $$ ${x} <tag attr='v'>text</tag> [1, 2] 'a' \"b\" `c`",
    "\n    \n        x\n\n  \n",
    "    ",
    "\n",
    "a",
]


def texts() -> list[str]:
    rng = random.Random(5)
    pieces = [char for text in _TEXTS for char in text] + ["  ", "    ", "\r\n", "'s", "12", "ab"]
    made = ["".join(rng.choices(pieces, k=rng.randint(2, 24))) for _ in range(40)]
    return [*_TEXTS, *made]


def byte_level_vocabulary() -> tuple[list[str], list[str]]:
    """Train tokens and merges on whole texts, so that pieces of any splitting can be told."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=620,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=6,
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for text in texts() for _ in range(3)], trainer)
    state = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].__getitem__)
    # Tokens that no merge makes: some splittings take a piece that is a token whole.
    tokens += ["\u0120items", "Server", "camelCase"]
    return tokens, [" ".join(merge) for merge in state["merges"]]


def scored_vocabulary() -> dict[str, float]:
    """Choose tokens as training does: joined from earlier ones, each worse than those before."""
    rng = random.Random(6)
    spelled = [text.replace(" ", "\u2581") for text in texts()]
    chars = sorted({char for text in spelled[:12] for char in text if ord(char) < 0x3000})
    # Some characters are in no token: they become bytes.
    single = dict.fromkeys([*rng.sample(chars, len(chars) * 9 // 10), "\u2581", "\n", "-"])
    chosen = dict.fromkeys(
        char * length for length in (2, 4, 8, 3) for char in ("\u2581", "\n", "-")
    )
    while len(chosen) < 700:
        text = rng.choice(spelled)
        at = rng.randrange(len(text))
        piece = text[at : at + rng.randint(2, 5)]
        known = chosen.keys() | single.keys()
        if any(piece[:cut] in known and piece[cut:] in known for cut in range(1, len(piece))):
            chosen.setdefault(piece)
    return {piece: float(-rank) for rank, piece in enumerate([*chosen, *single])}


def main() -> None:
    from pie_cli.models.gguf.pretokenizers import SPLITTINGS
    from tests.models.gguf.writing import raw_byte_level, sentencepiece, write_vocabulary

    tokens, merges = byte_level_vocabulary()
    scores = scored_vocabulary()
    recorded: dict[str, Any] = {
        "made_by": "python -m tests.models.gguf.record, llama-cpp-python 0.3.36",
        "texts": texts(),
        "tokens": tokens,
        "merges": merges,
        "scores": scores,
        "byte_level": {},
        "sentencepiece": {},
    }
    seen: dict[str, str] = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        for name in (None, *SPLITTINGS):
            write_vocabulary(path, raw_byte_level(tokens, merges, name))
            ids = json.dumps(list(_ids(path)))
            # Names of the same splitting are told once, by the first of them.
            recorded["byte_level"][name or ""] = seen.get(ids, json.loads(ids))
            seen.setdefault(ids, name or "")
        for prefix in (True, False):
            write_vocabulary(path, sentencepiece(scores, space_prefix=prefix))
            recorded["sentencepiece"][str(prefix)] = list(_ids(path))
    RECORDED.write_text(json.dumps(recorded, ensure_ascii=True, separators=(",", ":")) + "\n")


def _ids(path: Path) -> Iterator[list[int]]:
    import llama_cpp

    options = llama_cpp.llama_model_default_params()
    options.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    for text in texts():
        data = text.encode()
        room = 2 * len(data) + 16
        buffer = (ctypes.c_int32 * room)()
        count = llama_cpp.llama_tokenize(vocabulary, data, len(data), buffer, room, False, False)
        yield list(buffer[:count])
    llama_cpp.llama_model_free(model)


if __name__ == "__main__":
    main()
