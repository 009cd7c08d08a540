"""Transformers' own cache: made, and looked into."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


def stock_cache(config: Any = None) -> DynamicCache:
    """Make transformers' own growing cache.

    Without a config every layer keeps every key, sliding windows or not; with one, each keeps what
    the model needs to go on.
    """
    return DynamicCache(config=config)


def unusual_layer(config: Any) -> str | None:
    """Say which layer keeps something else than keys and values by its config, in a few words."""
    try:
        layers = DynamicCache(config=config).layers
    except Exception:  # noqa: BLE001 - a config that says nothing about layers is no objection
        return None
    for index, layer in enumerate(layers):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            running = "Linear" in type(layer).__name__
            return f"layer {index} keeps " + (
                "a running state, not keys" if running else "more than keys and values"
            )
    return None


def stock_states(cache: DynamicCache) -> list[tuple[Tensor, Tensor] | None]:
    """Return each layer's keys and values [B, H, S, D] in a stock cache, None for other layers."""
    return [
        (layer.keys, layer.values)
        if type(layer) is DynamicLayer and layer.keys is not None and layer.values is not None
        else None
        for layer in cache.layers
    ]
