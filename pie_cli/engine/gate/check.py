"""The gate: at each load, find how a model rotates its keys and prove that moving them is right."""

import math
from dataclasses import replace
from pathlib import Path

import torch

from pie_cli.engine.attention import (
    NAME,
    UnsupportedAttention,
    implementation,
    takes_mask,
    uninstall,
)
from pie_cli.engine.device import stamp
from pie_cli.engine.gate.key_fit import encode_shifted, fit_layers
from pie_cli.engine.gate.memory import recall, remember
from pie_cli.engine.gate.output_checks import (
    check_long_past,
    check_moves,
    choose_past,
    install_attention,
    require_small,
)
from pie_cli.engine.gate.verdicts import GateRefusal, GateReport, UnusableModel, Verdict
from pie_cli.engine.model import CausalModel, reaches, steady_limit, window
from pie_cli.engine.plain.model import find_ability
from pie_cli.engine.rope import ModelRotation
from pie_cli.models.quiet import hushed


def check_model(model: CausalModel, folder: Path | None = None) -> Verdict:
    """Run the gate, or take over its verdict from an earlier run on the same model and libraries.

    What is taken over must still fit the model: its rotations have to be among the candidates, and
    the engine's attention is installed again.

    Args:
        model: in evaluation mode.
        folder: where its weights came from; None remembers nothing.

    Raises:
        UnusableModel: when no strategy gives predictions; never remembered.
    """
    began = stamp(model.device)
    remembered = recall(model, folder) if folder is not None else None
    if remembered is not None:
        if remembered.report is None:
            return remembered
        cost_ms = 1e3 * (stamp(model.device) - began)
        return replace(remembered, report=replace(remembered.report, cost_ms=cost_ms))
    try:
        verdict = Verdict(report=run_gate(model))
    except UnusableModel:
        raise
    except GateRefusal as refusal:
        verdict = Verdict(refusal=refusal.reason, ability=find_ability(model))
    if folder is not None:
        remember(model, folder, verdict)
    return verdict


def run_gate(model: CausalModel) -> GateReport:
    """Find the model's rotation, install the engine's attention, prove both by the model's outputs.

    RoPE is relative: a sequence encoded at positions 0.. and again at delta.. has keys that differ
    by R(delta), in every layer, and the same values. Of all candidates the one that fits is taken,
    layer by layer. Keys alone prove too little (ALiBi and latent attention can pass with no
    rotation), so outputs are compared as well, each with the stock forward pass: the next token's
    logits over a shifted cache, a pass over scattered positions, and both again after a past that
    is longer than every sliding window.

    Args:
        model: in evaluation mode; its attention is replaced by the engine's, or given back after a
            refusal.

    Raises:
        GateRefusal: with the reason in one line.
        torch.OutOfMemoryError: when the device's memory does not suffice for the gate.
    """
    began = stamp(model.device)
    before = implementation(model)
    try:
        with torch.inference_mode(), hushed():
            report = _examine(model, began)
    except BaseException as error:
        if before == NAME:
            uninstall(model)
        else:
            model.set_attn_implementation(before)
        if isinstance(error, UnsupportedAttention):
            raise GateRefusal(str(error)) from error
        # Foreign code under unusual positions and caches: whatever it raises, the gate is closed.
        if isinstance(error, Exception) and not isinstance(
            error, (GateRefusal, torch.OutOfMemoryError)
        ):
            raise GateRefusal(
                f"its forward pass fails in the gate: {_first_line(error)}"
            ) from error
        raise
    return report


def _examine(model: CausalModel, began: float) -> GateReport:
    check_weights(model)
    longest = window(model)
    steady = steady_limit(model)
    limit = min((length for length in (longest, steady) if length is not None), default=None)
    sample = encode_shifted(model, limit)
    fits = fit_layers(model, sample)
    rotation = ModelRotation(tuple(fit.rotation for fit in fits))
    windows = install_attention(model)
    output_error = check_moves(model, rotation, sample)
    past, far, limit = choose_past(windows | reaches(model), limit)
    if past:
        output_error.update(check_long_past(model, sample.states, past, far))
    require_small(output_error, model.dtype)
    return GateReport(
        rotation=rotation,
        key_error={
            delta: max(fit.errors[row] for fit in fits) for row, delta in enumerate(sample.deltas)
        },
        margin=min(fit.margin for fit in fits),
        output_error=output_error,
        limit=None if limit == longest else limit,
        masked=takes_mask(model),
        cost_ms=1e3 * (stamp(model.device) - began),
    )


def check_weights(model: CausalModel) -> None:
    """Refuse weights that are not numbers.

    Raises:
        UnusableModel: naming the first of them.
    """
    for name, weight in model.named_parameters():
        # A sum takes a third of the time of looking at each number.
        if not weight.is_floating_point() or weight.itemsize < 2 or weight.is_meta:
            continue
        if not math.isfinite(float(weight.detach().sum(dtype=torch.float32))) and not bool(
            torch.isfinite(weight).all()
        ):
            kind = "NaN" if bool(torch.isnan(weight).any()) else "infinite numbers"
            raise UnusableModel(
                f"weights hold {kind}, {name} to begin with", "download or save the model again"
            )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
