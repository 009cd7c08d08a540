"""Files of exact keys and values: read back bit for bit, or not at all."""

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pie_cli.editable import PreparedModel, prepare
from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.forward import encode
from pie_cli.engine.kept import FORMAT, MIN_SHARED, KeptFile, UnfitFile
from pie_cli.models.loading import load
from pie_cli.text.matching import KeptRun

IDS = [(7 * n) % 300 + 3 for n in range(150)]
MODEL = "this model"


def new_engine(model: PreparedModel) -> EditedEngine:
    engine = model.new_engine(0)
    assert isinstance(engine, EditedEngine)
    return engine


def encoded(model: PreparedModel, ids: Sequence[int] = IDS) -> EditedEngine:
    engine = new_engine(model)
    engine.begin(len(ids))
    assert [step.reached for step in engine.recompute(ids, 0, 64)][-1] == len(ids)
    return engine


@pytest.fixture
def written(tiny_model: PreparedModel, tmp_path: Path) -> tuple[EditedEngine, Path]:
    """An engine, and the file of what it holds."""
    engine, path = encoded(tiny_model), tmp_path / "kept.safetensors"
    size = engine.write_states(path, IDS, MODEL, {"note": "1"}, 1 << 30)
    assert size == path.stat().st_size > 0
    return engine, path


def states(engine: EditedEngine, stop: int) -> list[torch.Tensor]:
    return [tensor for pair in engine.slots.take(0, stop) if pair for tensor in pair]


def test_what_is_read_is_what_was_written(
    tiny_model: PreparedModel, written: tuple[EditedEngine, Path]
) -> None:
    engine, path = written
    again = new_engine(tiny_model)
    again.begin(len(IDS))
    found = again.read_states(path, IDS, MODEL)
    assert found is not None
    assert (found.tokens, list(found.token_ids), found.facts["note"]) == (149, IDS, "1")
    for one, other in zip(states(engine, 149), states(again, 149), strict=True):
        assert torch.equal(one, other)
    assert again.slots.pending == (149,)


@pytest.mark.parametrize("shared", [MIN_SHARED, 100])
def test_another_prompt_takes_what_it_has_in_common(
    tiny_model: PreparedModel, written: tuple[EditedEngine, Path], shared: int
) -> None:
    _, path = written
    other = [*IDS[:shared], *(id_ + 1 for id_ in IDS[shared:140])]
    again = new_engine(tiny_model)
    again.begin(len(other))
    found = again.read_states(path, other, MODEL)
    assert found is not None
    assert found.tokens == shared
    assert again.slots.pending == tuple(range(shared, 140))
    list(again.recompute(other, shared, 64))
    scratch = encoded(tiny_model, other)
    for one, reference in zip(states(again, 140), states(scratch, 140), strict=True):
        torch.testing.assert_close(one, reference, rtol=1e-3, atol=1e-3)


def test_a_prompt_with_little_in_common_is_encoded(
    tiny_model: PreparedModel, written: tuple[EditedEngine, Path]
) -> None:
    _, path = written
    other = [*IDS[: MIN_SHARED - 1], *(id_ + 1 for id_ in IDS[MIN_SHARED - 1 :])]
    again = new_engine(tiny_model)
    again.begin(len(other))
    found = again.read_states(path, other, MODEL)
    assert found is not None
    assert found.tokens == 0
    assert len(again.slots.pending) == len(other)


