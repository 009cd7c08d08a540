"""What the models on this disk are: of which family, how large, whether they are read and fit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from pie_cli.errors import ModelError
from pie_cli.models.catalog import ITEM_BYTES, Need
from pie_cli.models.checkpoint import inspect_folder
from pie_cli.models.gguf.architectures import ARCHITECTURES
from pie_cli.models.gguf.model import GgufModel, open_gguf
from pie_cli.models.known import Shape
from pie_cli.models.registry import ALIASES
from pie_cli.models.stores.found import GGUF, SAFETENSORS, Found
from pie_cli.models.stores.lookup import all_models
from pie_cli.models.stores.package import PACKAGED

_STORED_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class StoredEntry:
    """A model on this disk, looked at.

    Attributes:
        found: where it is.
        family: llama.cpp's architecture or the config's type; None where that cannot be told.
        parameters: likewise.
        needs: memory by dtype; empty where that cannot be told.
        fits: the dtypes in which it fits the free memory; None where that cannot be told.
    """

    found: Found
    family: str | None = None
    parameters: int | None = None
    needs: Mapping[str, Need] | None = None
    fits: tuple[str, ...] | None = None


def list_stored(context_tokens: int, free_bytes: int | None) -> Iterator[StoredEntry]:
    """List what other tools have on this disk, and what was fetched under a hub name.

    Models that have a name of pie's own are listed with these. Reads headers, no weights.

    Args:
        context_tokens: length of the prompt that the cache is reckoned for.
        free_bytes: memory of the device that they shall fit; None where it cannot be told.
    """
    seen: set[str] = set(PACKAGED)
    for found in all_models():
        if found.name in seen or (found.store == "hub" and found.name in ALIASES.values()):
            continue
        seen.add(found.name)
        yield _looked_at(found, context_tokens, free_bytes)


def _looked_at(found: Found, context_tokens: int, free_bytes: int | None) -> StoredEntry:
    if found.problem is not None:
        return StoredEntry(found)
    try:
        if found.format == GGUF:
            family, parameters, shape = _of_gguf(open_gguf(found.path))
        elif found.format == SAFETENSORS:
            family, parameters, shape = _of_folder(found)
        else:
            return StoredEntry(replace(found, problem="its format is not known here"))
    except ModelError as error:
        return StoredEntry(replace(found, problem=error.cause))
    if found.format == GGUF and family not in ARCHITECTURES:
        found = replace(found, problem=f"the architecture {family!r} is not read")
        return StoredEntry(found, family, parameters)
    if shape is None:
        return StoredEntry(found, family, parameters)
    tokens = min(context_tokens, shape.window)
    needs = {
        dtype: Need(parameters * size, shape.cache_bytes(tokens, size))
        for dtype, size in ITEM_BYTES.items()
    }
    fits = None
    if free_bytes is not None:
        fits = tuple(dtype for dtype, need in needs.items() if need.total_bytes <= free_bytes)
    return StoredEntry(found, family, parameters, needs, fits)


def _of_gguf(model: GgufModel) -> tuple[str, int, Shape | None]:
    facts = model.facts
    try:
        heads = facts.integer("{arch}.attention.head_count")
        hidden = facts.integer("{arch}.embedding_length")
        shape = Shape(
            hidden=hidden,
            mlp=facts.integer("{arch}.feed_forward_length"),
            layers=facts.integer("{arch}.block_count"),
            heads=heads,
            kv_heads=facts.integer("{arch}.attention.head_count_kv", heads),
            window=facts.integer("{arch}.context_length"),
            head_dim=facts.integer("{arch}.attention.key_length", hidden // max(heads, 1)),
        )
    except ModelError:
        # Other architectures count otherwise; they are named all the same.
        shape = None
    return facts.architecture, model.elements, shape


def _of_folder(found: Found) -> tuple[str, int, Shape | None]:
    checkpoint = inspect_folder(found.path)
    try:
        shape = Shape.from_config(checkpoint.config)
    except (KeyError, TypeError):
        shape = None
    family = str(checkpoint.config.get("model_type", ""))
    parameters = checkpoint.weights_bytes // _STORED_BYTES.get(checkpoint.dtype or "", 4)
    return family, parameters, shape
