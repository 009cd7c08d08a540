"""A config's sizes against the weights on disk, before anything is built from them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pie_cli.errors import ModelError
from pie_cli.models.checkpoint import Checkpoint
from pie_cli.models.faults import quantization

_LAYERS: Final = re.compile(r"num_hidden_layers|num_layers|n_layers?|num_hidden_groups")
# What is counted becomes a module, or an entry of a list, each.
_COUNTS: Final = re.compile(
    r"(num|n)_\w+|\w+_(num|layers|heads|blocks|experts|groups|period|interval|cycles|mult|count)"
    r"|\w*depth"
)
_NO_COUNTS: Final = re.compile(r"\w*(max|pos|ctx|token|window|logits|beam|length)\w*")
_FLOOR: Final = 1_024
"""Of what a tiny model may count besides its layers."""

_SPARE_WEIGHTS: Final = 1 << 20
_SPARE_TABLES: Final = 1 << 28
_REMEDY: Final = "check that config.json and the weights belong together"


def check_counts(checkpoint: Checkpoint) -> None:
    """Refuse a config that counts more layers or other parts than its weights could be for.

    Each layer has a tensor of its own at least; building a billion of them would never end.

    Raises:
        ModelError: naming the entry.
    """
    most = max(_FLOOR, checkpoint.tensors, checkpoint.longest)
    for key, number in _numbers(checkpoint.config):
        few = checkpoint.tensors if _LAYERS.fullmatch(key) else most
        if (_COUNTS.fullmatch(key) and not _NO_COUNTS.fullmatch(key)) and number > few:
            raise ModelError(
                f"{checkpoint.folder / 'config.json'} has a {key} that is too large for the "
                f"{checkpoint.tensors:,} tensors there",
                _REMEDY,
            )


def check_sizes(checkpoint: Checkpoint) -> None:
    """Refuse a config that describes a model far larger than the weights on disk.

    What cannot be built at all is for the loading to explain.

    Raises:
        ModelError: naming both sizes.
    """
    if quantization(checkpoint.config) is not None:
        # Packed weights have other sizes.
        return
    weights, tables = _sketched(checkpoint.folder)
    # An output layer that is tied on disk counts twice at most.
    if weights > 2 * checkpoint.elements + _SPARE_WEIGHTS:
        raise _too_large(checkpoint, weights, "weights")
    if tables > 4 * checkpoint.elements + _SPARE_TABLES:
        raise _too_large(checkpoint, tables, "numbers in tables")


def _sketched(folder: Path) -> tuple[int, int]:
    """Count a model's weights, and the numbers in its tables, without memory for either."""
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    except Exception:  # noqa: BLE001 (loading will say what is wrong)
        return 0, 0
    weights = sum(parameter.numel() for parameter in model.parameters())
    return weights, sum(buffer.numel() for buffer in model.buffers())


def _too_large(checkpoint: Checkpoint, asked: int, what: str) -> ModelError:
    return ModelError(
        f"{checkpoint.folder / 'config.json'} asks for {asked:,} {what}, the files hold "
        f"{checkpoint.elements:,} weights",
        _REMEDY,
    )


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield every number of a config, also those in parts of it, with its key."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, int | float):
            yield str(key), value
        elif isinstance(value, list):
            yield from ((str(key), entry) for entry in value if isinstance(entry, int | float))