def rewritten(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Return what writes a file again, sound but with other tensors."""

    def write(path: Path) -> None:
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata=header["__metadata__"])

    return write


def noted(**facts: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        tensors = load_file(path)
        save_file(tensors, path, metadata={"format": FORMAT, "model": MODEL, **facts})

    return write


def flipped(place: int) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[place] ^= 1
        path.write_bytes(data)

    return write


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"no tensors" * 100),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "cut in the header": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "a flipped bit": flipped(-2_000),
    "a flipped checksum": flipped(-8),
    "another version": noted(format="0"),
    "another model": noted(model="another"),
    "another note": noted(note="2"),
    "no metadata": lambda path: save_file(load_file(path), path),
    "a layer less": rewritten(lambda t: t.pop("2.keys")),
    "a layer more": rewritten(lambda t: t.update({"3.keys": torch.zeros(1)})),
    "no token ids": rewritten(lambda t: t.pop("token_ids")),
    "no checksums": rewritten(lambda t: t.pop("checksums")),
    "token ids of another kind": rewritten(lambda t: t.update(token_ids=torch.zeros(150))),
    "other token ids": rewritten(lambda t: t.update(token_ids=t["token_ids"] + 1)),
    "another shape": rewritten(lambda t: t.update({"1.values": t["1.values"][:, :1].clone()})),
    "another length": rewritten(lambda t: t.update({"1.values": t["1.values"][:, :, 1:].clone()})),
    "another dtype": rewritten(lambda t: t.update({"1.values": t["1.values"].bfloat16()})),
    "other numbers": rewritten(lambda t: t["2.values"].mul_(1.001)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "nothing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_that_is_not_right_counts_as_absent(
    tiny_model: PreparedModel, written: tuple[EditedEngine, Path], damage: str
) -> None:
    _, path = written
    DAMAGE[damage](path)
    again = new_engine(tiny_model)
    again.begin(len(IDS))
    assert again.read_states(path, IDS, MODEL) is None
    assert again.slots.pending == tuple(range(len(IDS)))
    list(again.recompute(IDS, 0, 64))
    for one, reference in zip(states(again, 150), states(encoded(tiny_model), 150), strict=True):
        assert torch.equal(one, reference)


def test_the_damage_is_what_does_it(written: tuple[EditedEngine, Path]) -> None:
    """The control: written again by the library, the same tensors are taken."""
    _, path = written
    rewritten(lambda tensors: None)(path)
    assert KeptFile(path, MODEL).token_ids == IDS


def test_what_another_model_computed_is_found_out_whatever_the_file_says(
    tiny_checkpoint: Path, tiny_model: PreparedModel, written: tuple[EditedEngine, Path]
) -> None:
    _, path = written
    other = prepare(load(str(tiny_checkpoint), "cpu", "float32"), remember=False)
    with torch.no_grad():
        for layer in other.loaded.model.model.layers:
            layer.self_attn.v_proj.weight.mul_(-1)
    again = new_engine(other)
    again.begin(len(IDS))
    assert again.read_states(path, IDS, MODEL) is None


def test_a_model_in_another_dtype_takes_nothing(
    tiny_checkpoint: Path, written: tuple[EditedEngine, Path]
) -> None:
    _, path = written
    again = new_engine(prepare(load(str(tiny_checkpoint), "cpu", "bfloat16")))
    again.begin(len(IDS))
    assert again.read_states(path, IDS, MODEL) is None


def test_states_of_sixteen_bits_come_back(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model, path = prepare(load(str(tiny_checkpoint), "cpu", "bfloat16")), tmp_path / "kept"
    engine = encoded(model)
    assert engine.write_states(path, IDS, MODEL, {}, 1 << 30)
    again = new_engine(model)
    again.begin(len(IDS))
    assert again.read_states(path, IDS, MODEL) is not None
    for one, other in zip(states(engine, 149), states(again, 149), strict=True):
        assert torch.equal(one, other)


def test_a_file_that_would_be_too_large_is_not_begun(
    written: tuple[EditedEngine, Path], tmp_path: Path
) -> None:
    engine, _ = written
    size = len(IDS) * engine.slots.token_bytes
    assert engine.write_states(tmp_path / "one", IDS, MODEL, {"note": "1"}, size) >= size
    assert engine.write_states(tmp_path / "two", IDS, MODEL, {"note": "1"}, size - 1) == 0
    assert not (tmp_path / "two").exists()


def test_what_is_too_short_to_be_read_again_is_not_written(
    tiny_model: PreparedModel, tmp_path: Path
) -> None:
    engine = encoded(tiny_model, IDS[:MIN_SHARED])
    assert engine.write_states(tmp_path / "one", IDS[:MIN_SHARED], MODEL, {}, 1 << 30) == 0
    longer = encoded(tiny_model, IDS[: MIN_SHARED + 1])
    assert longer.write_states(tmp_path / "one", IDS[: MIN_SHARED + 1], MODEL, {}, 1 << 30)


def test_what_was_moved_or_is_not_there_is_not_written(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    model, path = prepare(load(str(tiny_checkpoint), "cpu", "bfloat16")), tmp_path / "kept"
    engine = encoded(model)
    longer = [5, *IDS]
    engine.slots.splice((KeptRun(0, 1, len(IDS)),), len(longer), model.rotation)
    assert engine.write_states(path, IDS, MODEL, {}, 1 << 30) == 0
    assert engine.write_states(path, longer, MODEL, {}, 1 << 30) == 0
    encode(model.loaded.model, engine.slots, longer[:1], range(1), ())
    assert engine.slots.pending == ()
    assert engine.write_states(path, longer, MODEL, {}, 1 << 30) == 0
    with pytest.raises(UnfitFile):
        KeptFile(path, MODEL)
