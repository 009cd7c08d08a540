"""Write a GGUF model as a folder of safetensors, which everything else loads like any other.

The folder appears whole or not at all: it is written under another name and renamed at the end.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file

from pie_cli.models.checkpoint import INDEX, WEIGHTS
from pie_cli.models.gguf.architectures import architecture_of, config_of
from pie_cli.models.gguf.files import ORIGIN
from pie_cli.models.gguf.model import GgufModel
from pie_cli.models.gguf.tokens import fields_of, tokenizer_of
from pie_cli.models.gguf.weights import PLAIN, Weight, plan_weights, read_weight
from pie_cli.models.quiet import Progress
from pie_cli.models.temporary import temporary_folder
from pie_cli.storing import system_errors

STAGE: Final = "convert"
"""What progress is told; counted in bytes of the finished weights."""

_SHARD_BYTES: Final = 2_000_000_000


@dataclass(frozen=True, eq=False)
class Conversion:
    """A model looked through, ready to be written.

    Attributes:
        model: its headers.
        config: for transformers.
        weights: where each comes from.
        dtype: of what is unpacked.
    """

    model: GgufModel
    config: Mapping[str, Any]
    weights: tuple[Weight, ...]
    dtype: torch.dtype

    @property
    def size_bytes(self) -> int:
        """Of the finished weights."""
        return sum(map(self._bytes_of, self.weights))

    def write(self, folder: Path, on_progress: Progress | None = None) -> None:
        """Write the folder; its parent exists, it does not.

        Args:
            folder: to appear.
            on_progress: told about `STAGE`.

        Raises:
            ModelError: the tokenizer is not read, or a file changed meanwhile.
            OSError: the disk is full, or something cannot be read or written.
        """
        found = tokenizer_of(self.model.facts)
        with temporary_folder(folder.parent) as temporary, system_errors():
            found.tokenizer.save(str(temporary / "tokenizer.json"))
            window = int(self.config["max_position_embeddings"])
            _dump(temporary / "tokenizer_config.json", fields_of(found, window))
            _dump(temporary / "generation_config.json", {"eos_token_id": list(found.eos_ids)})
            facts = self.model.facts
            _dump(
                temporary / ORIGIN,
                {
                    "file": facts.path.name,
                    "architecture": facts.architecture,
                    "fim": dict(found.fim),
                },
            )
            self._write_weights(temporary, on_progress)
            _dump(temporary / "config.json", self.config)
            try:
                temporary.rename(folder)
            except OSError:
                # Another process was first with the same.
                if not (folder / "config.json").is_file():
                    raise

    def _write_weights(self, folder: Path, on_progress: Progress | None) -> None:
        done, total = 0, self.size_bytes
        shards = list(_shards(self.weights, self._bytes_of))
        index: dict[str, str] = {}
        for number, weights in enumerate(shards, start=1):
            name = WEIGHTS if len(shards) == 1 else _shard_name(number, len(shards))
            tensors = {}
            for weight in weights:
                tensors[weight.name] = read_weight(weight, self.dtype)
                done += self._bytes_of(weight)
                if on_progress is not None:
                    on_progress(STAGE, done, total)
            save_file(tensors, folder / name, metadata={"format": "pt"})
            index |= dict.fromkeys(tensors, name)
        if len(shards) > 1:
            _dump(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": index})

    def _bytes_of(self, weight: Weight) -> int:
        dtype = PLAIN.get(weight.sources[0].tensor.kind, self.dtype)
        return int(torch.Size(weight.shape).numel() * dtype.itemsize)


def plan_conversion(model: GgufModel, dtype: str) -> Conversion:
    """Look a model through before anything is written.

    Args:
        model: its headers.
        dtype: of what is unpacked: "float32", "bfloat16" or "float16".

    Raises:
        ModelError: it is of no kind that is read, or contradicts itself.
    """
    architecture, config = architecture_of(model), config_of(model)
    weights = plan_weights(model, architecture, config)
    return Conversion(model, config, weights, getattr(torch, dtype))


def _shards(weights: tuple[Weight, ...], bytes_of: Any) -> Iterator[list[Weight]]:
    shard: list[Weight] = []
    size = 0
    for weight in weights:
        if shard and size + bytes_of(weight) > _SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(weight)
        size += bytes_of(weight)
    yield shard


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05}-of-{count:05}.safetensors"


def _dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")
