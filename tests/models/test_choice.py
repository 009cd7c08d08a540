"""The best model at hand runs where none is named, and advice follows the machine."""

from pathlib import Path

import pytest

from pie_cli.config import DEFAULT_MODEL
from pie_cli.errors import ModelError
from pie_cli.folders import data_folder
from pie_cli.models.choice import EMBEDDED, advised, best_at_hand
from pie_cli.models.registry import Origin, resolve
from tests.models.stores.making import gguf

GB = 1 << 30


def test_without_anything_else_it_is_the_embedded_one() -> None:
    assert best_at_hand() == EMBEDDED
    source = resolve(DEFAULT_MODEL)
    assert (source.name, source.origin) == (EMBEDDED, Origin.EMBEDDED)


def test_a_model_that_was_pulled_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = data_folder() / "models"
    folder.mkdir(parents=True)
    gguf(folder / "smollm2-135m.gguf")
    assert best_at_hand() == "smollm2-135m"
    source = resolve(DEFAULT_MODEL)
    assert (source.name, source.origin) == ("smollm2-135m", Origin.GGUF)


@pytest.mark.parametrize(
    ("threads", "free", "gpus", "expected"),
    [
        (2, 24 * GB, [], "smollm2-135m"),
        (16, 64 * GB, [], "qwen2.5-coder-0.5b"),
        (16, 4 * GB, [], "smollm2-135m"),
        (16, None, [], "smollm2-135m"),
        (8, 32 * GB, [2 * GB], "qwen2.5-coder-0.5b"),
        (8, 32 * GB, [4 * GB], "qwen2.5-coder-1.5b"),
        (8, 32 * GB, [4 * GB, 80 * GB], "qwen2.5-coder-7b"),
    ],
)
def test_advice_follows_the_machine(
    threads: int, free: int | None, gpus: list[int], expected: str
) -> None:
    assert advised(threads, free, gpus) == expected


def test_what_is_advised_has_a_name() -> None:
    for gpus in ([], [4 * GB], [8 * GB], [99 * GB]):
        name = advised(64, 99 * GB, gpus)
        try:
            resolve(name)
        except ModelError as error:
            assert f"pie models pull {name}" in error.remedy  # noqa: PT017
