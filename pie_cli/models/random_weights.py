"""Build a model's shape with random weights, to measure latency without its checkpoint."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from pie_cli.models.known import Shape

_SEED: Final = 0

# Hidden size up to which transformers' usual deviation of 0.02 is taken. Beyond, each product would
# make its rows larger, and after some forty layers the roundings of 16 bits decide everything: no
# gate can tell such a model's rotation (docs/log.md).
_WIDEST: Final = 2_048
_DEVIATION: Final = 0.02

# A prime, so that no two rows of a matrix are alike.
_BLOCK: Final = 1_000_003
_DRAWING: Final = frozenset({"normal_", "uniform_", "kaiming_uniform_"})


def build(shape: Shape, device: str, dtype: str, *, attn_implementation: str, tokens: int) -> Any:
    """Build a shape straight in its dtype and on its device, the same each time.

    Args:
        shape: its dimensions.
        device: settled and there.
        dtype: "float32", "bfloat16" or "float16".
        attn_implementation: a name that transformers knows.
        tokens: entries of the tokenizer that will serve; the rest of the vocabulary is never
            predicted.

    Returns:
        The causal model of the shape's family.
    """
    devices = [torch.device(device)] if device.startswith("cuda") else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.device(device),
        _QuickInitialisation(),
        torch.no_grad(),
    ):
        torch.manual_seed(_SEED)
        model = AutoModelForCausalLM.from_config(
            config_of(shape),
            dtype=getattr(torch, dtype),
            attn_implementation=attn_implementation,
        )
        # Logits of zero never win among thousands of random ones.
        model.get_output_embeddings().weight[tokens:] = 0
    return model


def config_of(shape: Shape) -> PreTrainedConfig:
    """Return transformers' config of a shape."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": shape.rope_theta}
    if shape.rope_factor != 1:
        rope.update(rope_type="linear", factor=shape.rope_factor)
    head = {} if shape.head_dim is None else {"head_dim": shape.head_dim}
    config: PreTrainedConfig = AutoConfig.for_model(
        shape.family,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.window,
        rope_parameters=rope,
        tie_word_embeddings=shape.tied,
        initializer_range=_DEVIATION * min(1.0, (_WIDEST / shape.hidden) ** 0.5),
        **head,
        **shape.further,
    )
    return config


class _QuickInitialisation(TorchFunctionMode):
    """Draw random numbers by the million, not by the billion.

    A layer's constructor fills its weights uniformly, transformers then fills them again, normally.
    The first is left out; the second repeats a block of random numbers. On a CPU that makes seconds
    of minutes, and a matrix product takes as long as ever.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name not in _DRAWING:
            return func(*args, **kwargs)
        # Functions of torch.nn.init arrive with the tensor under its name.
        tensor = args[0] if args else kwargs["tensor"]
        if name != "normal_":
            return tensor
        if tensor.numel() <= _BLOCK:
            return func(*args, **kwargs)
        options = {key: value for key, value in kwargs.items() if key != "tensor"}
        return _fill(tensor, lambda block: func(block, *args[1:], **options))


def _fill(tensor: torch.Tensor, draw: Callable[[torch.Tensor], Any]) -> torch.Tensor:
    """Fill a contiguous tensor with repetitions of one block."""
    block = torch.empty(_BLOCK, dtype=tensor.dtype, device=tensor.device)
    draw(block)
    flat = tensor.view(-1)
    whole = flat.numel() // _BLOCK * _BLOCK
    flat[:whole].view(-1, _BLOCK).copy_(block)
    flat[whole:].copy_(block[: flat.numel() - whole])
    return tensor
