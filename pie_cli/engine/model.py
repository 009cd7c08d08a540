"""What the engine asks of a model: token ids and positions in, logits out."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch

# Names under which configs keep how far a layer looks back.
_REACH = re.compile(r"window|chunk_size|local_attention|block_size|index_topk")


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

    def modules(self) -> Any:
        """List the modules, rotary embeddings among them."""
        ...

    def named_buffers(self) -> Any:
        """List (name, tensor) of the buffers, RoPE's frequencies among them."""
        ...

    def named_parameters(self) -> Any:
        """List (name, tensor) of the weights."""
        ...

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Choose the attention function by its registered name."""
        ...


def text_config(model: CausalModel) -> Any:
    """Return the config of the model's text part, which is the whole of most."""
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def layer_count(model: CausalModel) -> int:
    """Return the number of decoder layers."""
    return int(text_config(model).num_hidden_layers)


def vocabulary(model: CausalModel) -> int:
    """Return the number of token ids."""
    return int(text_config(model).vocab_size)


def window(model: CausalModel) -> int | None:
    """Return the longest sequence the model was made for, in tokens; None if it names none."""
    length = getattr(text_config(model), "max_position_embeddings", None)
    return int(length) if length else None


def steady_limit(model: CausalModel) -> int | None:
    """Return the length up to which the model's frequencies do not depend on the length.

    None where they never do. With dynamic NTK and LongRoPE scaling a longer sequence rotates all of
    its keys otherwise, and no key of a shorter one can be kept.
    """
    limits = []
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        for kind in kinds.values() if isinstance(kinds, Mapping) else (kinds,):
            # Dynamic scaling takes its frequencies back below the limit only, not at it.
            if kind == "longrope":
                limits.append(_original_length(model))
            elif isinstance(kind, str) and "dynamic" in kind:
                limits.append(_original_length(model) - 1)
    return min(limits, default=None)


def _original_length(model: CausalModel) -> int:
    """Return the length that scaling starts from."""
    config = text_config(model)
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    named = [
        int(scaling["original_max_position_embeddings"])
        for scaling in (parameters, *nested)
        if scaling.get("original_max_position_embeddings")
    ]
    return min(named, default=int(config.max_position_embeddings))


def reaches(model: CausalModel) -> frozenset[int]:
    """Return every number in the model's config that may say how far a layer looks back."""
    config = text_config(model)
    return frozenset(_numbers(config.to_dict())) if hasattr(config, "to_dict") else frozenset()


def _numbers(fields: Mapping[str, Any]) -> Iterator[int]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _numbers({str(key): inner for key, inner in value.items()})
        elif _REACH.search(name):
            numbers = value if isinstance(value, list) else [value]
            yield from (number for number in numbers if type(number) is int and number > 0)
