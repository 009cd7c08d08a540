"""Find a model on this disk by a name, and what a mistyped name may have meant."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from pie_cli.models.stores import ollama
from pie_cli.models.stores.found import Found
from pie_cli.models.stores.package import installed_models
from pie_cli.models.stores.trees import (
    hub_models,
    llama_cpp_folders,
    llama_cpp_models,
    lm_studio_folders,
    lm_studio_models,
    own_folder,
    own_models,
)

_CLOSE: Final = 78
_ALIKE: Final = 90
_SHOWN: Final = 3


def all_models() -> Iterator[Found]:
    """List the models of all stores, the better ones of equal names first."""
    yield from own_models()
    yield from installed_models()
    yield from ollama.models()
    yield from lm_studio_models()
    yield from llama_cpp_models()
    yield from hub_models()


def find(name: str) -> Found | None:
    """Return the first model of a name, in whatever case; what can be read goes first."""
    wanted = {name.casefold(), ollama.spelled(name).casefold()}
    found = [
        one for one in all_models() if wanted & {n.casefold() for n in (one.name, *one.others)}
    ]
    return min(found, key=lambda one: one.problem is not None, default=None)


def unreadable() -> Iterator[tuple[str, Path]]:
    """Yield the stores whose folders are there, but not for this user to look into."""
    folders = [("Ollama", ollama.folder()), ("pie", own_folder())]
    folders += [("LM Studio", folder) for folder in lm_studio_folders()]
    folders += [("llama.cpp", folder) for folder in llama_cpp_folders()]
    for store, folder in folders:
        if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
            yield store, folder


def suggest(name: str, known: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the names most like one that is no model's, at most three, the closest first.

    Args:
        name: mistyped.
        known: names that can be meant besides those on this disk.
    """
    names = [*known, *(one.name for one in all_models() if one.problem is None)]
    other_tags = [other for other in names if _untagged(other) == _untagged(name)]
    near = dict.fromkeys([*other_tags, *_near(name, names, _CLOSE)])
    return tuple(candidate for candidate in near if candidate != name)[:_SHOWN]


def _untagged(name: str) -> str:
    """Return what a name says of the model alone, in one case: all before `:tag`."""
    return name.partition(":")[0].casefold()


def alike(name: str) -> Found | None:
    """Return a model on this disk that can be read and is called almost like another."""
    stored = {one.name: one for one in all_models() if one.problem is None}
    near = _near(name, list(stored), _ALIKE)
    return stored[near[0]] if near else None


def _near(name: str, candidates: Iterable[str], cutoff: int) -> list[str]:
    from rapidfuzz import fuzz, process, utils

    near = process.extract(
        name,
        list(dict.fromkeys(candidates)),
        scorer=fuzz.ratio,
        # Signs between the words, and the case of letters, differ from tool to tool.
        processor=utils.default_process,
        score_cutoff=cutoff,
        limit=_SHOWN + 1,
    )
    return [candidate for candidate, *_ in near]
