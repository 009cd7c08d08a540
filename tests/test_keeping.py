"""What an earlier run kept of a document: the same answers, sooner, and never an approximation."""

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel, prepare
from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.protocol import Engine
from pie_cli.errors import PieError
from pie_cli.keeping import KeptCache, KeptCaches, kept_caches, kept_folder
from pie_cli.models.loading import load
from pie_cli.results import Prediction
from pie_cli.session import EditSession
from tests.conftest import SOURCE
from tests.disks import full_disk
from tests.sessions import check, keys_and_values, slots

# At the end of the text, so that what is appended leaves the prompt's beginning as it is.
SETTINGS = Settings(max_tokens=8, strategy="pie+seam:8", at="end", chunk_tokens=64)
DOCUMENT = Path("/somewhere/area.py")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone; the folder of kept caches in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return kept_folder()


def place(model: PreparedModel, document: Path = DOCUMENT) -> KeptCache:
    kept = kept_caches(model, wanted=True)
    assert kept is not None
    return kept.of(document)


def new_session(
    model: PreparedModel, settings: Settings = SETTINGS, document: Path = DOCUMENT
) -> EditSession:
    return EditSession(model, "area.py", settings, place(model, document))


def kept(model: PreparedModel, text: str = SOURCE, document: Path = DOCUMENT) -> EditSession:
    """Return a session whose cache has been kept."""
    session = new_session(model, document=document)
    session.open(text)
    assert session.keep() > 0
    return session


def same(one: Prediction, other: Prediction) -> bool:
    return (one.text, one.at, one.token_ids, one.stopped_by, one.exact) == (
        other.text,
        other.at,
        other.token_ids,
        other.stopped_by,
        other.exact,
    )


FOLLOWING = replace(SETTINGS, at="edit")


def edited(model: PreparedModel, text: str) -> EditSession:
    """Return a session that followed an edit to a text, whose exact cache has been kept."""
    session = new_session(model, FOLLOWING)
    session.open(SOURCE)
    session.update(text)
    assert session.compare() is not None
    assert session.keep() > 0
    return session


def test_the_next_run_goes_on_at_the_last_ones_cursor(tiny_model: PreparedModel) -> None:
    text = SOURCE.replace("size = width * height + 3", "size = width * height - 3")
    before = edited(tiny_model, text)
    session = new_session(tiny_model, FOLLOWING)
    cursor = session.resumed(text)
    assert cursor == before.cursor
    prediction = session.open(text, at=cursor)
    assert prediction.exact
    assert prediction.tokens.encoded == 1
    assert same(prediction, EditSession(tiny_model, "area.py", FOLLOWING).open(text, at=cursor))


def test_another_text_or_place_asked_for_has_nothing_to_go_on_at(tiny_model: PreparedModel) -> None:
    text = SOURCE.replace("size = width * height + 3", "size = width * height - 3")
    edited(tiny_model, text)
    assert new_session(tiny_model, FOLLOWING).resumed(SOURCE) is None
    assert new_session(tiny_model, SETTINGS).resumed(text) is None
    assert new_session(tiny_model, FOLLOWING, Path("other.py")).resumed(text) is None
    assert EditSession(tiny_model, "area.py", FOLLOWING).resumed(text) is None


def test_other_weights_of_the_same_size_and_time_are_another_model(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))
    identities = set()
    for factor in (1.0, 1.01):
        tensors = load_file(copy / "model.safetensors")
        tensors["model.layers.1.mlp.up_proj.weight"].mul_(factor)
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
        os.utime(copy / "model.safetensors", (1e9, 1e9))
        identities.add(prepare(load(str(copy), "cpu")).identity)
    assert len(identities) == 2


@pytest.mark.parametrize("damage", [b"", b"no safetensors", b"\xff" * 64])
def test_a_damaged_file_has_no_cursor(tiny_model: PreparedModel, damage: bytes) -> None:
    kept(tiny_model)
    place(tiny_model, DOCUMENT).path.write_bytes(damage)
    assert new_session(tiny_model, FOLLOWING).resumed(SOURCE) is None


def test_the_next_run_predicts_the_same_and_encodes_one_token(tiny_model: PreparedModel) -> None:
    before = kept(tiny_model)
    without = EditSession(tiny_model, "area.py", SETTINGS).open(SOURCE)
    session = new_session(tiny_model)
    prediction = session.open(SOURCE)
    total = prediction.tokens.total
    assert same(prediction, without)
    assert prediction.exact
    assert (prediction.tokens.reused, prediction.tokens.encoded) == (total - 1, 1)
    assert (prediction.tokens.from_disk, session.from_disk) == (total - 1, total - 1)
    assert prediction.tokens.restored == 0
    assert (without.tokens.from_disk, without.strategy) == (0, "full")
    assert prediction.strategy == "prefix"
    for one, other in zip(
        keys_and_values(slots(before)), keys_and_values(slots(session)), strict=True
    ):
        assert torch.equal(one[:, : total - 1], other[:, : total - 1])
    check(session, prediction)


