"""What the gate says of a loaded model: its rotation by groups of layers, and what follows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pie_cli.editable import PreparedModel
from pie_cli.engine.rope import LayerRotation, ModelRotation


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
        limit_tokens: longest prompt whose cache can be; None without such a limit.
        reason: why not; empty where it can.
        exact: how the model runs then, "exact, by prefix" for one; empty where it can.
        rope: groups of layers, in the order of their first layers; none after a refusal.
        key_error: by delta in tokens, see `GateReport`.
        margin: likewise; None where there was no other candidate.
        output_error: by check, likewise.
        gate_ms: that the gate took; None after a refusal.
        fim: family of its tokens for filling in a middle; None without any that are known.
        fim_order: in which the sides of a middle stand in its prompts, likewise.
        no_fim: why not, where it has tokens that cannot be used; else None.
    """

    editable: bool
    limit_tokens: int | None
    reason: str
    exact: str
    rope: tuple[RopeGroup, ...]
    key_error: Mapping[int, float]
    margin: float | None
    output_error: Mapping[str, float]
    gate_ms: float | None
    fim: str | None
    fim_order: str | None
    no_fim: str | None


def describe(model: PreparedModel) -> Diagnosis:
    """Put a prepared model's verdict in plain values."""
    gate, ability, fim = model.gate, model.ability, model.fim
    return Diagnosis(
        editable=gate is not None,
        limit_tokens=gate.limit if gate else None,
        reason=model.refusal or "",
        exact=ability.summary if ability else "",
        rope=tuple(group_layers(gate.rotation)) if gate else (),
        key_error=gate.key_error if gate else {},
        margin=gate.margin if gate and math.isfinite(gate.margin) else None,
        output_error=gate.output_error if gate else {},
        gate_ms=gate.cost_ms if gate else None,
        fim=fim.family if fim else None,
        fim_order=fim.order if fim else None,
        no_fim=model.no_fim,
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
