"""Ollama's store: names that point to manifests, manifests that point to files by their hashes.

Source:
    The package `manifest` of Ollama (2026): `manifests-v2/HOST/NAMESPACE/MODEL/TAG`, a link to the
    manifest among the blobs, goes before `manifests/` of the same layout. A manifest may list
    others, one for each program that runs them.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pie_cli.folders import home
from pie_cli.models.gguf.files import is_gguf
from pie_cli.models.stores.found import GGUF, SAFETENSORS, Found, size_of
from pie_cli.regular import read_regular

_HOST: Final = "registry.ollama.ai"
_NAMESPACE: Final = "library"
_TAG: Final = "latest"
_LISTING: Final = "application/vnd.ollama.manifest.list.v2+json"
_LAYER: Final = "application/vnd.ollama.image."
_DIGEST: Final = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_MAX_MANIFEST_BYTES: Final = 1 << 20
_ROOTS: Final = ("manifests-v2", "manifests")


def folder() -> Path:
    """Return the folder of Ollama's models, whether it exists or not."""
    own = os.environ.get("OLLAMA_MODELS")
    return Path(own) if own else home() / ".ollama" / "models"


def models() -> Iterator[Found]:
    """List what Ollama has; what its store holds damaged is listed with the problem."""
    root = folder()
    seen: set[tuple[str, ...]] = set()
    for manifests in (root / name for name in _ROOTS):
        try:
            paths = sorted(manifests.glob("*/*/*/*"))
        except OSError:
            continue
        for path in paths:
            parts = path.relative_to(manifests).parts
            if parts not in seen and not path.is_dir():
                seen.add(parts)
                yield _found(root, path, parts)


def spelled(name: str) -> str:
    """Return a model's name with the tag that Ollama takes for granted."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:{_TAG}"


def _found(root: Path, path: Path, parts: tuple[str, ...]) -> Found:
    host, namespace, model, tag = parts
    name = f"{model}:{tag}"
    if host != _HOST:
        name = f"{host}/{namespace}/{name}"
    elif namespace != _NAMESPACE:
        name = f"{namespace}/{name}"
    others = (name.removesuffix(f":{_TAG}"),) if tag == _TAG else ()
    try:
        manifest = _manifest(root, path)
        file, form = _weights(root, manifest)
    except _UnusableError as error:
        return Found(name, "Ollama", "unknown", path, 0, str(error), others)
    except OSError as error:
        reason = f"its manifest cannot be read: {error.strerror}"
        return Found(name, "Ollama", "unknown", path, 0, reason, others)
    return Found(name, "Ollama", form, file, size_of(file), others=others)


class _UnusableError(Exception):
    """What is wrong with a manifest, in half a sentence."""


def _manifest(root: Path, path: Path) -> Mapping[str, Any]:
    """Read a manifest; of several, the one for a program that reads GGUF."""
    manifest = _read(path)
    if manifest.get("mediaType") != _LISTING:
        return manifest
    children = [child for child in _list(manifest, "manifests") if isinstance(child, dict)]
    # Those that say GGUF first, then those that say nothing.
    children.sort(key=lambda child: (child.get("format") != GGUF, bool(child.get("format"))))
    if not children:
        raise _UnusableError("its manifest lists nothing")
    child = children[0]
    if child.get("layers") or "digest" not in child:
        return child
    return {**_read(_blob(root, child["digest"])), "format": child.get("format", "")}


def _weights(root: Path, manifest: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the file of a manifest's weights and its format."""
    layers = [layer for layer in _list(manifest, "layers") if isinstance(layer, dict)]
    kinds = [str(layer.get("mediaType")).removeprefix(_LAYER) for layer in layers]
    if "adapter" in kinds:
        raise _UnusableError("it is an adapter on another model")
    if "model" not in kinds:
        form = SAFETENSORS if "tensor" in kinds else str(manifest.get("format") or "unknown")
        raise _UnusableError(f"it is kept as Ollama's {form}, not as GGUF")
    file = _blob(root, layers[kinds.index("model")].get("digest"))
    if not file.is_file():
        raise _UnusableError(f"its file {file.name[:19]}… is missing")
    return file, GGUF if is_gguf(file) else "unknown"


def _blob(root: Path, digest: object) -> Path:
    """Return the file of a digest, which names a hash and nothing else."""
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if match is None:
        raise _UnusableError("its manifest names a file by something else than a hash")
    return root / "blobs" / f"sha256-{match[1].lower()}"


def _read(path: Path) -> Mapping[str, Any]:
    data = read_regular(path)
    try:
        manifest = json.loads(data) if len(data) <= _MAX_MANIFEST_BYTES else None
    except (ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict):
        raise _UnusableError("its manifest is damaged")
    return manifest


def _list(manifest: Mapping[str, Any], key: str) -> list[Any]:
    found = manifest.get(key)
    return found if isinstance(found, list) else []
