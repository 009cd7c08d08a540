"""The header of one GGUF file: its metadata, and where each tensor lies.

A file comes from anywhere, so nothing that it says is believed before it is checked against its
size: counts, lengths and offsets may be anything up to 2^64. No tensor's data is read here, and
nothing is allocated that the file could not hold. Arrays of strings, which make up most of a
header, stay bytes until they are asked for.

Source:
    The format's description, docs/gguf.md of the ggml project, versions 2 and 3.
"""

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from pie_cli.errors import ModelError
from pie_cli.models.gguf.files import MAGIC

MAX_VOCABULARY: Final = 1 << 22
"""Elements of one array; the largest vocabularies have less than a tenth of it."""

_AGAIN: Final = "download or copy it again"
_MAX_KEY_BYTES: Final = 1 << 16
_MAX_STRING_BYTES: Final = 1 << 24
_MAX_ENTRIES: Final = 1 << 17
_MAX_DIMENSIONS: Final = 4
_ALIGNMENT: Final = 32
_MAX_ALIGNMENT: Final = 1 << 16

_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final[Mapping[int, str]] = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4",
    7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Strings:
    """An array of strings as it lies in the file, each after its length.

    Attributes:
        data: lengths and bytes; checked to be whole.
        count: of the strings.
    """

    data: bytes
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        for _ in range(self.count):
            (size,) = struct.unpack_from("<Q", self.data, at)
            at += 8 + size
            yield self.data[at - size : at]


Value: TypeAlias = bool | int | float | bytes | np.ndarray | Strings


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies, and how it is stored.

    Attributes:
        name: in the file.
        shape: as torch counts dimensions: the last one varies fastest.
        kind: the format of its elements.
        start: offset of its data from the file's beginning, in bytes.
        size_bytes: of its data, which lies within the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    size_bytes: int


