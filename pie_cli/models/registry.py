"""What a model's name means: the embedded model, an alias, a folder, a file or a name on the hub.

Imports neither torch nor transformers, so that names can be checked before anything heavy loads.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Final

from pie_cli.config import DEFAULT_MODEL
from pie_cli.errors import ModelError
from pie_cli.models.choice import EMBEDDED, best_at_hand
from pie_cli.models.gguf.files import SUFFIX, gguf_files, is_gguf
from pie_cli.models.known import KNOWN, Shape
from pie_cli.models.stores.found import GGUF, Found
from pie_cli.models.stores.lookup import all_models, find, suggest
from pie_cli.models.stores.package import PACKAGED

EMBEDDED_FOLDER: Final = Path(__file__).parent / "nano"

ALIASES: Final[Mapping[str, str]] = MappingProxyType(
    {alias: model.hub_name for alias, model in KNOWN.items()}
)
"""Short names to hub names."""

SHAPES: Final[Mapping[str, Shape]] = MappingProxyType(
    {alias: model.shape for alias, model in KNOWN.items() if model.shape.rotates}
)
"""Shapes by alias, of the models whose cache can be edited."""

# The hub's own rule: letters, digits, "-", "_", ".", at most one owner in front; "-" and "." only
# between others, and not twice.
_PART = r"[A-Za-z0-9]([\w.-]*\w)?"
_HUB_NAME = re.compile(rf"(?!.*(--|\.\.|\.git$))({_PART}/)?(?=.{{1,96}}$){_PART}", re.ASCII)

_TAGGED = re.compile(rf"({_PART}/)?{_PART}:{_PART}", re.ASCII)

_NAMED: Final = 3


class Origin(Enum):
    """Where a model's files lie."""

    EMBEDDED = "embedded"
    FOLDER = "folder"
    GGUF = "gguf"
    HUB = "hub"


@dataclass(frozen=True)
class ModelSource:
    """A name, resolved.

    Attributes:
        name: what to call the model in results: the alias, the hub name or the folder as given.
        origin: where its files lie.
        location: a folder's path, a GGUF file's, or the name on the hub.
    """

    name: str
    origin: Origin
    location: str


def remedy() -> str:
    """Return the advice that every unusable name gets: what would work instead."""
    return (
        f"leave --model out ({EMBEDDED} is always at hand), give a folder or a GGUF file, or see"
        " `pie models`"
    )


def resolve(name: str) -> ModelSource:
    """Say what a model's name means, without touching the network.

    The best at hand, the embedded model and the aliases go first, then an existing folder or file,
    then what other tools keep on this disk by their names, then the hub; `./name` reaches a folder
    that is called like an alias.

    Args:
        name: as the user gave it.

    Raises:
        ModelError: a path where no folder is, a model in a format that is not read, or a name that
            is on no disk and cannot be one on the hub, or is most likely mistyped.
    """
    if name == DEFAULT_MODEL:
        name = best_at_hand()
    if name == EMBEDDED:
        return ModelSource(name, Origin.EMBEDDED, str(EMBEDDED_FOLDER))
    if name in ALIASES:
        return ModelSource(name, Origin.HUB, ALIASES[name])
    path = _path(name)
    if name and path.is_dir():
        return _folder(name, path)
    if name and path.is_file():
        return _file(name, path)
    if name and path.exists():
        raise ModelError(f"{_shown(name)} is neither a file nor a folder", remedy())
    found = find(name) if name else None
    return _elsewhere(name) if found is None else _stored(name, found)


def _elsewhere(name: str) -> ModelSource:
    """Resolve what is on no disk: a name on the hub, or none at all.

    Raises:
        ModelError: it cannot be one, or is most likely mistyped.
    """
    if name in PACKAGED:
        raise ModelError(f"{name} is not on this disk", f"run `pie models pull {name}`")
    is_path = _looks_like_path(name)
    # Of a store's `owner/model:tag` the tag may be mistyped; that is no path.
    meant = did_you_mean(name) if not is_path or _TAGGED.fullmatch(name) else ""
    if meant:
        raise ModelError(f"there is no model {_shown(name)}", meant)
    if name.lower().endswith(SUFFIX) and Path(name).parent.is_dir():
        raise ModelError(f"there is no file {_shown(name)}", remedy())
    if _HUB_NAME.fullmatch(name):
        return ModelSource(name, Origin.HUB, name)
    if is_path:
        what = "file" if name.lower().endswith(SUFFIX) else "folder"
        raise ModelError(f"there is no {what} {_shown(name)}", remedy())
    raise ModelError(f"{name!r} is no model's name", remedy())


def all_names() -> Iterator[str]:
    """Yield every name that means a model without the network: pie's own, then what is stored."""
    stored = (one.name for one in all_models() if one.problem is None)
    yield from dict.fromkeys((EMBEDDED, *PACKAGED, *ALIASES, *stored))


def did_you_mean(name: str) -> str:
    """Return advice that names what a mistyped name may have meant; empty where nothing is near."""
    if not name.isprintable():
        return ""
    near = suggest(name, (EMBEDDED, *PACKAGED, *ALIASES))
    return f"did you mean {' or '.join(near)}? `pie models` lists what there is" if near else ""


def _stored(name: str, found: Found) -> ModelSource:
    """Resolve a model that some tool keeps on this disk.

    Raises:
        ModelError: in another format than pie reads, or damaged.
    """
    if found.problem is not None:
        raise ModelError(f"{name} of {found.store} cannot be used: {found.problem}", remedy())
    if found.format == GGUF:
        return ModelSource(name, Origin.GGUF, str(found.path))
    if found.store == "hub":
        return ModelSource(name, Origin.HUB, name)
    return ModelSource(name, Origin.FOLDER, str(found.path))


def _path(name: str) -> Path:
    """Return the path that a name would be, were it one.

    Raises:
        ModelError: no path can be called so, or it cannot be looked at.
    """
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:
        # A RuntimeError is about a home that nobody knows.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelError(f"no model is found at {_shown(name)}: {reason}", remedy()) from None
    return path


def _file(name: str, path: Path) -> ModelSource:
    if is_gguf(path):
        return ModelSource(name, Origin.GGUF, str(path))
    raise ModelError(
        f"the model {_shown(name)} is a file, and no GGUF",
        "give a GGUF file, or the folder that holds config.json",
    )


def _folder(name: str, path: Path) -> ModelSource:
    """Resolve a folder: a model in safetensors, or the GGUF model that it holds.

    Raises:
        ModelError: it holds several of these.
    """
    if (path / "config.json").is_file():
        return ModelSource(name, Origin.FOLDER, str(path))
    found = gguf_files(path)
    if len(found) > 1:
        shown = ", ".join(_shown(file.name) for file in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise ModelError(
            f"{_shown(name)} holds {len(found)} GGUF models: {shown}{more}", "give one of the files"
        )
    if found:
        return ModelSource(name, Origin.GGUF, str(found[0]))
    return ModelSource(name, Origin.FOLDER, str(path))


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
        "use an alias from `pie models` whose cache can be edited, such as deepseek-coder-1.3b",
    )


def _shown(name: str) -> str:
    """Return a name fit for a terminal."""
    return name if name.isprintable() else repr(name)


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~")) or os.sep in name or "/" in name or "\\" in name
