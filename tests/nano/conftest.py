"""A small corpus, a tokenizer for it, and a shape that trains in a second."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from pie_cli.models.nano.recipe import train as training
from pie_cli.models.nano.recipe.stream import File
from pie_cli.models.nano.recipe.tokenizer import train_tokenizer

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def source(package: int, module: int) -> str:
    functions = (
        f"def compute_{n}(left, right):\n    total = left * {package} + right\n    return total\n\n"
        for n in range(module, module + 12)
    )
    return "import os\n\n" + "".join(functions)


@pytest.fixture(scope="session")
def files() -> list[File]:
    return [
        File(f"package{p}", f"package{p}/module{m}.py", source(p, m))
        for p in range(3)
        for m in range(5)
    ]


@pytest.fixture(scope="session")
def tokenizer(files: list[File]) -> Tokenizer:
    return train_tokenizer((file.text for file in files), 320)


@pytest.fixture
def tiny_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.SHAPES, "small", TINY)


@pytest.fixture
def corpus(files: list[File], tmp_path: Path) -> Path:
    """The corpus as a file, as the recipe reads it."""
    import gzip
    import json
    from dataclasses import asdict

    path = tmp_path / "corpus.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps(asdict(file)) + "\n" for file in files)
    return path