@dataclass(frozen=True, eq=False)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        path: of the file.
        metadata: by key; strings as bytes.
        tensors: in the order of the header.
        size_bytes: of the whole file.
    """

    path: Path
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    size_bytes: int


def read_header(path: Path) -> Header:
    """Read a file's header.

    Raises:
        ModelError: no GGUF file that can be read, truncated, or damaged.
    """
    try:
        with path.open("rb") as file:
            return _HeaderReader(path, file).read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(f"{path} cannot be read: {reason}", "check that file") from error


class _HeaderReader:
    """Reads a header from its beginning to its end; every step stays within the file."""

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self._path = path
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._at = 0

    def read(self) -> Header:
        self._check_kind()
        tensors, entries = self._count("tensors"), self._count("metadata entries")
        metadata: dict[str, Value] = {}
        for _ in range(entries):
            key = self._text(_MAX_KEY_BYTES, "a key")
            if key in metadata:
                raise self._damaged(f"has the key {key!r} twice")
            metadata[key] = self._value(self._int("<I"), key)
        described = [self._tensor() for _ in range(tensors)]
        data = _aligned(self._at, self._alignment(metadata))
        placed = tuple(
            Tensor(one.name, one.shape, one.kind, data + one.start, one.size_bytes)
            for one in described
        )
        self._check_places(placed)
        return Header(self._path, metadata, placed, self._size)

    def _check_kind(self) -> None:
        if not self._size:
            raise self._damaged("is empty")
        head = self._file.read(8)
        self._at = len(head)
        if head[:4] != MAGIC:
            old = head[:4] in {b"lmgg", b"fmgg", b"tjgg", b"algg"}
            raise ModelError(
                f"{self._path} is {'of a format before GGUF' if old else 'no GGUF file'}",
                "give a GGUF file of version 2 or 3, or a folder that holds config.json",
            )
        if len(head) < 8:
            raise self._truncated()
        (version,) = struct.unpack_from("<I", head, 4)
        if version and not version & 0xFFFF:
            raise ModelError(
                f"{self._path} is a big-endian GGUF file", "give its little-endian version"
            )
        if version not in {2, 3}:
            raise ModelError(
                f"{self._path} is a GGUF file of version {version}",
                "give one of version 2 or 3; convert or download the model again",
            )

    def _count(self, what: str) -> int:
        count = self._int("<Q")
        if count > _MAX_ENTRIES:
            raise self._damaged(f"claims to have {count:,} {what}")
        return count

    def _value(self, kind: int, key: str) -> Value:
        if kind == _STRING:
            return self._bytes(_MAX_STRING_BYTES, f"the string {key!r}")
        if kind == _ARRAY:
            return self._array(key)
        code = self._scalar(kind, key)
        value: bool | int | float = np.frombuffer(self._take(np.dtype(code).itemsize), code)[
            0
        ].item()
        return value

    def _array(self, key: str) -> Value:
        kind, count = self._int("<I"), self._int("<Q")
        if kind == _STRING:
            self._check_array(key, count, 8)
            return self._strings(count)
        code = self._scalar(kind, key)
        size = np.dtype(code).itemsize
        self._check_array(key, count, size)
        return np.frombuffer(self._take(count * size), code)

    def _check_array(self, key: str, count: int, least_bytes: int) -> None:
        if count * least_bytes > self._size - self._at:
            raise self._truncated()
        if count > MAX_VOCABULARY:
            raise self._damaged(f"has {count:,} elements in {key!r}")

    def _scalar(self, kind: int, key: str) -> str:
        if kind not in _SCALARS:
            raise self._damaged(f"has {key!r} of the unknown kind {kind}")
        return _SCALARS[kind]

    def _strings(self, count: int) -> Strings:
        # Walked over once for its length, then taken in one piece.
        start = self._at
        for _ in range(count):
            self._skip(self._int("<Q"))
        size = self._at - start
        self._at = self._file.seek(start)
        return Strings(self._take(size), count)

    def _tensor(self) -> Tensor:
        """Read one description; its place is still counted from where the data begin."""
        name = self._text(_MAX_KEY_BYTES, "a tensor's name")
        dimensions = self._int("<I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self._damaged(f"has {name!r} of {dimensions} dimensions")
        shape = tuple(self._int("<Q") for _ in range(dimensions))[::-1]
        number, start = self._int("<I"), self._int("<Q")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise ModelError(
                f"{self._path} stores {name!r} in the format {number}, which is not known here",
                "update the package gguf, or give the model in another quantisation",
            ) from error
        per_block, block_bytes = GGML_QUANT_SIZES[kind]
        if min(shape) < 1 or shape[-1] % per_block:
            raise self._damaged(f"has {name!r} of the impossible shape {_shown(shape)}")
        elements = 1
        for extent in shape:
            elements *= extent
        return Tensor(name, shape, kind, start, elements // per_block * block_bytes)

    def _check_places(self, tensors: tuple[Tensor, ...]) -> None:
        """Refuse tensors beyond the file's end, and such as share bytes or a name."""
        end, names = 0, set()
        for tensor in sorted(tensors, key=lambda one: one.start):
            if tensor.start + tensor.size_bytes > self._size:
                raise self._truncated()
            if tensor.start < end:
                raise self._damaged(f"has {tensor.name!r} overlap another tensor")
            if tensor.name in names:
                raise self._damaged(f"has the tensor {tensor.name!r} twice")
            names.add(tensor.name)
            end = tensor.start + tensor.size_bytes

    def _alignment(self, metadata: Mapping[str, Value]) -> int:
        value = metadata.get("general.alignment", _ALIGNMENT)
        if isinstance(value, int) and 0 < value <= _MAX_ALIGNMENT and not value & (value - 1):
            return value
        raise self._damaged("has an alignment that is no power of two")

    def _text(self, most_bytes: int, what: str) -> str:
        try:
            return self._bytes(most_bytes, what).decode()
        except UnicodeDecodeError as error:
            raise self._damaged(f"has {what} that is not UTF-8") from error

    def _bytes(self, most_bytes: int, what: str) -> bytes:
        size = self._int("<Q")
        if size > self._size - self._at:
            raise self._truncated()
        if size > most_bytes:
            raise self._damaged(f"has {what} of {size:,} bytes")
        return self._take(size)

    def _int(self, code: str) -> int:
        (value,) = struct.unpack(code, self._take(struct.calcsize(code)))
        return int(value)

    def _take(self, size: int) -> bytes:
        if size > self._size - self._at:
            raise self._truncated()
        data = self._file.read(size)
        self._at += size
        if len(data) != size:
            raise self._truncated()
        return data

    def _skip(self, size: int) -> None:
        if size > self._size - self._at:
            raise self._truncated()
        self._at = self._file.seek(size, os.SEEK_CUR)

    def _truncated(self) -> ModelError:
        return ModelError(
            f"{self._path} is truncated: it ends at {self._size:,} bytes, before what it announces",
            _AGAIN,
        )

    def _damaged(self, how: str) -> ModelError:
        return ModelError(f"{self._path} {how}", _AGAIN)


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
