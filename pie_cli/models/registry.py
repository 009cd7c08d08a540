"""What a model's name means: the embedded model, an alias, a local folder or a name on the hub.

Imports neither torch nor transformers, so that names can be checked before anything heavy loads.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pie_cli.config import DEFAULT_MODEL
from pie_cli.errors import ModelError

EMBEDDED: Final = DEFAULT_MODEL
EMBEDDED_FOLDER: Final = Path(__file__).parent / "nano"

ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "deepseek-coder-1.3b": "deepseek-ai/deepseek-coder-1.3b-base",
        "deepseek-coder-6.7b": "deepseek-ai/deepseek-coder-6.7b-base",
        "deepseek-coder-33b": "deepseek-ai/deepseek-coder-33b-base",
    }
)
"""Short names to hub names."""

# The hub's own rule: letters, digits, "-", "_", ".", at most one owner in front.
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


class Origin(Enum):
    """Where a model's files lie."""

    EMBEDDED = "embedded"
    FOLDER = "folder"
    HUB = "hub"


@dataclass(frozen=True)
class ModelSource:
    """A name, resolved.

    Attributes:
        name: what to call the model in results: the alias, the hub name or the folder as given.
        origin: where its files lie.
        location: a folder's path, or the name on the hub.
    """

    name: str
    origin: Origin
    location: str


@dataclass(frozen=True)
class Shape:
    """The dimensions of a Llama-architecture model, enough to build it with random weights.

    Attributes:
        hidden: width of the residual stream.
        mlp: width inside the MLP.
        layers: decoder layers.
        heads: query heads.
        kv_heads: key and value heads.
        vocabulary: entries of the embedding, not tied to the output.
        window: positions.
        rope_theta: RoPE's base.
        rope_factor: linear scaling of positions.
    """

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = 32_256
    window: int = 16_384
    rope_theta: float = 100_000.0
    rope_factor: float = 4.0

    @property
    def n_params(self) -> int:
        """Parameters, the embedding and the output counted apart."""
        kv_width = self.hidden // self.heads * self.kv_heads
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * kv_width
        layer = attention + 3 * self.hidden * self.mlp + 2 * self.hidden
        return 2 * self.vocabulary * self.hidden + self.layers * layer + self.hidden


SHAPES: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "deepseek-coder-1.3b": Shape(2_048, 5_504, 24, 16, 16),
        "deepseek-coder-6.7b": Shape(4_096, 11_008, 32, 32, 32),
        "deepseek-coder-33b": Shape(7_168, 19_200, 62, 56, 8),
    }
)
"""Shapes by alias. Source: the config.json files of the DeepSeek-Coder base models."""


def remedy() -> str:
    """Return the advice that every unusable name gets: what would work instead."""
    return (
        f"leave --model out for the embedded {EMBEDDED}, or give a local folder, a hub name, "
        f"or one of {', '.join(ALIASES)}"
    )


def resolve(name: str) -> ModelSource:
    """Say what a model's name means, without touching the network.

    The embedded model and the aliases go first, then an existing folder, then the hub; `./name`
    reaches a folder that is called like an alias.

    Args:
        name: as the user gave it.

    Raises:
        ModelError: a path where no folder is, or nothing that could be a name on the hub.
    """
    if name == EMBEDDED:
        return ModelSource(name, Origin.EMBEDDED, str(EMBEDDED_FOLDER))
    if name in ALIASES:
        return ModelSource(name, Origin.HUB, ALIASES[name])
    path = Path(name).expanduser()
    if name and path.is_dir():
        return ModelSource(name, Origin.FOLDER, str(path))
    if name and path.is_file():
        raise ModelError(
            f"the model {_shown(name)} is a file", "give the folder that holds config.json"
        )
    if _HUB_NAME.fullmatch(name) and ".." not in name:
        return ModelSource(name, Origin.HUB, name)
    if _looks_like_path(name):
        raise ModelError(f"there is no folder {_shown(name)}", remedy())
    raise ModelError(f"{name!r} is no model's name", remedy())


def shape_of(source: ModelSource) -> Shape:
    """Return the shape that `--random-weights` builds for a model.

    Raises:
        ModelError: no shape is known for it.
    """
    for alias, shape in SHAPES.items():
        if source.name == alias or (
            source.origin is Origin.HUB and source.location == ALIASES.get(alias)
        ):
            return shape
    raise ModelError(
        f"no shape is known for {source.name}, so it cannot be built with random weights",
        f"use one of {', '.join(SHAPES)}",
    )


def _shown(name: str) -> str:
    """Return a name fit for a terminal."""
    return name if name.isprintable() else repr(name)


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~")) or os.sep in name or "/" in name or "\\" in name
