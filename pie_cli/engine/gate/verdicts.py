"""What the gate says of a model: a report, or a refusal with its reason."""

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
