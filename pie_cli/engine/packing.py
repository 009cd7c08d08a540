"""Weights packed once for a CPU's matrix kernels, which otherwise arrange them in every pass."""

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pie_cli.engine.head import linear_head
from pie_cli.engine.int8 import Int8Linear, Rows
from pie_cli.engine.model import CausalModel

Product: TypeAlias = Callable[[Tensor], Tensor]
"""What a linear layer does: rows [..., in] to [..., out]."""

MIN_WEIGHTS = 1 << 16
"""Weights of a layer from which on packing pays (docs/log.md)."""

_ROWS = 16
"""Rows of a pass that the layout is chosen for: an edit's; others run about as well in it."""

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}
_INT8_TOLERANCE = 5e-2


class _PackedLinear:
    """The product of a linear layer, from packed weights."""

    def __init__(self, layer: nn.Linear) -> None:
        weight = layer.weight.detach()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)  # noqa: SLF001
        self._bias = None if layer.bias is None else layer.bias.detach()

    def __call__(self, rows: Tensor) -> Tensor:
        """Multiply rows [..., in] into [..., out]."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            rows, self._weight, self._bias, "none", [], ""
        )
        return product


@torch.inference_mode()
def pack(model: CausalModel) -> int:
    """Pack the weights of a model's large linear layers, in place, where that is known to be right.

    Outputs stay what they are, to rounding.

    Args:
        model: on a CPU, in float32 or bfloat16; others are left as they are.

    Returns:
        Layers packed.
    """
    if model.device.type != "cpu" or model.dtype not in _TOLERANCE or not _has_kernels(model.dtype):
        return 0
    return _replace_products(model, _PackedLinear, _TOLERANCE[model.dtype])


@torch.inference_mode()
def pack_int8(model: CausalModel) -> int:
    """Round the weights of a model's large linear layers to eight bits, in place.

    The model is another one afterwards, a little; it is the same whoever asks, full recompute or an
    edit.

    Args:
        model: of any floating type.

    Returns:
        Layers packed: 0 on another device than a CPU, and where this torch has no kernels for it.
    """
    if model.device.type != "cpu" or not Int8Linear.is_available():
        return 0
    rows = Rows()
    return _replace_products(model, lambda layer: Int8Linear(layer, rows), _INT8_TOLERANCE)


def _replace_products(
    model: CausalModel, make: Callable[[nn.Linear], Product], tolerance: float
) -> int:
    """Let the large linear layers compute otherwise, where that gives about the same.

    The weights themselves are given up for the packed ones, but for the LM head's and those shared
    with another module, such as an embedding.
    """
    head = linear_head(model)
    owners: dict[int, int] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            owners[id(weight)] = owners.get(id(weight), 0) + 1
    packed = 0
    trusted: dict[tuple[torch.Size, torch.dtype, bool], bool] = {}
    for module in model.modules():
        # Subclasses may compute something else; a packed layer has a forward of its own.
        if type(module) is not nn.Linear or "forward" in vars(module):
            continue
        weight = module.weight
        if weight.numel() < MIN_WEIGHTS or weight.device.type != "cpu":
            continue
        kind = (weight.shape, weight.dtype, module.bias is None)
        product = make(module)
        if kind not in trusted:
            trusted[kind] = _error(product, module) <= tolerance
        if not trusted[kind]:
            continue
        vars(module)["forward"] = product
        if owners[id(weight)] == 1 and module is not head:
            module.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
        packed += 1
    return packed


def _has_kernels(dtype: torch.dtype) -> bool:
    """Whether this torch multiplies packed weights here, by operators that are no public interface.

    Those for bfloat16 need some of a processor.
    """
    operators = torch.ops.mkldnn
    if not hasattr(operators, "_linear_pointwise") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype != torch.bfloat16 or bool(operators._is_mkldnn_bf16_supported())  # noqa: SLF001


def _error(product: Product, layer: nn.Linear) -> float:
    """Return the relative difference from the layer's own product, over a few rows."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, layer.in_features, generator=generator).to(layer.weight.dtype)
    expected = F.linear(rows, layer.weight, layer.bias).float()
    return float((product(rows).float() - expected).norm() / expected.norm().clamp_min(1e-30))
