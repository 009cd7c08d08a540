"""What the gate says of a loaded model: its rotation by groups of layers, and what follows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from pie_cli.engine.gate import GateRefusal, GateReport, run_gate
from pie_cli.engine.rope import LayerRotation, ModelRotation
from pie_cli.errors import CacheCapacityError, ModelError
from pie_cli.models.loading import LoadedModel

FIM_TOKENS: Final = (
    ("<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"),
    ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("▁<PRE>", "▁<SUF>", "▁<MID>"),
)
"""Control tokens of filling in the middle: those of pie-nano, DeepSeek, Qwen and CodeGemma,
StarCoder, CodeLlama."""


@dataclass(frozen=True)
class RopeGroup:
    """Layers that rotate their keys alike.

    Attributes:
        layers: (first, last) of each run of such layers, from 0.
        pairing: "half" or "interleaved"; None for layers that do not rotate.
        rotary_dims: dimensions of a head that turn.
        base: RoPE's theta, where the frequencies are a geometric series, as unscaled ones are.
        factor: by which positions are divided, likewise.
    """

    layers: tuple[tuple[int, int], ...]
    pairing: str | None
    rotary_dims: int
    base: float | None
    factor: float | None


@dataclass(frozen=True)
class Diagnosis:
    """What the gate says of a model.

    Attributes:
        editable: whether its cache can be edited in place.
        reason: why not; empty where it can.
        rope: groups of layers, in the order of their first layers; none after a refusal.
        key_error: by delta in tokens, see `GateReport`.
        margin: likewise; None where there was no other candidate.
        output_error: by check, likewise.
        gate_ms: that the gate took; None after a refusal.
        fim_tokens: the control tokens of filling in the middle that the tokenizer has; none if not
            all three.
    """

    editable: bool
    reason: str
    rope: tuple[RopeGroup, ...]
    key_error: Mapping[int, float]
    margin: float | None
    output_error: Mapping[str, float]
    gate_ms: float | None
    fim_tokens: tuple[str, ...]


def diagnose(loaded: LoadedModel) -> Diagnosis:
    """Run the gate on a model, which installs the engine's attention where it passes.

    Raises:
        ModelError: the gate found that the model predicts nothing by any strategy.
        CacheCapacityError: when the device's memory does not suffice for the gate.
    """
    fim_tokens = _fim_tokens(loaded)
    try:
        gate = run_gate(loaded.model)
    except torch.OutOfMemoryError as error:
        raise CacheCapacityError(
            f"{loaded.name} leaves too little memory on {loaded.device} to run it",
            "give a smaller model, --dtype bfloat16 or another --device",
        ) from error
    except GateRefusal as refusal:
        # A refusal with a remedy is one that no exact strategy mends, NaN in the weights for one.
        remedy = getattr(refusal, "remedy", "")
        if remedy:
            raise ModelError(f"{loaded.name} cannot be used: {refusal.reason}", remedy) from refusal
        return Diagnosis(False, refusal.reason, (), {}, None, {}, None, fim_tokens)
    return _passed(gate, fim_tokens)


def _passed(gate: GateReport, fim_tokens: tuple[str, ...]) -> Diagnosis:
    return Diagnosis(
        editable=True,
        reason="",
        rope=tuple(group_layers(gate.rotation)),
        key_error=gate.key_error,
        margin=gate.margin if math.isfinite(gate.margin) else None,
        output_error=gate.output_error,
        gate_ms=gate.cost_ms,
        fim_tokens=fim_tokens,
    )


def group_layers(rotation: ModelRotation) -> Iterator[RopeGroup]:
    """Group a model's layers by how they rotate."""
    for distinct in rotation.distinct:
        own = [index for index, layer in enumerate(rotation.layers) if layer is distinct]
        yield _described(distinct, tuple(_runs(own)))


def _described(rotation: LayerRotation, layers: tuple[tuple[int, int], ...]) -> RopeGroup:
    if rotation.inv_freq is None:
        return RopeGroup(layers, None, 0, None, None)
    frequencies = [float(frequency) for frequency in rotation.inv_freq]
    base, factor = _series(frequencies)
    return RopeGroup(layers, rotation.pairing, 2 * len(frequencies), base, factor)


def _series(frequencies: Sequence[float]) -> tuple[float | None, float | None]:
    """Return base and factor of frequencies base ** (-i / n) / factor, i < n, else nothing."""
    n = len(frequencies)
    if n < 2 or min(frequencies) <= 0:
        return None, None
    ratio = frequencies[0] / frequencies[1]
    expected = (frequencies[0] * ratio**-i for i in range(n))
    if not all(
        math.isclose(*pair, rel_tol=1e-3) for pair in zip(frequencies, expected, strict=True)
    ):
        return None, None
    return ratio**n, 1 / frequencies[0]


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of each run of ascending indices without a gap."""
    first = previous = indices[0]
    for index in indices[1:]:
        if index != previous + 1:
            yield first, previous
            first = index
        previous = index
    yield first, previous


def _fim_tokens(loaded: LoadedModel) -> tuple[str, ...]:
    vocabulary = loaded.tokenizer.get_vocab()
    for tokens in FIM_TOKENS:
        if all(token in vocabulary for token in tokens):
            return tokens
    return ()