def test_edits_go_on_from_there(tiny_model: PreparedModel) -> None:
    kept(tiny_model)
    session = new_session(tiny_model)
    session.open(SOURCE)
    prediction = session.update(SOURCE.replace("size", "extent", 1))
    check(session, prediction)
    assert (prediction.tokens.from_disk, session.from_disk > 0) == (0, True)
    assert session.compare(how="full") is not None
    assert session.exact


@pytest.mark.parametrize("primes", [False, True])
def test_of_a_changed_text_the_common_beginning_is_used(
    tiny_model: PreparedModel, primes: bool
) -> None:
    kept(tiny_model)
    changed = SOURCE.replace("area_9", "volume_9")
    session = new_session(tiny_model)
    if primes:
        session.prime(changed)
    else:
        prediction = session.open(changed)
        check(session, prediction)
        assert prediction.exact
        assert prediction.tokens.from_disk == session.from_disk
        without = EditSession(tiny_model, "area.py", SETTINGS).open(changed)
        assert same(prediction, without)
    assert session.prompt is not None
    assert session.exact
    assert 64 <= session.from_disk < 0.9 * len(session.prompt.token_ids)


def test_what_shares_little_is_encoded_as_ever(tiny_model: PreparedModel) -> None:
    kept(tiny_model)
    prediction = new_session(tiny_model).open("x = 1\n" + SOURCE)
    assert (prediction.tokens.from_disk, prediction.strategy) == (0, "full")


def test_a_cache_that_is_not_exact_is_not_kept_and_the_last_one_stays(
    tiny_model: PreparedModel,
) -> None:
    session = kept(tiny_model)
    (path,) = kept_folder().iterdir()
    data = path.read_bytes()
    prediction = session.update(SOURCE.replace("width", "breadth", 1))
    assert not prediction.exact
    assert session.keep() == 0
    assert path.read_bytes() == data
    assert session.compare(how="prefix") is not None
    assert session.keep() > 0
    assert path.read_bytes() != data


def test_a_session_without_a_text_or_a_place_keeps_nothing(tiny_model: PreparedModel) -> None:
    assert new_session(tiny_model).keep() == 0
    session = EditSession(tiny_model, "area.py", SETTINGS)
    session.open(SOURCE)
    assert session.keep() == 0
    assert not kept_folder().exists()


def test_a_look_at_a_part_of_a_text_does_not_cost_the_rest(tiny_model: PreparedModel) -> None:
    kept(tiny_model)
    (path,) = kept_folder().iterdir()
    data = path.read_bytes()
    session = new_session(tiny_model)
    session.open(SOURCE[: SOURCE.index("def area_8")])
    assert session.from_disk
    assert session.keep() == len(data)
    assert path.read_bytes() == data


def test_what_full_recompute_takes_is_what_it_took_when_all_was_encoded(
    tiny_model: PreparedModel,
) -> None:
    before = kept(tiny_model)
    session = new_session(tiny_model)
    session.open(SOURCE)
    assert session._effort == before._effort
    assert session._effort.tokens == len(before.prompt.token_ids)  # type: ignore[union-attr]
    session.keep()
    assert new_session(tiny_model)._effort.tokens == 0
    place_ = place(tiny_model)
    assert place_.effort().of(10) is None


@pytest.mark.parametrize("change", ["weights", "dtype", "device", "torch", "weights mode", "path"])
def test_another_model_or_document_takes_nothing(
    tiny_model: PreparedModel,
    tiny_checkpoint: Path,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept(tiny_model)
    document = DOCUMENT
    if change == "path":
        other, document = tiny_model, DOCUMENT.with_name("other.py")
    elif change == "weights mode":
        assert tiny_model.identity is not None
        assert tiny_model.identity.endswith("-full")
        other = replace(tiny_model, identity=tiny_model.identity.replace("-full", "-int8"))
    elif change == "dtype":
        other = prepare(load(str(tiny_checkpoint), "cpu", "bfloat16"))
    elif change == "torch":
        monkeypatch.setattr(torch, "__version__", "0.0.0")
        other = prepare(load(str(tiny_checkpoint), "cpu", "float32"))
    elif change == "weights":
        weights = tiny_checkpoint / "model.safetensors"
        status = weights.stat()
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
        try:
            other = prepare(load(str(tiny_checkpoint), "cpu", "float32"))
        finally:
            os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    else:
        other = replace(tiny_model, identity="of another device")
    assert new_session(other, document=document).open(SOURCE).tokens.from_disk == 0


def test_the_same_model_loaded_again_is_the_same(
    tiny_model: PreparedModel, tiny_checkpoint: Path
) -> None:
    kept(tiny_model)
    again = prepare(load(str(tiny_checkpoint), "cpu", "float32"))
    assert new_session(again).open(SOURCE).tokens.from_disk > 0


def test_nothing_is_kept_unasked_or_of_a_model_that_nothing_tells_from_others(
    tiny_model: PreparedModel,
) -> None:
    assert kept_caches(tiny_model, wanted=True) is not None
    assert kept_caches(tiny_model, wanted=False) is None
    assert kept_caches(replace(tiny_model, identity=None), wanted=True) is None


def test_a_damaged_file_is_no_failure(tiny_model: PreparedModel) -> None:
    kept(tiny_model)
    (path,) = kept_folder().iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    session = new_session(tiny_model)
    assert session.open(SOURCE).tokens.from_disk == 0
    assert session.keep() == path.stat().st_size
    assert new_session(tiny_model).open(SOURCE).tokens.from_disk > 0


def test_nobody_else_can_read_it(tiny_model: PreparedModel) -> None:
    kept(tiny_model)
    (path,) = kept_folder().iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept_folder().stat().st_mode) == 0o700


