"""What transformers must build for a GGUF model: its config, told from the metadata.

Only architectures whose every setting is accounted for are here; their outputs were compared with
llama.cpp's. Settings that are not understood are refused, for a model that is built slightly wrong
still writes, only worse.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from pie_cli.errors import ModelError
from pie_cli.models.gguf.model import Facts, GgufModel
from pie_cli.models.gguf.rope import rope_parameters

Entries: TypeAlias = dict[str, Any]

_LARGEST: Final = 1 << 30
_GEMMA_27B: Final[Mapping[str, int]] = MappingProxyType({"gemma2": 46, "gemma3": 62})
"""Layers of the models whose scores are scaled by the width of a head's share, not of a head."""


@dataclass(frozen=True)
class Architecture:
    """How one architecture of llama.cpp becomes a model of transformers.

    Attributes:
        family: the config's `model_type`.
        entries: what the config says besides what all have in common.
        interleaved: whether the rows of queries and keys were reordered for interleaved pairing.
        shifted_norms: whether one was added to the weights of the norms.
        epsilon: the config's name for the norms' epsilon.
        settings: keys below the architecture's own that `entries` reads.
        partial: whether RoPE may turn a part of a head only.
    """

    family: str
    entries: Callable[[GgufModel], Entries]
    interleaved: bool = False
    shifted_norms: bool = False
    epsilon: str = "rms_norm_eps"
    settings: tuple[str, ...] = ()
    partial: bool = False


def architecture_of(model: GgufModel) -> Architecture:
    """Return how to build a model.

    Raises:
        ModelError: its architecture is not known here; names those that are.
    """
    facts = model.facts
    found = ARCHITECTURES.get(facts.architecture)
    if found is None:
        raise ModelError(
            f"{facts.path} is of the architecture {facts.architecture!r}, which pie does not read",
            f"give one of {', '.join(sorted(ARCHITECTURES))}, or the model as safetensors",
        )
    if facts.integer("{arch}.expert_count", 0) and "expert_count" not in found.settings:
        raise ModelError(
            f"{facts.path} is of the architecture {facts.architecture!r} with experts, which pie "
            "does not read",
            "give the model as safetensors",
        )
    return found


