"""Converted models: unpacked once, kept within bounds, whole or not there at all."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf.constants import GGMLQuantizationType as Kind

from pie_cli.editable import prepare
from pie_cli.errors import ModelError
from pie_cli.models.gguf import conversion, converted
from pie_cli.models.gguf.weights import read_weight
from pie_cli.models.loading import LoadedModel, load
from tests.disks import full_disk
from tests.models.gguf.test_architectures import TOKENIZER, VOCABULARY, written
from tests.models.gguf.writing import MODELS, build, write_model


def load_as(path: Path, dtype: str = "float32") -> LoadedModel:
    return load(str(path), "cpu", dtype)


def folders(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir()} - {"hashes"} if cache.exists() else set()


def test_a_model_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path / "model.gguf", kind=Kind.Q8_0)
    first = load_as(tmp_path / "model.gguf")
    monkeypatch.setattr(converted, "plan_conversion", lambda *_: pytest.fail("converted again"))
    again = load_as(tmp_path / "model.gguf")
    # By its content: another name or place is the same model.
    (tmp_path / "model.gguf").rename(tmp_path / "renamed.gguf")
    moved = load_as(tmp_path / "renamed.gguf")
    for other in (again, moved):
        for name, parameter in first.model.named_parameters():
            assert torch.equal(other.model.get_parameter(name), parameter)


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path / "model.gguf")
    load_as(tmp_path / "model.gguf")
    real, read = Path.open, []

    def counted(path: Path, *args: Any, **options: Any) -> Any:
        read.append(path)
        return real(path, *args, **options)

    monkeypatch.setattr(Path, "open", counted)
    load_as(tmp_path / "model.gguf")
    # Once for the header; a second time would be for the hash.
    assert [path.name for path in read].count("model.gguf") == 1


def test_what_a_remembered_hash_says_is_not_believed_of_another_file(tmp_path: Path):
    path = tmp_path / "model.gguf"
    written(path)
    load_as(path)
    written(path, "qwen2")
    assert load_as(path).model.config.model_type == "qwen2"


def test_each_dtype_has_its_own(tmp_path: Path, cache: Path):
    written(tmp_path / "model.gguf", kind=Kind.Q8_0)
    for dtype in ("float32", "bfloat16"):
        assert next(load_as(tmp_path / "model.gguf", dtype).model.parameters()).dtype == getattr(
            torch, dtype
        )
    assert len(folders(cache)) == 2


def test_those_used_longest_ago_go_when_there_are_too_many(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(converted, "_IN_USE_S", 0)
    sizes, names = [], []
    for index in range(4):
        path = tmp_path / f"{index}.gguf"
        write_model(
            path,
            "llama",
            build("llama", {**MODELS["llama"][2], "rms_norm_eps": 10.0**-index}, VOCABULARY),
            vocabulary=TOKENIZER,
        )
        before = folders(cache)
        load_as(path)
        (new,) = folders(cache) - before
        names.append(new)
        sizes.append(sum(file.stat().st_size for file in (cache / new).iterdir()))
        os.utime(cache / new, (index, index))
        if index == 2:
            # The first is used again; room for three of four.
            os.utime(cache / names[0], (10, 10))
            monkeypatch.setattr(converted, "LIMIT_BYTES", sum(sizes) + 10)
    assert folders(cache) == {names[0], names[2], names[3]}


def test_what_another_process_may_be_loading_is_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(converted, "LIMIT_BYTES", 1)
    written(tmp_path / "one.gguf")
    load_as(tmp_path / "one.gguf")
    written(tmp_path / "two.gguf", "qwen2")
    load_as(tmp_path / "two.gguf")
    assert len(folders(cache)) == 2


def test_a_disk_without_room_is_said_before_anything_is_written(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    written(tmp_path / "model.gguf")
    full = type("Usage", (), {"free": 1_000})
    monkeypatch.setattr(converted.shutil, "disk_usage", lambda _: full)
    with pytest.raises(ModelError, match="GB are free") as caught:
        load_as(tmp_path / "model.gguf")
    assert "XDG_CACHE_HOME" in caught.value.remedy
    assert folders(cache) == set()


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError, ModelError])
def test_nothing_is_left_of_a_conversion_that_failed(
    failure: type[BaseException], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    written(tmp_path / "model.gguf")
    read = []

    def failing(weight: Any, dtype: torch.dtype) -> torch.Tensor:
        read.append(weight)
        if len(read) > 9:
            raise failure("cause", "remedy")
        return read_weight(weight, dtype)

    monkeypatch.setattr(conversion, "read_weight", failing)
    with pytest.raises(KeyboardInterrupt if failure is KeyboardInterrupt else ModelError):
        load_as(tmp_path / "model.gguf")
    assert folders(cache) == set()
    monkeypatch.undo()


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "model.gguf"
    written(path)

    def touching(weight: Any, dtype: torch.dtype) -> torch.Tensor:
        os.utime(path, (1, 1))
        return read_weight(weight, dtype)

    monkeypatch.setattr(conversion, "read_weight", touching)
    with pytest.raises(ModelError, match="changed while it was read"):
        load_as(path)
    assert folders(cache) == set()


def test_a_file_that_shrinks_while_it_is_read_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "model.gguf"
    written(path, kind=Kind.Q8_0)

    def shrinking(weight: Any, dtype: torch.dtype) -> torch.Tensor:
        os.truncate(path, 100)
        return read_weight(weight, dtype)

    monkeypatch.setattr(conversion, "read_weight", shrinking)
    with pytest.raises(ModelError, match="changed while it was read"):
        load_as(path)
    assert folders(cache) == set()


def test_what_killed_processes_left_is_swept_away(tmp_path: Path, cache: Path):
    written(tmp_path / "model.gguf")
    for name, age in (("tmp-old", 1), ("tmp-new", 4_000_000_000)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (age, age))
    load_as(tmp_path / "model.gguf")
    assert {name for name in folders(cache) if name.startswith("tmp-")} == {"tmp-new"}


def test_large_models_are_written_in_shards(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    model = written(tmp_path / "model.gguf")
    monkeypatch.setattr(conversion, "_SHARD_BYTES", 100_000)
    found = load_as(tmp_path / "model.gguf").model
    (folder,) = folders(cache)
    shards = sorted((cache / folder).glob("*.safetensors"))
    assert len(shards) > 3
    index = json.loads((cache / folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    for name, parameter in model.named_parameters():
        assert torch.equal(found.get_parameter(name), parameter)


def test_progress_is_told_in_bytes_up_to_all_of_them(tmp_path: Path):
    written(tmp_path / "model.gguf")
    told: list[tuple[str, int, int]] = []
    load(
        str(tmp_path / "model.gguf"),
        "cpu",
        "float32",
        on_progress=lambda *entry: told.append(entry),
    )
    converting = [entry for entry in told if entry[0] == "convert"]
    done = [entry[1] for entry in converting]
    assert done == sorted(done)
    assert len(set(done)) == len(done)
    assert converting[-1][1] == converting[-1][2] > 0


def test_the_gates_verdict_is_remembered_of_a_converted_model(tmp_path: Path):
    written(tmp_path / "model.gguf")
    first, again = (prepare(load_as(tmp_path / "model.gguf")) for _ in range(2))
    assert first.gate is not None
    assert again.gate is not None
    assert (first.gate.remembered, again.gate.remembered) == (False, True)


def test_a_cache_that_cannot_be_written_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written(tmp_path / "model.gguf")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot be converted into .*: a file is in the way"):
        load_as(tmp_path / "model.gguf")


def test_a_disk_that_is_full_meanwhile_is_said_in_plain_words(tmp_path: Path, cache: Path):
    written(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match="cannot be converted") as caught, full_disk(1 << 15):
        load_as(tmp_path / "model.gguf")
    assert caught.value.cause.endswith(": File too large")
    assert caught.value.remedy.startswith("make room there, or point XDG_CACHE_HOME")
    assert folders(cache) == set()
