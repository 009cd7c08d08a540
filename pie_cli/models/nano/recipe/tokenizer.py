"""Train pie-nano's tokenizer: byte-level BPE over code, a newline always a token of its own.

python -m pie_cli.models.nano.recipe.tokenizer CORPUS.jsonl.gz OUT_DIR [--vocab 8192]
"""

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT, FIM_BEGIN, FIM_HOLE, FIM_END = SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|fim_begin|>",
    "<|fim_hole|>",
    "<|fim_end|>",
)

# Of a run of spaces all but the last merge, the last goes with the word behind it, as everywhere in
# GPT-like tokenizers; digits stand alone. Newlines are split off first, so that no token crosses a
# line and a line's ids depend on that line alone.
PATTERN = r"[ ]+(?=[ ])|[ ]?[\p{L}_]+|[ ]?\d|[ ]?[^\s\p{L}_\d]+|[^\S\n]+"


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of the special tokens."""
    vocabulary = tokenizer.get_vocab()
    return {token: vocabulary[token] for token in SPECIAL_TOKENS}


def build_tokenizer() -> Tokenizer:
    """Return the untrained tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", behavior="isolated"),
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Learn the merges; ids 0 to 3 are the special tokens, then the 256 bytes."""
    tokenizer = build_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=8,
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, window: int) -> None:
    """Write tokenizer.json and the configuration that makes special tokens' text stay text."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": window,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )


def read_texts(corpus: Path, every: int = 1) -> Iterator[str]:
    """Yield the text of every n-th file of a corpus."""
    with gzip.open(corpus, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream):
            if number % every == 0:
                yield json.loads(line)["text"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pie_cli.models.nano.recipe.tokenizer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--window", type=int, default=4096)
    options = parser.parse_args(arguments)
    tokenizer = train_tokenizer(read_texts(options.corpus), options.vocab)
    save_tokenizer(tokenizer, options.out, options.window)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
