"""Products with weights in eight bits: a quarter of float32's bytes, which few tokens wait for.

Each output has a scale of its own. Activations keep some thirteen bits, as two digits that are
multiplied side by side: rounded to eight bits they would cost far more than the weights do
(docs/log.md). Sums of integers are exact, so a row's product does not depend on the rows that share
its pass: two exact runs in different chunks agree as they do in float32.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_ENGINE = "fbgemm"
_WEIGHT_LEVELS = 127

# Without VNNI instructions pairs of products are added in 16 bits: digits of activations stay
# below 64, so that 2 * 128 * 127 fits.
_DIGIT = 128
_LEVELS = 63 * _DIGIT
_ZERO = 64


class Rows:
    """Activations as two digits; those of the last call are kept, for layers share their input."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._digits: tuple[Tensor, Tensor] | None = None

    def digits(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Take rows apart.

        Args:
            rows: float [..., in], of N rows.

        Returns:
            float32 [2 N, in] of integers, the high digits first; float32 [N, 1], the unit of the
            low ones.
        """
        if rows is not self._last or self._digits is None:
            flat = rows.reshape(-1, rows.shape[-1]).float()
            unit = torch.linalg.vector_norm(flat, float("inf"), dim=-1, keepdim=True)
            unit = unit.clamp_min_(1e-30).div_(_LEVELS)
            scaled = flat / unit
            high = torch.round(scaled / _DIGIT)
            # The product rounds what is left to integers.
            low = scaled.sub_(high, alpha=_DIGIT)
            self._last, self._digits = rows, (torch.cat((high, low)), unit)
        return self._digits


class Int8Linear:
    """The product of a linear layer, its weights rounded to eight bits, each output by its scale.

    Args:
        layer: float32 or 16-bit weights, on a CPU.
        rows: shared by layers with the same input.
    """

    itemsize = 1
    """Bytes of a weight."""

    @staticmethod
    def is_available() -> bool:
        """Whether this torch has the kernels: FBGEMM's, on x86 processors."""
        return _ENGINE in torch.backends.quantized.supported_engines

    def __init__(self, layer: nn.Linear, rows: Rows) -> None:
        weight = layer.weight.detach().float()
        scales = (weight.abs().amax(1) / _WEIGHT_LEVELS).clamp_min(1e-30)
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with _fbgemm():
            rounded = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
            self._weight: Any = torch.ops.quantized.linear_prepack(rounded, None)
        self._bias = None if layer.bias is None else layer.bias.detach()
        self._rows = rows

    def __call__(self, rows: Tensor) -> Tensor:
        """Multiply rows [..., in] into [..., out]."""
        digits, unit = self._rows.digits(rows)
        both: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            digits, 1.0, _ZERO, self._weight
        )
        high, low = both.chunk(2)
        product = low.add_(high, alpha=_DIGIT).mul_(unit)
        if self._bias is not None:
            product += self._bias
        return product.to(rows.dtype).reshape(*rows.shape[:-1], product.shape[-1])


@contextmanager
def _fbgemm() -> Iterator[None]:
    """Pack for FBGEMM, whatever the process prefers; torch's warning is of the functions' names."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = _ENGINE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.quantized.engine = before
