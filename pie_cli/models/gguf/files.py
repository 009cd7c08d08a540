"""Which files make up a GGUF model, told by their names; nothing is read but a few first bytes."""

import re
from pathlib import Path
from typing import Final

from pie_cli.errors import ModelError
from pie_cli.regular import is_regular

SUFFIX: Final = ".gguf"
MAGIC: Final = b"GGUF"

ORIGIN: Final = "gguf.json"
"""The file in a converted folder that says what of a GGUF file has no place elsewhere."""

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
# They go with a model: image encoders, draft heads, vocabularies, importance matrices.
_COMPANIONS: Final = ("mmproj", "mtp-", "eagle3-", "dflash-", "dspark-", "ggml-vocab", "imatrix")


def is_gguf(path: Path) -> bool:
    """Tell whether a file is meant as GGUF: by its name, or by how it begins."""
    if path.suffix.lower() == SUFFIX:
        return True
    if not is_regular(path):
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def parts_of(path: Path) -> tuple[Path, ...]:
    """Return all files of a model, told from the name of any of them.

    Raises:
        ModelError: one of them is missing.
    """
    match = _PART.fullmatch(path.name)
    count = int(match[3]) if match else 1
    if match is None or count < 2:
        return (path,)
    stem, _, number = match.groups()
    paths = tuple(
        path.with_name(f"{stem}-{index:05}-of-{number}.gguf") for index in range(1, count + 1)
    )
    for index, part in enumerate(paths, start=1):
        if not part.is_file():
            raise ModelError(
                f"{part} is missing, part {index} of {count}", "put all parts into one folder"
            )
    return paths


def gguf_files(folder: Path) -> list[Path]:
    """List the models that a folder holds as GGUF, each by its first part, sorted by name."""
    found = []
    for path in sorted(folder.glob("*.gguf")):
        match = _PART.fullmatch(path.name)
        first = match is None or match[2] == "00001"
        if first and not path.name.startswith(_COMPANIONS) and path.is_file():
            found.append(path)
    return found
