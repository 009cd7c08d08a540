"""The gate's verdict on a model, remembered between runs."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pie_cli import __version__
from pie_cli.engine.attention import takes_mask
from pie_cli.engine.gate.candidates import list_candidates, same_frequencies
from pie_cli.engine.gate.output_checks import install_attention
from pie_cli.engine.gate.verdicts import GateReport, PlainAbility, Verdict
from pie_cli.engine.model import CausalModel, layer_count
from pie_cli.engine.rope import LayerRotation, ModelRotation
from pie_cli.folders import cache_folder
from pie_cli.models.quiet import hushed
from pie_cli.regular import read_regular

# Raised with any change of what is stored, or of what the gate checks.
_FORMAT = 1
_SAMPLE = 256
_MAX_BYTES = 1 << 26


class _Unfit(Exception):
    """A stored verdict that is damaged, or about another model after all."""


def recall(model: CausalModel, folder: Path) -> Verdict | None:
    """Return the verdict on a model from an earlier run, and make the model ready for it.

    Args:
        model: in evaluation mode.
        folder: where its weights came from.

    Returns:
        None where there is none, or one that is damaged or no longer fits.
    """
    path = _path(model, folder)
    stored = _read(path) if path is not None else None
    if stored is not None:
        with suppress(_Unfit):
            return _rebuild(model, stored)
    return None


def remember(model: CausalModel, folder: Path, verdict: Verdict) -> None:
    """Keep a verdict for the next run; where nothing can be stored, nothing is."""
    path = _path(model, folder)
    if path is not None:
        _write(path, _fields(verdict))


def _path(model: CausalModel, folder: Path) -> Path | None:
    """Return the file for a model's verdict."""
    digest = identity(model, folder)
    return None if digest is None else memory_folder() / f"{digest[:32]}.json"


def identity(model: CausalModel, folder: Path) -> str | None:
    """Return a digest of all that could change what the gate finds, or what a model computes.

    Args:
        model: loaded.
        folder: where its weights came from.

    Returns:
        Hexadecimal digits, or None where there are no weights to tell it by.
    """
    try:
        weights = [
            (file.name, file.stat().st_size, file.stat().st_mtime_ns)
            for file in sorted(folder.glob("*.safetensors"))
        ]
    except OSError:
        return None
    if not weights:
        return None
    config = model.config
    facts = {
        "format": _FORMAT,
        "config": config.to_dict() if hasattr(config, "to_dict") else str(config),
        "weights": weights,
        "dtype": str(model.dtype),
        "device": model.device.type,
        "pie": __version__,
        "torch": torch.__version__,
        "transformers": version("transformers"),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def weights_sample(model: CausalModel) -> str:
    """Return a digest of some weights of each tensor: a file's name, size and time may deceive."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if weight.device.type != "meta":
            flat = weight.detach().flatten()
            some = flat[:: max(1, flat.numel() // _SAMPLE)].float().cpu()
            digest.update(name.encode() + some.numpy().tobytes())
    return digest.hexdigest()


def memory_folder() -> Path:
    """Return the folder of remembered verdicts, in the user's cache."""
    return cache_folder() / "gate"


def _read(path: Path) -> Mapping[str, Any] | None:
    """Read a verdict; anything unreadable counts as none."""
    try:
        stored = json.loads(read_regular(path, _MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return stored if isinstance(stored, dict) else None


def _write(path: Path, fields: Mapping[str, Any]) -> None:
    """Store fields whole or not at all."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(fields, file)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def _fields(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON can hold it."""
    report, ability = verdict.report, verdict.ability
    if report is None:
        return {"refusal": verdict.refusal, "ability": vars(ability) if ability else None}
    distinct = report.rotation.distinct
    return {
        "rotations": [
            {
                "inv_freq": None if layer.inv_freq is None else layer.inv_freq.tolist(),
                "pairing": layer.pairing,
            }
            for layer in distinct
        ],
        "layers": [
            next(i for i, one in enumerate(distinct) if one is layer)
            for layer in report.rotation.layers
        ],
        "key_error": {str(delta): error for delta, error in report.key_error.items()},
        "margin": report.margin,
        "output_error": dict(report.output_error),
        "limit": report.limit,
        "masked": report.masked,
    }


def _rebuild(model: CausalModel, stored: Mapping[str, Any]) -> Verdict:
    """Make a verdict of its stored fields, and the model ready for it.

    Raises:
        _Unfit: when they are damaged, or do not fit the model.
    """
    try:
        if "refusal" in stored:
            ability = PlainAbility(**stored["ability"])
            return Verdict(refusal=str(stored["refusal"]), ability=ability)
        report = _report(model, stored)
        with torch.inference_mode(), hushed():
            install_attention(model)
    except (
        AttributeError,
        LookupError,
        OverflowError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise _Unfit from error
    if takes_mask(model) is not report.masked:
        raise _Unfit
    return Verdict(report=report)


def _report(model: CausalModel, stored: Mapping[str, Any]) -> GateReport:
    candidates = list_candidates(model)
    rotations = [_matching(fields, candidates) for fields in stored["rotations"]]
    layers = tuple(rotations[index] for index in stored["layers"])
    if len(layers) != layer_count(model):
        raise _Unfit
    return GateReport(
        rotation=ModelRotation(layers),
        key_error={int(delta): float(e) for delta, e in stored["key_error"].items()},
        margin=float(stored["margin"]),
        output_error={str(check): float(e) for check, e in stored["output_error"].items()},
        limit=None if stored["limit"] is None else int(stored["limit"]),
        masked=bool(stored["masked"]),
        remembered=True,
    )


def _matching(fields: Mapping[str, Any], candidates: list[LayerRotation]) -> LayerRotation:
    """Return a stored rotation, provided that the model still has it.

    Raises:
        _Unfit: when it is no candidate.
    """
    if fields["inv_freq"] is None:
        return LayerRotation(None, fields["pairing"])
    inv_freq = torch.tensor(fields["inv_freq"], dtype=torch.float32)
    for candidate in candidates:
        if candidate.inv_freq is None or candidate.pairing != fields["pairing"]:
            continue
        # Either way round: a few models turn the other way.
        if same_frequencies(candidate.inv_freq, inv_freq.abs()):
            return LayerRotation(inv_freq, candidate.pairing)
    raise _Unfit
