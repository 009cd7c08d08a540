"""Stores as the tools make them, with a tiny model inside."""

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.models.gguf.test_architectures import written

MODEL = "application/vnd.ollama.image.model"


def gguf(path: Path, name: str = "llama") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    written(path, name)
    return path


class Ollama:
    """Ollama's store in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs").mkdir(parents=True)

    def blob(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (self.folder / "blobs" / f"sha256-{digest}").write_bytes(data)
        return f"sha256:{digest}"

    def add(self, name: str, manifest: Any, *, root: str = "manifests") -> Path:
        """Add a manifest under host/namespace/model/tag."""
        path = self.folder / root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        if root == "manifests":
            path.write_bytes(data)
        else:
            blob = self.folder / "blobs" / self.blob(data).replace(":", "-")
            path.symlink_to(blob)
        return path

    def manifest(self, digest: str, **further: Any) -> dict[str, Any]:
        return {"schemaVersion": 2, "layers": [{"mediaType": MODEL, "digest": digest}], **further}


def library(model: str) -> str:
    return f"registry.ollama.ai/library/{model}"
