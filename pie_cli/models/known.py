"""The models that pie knows by a short name: where they are, how large, under which licence."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

# Families whose MLP has two matrices instead of three.
_UNGATED: Final = ("starcoder2", "gpt_bigcode")


@dataclass(frozen=True)
class Shape:
    """The dimensions of a model, enough to build it with random weights and to tell its memory.

    Attributes:
        hidden: width of the residual stream.
        mlp: width inside the MLP.
        layers: decoder layers.
        heads: query heads.
        kv_heads: key and value heads.
        vocabulary: entries of the embedding.
        window: positions.
        rope_theta: RoPE's base.
        rope_factor: linear scaling of positions; 1 for none.
        head_dim: width of a head; None for an equal share of `hidden`.
        tied: whether the output uses the embedding's weights.
        family: the config's `model_type`.
        further: what else the family's config says.
    """

    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int = 32_256
    window: int = 16_384
    rope_theta: float = 100_000.0
    rope_factor: float = 4.0
    head_dim: int | None = None
    tied: bool = False
    family: str = "llama"
    further: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Shape":
        """Read a shape from a config.json that names its entries as Llama does.

        Raises:
            KeyError: an entry is missing.
        """
        return cls(
            hidden=config["hidden_size"],
            mlp=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            kv_heads=config["num_key_value_heads"],
            vocabulary=config["vocab_size"],
            window=config["max_position_embeddings"],
            head_dim=config.get("head_dim"),
            tied=config.get("tie_word_embeddings", False),
            family=config["model_type"],
        )

    @property
    def rotates(self) -> bool:
        """Whether positions enter by RoPE, so that the cache can be edited."""
        return self.family != "gpt_bigcode"

    @property
    def n_params(self) -> int:
        """Parameters; biases, below a thousandth, are left out."""
        head = self.head_dim or self.hidden // self.heads
        attention = 2 * self.hidden * head * (self.heads + self.kv_heads)
        matrices = 2 if self.family in _UNGATED else 3
        layer = attention + matrices * self.hidden * self.mlp + 2 * self.hidden
        tables = self.vocabulary * (1 if self.tied else 2)
        if not self.rotates:
            tables += self.window
        return tables * self.hidden + self.layers * layer + self.hidden

    def cache_bytes(self, tokens: int, item_bytes: int) -> int:
        """Return the memory of pie's KV cache.

        Keys and values; in types of 16 bit, whose rounding would add up, the keys once more as they
        were computed.
        """
        head = self.head_dim or self.hidden // self.heads
        tensors = 2 if item_bytes >= 4 or not self.rotates else 3
        return tensors * tokens * self.layers * self.kv_heads * head * item_bytes


@dataclass(frozen=True)
class KnownModel:
    """A base model for code that an alias stands for.

    Attributes:
        hub_name: owner/name on the hub.
        shape: its dimensions.
        licence: its short name.
        fim: whether it was trained to fill in the middle.
    """

    hub_name: str
    shape: Shape
    licence: str
    fim: bool = True


def _deepseek(size: str, shape: Shape) -> KnownModel:
    return KnownModel(f"deepseek-ai/deepseek-coder-{size}-base", shape, "deepseek")


def _qwen(size: str, shape: Shape, licence: str = "apache-2.0") -> KnownModel:
    shape = replace(shape, window=32_768, rope_theta=1e6, rope_factor=1.0, family="qwen2")
    return KnownModel(f"Qwen/Qwen2.5-Coder-{size}", shape, licence)


def _starcoder2(size: str, shape: Shape) -> KnownModel:
    windowed = {"sliding_window": 4_096}
    shape = replace(shape, rope_factor=1.0, family="starcoder2", further=windowed)
    return KnownModel(f"bigcode/starcoder2-{size}", shape, "openrail-m")


def _codellama(size: str, shape: Shape, *, fim: bool = True) -> KnownModel:
    shape = replace(shape, rope_theta=1e6, rope_factor=1.0)
    return KnownModel(f"codellama/CodeLlama-{size}-hf", shape, "llama2", fim)


def _granite(size: str, shape: Shape) -> KnownModel:
    biased = {"attention_bias": True, "mlp_bias": True} if shape.family == "llama" else {}
    shape = replace(shape, rope_theta=10_000.0, rope_factor=1.0, tied=True, further=biased)
    name = f"ibm-granite/granite-{size}-code-base-{shape.window // 1024}k"
    return KnownModel(name, shape, "apache-2.0")


def _codegemma(size: str, shape: Shape) -> KnownModel:
    shape = replace(shape, head_dim=256, vocabulary=256_000, window=8_192, tied=True)
    shape = replace(shape, rope_theta=10_000.0, rope_factor=1.0, family="gemma")
    return KnownModel(f"google/codegemma-{size}", shape, "gemma")


def _stable_code(size: str, shape: Shape) -> KnownModel:
    partial = {"partial_rotary_factor": 0.25}
    shape = replace(shape, rope_theta=1e6, rope_factor=1.0, family="stablelm", further=partial)
    return KnownModel(f"stabilityai/stable-code-{size}", shape, "stability")


KNOWN: Final[Mapping[str, KnownModel]] = MappingProxyType(
    {
        "deepseek-coder-1.3b": _deepseek("1.3b", Shape(2_048, 5_504, 24, 16, 16)),
        "deepseek-coder-6.7b": _deepseek("6.7b", Shape(4_096, 11_008, 32, 32, 32)),
        "deepseek-coder-33b": _deepseek("33b", Shape(7_168, 19_200, 62, 56, 8)),
        "qwen2.5-coder-0.5b": _qwen("0.5B", Shape(896, 4_864, 24, 14, 2, 151_936, tied=True)),
        "qwen2.5-coder-1.5b": _qwen("1.5B", Shape(1_536, 8_960, 28, 12, 2, 151_936, tied=True)),
        "qwen2.5-coder-3b": _qwen(
            "3B", Shape(2_048, 11_008, 36, 16, 2, 151_936, tied=True), "qwen-research"
        ),
        "qwen2.5-coder-7b": _qwen("7B", Shape(3_584, 18_944, 28, 28, 4, 152_064)),
        "qwen2.5-coder-14b": _qwen("14B", Shape(5_120, 13_824, 48, 40, 8, 152_064)),
        "qwen2.5-coder-32b": _qwen("32B", Shape(5_120, 27_648, 64, 40, 8, 152_064)),
        "starcoder2-3b": _starcoder2(
            "3b", Shape(3_072, 12_288, 30, 24, 2, 49_152, rope_theta=999_999.442, tied=True)
        ),
        "starcoder2-7b": _starcoder2(
            "7b", Shape(4_608, 18_432, 32, 36, 4, 49_152, rope_theta=1e6, tied=True)
        ),
        "starcoder2-15b": _starcoder2(
            "15b", Shape(6_144, 24_576, 40, 48, 4, 49_152, rope_theta=1e5)
        ),
        "codellama-7b": _codellama("7b", Shape(4_096, 11_008, 32, 32, 32, 32_016)),
        "codellama-13b": _codellama("13b", Shape(5_120, 13_824, 40, 40, 40, 32_016)),
        "codellama-34b": _codellama("34b", Shape(8_192, 22_016, 48, 64, 8, 32_000), fim=False),
        "granite-code-3b": _granite("3b", Shape(2_560, 10_240, 32, 32, 32, 49_152, 2_048)),
        "granite-code-8b": _granite("8b", Shape(4_096, 14_336, 36, 32, 8, 49_152, 4_096)),
        "granite-code-20b": _granite(
            "20b", Shape(6_144, 24_576, 52, 48, 1, 49_152, 8_192, family="gpt_bigcode")
        ),
        "granite-code-34b": _granite(
            "34b", Shape(6_144, 24_576, 88, 48, 1, 49_152, 8_192, family="gpt_bigcode")
        ),
        "codegemma-2b": _codegemma("2b", Shape(2_048, 16_384, 18, 8, 1)),
        "codegemma-7b": _codegemma("7b", Shape(3_072, 24_576, 28, 16, 16)),
        "stable-code-3b": _stable_code("3b", Shape(2_560, 6_912, 32, 32, 32, 50_304)),
    }
)
"""Known models by alias.

Source: the models' config.json and cards on the hub.
"""
