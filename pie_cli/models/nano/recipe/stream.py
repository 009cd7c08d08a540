"""Turn the corpus into training sequences shaped like pie's prompts, each computable on its own.

A sequence is a window over the files of one package, so that files stand beside their neighbours.
Each piece of a file becomes one document, in one of three forms (`eot`, `begin`, `hole`, `end` are
special tokens; `HEAD` is `# path` and a newline):

    plain                  eot HEAD text
    prefix-suffix-middle   eot HEAD begin prefix hole suffix end middle
    suffix-prefix-middle   eot HEAD begin hole suffix end prefix middle

Sequence i is a pure function of (corpus, length, seed, i): a resumed run needs one number, and
workers share the work without talking to each other.
"""

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer
from torch.utils.data import Dataset

from pie_cli.errors import InputError
from pie_cli.models.nano.recipe.tokenizer import (
    END_OF_TEXT,
    FIM_BEGIN,
    FIM_END,
    FIM_HOLE,
    special_ids,
)

CHARS_PER_TOKEN = 3.5
FIM_SHARE = 0.5
MIN_FIM_CHARS = 120


@dataclass(frozen=True)
class File:
    """One file of the corpus."""

    package: str
    path: str
    text: str


@dataclass(frozen=True)
class Piece:
    """A span of characters, at line boundaries, of one file."""

    file: File
    start: int
    stop: int

    @property
    def text(self) -> str:
        """The characters themselves."""
        return self.file.text[self.start : self.stop]


def read_files(corpus: Path) -> list[File]:
    """Read a corpus file.

    Raises:
        InputError: when it is missing or holds no file.
    """
    if not corpus.is_file():
        raise InputError(
            f"no corpus at {corpus}", "build one: python -m pie_cli.models.nano.recipe.corpus"
        )
    with gzip.open(corpus, "rt", encoding="utf-8") as stream:
        files = [File(**json.loads(line)) for line in stream]
    if not files:
        raise InputError(f"no training data found in {corpus}", "build it again with more packages")
    return files


def cut_windows(files: Sequence[File], chars: int, rng: random.Random) -> list[list[Piece]]:
    """Lay the files of each package end to end, neighbours shuffled, and cut windows of `chars`."""
    windows: list[list[Piece]] = []
    for _, group in groupby(sorted(files, key=lambda f: f.package), key=lambda f: f.package):
        members = list(group)
        rng.shuffle(members)
        window: list[Piece] = []
        room = chars
        for file in members:
            start = 0
            while start < len(file.text):
                stop = start + room
                if stop < len(file.text):
                    stop = file.text.find("\n", stop) + 1 or len(file.text)
                window.append(Piece(file, start, min(stop, len(file.text))))
                room -= window[-1].stop - start
                start = window[-1].stop
                if room < MIN_FIM_CHARS:
                    windows.append(window)
                    window, room = [], chars
        if window and room < chars // 2:
            windows.append(window)
    return windows


class Stream(Dataset[list[int]]):
    """The sequences of one length.

    Args:
        files: the corpus.
        tokenizer: pie-nano's.
        length: tokens of a sequence; each is returned with one more, the last target.
        seed: of windows, order, forms and cuts.

    Raises:
        InputError: when the corpus is too small for the length.
    """

    def __init__(self, files: Sequence[File], tokenizer: Tokenizer, length: int, seed: int) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.encode_special_tokens = True
        self._special = special_ids(tokenizer)
        self._length = length
        self._seed = f"{seed}:{length}"
        self._windows = cut_windows(files, int(length * CHARS_PER_TOKEN), random.Random(self._seed))
        if not self._windows:
            raise InputError(
                f"no package of the corpus fills a sequence of {length} tokens",
                "build it with more packages",
            )

    def __getitem__(self, index: int) -> list[int]:
        """Return sequence `index`, `length + 1` token ids; epochs follow each other reshuffled."""
        epoch, place = divmod(index, len(self._windows))
        order = epoch_order(len(self._windows), f"{self._seed}:{epoch}")
        rng = random.Random(f"{self._seed}:{epoch}:{place}")
        ids: list[int] = []
        while len(ids) <= self._length:  # a short window is filled up from the next
            for piece in self._windows[order[place % len(order)]]:
                ids += self._document(piece, rng)
            place += 1
        return ids[: self._length + 1]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _document(self, piece: Piece, rng: random.Random) -> list[int]:
        text = piece.text
        head = [self._special[END_OF_TEXT], *self._encode(f"# {piece.file.path}\n")]
        if len(text) < MIN_FIM_CHARS or rng.random() >= FIM_SHARE:
            return head + self._encode(text)
        start, stop = (
            cut_at_lines(text, rng) if rng.random() < 0.7 else cut_at_characters(text, rng)
        )
        prefix, middle, suffix = text[:start], text[start:stop], text[stop:]
        begin, hole, end = (self._special[t] for t in (FIM_BEGIN, FIM_HOLE, FIM_END))
        if rng.random() < 0.5:
            left = [begin, *self._encode(prefix), hole, *self._encode(suffix), end]
            return head + left + self._encode(middle)
        return [*head, begin, hole, *self._encode(suffix), end, *self._encode(prefix + middle)]


@lru_cache(2)
def epoch_order(count: int, seed: str) -> list[int]:
    """Return the order of an epoch's windows."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def cut_at_lines(text: str, rng: random.Random) -> tuple[int, int]:
    """Choose a middle of whole lines, short ones more often; returns its character span."""
    starts = [0] + [i + 1 for i, char in enumerate(text) if char == "\n"]
    first = rng.randrange(len(starts))
    lines = min(int(rng.expovariate(1 / 3)) + 1, 20)
    stop = starts[first + lines] if first + lines < len(starts) else len(text)
    return starts[first], stop


def cut_at_characters(text: str, rng: random.Random) -> tuple[int, int]:
    """Choose a middle between two characters, half of the time to the end of its line."""
    start = rng.randrange(len(text))
    if rng.random() < 0.5:
        stop = text.find("\n", start)
        return start, stop if stop >= 0 else len(text)
    return start, min(len(text), start + int(rng.expovariate(1 / 80)) + 1)
