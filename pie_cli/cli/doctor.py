"""`pie doctor`: what this machine offers, and whether a model can be edited on it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pie_cli.cli.catalog import count, gigabytes
from pie_cli.cli.cost import Cost, measure
from pie_cli.cli.diagnosis import Diagnosis, RopeGroup, describe
from pie_cli.cli.documents import dump
from pie_cli.cli.models import advised_on, is_at_hand
from pie_cli.cli.render import Renderer
from pie_cli.cli.starting import import_ms
from pie_cli.cli.words import duration, precision
from pie_cli.config import Settings
from pie_cli.editable import prepare
from pie_cli.engine.crew import engage
from pie_cli.errors import ModelError, PieError
from pie_cli.models.cache import OnDisk, Presence, look_up
from pie_cli.models.loading import LoadedModel, load
from pie_cli.models.machine import Machine, examine
from pie_cli.models.products import ROWS, bfloat16_gains
from pie_cli.models.registry import ModelSource, Origin, resolve
from pie_cli.threads import threads_spin
from pie_cli.timing import elapsed_ms

_GAIN = 1.15
"""How many times faster bfloat16 has to be to be worth its rounding."""


@dataclass(frozen=True, eq=False)
class Checked:
    """A model that was found, loaded and put through the gate."""

    loaded: LoadedModel
    load_ms: float
    diagnosis: Diagnosis
    cost: Cost | None


def run(settings: Settings, *, as_json: bool) -> None:
    """Report as text, or as one JSON document; the exit code tells whether the model is usable.

    Raises:
        PieError: the model cannot be used; the report is printed before.
    """
    renderer = Renderer()
    machine, gains = examine(), bfloat16_gains()
    if not as_json:
        renderer.facts("This machine", [*_machine_facts(machine), *_gain_facts(gains)])
    source = resolve(settings.model)
    disk = look_up(source)
    if not as_json:
        renderer.facts(f"\n{source.name}", list(_disk_facts(source, disk)))
    checked, failure = _checked(renderer, settings, source, disk)
    if as_json:
        print(dump(document(machine, gains, source, disk, checked, failure), indent=2))
    elif checked is not None:
        renderer.facts("", list(_model_facts(checked)))
        renderer.facts("\nWhat follows", [("", verdict(checked.diagnosis)), *_cost_facts(checked)])
    if not as_json:
        renderer.facts("\nTo run here", [("", _advice(machine, source))])
    if failure is not None:
        raise failure


def _checked(
    renderer: Renderer, settings: Settings, source: ModelSource, disk: OnDisk
) -> tuple[Checked | None, PieError | None]:
    try:
        _require_complete(source, disk)
        return _check(renderer, settings, source, disk), None
    except PieError as failure:
        return None, failure


def _require_complete(source: ModelSource, disk: OnDisk) -> None:
    """Refuse what would have to be downloaded.

    Raises:
        ModelError: naming what is missing.
    """
    if source.origin is not Origin.HUB or disk.presence is Presence.COMPLETE:
        return
    if disk.presence is Presence.ABSENT:
        cause = f"{source.name} is not on this disk"
    else:
        cause = f"only a part of {source.name} is on this disk"
    raise ModelError(cause, f"run `pie models pull {source.name}`")


def _check(renderer: Renderer, settings: Settings, source: ModelSource, disk: OnDisk) -> Checked:
    # By its folder: the hub is not asked.
    name = str(disk.folder) if source.origin is Origin.HUB else source.name
    began = time.perf_counter()
    engage(settings.threads)
    with renderer.progress(f"loading {source.name}") as report:
        loaded = load(
            name,
            settings.device,
            settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            weights=settings.weights,
            on_progress=report,
        )
        load_ms = elapsed_ms(began, time.perf_counter())
        model = prepare(loaded, remember=False)
        return Checked(loaded, load_ms, describe(model), measure(model, settings))


def _cost_facts(checked: Checked) -> Iterator[tuple[str, str]]:
    cost = checked.cost
    if cost is None:
        return
    first, line, full = map(duration, (cost.first_token_ms, cost.line_ms, cost.full_first_token_ms))
    cost_of_save = (
        f"A save costs about {first} to the first token and {line} to the line; full recompute"
        f" takes {full} to the first token (measured just now, {cost.context_tokens:,} tokens)."
    )
    yield "", cost_of_save


def _advice(machine: Machine, source: ModelSource) -> str:
    """Say which model suits the machine, and how to get it."""
    name = advised_on(machine)
    if source.name == name:
        return f"{name}, as here."
    watch = f"`pie watch FILE --model {name}`"
    if is_at_hand(name):
        return f"{name}, which is on this disk: {watch}."
    return f"{name}: `pie models pull {name}`, then {watch}."


def verdict(diagnosis: Diagnosis) -> str:
    """Say in one sentence how pie will run a model."""
    if not diagnosis.editable:
        return f"The cache cannot be edited: {diagnosis.reason}. So pie runs {diagnosis.exact}."
    if diagnosis.limit_tokens is not None:
        return (
            f"The cache can be edited in place up to {diagnosis.limit_tokens:,} tokens; longer"
            " prompts run exact, by full recompute."
        )
    return "The cache can be edited in place: every strategy works."


def _machine_facts(machine: Machine) -> Iterator[tuple[str, str]]:
    versions = dict(machine.versions)
    yield "pie", f"{versions.pop('pie')}, Python {versions.pop('python')}"
    packages = ", ".join(f"{name} {found or 'missing'}" for name, found in versions.items())
    yield "packages", f"{packages}; imported in {duration(import_ms())}"
    threads = f"{machine.threads} thread{'s' * (machine.threads != 1)}"
    threads += ", fewer beside busy programs" if machine.threads > 1 and threads_spin() else ""
    yield "cpu", ", ".join((machine.cpu, threads, *filter(None, [" ".join(machine.instructions)])))
    yield "memory", _free(machine.free_bytes)
    for gpu in machine.gpus:
        free, total = gigabytes(gpu.free_bytes), gigabytes(gpu.total_bytes)
        yield gpu.device, f"{gpu.name}, {free} of {total} GB free"
    if not machine.gpus:
        yield "gpu", "mps" if machine.mps else "none"
    cache = machine.cache
    readonly = "" if cache.writable else ", not writable: set HF_HOME to store models elsewhere"
    yield "models in", f"{cache.folder}, {_free(cache.free_bytes)}{readonly}"
    if machine.watches is not None and machine.watchers is not None:
        limits = f"{machine.watches:,} folders, {machine.watchers:,} watchers for each user"
        yield "watching", f"{limits} (inotify)"
    poor = "" if machine.encoding.lower().startswith("utf") else ", so some signs are spelled out"
    yield "output", f"{machine.encoding}{poor}"


def _gain_facts(gains: Sequence[float]) -> Iterator[tuple[str, str]]:
    figures = ", ".join(f"{gain:.1f}" for gain in gains)
    tokens = ", ".join(map(str, ROWS))
    yield "bfloat16", f"{figures} times as fast as float32 over {tokens} tokens"
    if min(gains) >= _GAIN:
        yield "", "--dtype bfloat16 answers sooner here, but then two exact runs, too, may differ"
    else:
        yield "", "so float32, the default, is right here"


def _free(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else f"{gigabytes(size_bytes)} GB free"


def _disk_facts(source: ModelSource, disk: OnDisk) -> Iterator[tuple[str, str]]:
    where = {
        Origin.EMBEDDED: "embedded",
        Origin.FOLDER: "a folder",
        Origin.GGUF: "a GGUF file",
        Origin.HUB: f"{source.location} on the hub",
    }
    yield "origin", where[source.origin]
    if disk.presence is Presence.ABSENT:
        yield "at hand", "no"
        return
    whole = "yes" if disk.presence is Presence.COMPLETE else "in part"
    yield "at hand", f"{whole}, {gigabytes(disk.size_bytes)} GB in {disk.folder}"


def _model_facts(checked: Checked) -> Iterator[tuple[str, str]]:
    loaded, diagnosis = checked.loaded, checked.diagnosis
    size = f"{count(loaded.n_params)} parameters, {gigabytes(loaded.weights_bytes)} GB"
    kept = precision(loaded.dtype, loaded.weights)
    yield "loaded", f"{size} as {kept} on {loaded.device}, in {checked.load_ms:,.0f} ms"
    yield "family", str(loaded.model.config.model_type)
    yield "window", f"{loaded.window:,} tokens"
    known = f"tokens of {diagnosis.fim}, {diagnosis.fim_order}" if diagnosis.fim else ""
    yield "FIM", known or diagnosis.no_fim or "no tokens known"
    for group in diagnosis.rope:
        yield f"layers {_ranges(group.layers)}", _rope(group)
    if not diagnosis.editable:
        return
    errors = ", ".join(f"{error:.1g} at {delta:,}" for delta, error in diagnosis.key_error.items())
    yield "key error", f"{errors} tokens"
    if diagnosis.margin is not None:
        yield "margin", f"{diagnosis.margin:,.0f} times better than the next rotation"
    outputs = ", ".join(f"{error:.1g} {name}" for name, error in diagnosis.output_error.items())
    yield "output error", outputs
    yield "gate", f"passed in {diagnosis.gate_ms:,.0f} ms"


def _ranges(runs: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def _rope(group: RopeGroup) -> str:
    if group.pairing is None:
        return "no rotation"
    pairing = "half-split" if group.pairing == "half" else group.pairing
    if group.base is None or group.factor is None:
        series = "frequencies scaled one by one"
    else:
        scaled = abs(group.factor - 1) > 1e-3
        series = f"base {group.base:,.0f}" + f", positions / {group.factor:.4g}" * scaled
    return f"{pairing}, {group.rotary_dims} dimensions, {series}"


def document(
    machine: Machine,
    gains: Sequence[float],
    source: ModelSource,
    disk: OnDisk,
    checked: Checked | None,
    failure: PieError | None,
) -> dict[str, Any]:
    """Return the fields of `doctor --json`, without `schema`."""
    fields = asdict(machine)
    fields["cache"]["folder"] = str(machine.cache.folder)
    fields["bfloat16_gain"] = {
        str(rows): round(gain, 3) for rows, gain in zip(ROWS, gains, strict=True)
    }
    return {
        "import_ms": round(import_ms(), 3),
        "machine": fields,
        "model": {
            "name": source.name,
            "origin": source.origin.value,
            "location": source.location,
            "on_disk": {
                "state": disk.presence.value,
                "size_bytes": disk.size_bytes,
                "folder": None if disk.folder is None else str(disk.folder),
            },
            "loaded": None if checked is None else _loaded_fields(checked),
            "diagnosis": None if checked is None else _diagnosis_fields(checked.diagnosis),
            "cost": asdict(checked.cost) if checked is not None and checked.cost else None,
        },
        "advice": advised_on(machine),
        "usable": failure is None,
        "error": None if failure is None else {"cause": failure.cause, "remedy": failure.remedy},
    }


def _loaded_fields(checked: Checked) -> dict[str, Any]:
    loaded = checked.loaded
    return {
        "family": str(loaded.model.config.model_type),
        "device": loaded.device,
        "dtype": loaded.dtype,
        "weights": loaded.weights,
        "parameters": loaded.n_params,
        "weights_bytes": loaded.weights_bytes,
        "window_tokens": loaded.window,
        "load_ms": round(checked.load_ms, 3),
    }


def _diagnosis_fields(diagnosis: Diagnosis) -> dict[str, Any]:
    fields = asdict(diagnosis)
    fields["key_error"] = {str(delta): error for delta, error in diagnosis.key_error.items()}
    fields["verdict"] = verdict(diagnosis)
    return fields
