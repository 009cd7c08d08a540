"""Downloads from a hub on this machine: whole, broken off, damaged."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import HfApi

from pie_cli.errors import ModelError
from pie_cli.models import hub, transfer
from pie_cli.models.cache import Presence, blobs_folder, look_up
from pie_cli.models.loading import load
from pie_cli.models.quiet import Progress, reporting_bar
from pie_cli.models.registry import resolve
from pie_cli.models.transfer import PART
from tests.models.fake_hub import FakeHub

WEIGHTS = "model.safetensors"


def prompt_bar(stage: str, on_progress: Progress) -> type[Any]:
    """Make a bar that reports each chunk: a real one waits a tenth of a second."""

    class PromptBar(reporting_bar(stage, on_progress)):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**{**options, "mininterval": 0, "miniters": 1})

    return PromptBar


@pytest.fixture
def fake_hub(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeHub]:
    """A hub with one model, an empty cache, and chunks so small that files have many."""
    server = FakeHub(checkpoint)
    constants = "huggingface_hub.constants."
    monkeypatch.setattr(constants + "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants + "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants + "HUGGINGFACE_CO_URL_TEMPLATE",
        server.address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants + "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants + "DOWNLOAD_CHUNK_SIZE", 4_096)
    monkeypatch.setattr(transfer, "reporting_bar", prompt_bar)
    monkeypatch.setattr(hub, "HfApi", lambda: HfApi(endpoint=server.address, token=False))
    yield server
    server.shutdown()
    server.server_close()


def part_of(server: FakeHub, name: str = WEIGHTS) -> Path:
    digest = hashlib.sha256(server.content(name)).hexdigest()
    return blobs_folder("owner/model") / (digest + PART)


def break_off(server: FakeHub, after: float = 0.5) -> int:
    """Interrupt a download; return how many bytes of the weights have arrived."""
    size = len(server.content(WEIGHTS))

    def interrupt(_stage: str, received: int, _total: int) -> None:
        if received > after * size:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.fetch("owner/model", on_progress=interrupt)
    return part_of(server).stat().st_size


def test_a_download_is_a_folder_that_loads_and_is_known_without_the_hub(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
):
    assert look_up(resolve("owner/model")).presence is Presence.ABSENT
    heard: list[tuple[int, int]] = []
    folder = hub.fetch(
        "owner/model", on_progress=lambda _, done, total: heard.append((done, total))
    )
    size = len(fake_hub.content(WEIGHTS))
    assert (size, size) in heard
    assert (folder / WEIGHTS).read_bytes() == fake_hub.content(WEIGHTS)
    found = look_up(resolve("owner/model"))
    assert (found.presence, found.folder) == (Presence.COMPLETE, folder)
    assert found.size_bytes > size
    assert load("owner/model", device="cpu").n_params > 0


def test_what_is_in_the_cache_is_not_asked_for_again(fake_hub: FakeHub):
    hub.fetch("owner/model")
    hub.fetch("owner/model")
    assert fake_hub.ranges[WEIGHTS] == [0]


def test_an_interrupted_download_goes_on_where_it_stopped(fake_hub: FakeHub):
    arrived = break_off(fake_hub)
    assert 0 < arrived < len(fake_hub.content(WEIGHTS))
    found = look_up(resolve("owner/model"))
    assert (found.presence, found.size_bytes) == (Presence.PARTIAL, arrived)
    folder = hub.fetch("owner/model")
    assert fake_hub.ranges[WEIGHTS] == [0, arrived]
    assert (folder / WEIGHTS).read_bytes() == fake_hub.content(WEIGHTS)
    assert not part_of(fake_hub).exists()


def test_progress_of_a_resumed_download_begins_with_what_has_arrived(fake_hub: FakeHub):
    arrived = break_off(fake_hub)
    heard: list[int] = []
    hub.fetch("owner/model", on_progress=lambda _, done, _total: heard.append(done))
    assert heard[0] >= arrived


def test_a_part_that_was_tampered_with_is_not_taken(fake_hub: FakeHub):
    arrived = break_off(fake_hub)
    part_of(fake_hub).write_bytes(bytes(arrived))
    with pytest.raises(ModelError, match="arrived damaged"):
        hub.fetch("owner/model")
    folder = hub.fetch("owner/model")
    assert (folder / WEIGHTS).read_bytes() == fake_hub.content(WEIGHTS)


def test_a_part_that_is_too_long_is_begun_anew(fake_hub: FakeHub):
    break_off(fake_hub)
    part_of(fake_hub).write_bytes(bytes(len(fake_hub.content(WEIGHTS)) + 1))
    folder = hub.fetch("owner/model")
    assert (folder / WEIGHTS).read_bytes() == fake_hub.content(WEIGHTS)


def test_a_hub_that_sends_other_bytes_is_not_believed(fake_hub: FakeHub):
    fake_hub.spoiled.add(WEIGHTS)
    with pytest.raises(ModelError, match="checksum does not match"):
        hub.fetch("owner/model")
    assert look_up(resolve("owner/model")).presence is Presence.ABSENT


def test_several_weight_files_add_up(fake_hub: FakeHub, checkpoint: Path):
    for number in (1, 2, 3, 4, 5):
        shutil.copy(checkpoint / WEIGHTS, checkpoint / f"model-{number}.safetensors")
        with (checkpoint / f"model-{number}.safetensors").open("ab") as file:
            file.write(bytes(number))
    (checkpoint / WEIGHTS).unlink()
    (checkpoint / "model.safetensors.index.json").write_text("{}")
    heard: list[tuple[int, int]] = []
    folder = hub.fetch(
        "owner/model", on_progress=lambda _, done, total: heard.append((done, total))
    )
    sizes = [len(fake_hub.content(f"model-{number}.safetensors")) for number in (1, 2, 3, 4, 5)]
    assert (sum(sizes), sum(sizes)) in heard
    assert sorted(path.name for path in folder.glob("model-*")) == [
        f"model-{number}.safetensors" for number in (1, 2, 3, 4, 5)
    ]


def test_leftovers_of_the_client_count_as_a_part(fake_hub: FakeHub):
    blobs_folder("owner/model").mkdir(parents=True)
    (blobs_folder("owner/model") / "abc.1234.incomplete").write_bytes(bytes(10))
    assert look_up(resolve("owner/model")).presence is Presence.PARTIAL


def test_a_disk_without_room_is_refused_before_the_download(
    fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
):
    size = len(fake_hub.content(WEIGHTS))
    free = SimpleNamespace(free=size - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    with pytest.raises(ModelError, match="GB are free") as caught:
        hub.fetch("owner/model")
    assert "HF_HOME" in caught.value.remedy
    assert fake_hub.ranges == {}


def test_what_has_arrived_needs_no_room_again(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch):
    missing = len(fake_hub.content(WEIGHTS)) - break_off(fake_hub)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=missing))
    hub.fetch("owner/model")


def test_a_cache_that_cannot_be_made_is_called_so(
    fake_hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(ModelError, match=r"cannot be stored in .*: a file is in the way") as caught:
        hub.fetch("owner/model")
    assert caught.value.remedy == "move it away, or point HF_HOME at another place"
