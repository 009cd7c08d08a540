"""What the engine asks of a model: token ids and positions in, logits out."""

from typing import Any, Protocol

import torch


class CausalModel(Protocol):
    """A causal language model as transformers builds it, in evaluation mode."""

    config: Any

    @property
    def device(self) -> torch.device:
        """Where the input ids go."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype."""
        ...

    def __call__(self, **inputs: Any) -> Any:
        """Run the forward pass."""
        ...

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the forward pass without hooks; its signature tells what the model understands."""
        ...

    def named_buffers(self) -> Any:
        """List (name, tensor) of the buffers, RoPE's frequencies among them."""
        ...

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Choose the attention function by its registered name."""
        ...


def layer_count(model: CausalModel) -> int:
    """Return the number of decoder layers."""
    config = model.config
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(text_config.num_hidden_layers)


def window(model: CausalModel) -> int | None:
    """Return the longest sequence the model was made for, in tokens; None if it names none."""
    config = model.config
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    length = getattr(text_config, "max_position_embeddings", None)
    return int(length) if length else None
