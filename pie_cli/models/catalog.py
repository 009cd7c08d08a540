"""What each known model needs, what of it is on this disk, and whether it fits this machine."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pie_cli.errors import ModelError
from pie_cli.models.cache import OnDisk, Presence, look_up
from pie_cli.models.choice import EMBEDDED
from pie_cli.models.known import KNOWN, KnownModel, Shape
from pie_cli.models.registry import EMBEDDED_FOLDER, resolve
from pie_cli.models.stores.package import PACKAGED

ITEM_BYTES: Final[Mapping[str, int]] = MappingProxyType({"float32": 4, "bfloat16": 2})
"""Bytes of a weight, by dtype; float16 takes what bfloat16 takes."""


@dataclass(frozen=True)
class Need:
    """Memory that a model takes in one dtype.

    Attributes:
        weights_bytes: of its weights.
        cache_bytes: of pie's KV cache at the context length asked for.
    """

    weights_bytes: int
    cache_bytes: int

    @property
    def total_bytes(self) -> int:
        """Of both."""
        return self.weights_bytes + self.cache_bytes


@dataclass(frozen=True)
class Entry:
    """A model of the catalog.

    Attributes:
        name: what `--model` takes.
        model: its facts.
        context_tokens: that the cache is reckoned for: the length asked for, or the whole window.
        needs: by dtype.
        on_disk: what lies there of it.
        fits: the dtypes in which it fits the free memory; None where that cannot be told.
    """

    name: str
    model: KnownModel
    context_tokens: int
    needs: Mapping[str, Need]
    on_disk: OnDisk
    fits: tuple[str, ...] | None


def list_models(context_tokens: int, free_bytes: int | None) -> Iterator[Entry]:
    """List the embedded model, those in packages, and those that have an alias.

    Args:
        context_tokens: length of the prompt that the cache is reckoned for.
        free_bytes: memory of the device that they have to fit; None where it cannot be told.
    """
    embedded = _embedded()
    if embedded is not None:
        yield _entry(EMBEDDED, embedded, context_tokens, free_bytes)
    for name, packaged in PACKAGED.items():
        yield _entry(name, packaged.model, context_tokens, free_bytes)
    for name, model in KNOWN.items():
        yield _entry(name, model, context_tokens, free_bytes)


def _entry(name: str, model: KnownModel, context_tokens: int, free_bytes: int | None) -> Entry:
    shape = model.shape
    tokens = min(context_tokens, shape.window)
    needs = {
        dtype: Need(shape.n_params * size, shape.cache_bytes(tokens, size))
        for dtype, size in ITEM_BYTES.items()
    }
    fits = None
    if free_bytes is not None:
        fits = tuple(dtype for dtype, need in needs.items() if need.total_bytes <= free_bytes)
    return Entry(name, model, tokens, needs, _on_disk(name), fits)


def _on_disk(name: str) -> OnDisk:
    try:
        return look_up(resolve(name))
    except ModelError:
        return OnDisk(Presence.ABSENT)


def _embedded() -> KnownModel | None:
    """Return the embedded model's facts, which change when it is trained again."""
    try:
        config = json.loads((EMBEDDED_FOLDER / "config.json").read_text(encoding="utf-8"))
        shape = Shape.from_config(config)
    except (OSError, ValueError, KeyError):
        return None
    return KnownModel(EMBEDDED, shape, "apache-2.0")
