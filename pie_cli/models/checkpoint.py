"""Look through a model's folder before it is loaded: complete, whole, and safe to open.

transformers reports such faults late, at length, or not at all; here each becomes one line that
names the file. Weights are read as safetensors only: pickles can run code.
"""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open

from pie_cli.errors import ModelError
from pie_cli.models.registry import remedy
from pie_cli.regular import is_regular, read_regular

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
CHECKSUMS: Final = "SHA256SUMS"

MAX_JSON_BYTES: Final = 1 << 28
"""Of a config or an index: some hundred times what the largest ones have."""

MAX_JSON_DEPTH: Final = 64

_AGAIN: Final = "download or save the model again"
_READ: Final = (".json", ".safetensors", ".model", ".txt", ".py")

_PICKLED: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DTYPES: Final = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# A folder of such shards would go another way through transformers, past the checks below.
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A folder that holds a model, looked through.

    Attributes:
        folder: where it lies.
        config: its config.json, as it is there.
        weight_files: its safetensors files.
        weights_bytes: their size on disk.
        dtype: the floating dtype that most of its tensors have, or None.
        tensors: how many there are.
        elements: numbers in all of them together.
        longest: the largest dimension of any.
    """

    folder: Path
    config: Mapping[str, Any]
    weight_files: tuple[Path, ...]
    weights_bytes: int
    dtype: str | None
    tensors: int
    elements: int
    longest: int


def inspect_folder(folder: Path) -> Checkpoint:
    """Check that a folder holds a whole model in safetensors.

    Reads headers only, no weights.

    Raises:
        ModelError: a file is missing, truncated, malformed or of a kind that is refused.
    """
    if os.path.lexists(folder / "adapter_config.json"):
        raise ModelError(
            f"{folder} holds an adapter, not a model", "merge it into its base model and save that"
        )
    _require_regular(folder)
    config = read_json(folder / "config.json")
    explicit = config.get("transformers_weights")
    if explicit is not None and not str(explicit).endswith((".safetensors", INDEX)):
        raise _pickled(folder, str(explicit))
    files = _weight_files(folder)
    headers = [_read_header(file) for file in files]
    counts = Counter(dtype for header in headers for dtype, _ in header)
    shapes = [shape for header in headers for _, shape in header]
    floats = {_DTYPES[dtype]: number for dtype, number in counts.items() if dtype in _DTYPES}
    return Checkpoint(
        folder=folder,
        config=config,
        weight_files=files,
        weights_bytes=sum(file.stat().st_size for file in files),
        dtype=max(floats, key=lambda dtype: floats[dtype]) if floats else None,
        tensors=counts.total(),
        elements=sum(map(math.prod, shapes)),
        longest=max((length for shape in shapes for length in shape), default=0),
    )


def verify_checksums(folder: Path) -> None:
    """Compare a folder's files with its list of SHA-256 sums.

    Raises:
        ModelError: the list is missing or malformed, or a file in it is missing or differs.
    """
    for name, expected in _read_sums(folder / CHECKSUMS).items():
        try:
            with (folder / name).open("rb") as file:
                actual = _sha256(file)
        except OSError as error:
            raise _damaged(f"{folder / name} cannot be read: {error.strerror}") from error
        if actual != expected:
            raise _damaged(f"{folder / name} is damaged: its checksum does not match")


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: the file is missing, unreadable, or holds something else.
    """
    try:
        value = json.loads(read_regular(path, MAX_JSON_BYTES).decode("utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} has no {path.name}", remedy()) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", remedy()) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON", _AGAIN) from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object", _AGAIN)
    if _is_deep(value):
        raise ModelError(f"{path} is nested more than {MAX_JSON_DEPTH} levels deep", _AGAIN)
    return value


def _is_deep(value: Any) -> bool:
    """Tell whether JSON is nested as no config is: what walks through it may not come back."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        inner = [entry for entry in level if isinstance(entry, dict | list)]
        level = [
            part
            for entry in inner
            for part in (entry.values() if isinstance(entry, dict) else entry)
        ]
        if not level:
            return False
    return True


def _require_regular(folder: Path) -> None:
    """Refuse pipes and devices in the place of files: reading one may never end."""
    for path in sorted(folder.iterdir()):
        if path.name.endswith(_READ) and path.exists() and not (path.is_dir() or is_regular(path)):
            raise ModelError(f"{path} is not a regular file", _AGAIN)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """Find the weights: one file, or the shards that an index names."""
    names = sorted(path.name for path in folder.iterdir())
    if any(_DISTRIBUTED.fullmatch(name) for name in names):
        raise ModelError(
            f"{folder} holds a distributed checkpoint", "save the model with save_pretrained"
        )
    if WEIGHTS in names:
        return (folder / WEIGHTS,)
    if INDEX in names:
        return _shards(folder)
    pickled = [name for name in names if name.endswith(_PICKLED)]
    if pickled:
        raise _pickled(folder, pickled[0])
    raise ModelError(f"{folder} has no {WEIGHTS}", remedy())


def _shards(folder: Path) -> tuple[Path, ...]:
    index = read_json(folder / INDEX)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{folder / INDEX} names no weights", _AGAIN)
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{folder / INDEX} names {name!r}, which is no safetensors file in that folder",
                _AGAIN,
            )
    missing = [name for name in names if not is_regular(folder / name)]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{folder} lacks {missing[0]}{more} of {len(names)} weight files",
            "download the model again",
        )
    return tuple(folder / name for name in names)


def _read_header(file: Path) -> list[tuple[str, tuple[int, ...]]]:
    """List a weight file's tensors: dtype and shape of each.

    Opening it checks its size against its header.
    """
    found: list[tuple[str, tuple[int, ...]]] = []
    try:
        with safe_open(str(file), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (not a mapping)
                tensor = tensors.get_slice(name)
                found.append((tensor.get_dtype(), tuple(tensor.get_shape())))
    except SafetensorError as error:
        raise ModelError(
            f"{file} is truncated or no safetensors file", "download or copy it again"
        ) from error
    except OSError as error:
        raise ModelError(
            f"{file} cannot be read: {error}", "check the file's permissions"
        ) from error
    return found


def _read_sums(path: Path) -> dict[str, str]:
    """Read lines of `sha256sum`: the sum, then the file's name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(f"{path} cannot be read") from error
    sums: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(r"([0-9a-f]{64}) [ *]([\w.-]+)", line)
        if not match:
            raise _damaged(f"{path} is malformed")
        sums[match[2]] = match[1]
    if WEIGHTS not in sums:
        raise _damaged(f"{path} does not list {WEIGHTS}")
    return sums


def _sha256(file: Any) -> str:
    # hashlib.file_digest came with Python 3.11.
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def _pickled(folder: Path, name: str) -> ModelError:
    return ModelError(
        f"{folder} holds pickled weights ({name}), which can run code and are refused",
        "convert them to safetensors, or " + remedy(),
    )


def _damaged(cause: str) -> ModelError:
    return ModelError(cause, "install pie again, or give another model with --model")
