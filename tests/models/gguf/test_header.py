"""A GGUF header: what is written is read, and what is not whole is refused in one line."""

import random
import struct
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import gguf
import numpy as np
import pytest

from pie_cli.errors import ExitCode, ModelError
from pie_cli.models.gguf.header import Strings, read_header

MUTATIONS = 10_000


def write(path: Path, **options: object) -> Path:
    writer = gguf.GGUFWriter(path, "llama", **options)
    writer.add_string("a.text", "naïve 漢字")
    writer.add_bool("a.flag", True)
    writer.add_uint8("a.small", 200)
    writer.add_int64("a.negative", -(1 << 40))
    writer.add_float32("a.number", 0.5)
    writer.add_array("a.words", ["", "one", "two words", "é"])
    writer.add_array("a.numbers", [1, 2, -3])
    writer.add_tensor("first", np.arange(12, dtype=np.float32).reshape(3, 4))
    writer.add_tensor("second", np.arange(64, dtype=np.float16).reshape(2, 32))
    writer.add_tensor(
        "packed",
        gguf.quantize(np.ones((5, 64), np.float32), gguf.GGMLQuantizationType.Q4_0),
        raw_dtype=gguf.GGMLQuantizationType.Q4_0,
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole.gguf")


def entry(key: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + value


def described(name: str, shape: tuple[int, ...], kind: int, start: int) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return (
        struct.pack("<Q", len(name)) + name.encode() + dimensions + struct.pack("<IQ", kind, start)
    )


def made(
    entries: list[bytes],
    tensors: Sequence[bytes] = (),
    *,
    counts: tuple[int, int] | None = None,
    version: int = 3,
    data: int = 0,
) -> bytes:
    n_tensors, n_entries = counts or (len(tensors), len(entries))
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_entries)
    body = head + b"".join(entries) + b"".join(tensors)
    return body + b"\0" * (-len(body) % 32 + data)


def test_what_is_written_is_read(whole: Path):
    header = read_header(whole)
    metadata = header.metadata
    assert metadata["a.text"] == "naïve 漢字".encode()
    assert metadata["a.flag"] is True
    assert [metadata[f"a.{name}"] for name in ("small", "negative", "number")] == [
        200,
        -(1 << 40),
        0.5,
    ]
    words = metadata["a.words"]
    assert isinstance(words, Strings)
    assert [word.decode() for word in words] == ["", "one", "two words", "é"]
    assert metadata["a.numbers"].tolist() == [1, 2, -3]
    assert [(tensor.name, tensor.shape) for tensor in header.tensors] == [
        ("first", (3, 4)),
        ("second", (2, 32)),
        ("packed", (5, 64)),
    ]
    data = whole.read_bytes()
    first = header.tensors[0]
    assert np.frombuffer(
        data[first.start : first.start + first.size_bytes], np.float32
    ).tolist() == list(range(12))


def test_tensors_lie_where_the_reader_of_gguf_finds_them(whole: Path):
    theirs = gguf.GGUFReader(whole)
    assert [(t.name, t.start, t.size_bytes) for t in read_header(whole).tensors] == [
        (t.name, t.data_offset, t.n_bytes) for t in theirs.tensors
    ]


def test_a_file_cut_anywhere_is_refused(whole: Path, tmp_path: Path):
    data = whole.read_bytes()
    last = read_header(whole).tensors[-1]
    cut = tmp_path / "cut.gguf"
    for size in range(last.start + last.size_bytes):
        cut.write_bytes(data[:size])
        with pytest.raises(ModelError):
            read_header(cut)


HUGE = (1 << 64) - 1
STRING, ARRAY, UINT8, UINT32, FLOAT32 = 8, 9, 0, 4, 6
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (b"# a readme, no model\n" * 9, "no GGUF file"),
    "an old format": (b"tjgg" + bytes(60), "before GGUF"),
    "magic alone": (b"GGUF", "truncated"),
    "version 1": (made([], version=1), "version 1"),
    "version 4": (made([], version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensors without number": (made([], counts=(HUGE, 0)), "claims to have"),
    "entries without number": (made([], counts=(0, HUGE)), "claims to have"),
    "more entries than there are": (made([], counts=(0, 5)), "truncated"),
    "a key of gigabytes": (made([struct.pack("<Q", 1 << 33)]), "truncated"),
    "a string of gigabytes": (
        made([entry("k", STRING, struct.pack("<Q", 1 << 34) + b"x")]),
        "truncated",
    ),
    "a length that overflows": (made([entry("k", STRING, struct.pack("<Q", HUGE))]), "truncated"),
    "numbers without end": (
        made([entry("k", ARRAY, struct.pack("<IQ", UINT8, HUGE))]),
        "truncated",
    ),
    "numbers of overflowing size": (
        made([entry("k", ARRAY, struct.pack("<IQ", FLOAT32, 1 << 62))]),
        "truncated",
    ),
    "strings without end": (
        made([entry("k", ARRAY, struct.pack("<IQ", STRING, HUGE))]),
        "truncated",
    ),
    "arrays of arrays": (made([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 0))]), "unknown kind 9"),
    "an unknown kind": (made([entry("k", 77, b"")]), "unknown kind 77"),
    "a key twice": (made([entry("k", UINT8, b"\1")] * 2), "twice"),
    "a key that is not UTF-8": (
        made([struct.pack("<Q", 1) + b"\xff" + struct.pack("<IB", 0, 1)]),
        "UTF-8",
    ),
    "no dimensions": (made([], [described("t", (), 0, 0)]), "0 dimensions"),
    "nine dimensions": (made([], [described("t", (1,) * 9, 0, 0)]), "9 dimensions"),
    "no elements": (made([], [described("t", (4, 0), 0, 0)]), "impossible shape"),
    "a size that overflows": (
        made([], [described("t", (1 << 40, 1 << 40), 0, 0)], data=64),
        "truncated",
    ),
    "a place beyond the end": (made([], [described("t", (4,), 0, HUGE)], data=64), "truncated"),
    "rows that are no blocks": (
        made([], [described("t", (33,), 2, 0)], data=64),
        "impossible shape",
    ),
    "an unknown format": (made([], [described("t", (4,), 99, 0)], data=64), "format 99"),
    "tensors that overlap": (
        made([], [described("t", (4,), 0, 0), described("u", (4,), 0, 8)], data=64),
        "overlap",
    ),
    "a tensor twice": (
        made([], [described("t", (4,), 0, 0), described("t", (4,), 0, 32)], data=64),
        "twice",
    ),
    "an alignment of 3": (
        made([entry("general.alignment", UINT32, struct.pack("<I", 3))]),
        "alignment",
    ),
    "an alignment of 0": (
        made([entry("general.alignment", UINT32, struct.pack("<I", 0))]),
        "alignment",
    ),
    "an alignment in words": (
        made([entry("general.alignment", STRING, struct.pack("<Q", 2) + b"32")]),
        "alignment",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_whole_header_is_refused_in_one_line(name: str, tmp_path: Path):
    data, cause = BAD[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=cause) as caught:
        read_header(path)
    assert "bad.gguf" in caught.value.cause
    assert "\n" not in caught.value.cause + caught.value.remedy
    assert caught.value.exit_code == ExitCode.MODEL


def test_a_big_endian_file_is_called_so(tmp_path: Path):
    path = write(tmp_path / "big.gguf", endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(ModelError, match="big-endian"):
        read_header(path)


@pytest.mark.parametrize("missing", ["absent.gguf", "."])
def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, missing: str):
    with pytest.raises(ModelError, match="cannot be read"):
        read_header(tmp_path / missing)


def flipped(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwritten(rng: random.Random, data: bytearray) -> None:
    number = rng.choice([0, 1, 7, 255, 1 << 16, 1 << 31, 1 << 32, 1 << 40, 1 << 63, HUGE])
    at = rng.randrange(4, len(data) - 8)
    data[at : at + 8] = struct.pack("<Q", number)


def removed(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 40)]


def repeated(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randint(1, 40)]


KINDS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    flipped,
    overwritten,
    removed,
    repeated,
)


def is_refused(path: Path) -> bool:
    try:
        read_header(path)
    except ModelError:
        return True
    return False


def is_refused_within(path: Path, allowed_bytes: int) -> bool:
    tracemalloc.start()
    try:
        refused = is_refused(path)
        assert tracemalloc.get_traced_memory()[1] <= allowed_bytes
    finally:
        tracemalloc.stop()
    return refused


def test_no_mutation_of_a_header_does_more_than_be_refused(whole: Path, tmp_path: Path):
    """10,000 mutations: each is read or refused, and takes no more memory than the file."""
    rng = random.Random(8)
    data = whole.read_bytes()
    path = tmp_path / "mutated.gguf"
    path.touch()
    allowed = len(data) + (1 << 16)
    refused = 0
    for turn in range(MUTATIONS):
        mutated = bytearray(data)
        for _ in range(rng.choice([1, 1, 2, 5])):
            rng.choice(KINDS)(rng, mutated)
        with path.open("r+b") as file:
            # Shortening a file to nothing first takes longer than all the rest.
            file.write(mutated)
            file.truncate()
        # Counting memory takes longer than reading: one in ten is counted.
        refused += is_refused(path) if turn % 10 else is_refused_within(path, allowed)
    # The mutations reach what is checked, and do not only touch what may be anything.
    assert refused > MUTATIONS // 2
