"""Sequences: pure functions of their number, in the forms that the prompts have."""

import random
from collections import Counter
from itertools import pairwise

import pytest
from tokenizers import Tokenizer

from pie_cli.errors import InputError
from pie_cli.models.nano.recipe.stream import (
    File,
    Stream,
    cut_at_characters,
    cut_at_lines,
    cut_windows,
)

LENGTH = 160


@pytest.fixture(scope="module")
def stream(files: list[File], tokenizer: Tokenizer) -> Stream:
    return Stream(files, tokenizer, LENGTH, 7)


def test_a_sequence_depends_on_its_number_alone(
    files: list[File], tokenizer: Tokenizer, stream: Stream
) -> None:
    again = Stream(files, tokenizer, LENGTH, 7)
    assert [again[i] for i in (40, 3, 17)] == [stream[i] for i in (40, 3, 17)]
    assert stream[3] != stream[4]
    assert Stream(files, tokenizer, LENGTH, 8)[3] != stream[3]


def test_every_sequence_is_full_and_begins_with_a_head(
    tokenizer: Tokenizer, stream: Stream
) -> None:
    for number in range(30):
        ids = stream[number]
        assert len(ids) == LENGTH + 1
        assert ids[0] == 0
        assert tokenizer.decode(ids[1:12]).startswith("# package")


def test_documents_read_as_one_of_three_forms(
    files: list[File], tokenizer: Tokenizer, stream: Stream
) -> None:
    """Put together again, each is a span of its file."""
    texts = {file.path: file.text for file in files}
    forms: Counter[str] = Counter()
    for number in range(120):
        documents = tokenizer.decode(stream[number], skip_special_tokens=False).split(
            "<|endoftext|>"
        )
        for document in documents[1:-1]:  # the last one may be cut off
            head, _, body = document.partition("\n")
            if "<|fim_begin|><|fim_hole|>" in body:
                suffix, left = body.removeprefix("<|fim_begin|><|fim_hole|>").split("<|fim_end|>")
                forms["suffix first"] += 1
                body = left + suffix
            elif "<|fim_begin|>" in body:
                prefix, rest = body.removeprefix("<|fim_begin|>").split("<|fim_hole|>")
                suffix, middle = rest.split("<|fim_end|>")
                forms["prefix first"] += 1
                body = prefix + middle + suffix
            else:
                forms["plain"] += 1
            assert body in texts[head.removeprefix("# ")]
    assert min(forms.values()) > 10
    assert len(forms) == 3


def test_a_corpus_too_small_is_an_error(files: list[File], tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="sequence of 100000 tokens"):
        Stream(files, tokenizer, 100_000, 7)


def test_windows_cover_each_package_once_and_mix_none(files: list[File]) -> None:
    windows = cut_windows(files, 600, random.Random(0))
    for window in windows:
        assert len({piece.file.package for piece in window}) == 1
    spans = sorted((p.file.path, p.start, p.stop) for window in windows for p in window)
    for (path, _, stop), (other, start, _) in pairwise(spans):
        assert path != other or stop == start
    covered = sum(stop - start for _, start, stop in spans)
    assert covered > 0.8 * sum(len(file.text) for file in files)


def test_cuts_lie_inside_and_lines_are_whole() -> None:
    text = "one\ntwo\nthree\nfour\n"
    for seed in range(50):
        start, stop = cut_at_lines(text, random.Random(seed))
        assert start == 0 or text[start - 1] == "\n"
        assert stop == len(text) or text[stop - 1] == "\n"
        start, stop = cut_at_characters(text, random.Random(seed))
        assert 0 <= start <= stop <= len(text)