def config_of(model: GgufModel) -> Entries:
    """Return the config that transformers builds a model from, as config.json holds it.

    Raises:
        ModelError: something is missing, of the wrong kind, impossible or not understood.
    """
    facts, architecture = model.facts, architecture_of(model)
    if "token_embd.weight" not in model.tensors:
        raise ModelError(f"{facts.path} holds no weights", "give the whole model")
    hidden, heads, kv_heads, head_dim = _dimensions(model)
    if not facts.flag("{arch}.attention.causal", True):
        raise _unread(facts, "attention in both directions")
    kind = "rms_epsilon" if architecture.epsilon == "rms_norm_eps" else "epsilon"
    config: Entries = {
        "model_type": architecture.family,
        "vocab_size": model.tensors["token_embd.weight"].tensor.shape[0],
        "hidden_size": hidden,
        "intermediate_size": _positive(facts, "feed_forward_length"),
        "num_hidden_layers": _positive(facts, "block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": _positive(facts, "context_length"),
        "tie_word_embeddings": "output.weight" not in model.tensors,
        architecture.epsilon: facts.number(f"{{arch}}.attention.layer_norm_{kind}"),
        "rope_parameters": rope_parameters(model, head_dim, partial=architecture.partial),
        # The classes' own defaults are ids of other vocabularies; generation_config.json has ours.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    return {**config, **architecture.entries(model)}


def _dimensions(model: GgufModel) -> tuple[int, int, int, int]:
    """Return the width, the heads of queries and of keys, and a head's width; they fit together."""
    facts = model.facts
    hidden, heads = _positive(facts, "embedding_length"), _positive(facts, "attention.head_count")
    kv_heads = facts.integer("{arch}.attention.head_count_kv", heads)
    head_dim = facts.integer("{arch}.attention.key_length", hidden // heads)
    if not 0 < kv_heads <= heads or heads % kv_heads:
        raise _impossible(facts, f"{heads} heads on {kv_heads} heads of keys")
    if not 0 < head_dim <= hidden or head_dim % 2:
        raise _impossible(facts, f"heads of {head_dim} dimensions")
    if facts.integer("{arch}.attention.value_length", head_dim) != head_dim:
        raise _unread(facts, "values of another width than its keys")
    width = model.tensors["token_embd.weight"].tensor.shape[-1]
    blocks = {name.split(".")[1] for name in model.tensors if name.startswith("blk.")}
    if width != hidden or len(blocks) != facts.integer("{arch}.block_count"):
        raise _impossible(
            facts,
            f"tensors of {len(blocks)} layers of width {width}, but announces "
            f"{facts.integer('{arch}.block_count')} of {hidden}",
        )
    return hidden, heads, kv_heads, head_dim


def _llama(model: GgufModel) -> Entries:
    return {
        "attention_bias": "blk.0.attn_q.bias" in model.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in model.tensors,
    }


def _plain(_model: GgufModel) -> Entries:
    return {}


def _qwen3(model: GgufModel) -> Entries:
    return {"attention_bias": "blk.0.attn_q.bias" in model.tensors}


def _qwen3moe(model: GgufModel) -> Entries:
    facts = model.facts
    return {
        **_qwen3(model),
        "num_experts": _positive(facts, "expert_count"),
        "num_experts_per_tok": _positive(facts, "expert_used_count"),
        "moe_intermediate_size": _positive(facts, "expert_feed_forward_length"),
        "norm_topk_prob": True,
    }


def _gemma2(model: GgufModel) -> Entries:
    facts = model.facts
    return {
        "attn_logit_softcapping": facts.number("{arch}.attn_logit_softcapping", 50.0),
        "final_logit_softcapping": facts.number("{arch}.final_logit_softcapping", 30.0),
        "sliding_window": facts.integer("{arch}.attention.sliding_window", 4_096),
        "layer_types": _layer_types(facts, 2),
        "query_pre_attn_scalar": _scalar(facts),
    }


def _gemma3(model: GgufModel) -> Entries:
    facts = model.facts
    window = facts.integer("{arch}.attention.sliding_window", 0)
    whole = rope_parameters(model, facts.integer("{arch}.attention.key_length"), partial=False)
    near = {
        "rope_type": "default",
        "rope_theta": facts.number("{arch}.rope.freq_base_swa", 10_000.0),
    }
    soft_cap = facts.number("{arch}.final_logit_softcapping", 0.0)
    return {
        "final_logit_softcapping": soft_cap or None,
        "sliding_window": window or None,
        "layer_types": _layer_types(facts, 6 if window else 1),
        "rope_parameters": {"full_attention": whole, "sliding_attention": near},
        "query_pre_attn_scalar": _scalar(facts),
    }


def _starcoder2(model: GgufModel) -> Entries:
    return {
        "use_bias": "blk.0.attn_q.bias" in model.tensors,
        "sliding_window": model.facts.integer("{arch}.attention.sliding_window", 0) or None,
    }


def _phi2(_model: GgufModel) -> Entries:
    return {"tie_word_embeddings": False}


def _phi3(model: GgufModel) -> Entries:
    facts = model.facts
    window = facts.integer("{arch}.attention.sliding_window", 0)
    longest = facts.integer("{arch}.context_length")
    return {
        "sliding_window": window or None,
        "original_max_position_embeddings": facts.integer(
            "{arch}.rope.scaling.original_context_length", longest
        ),
    }


def _stablelm(model: GgufModel) -> Entries:
    if "blk.0.attn_q_norm.weight" in model.tensors:
        raise _unread(model.facts, "norms of queries and keys")
    parallel = "blk.0.ffn_norm.weight" not in model.tensors
    return {"use_qkv_bias": "blk.0.attn_q.bias" in model.tensors, "use_parallel_residual": parallel}


def _granite(model: GgufModel) -> Entries:
    facts = model.facts
    if not facts.flag("{arch}.rope.scaling.finetuned", True):
        raise _unread(facts, "layers without positions")
    return {
        **_llama(model),
        "attention_multiplier": facts.number("{arch}.attention.scale", 0.0)
        or _share(facts) ** -0.5,
        "embedding_multiplier": facts.number("{arch}.embedding_scale", 0.0) or 1.0,
        "residual_multiplier": facts.number("{arch}.residual_scale", 0.0) or 1.0,
        "logits_scaling": facts.number("{arch}.logit_scale"),
    }


def _smollm3(model: GgufModel) -> Entries:
    layers = model.facts.integer("{arch}.block_count")
    # llama.cpp leaves RoPE out of every fourth layer, whatever the file says.
    return {**_llama(model), "no_rope_layers": [int(bool((i + 1) % 4)) for i in range(layers)]}


def _olmo2(model: GgufModel) -> Entries:
    if model.facts.integer("{arch}.attention.sliding_window", 0):
        raise _unread(model.facts, "sliding windows (OLMo 3)")
    return {}


def _seed_oss(model: GgufModel) -> Entries:
    tensors = model.tensors
    return {
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "attention_out_bias": "blk.0.attn_output.bias" in tensors,
    }


ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {
        "gemma": Architecture("gemma", _plain, shifted_norms=True),
        "gemma2": Architecture("gemma2", _gemma2, shifted_norms=True),
        "gemma3": Architecture("gemma3_text", _gemma3, shifted_norms=True),
        "granite": Architecture("granite", _granite, interleaved=True),
        "llama": Architecture("llama", _llama, interleaved=True),
        "olmo2": Architecture("olmo2", _olmo2),
        "phi2": Architecture("phi", _phi2, epsilon="layer_norm_eps", partial=True),
        "phi3": Architecture("phi3", _phi3, partial=True),
        "qwen2": Architecture("qwen2", _plain),
        "qwen3": Architecture("qwen3", _qwen3),
        "qwen3moe": Architecture("qwen3_moe", _qwen3moe, settings=("expert_count",)),
        "seed_oss": Architecture("seed_oss", _seed_oss),
        "smollm3": Architecture("smollm3", _smollm3, interleaved=True),
        "stablelm": Architecture("stablelm", _stablelm, epsilon="layer_norm_eps", partial=True),
        "starcoder2": Architecture("starcoder2", _starcoder2, epsilon="norm_epsilon"),
    }
)
"""Architectures that pie reads, by llama.cpp's names."""


def _layer_types(facts: Facts, period: int) -> list[str]:
    """Say which layers see a window only: all but the last of each period, or as the file says."""
    layers = facts.integer("{arch}.block_count")
    key = "{arch}.attention.sliding_window_pattern"
    near = [(index + 1) % period != 0 for index in range(layers)]
    if key in facts:
        pattern = facts.array(key)
        if len(pattern) < layers:
            raise _unread(facts, "a pattern of windows for fewer layers than it has")
        near = [bool(pattern[index]) for index in range(layers)]
    return ["sliding_attention" if is_near else "full_attention" for is_near in near]


def _share(facts: Facts) -> int:
    """Return a head's share of the width."""
    return facts.integer("{arch}.embedding_length") // facts.integer("{arch}.attention.head_count")


def _scalar(facts: Facts) -> float:
    """Return the width whose square root the scores are divided by."""
    share = _share(facts)
    largest = facts.integer("{arch}.block_count") == _GEMMA_27B[facts.architecture]
    return share if largest else facts.integer("{arch}.attention.key_length", share)


def _positive(facts: Facts, name: str) -> int:
    value = facts.integer(f"{{arch}}.{name}")
    if not 0 < value <= _LARGEST:
        raise _impossible(facts, f"{facts.architecture}.{name} of {value}")
    return value


def _impossible(facts: Facts, what: str) -> ModelError:
    return ModelError(f"{facts.path} has {what}", "download or convert the model again")


def _unread(facts: Facts, what: str) -> ModelError:
    return ModelError(
        f"{facts.path} has {what}, which pie does not read for {facts.architecture!r}",
        "give the model as safetensors",
    )