def test_what_was_used_least_recently_goes_first(tiny_model: PreparedModel) -> None:
    paths = {}
    for age, name in ((40, "a"), (30, "b"), (20, "c")):
        document = DOCUMENT.with_name(f"{name}.py")
        kept(tiny_model, document=document)
        paths[name] = place(tiny_model, document).path
        os.utime(paths[name], (1e9 - age, 1e9 - age))
    # Reading is using.
    assert new_session(tiny_model, document=DOCUMENT.with_name("a.py")).open(SOURCE).exact
    size = paths["a"].stat().st_size
    assert tiny_model.identity is not None
    narrow = KeptCaches(tiny_model.identity, 3 * size)
    session = EditSession(tiny_model, "area.py", SETTINGS, narrow.of(DOCUMENT))
    session.open(SOURCE)
    assert session.keep() == size
    assert set(kept_folder().iterdir()) == {paths["a"], paths["c"], place(tiny_model).path}
    document = DOCUMENT.with_name("d.py")
    narrower = KeptCaches(tiny_model.identity, size)
    session = EditSession(tiny_model, "area.py", SETTINGS, narrower.of(document))
    session.open(SOURCE)
    assert session.keep() == size
    assert list(kept_folder().iterdir()) == [place(tiny_model, document).path]


def test_a_cache_beyond_the_bound_is_not_kept_nor_costs_it_others(
    tiny_model: PreparedModel,
) -> None:
    kept(tiny_model)
    (path,) = kept_folder().iterdir()
    assert tiny_model.identity is not None
    caches = KeptCaches(tiny_model.identity, path.stat().st_size // 2)
    session = EditSession(tiny_model, "b.py", SETTINGS, caches.of(Path("b.py")))
    session.open(SOURCE)
    assert session.keep() == 0
    assert list(kept_folder().iterdir()) == [path]


def test_what_a_killed_process_left_goes(tiny_model: PreparedModel) -> None:
    kept_folder().mkdir(parents=True)
    old, young = kept_folder() / "tmp-old", kept_folder() / "tmp-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    kept(tiny_model)
    assert not old.exists()
    assert young.exists()


def broken(act: Callable[[Path], object]) -> Callable[..., int]:
    def write_states(engine: Engine, path: Path, *rest: object) -> int:
        path.write_bytes(b"half")
        act(path)
        return 0

    return write_states


def no_room(_: Path) -> None:
    raise OSError(28, "No space left on device")


def interrupted(_: Path) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("act", "error"),
    [(no_room, PieError), (interrupted, KeyboardInterrupt), (lambda _: None, None)],
)
def test_a_write_that_fails_or_is_broken_off_leaves_the_last_file(
    tiny_model: PreparedModel,
    act: Callable[[Path], object],
    error: type[BaseException] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = kept(tiny_model)
    (path,) = kept_folder().iterdir()
    data = path.read_bytes()
    monkeypatch.setattr(EditedEngine, "write_states", broken(act))
    if error is None:
        assert session.keep() == 0
    else:
        with pytest.raises(error) as caught:
            session.keep()
        if isinstance(caught.value, PieError):
            assert "No space left" in caught.value.cause
            assert "--keep-cache" in caught.value.remedy
    assert list(kept_folder().iterdir()) == [path]
    assert path.read_bytes() == data


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(
    tiny_model: PreparedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("anything")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    session = new_session(tiny_model)
    session.open(SOURCE)
    with pytest.raises(PieError, match=r"cannot be kept in .*: a file is in the way; move it away"):
        session.keep()


def test_a_full_disk_is_said_in_plain_words(tiny_model: PreparedModel) -> None:
    session = new_session(tiny_model)
    session.open(SOURCE)
    with pytest.raises(PieError) as caught, full_disk(4_096):
        session.keep()
    assert caught.value.cause.endswith(f"kept in {kept_folder()}: File too large")
    assert caught.value.remedy.startswith("make room there, set XDG_CACHE_HOME")
    assert list(kept_folder().iterdir()) == []
