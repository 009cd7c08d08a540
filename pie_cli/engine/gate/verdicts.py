"""What the gate says of a model: a report, or a refusal with its reason and what runs instead."""

from collections.abc import Mapping
from dataclasses import dataclass

from pie_cli.engine.rope import ModelRotation


@dataclass(frozen=True, eq=False)
class GateReport:
    """What the gate measured.

    Attributes:
        rotation: the rotation found, one a layer.
        key_error: by delta in tokens, the largest relative error over the layers of re-rotated
            against encoded keys.
        margin: by how many times the rotations found beat the next best candidate, in the worst
            layer.
        output_error: by check, relative error of logits against the stock forward pass.
        limit: longest sequence in tokens whose cache may be edited: beyond it the model's
            frequencies follow the length, or a window ends that could not be tried; None without
            such a limit.
        masked: whether the model computes its own attention under a mask that the engine makes.
        cost_ms: wall time of the whole gate.
        remembered: whether an earlier gate's verdict was taken over.
    """

    rotation: ModelRotation
    key_error: Mapping[int, float]
    margin: float
    output_error: Mapping[str, float]
    limit: int | None = None
    masked: bool = False
    cost_ms: float = 0.0
    remembered: bool = False


class GateRefusal(Exception):
    """A model whose cache cannot be moved by re-rotation; exact strategies still work.

    Attributes:
        reason: one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnusableModel(GateRefusal):
    """A model that predicts nothing by any strategy.

    Attributes:
        remedy: what to do about it.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


@dataclass(frozen=True)
class PlainAbility:
    """What a model's own cache can do.

    Attributes:
        crops: tokens at its end can be forgotten, and others appended.
        appends: several tokens can be appended in one pass.
        steps: tokens can be appended one by one.
        copies: a copy of the cache is all there is to the sequence; some models keep a part of it
            in themselves, and do not say what, so that one sequence at a time can go on.
    """

    crops: bool
    appends: bool
    steps: bool
    copies: bool

    @property
    def strategy(self) -> str:
        """The nearest exact strategy: prefix, or full for all but pure appends."""
        return "prefix" if self.crops else "full"

    @property
    def summary(self) -> str:
        """What follows for a user, in a few words."""
        if self.crops:
            return "exact, by prefix"
        if self.copies:
            return "exact, by full recompute of all but appends"
        return "exact, by full recompute" + ("" if self.steps else " for each token")


@dataclass(frozen=True, eq=False)
class Verdict:
    """How a model's cache may be used: edited by re-rotation, or only as transformers keeps it.

    Attributes:
        report: of the gate that the model passed, or None.
        refusal: why it did not pass, in one line, or None.
        ability: what its own cache can do, where the gate refused it.
    """

    report: GateReport | None = None
    refusal: str | None = None
    ability: PlainAbility | None = None
