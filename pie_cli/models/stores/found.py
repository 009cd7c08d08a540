"""A model that lies on this disk: by what name, in which tool's store, in which format."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

Store: TypeAlias = Literal["pie", "Ollama", "LM Studio", "llama.cpp", "hub", "Python"]

GGUF: Final = "gguf"
SAFETENSORS: Final = "safetensors"


@dataclass(frozen=True)
class Found:
    """A model of a store.

    Attributes:
        name: what `--model` takes.
        store: whose it is.
        format: "gguf" and "safetensors" can be read; others say what they are.
        path: its file or folder.
        size_bytes: of its files.
        problem: why it cannot be read although it is listed, in half a sentence; or None.
        others: further names of the same, as other tools spell it.
    """

    name: str
    store: Store
    format: str
    path: Path
    size_bytes: int
    problem: str | None = None
    others: tuple[str, ...] = ()


def size_of(path: Path) -> int:
    """Return a file's size, or that of a folder's files; 0 for what is not there."""
    try:
        if path.is_dir():
            return sum(inner.stat().st_size for inner in path.iterdir() if inner.is_file())
        return path.stat().st_size
    except OSError:
        return 0
