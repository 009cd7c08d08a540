"""Weights packed once for a CPU's matrix kernels, which otherwise arrange them in every pass."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pie_cli.engine.head import linear_head
from pie_cli.engine.model import CausalModel

MIN_WEIGHTS = 1 << 16
"""Weights of a layer from which on packing pays (docs/log.md)."""

_ROWS = 16
"""Rows of a pass that the layout is chosen for: an edit's; others run about as well in it."""

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


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

    Outputs stay what they are, to rounding. The weights themselves are given up for the packed
    ones, but for the LM head's and those shared with another module, such as an embedding.

    Args:
        model: on a CPU, in float32 or bfloat16; others are left as they are.

    Returns:
        Layers packed.
    """
    if model.device.type != "cpu" or model.dtype not in _TOLERANCE or not _has_kernels():
        return 0
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
        product = _PackedLinear(module)
        if kind not in trusted:
            trusted[kind] = _is_right(product, module)
        if not trusted[kind]:
            continue
        vars(module)["forward"] = product
        if owners[id(weight)] == 1 and module is not head:
            module.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
        packed += 1
    return packed


def _has_kernels() -> bool:
    """Whether this torch multiplies packed weights, by operators that are no public interface."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def _is_right(product: _PackedLinear, layer: nn.Linear) -> bool:
    """Compare a few rows with the layer's own product."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(3, layer.in_features, generator=generator).to(layer.weight.dtype)
    expected = F.linear(rows, layer.weight, layer.bias).float()
    error = (product(rows).float() - expected).norm() / expected.norm().clamp_min(1e-30)
    return bool(error <= _TOLERANCE[layer.weight.dtype])
