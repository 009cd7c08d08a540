"""One model in GGUF: the parts that it is split into, and what its metadata say, by kind."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pie_cli.errors import ModelError
from pie_cli.models.gguf.files import parts_of
from pie_cli.models.gguf.header import Header, Strings, Tensor, Value, read_header

_AGAIN: Final = "download or convert the model again"


@dataclass(frozen=True)
class Placed:
    """A tensor and the file that it lies in."""

    path: Path
    tensor: Tensor


class Facts:
    """A model's metadata, each entry asked for as what it must be.

    Args:
        header: of the model's first part.
    """

    def __init__(self, header: Header) -> None:
        self.path = header.path
        self._values = header.metadata
        self.architecture = self.text("general.architecture")

    def __contains__(self, key: str) -> bool:
        """Tell whether the file says anything of a key; as everywhere, `{arch}` is spelled out."""
        return self._spelled(key) in self._values

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string.

        Raises:
            ModelError: it is missing and has no default, or is of another kind; so do the others.
        """
        value = self._value(key, default)
        if isinstance(value, str):
            return value
        if not isinstance(value, bytes):
            raise self._wrong(key, "a string")
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise self._wrong(key, "UTF-8") from error

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a whole number, also one that is given for each layer alike."""
        value = self._value(key, default)
        if isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():
            value = value[0].item()
        if isinstance(value, bool) or not isinstance(value, int):
            several = isinstance(value, np.ndarray)
            raise self._wrong(key, "one number for all layers" if several else "a whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number, of 32 bits as the decimal that it stands for."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(key, "a number")
        if not math.isfinite(value):
            raise self._wrong(key, "a finite number")
        # 1e-05 is what the config said from which the file was made, not 9.999999747378752e-06.
        return float(str(np.float32(value)))

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return a truth value."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, "a truth value")
        return value

    def strings(self, key: str) -> list[str]:
        """Return an array of strings; bytes that are no UTF-8 become lone surrogates."""
        value = self._value(key, None)
        if not isinstance(value, Strings):
            raise self._wrong(key, "a list of strings")
        return [item.decode("utf-8", "surrogateescape") for item in value]

    def array(self, key: str) -> np.ndarray:
        """Return an array of numbers."""
        value = self._value(key, None)
        if not isinstance(value, np.ndarray):
            raise self._wrong(key, "a list of numbers")
        return value

    def _value(self, key: str, default: Value | str | None) -> Value | str:
        value = self._values.get(self._spelled(key), default)
        if value is None:
            raise ModelError(f"{self.path} lacks {self._spelled(key)}", _AGAIN)
        return value

    def _spelled(self, key: str) -> str:
        return key.replace("{arch}", self.architecture) if "{" in key else key

    def _wrong(self, key: str, what: str) -> ModelError:
        return ModelError(f"{self.path} has {self._spelled(key)} that is not {what}", _AGAIN)


@dataclass(frozen=True, eq=False)
class GgufModel:
    """A model, its headers read.

    Attributes:
        paths: of its parts, in order.
        facts: its metadata.
        tensors: by name, over all parts.
    """

    paths: tuple[Path, ...]
    facts: Facts
    tensors: Mapping[str, Placed]

    @property
    def elements(self) -> int:
        """The number of elements of all tensors."""
        return sum(math.prod(placed.tensor.shape) for placed in self.tensors.values())


def open_gguf(path: Path) -> GgufModel:
    """Read the headers of a model, given any of its parts.

    Raises:
        ModelError: a part is missing, is no GGUF file, is damaged, or belongs to another model.
    """
    paths = parts_of(path)
    headers = [read_header(part) for part in paths]
    facts = Facts(headers[0])
    announced = facts.integer("split.count", 1)
    if max(announced, 1) != len(paths):
        raise ModelError(
            f"{headers[0].path} is one of {announced} parts, and {len(paths)} of them are named so",
            "keep the names that they were downloaded by, NAME-00001-of-00003.gguf",
        )
    tensors: dict[str, Placed] = {}
    for header in headers:
        for tensor in header.tensors:
            if tensor.name in tensors:
                raise ModelError(f"{header.path} has {tensor.name!r} of another part", _AGAIN)
            tensors[tensor.name] = Placed(header.path, tensor)
    if "split.tensors.count" in facts and facts.integer("split.tensors.count") != len(tensors):
        raise ModelError(f"the parts of {headers[0].path} do not belong together", _AGAIN)
    return GgufModel(paths, facts, tensors)
