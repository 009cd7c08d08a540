"""Build a tiny random model of any causal type that transformers knows."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

VOCABULARY: Final = 97
_LAYERS: Final = 4
_MAX_PARAMETERS: Final = 20_000_000
_SEED: Final = 0

# Names that configs have for the same dimension.
_SIZES: Final[Mapping[str, int]] = {
    **dict.fromkeys(
        "hidden_size n_embd d_model emb_dim embed_dim dim lru_width embedding_size"
        " attention_hidden_size".split(),
        64,
    ),
    **dict.fromkeys(
        "num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers".split(),
        _LAYERS,
    ),
    **dict.fromkeys(
        "num_attention_heads n_head n_heads num_heads decoder_attention_heads"
        " num_decoder_attention_heads linear_num_value_heads".split(),
        4,
    ),
    **dict.fromkeys(
        "num_key_value_heads n_head_kv num_kv_heads multi_query_group_num"
        " linear_num_key_heads".split(),
        2,
    ),
    **dict.fromkeys(
        "head_dim attention_head_dim linear_key_head_dim linear_value_head_dim kv_channels"
        " v_head_dim global_head_dim swa_head_dim d_kv".split(),
        16,
    ),
    **dict.fromkeys(
        "intermediate_size ffn_dim n_inner d_inner decoder_ffn_dim moe_intermediate_size d_ff"
        " shared_expert_intermediate_size moe_shared_expert_intermediate_size ffn_hidden_size"
        " shared_intermediate_size intermediate_size_mlp expert_ffn_hidden_size"
        " block_ff_dim dense_intermediate_size".split(),
        96,
    ),
    **dict.fromkeys(
        "num_experts n_routed_experts num_local_experts moe_num_experts moe_num_primary_experts"
        " num_routed_experts".split(),
        4,
    ),
    **dict.fromkeys("num_experts_per_tok moe_topk moe_k num_experts_per_token".split(), 2),
    **dict.fromkeys(
        "n_group topk_group n_groups num_expert_group mamba_n_groups n_shared_experts"
        " num_shared_experts".split(),
        1,
    ),
    **dict.fromkeys(
        "q_lora_rank kv_lora_rank o_lora_rank index_head_dim state_size mamba_d_state"
        " mamba_state_dim ssm_state_size time_step_rank mamba_dt_rank hidden_size_per_layer_input"
        " laurel_rank compress_rank".split(),
        16,
    ),
    **dict.fromkeys("qk_rope_head_dim qk_nope_head_dim".split(), 16),
    **dict.fromkeys("rotary_dim index_n_heads".split(), 8),
    "qk_head_dim": 32,
    "index_topk": 64,
    "mamba_n_heads": 8,
    "mamba_num_heads": 8,
    "mamba_d_head": 16,
    "mamba_head_dim": 16,
    "n_mamba_heads": 1,
    "mamba_expand": 2,
    "mamba_d_ssm": 128,
    "mamba_chunk_size": 16,
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "sliding_window": 32,
    "attention_window_size": 32,
    "window_size": 32,
    "sliding_window_size": 32,
    "attention_chunk_size": 32,
    "first_k_dense_replace": 1,
    "num_kv_shared_layers": 1,
}

# What names alone do not tell: types that keep only one kind of layer when they are shrunk but have
# several, and dimensions that depend on others.
_MIXED: Final[Mapping[str, Mapping[str, Any]]] = {
    "bamba": {"attn_layer_indices": [1, 3]},
    "deepseek_v2": {"num_key_value_heads": 4, "num_experts_per_tok": 2},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"] * 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "minimax_m3_vl_text": {"layer_types": ["minimax_m3_sparse", "full_attention"] * 2},
}

# Not a field: also give values to dimensions that a config leaves open.
_FILL: Final = "fill"

# Standard deviations: at the usual 0.02 attention is flat and hides wrong positions.
_DEVIATIONS: Final = ("initializer_range", "init_std", "w_init_variance_scale")


def causal_types() -> tuple[str, ...]:
    """Return the model types that transformers maps to a causal language model, sorted."""
    return tuple(sorted({config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING}))


def build_tiny(model_type: str) -> Any:
    """Build a model of a type: 4 layers of 64, windows of 32, weights of deviation 0.3.

    Each config is its type's default one with the dimensions shrunk by their names; several ways
    are tried, for types differ in which dimensions depend on which.

    Raises:
        ValueError: when none of the ways gives a model, with the first one's reason.
    """
    reasons: list[str] = []
    for overrides in _ways():
        model, reason = _attempt(model_type, overrides)
        if model is not None:
            return model
        reasons.append(reason)
    raise ValueError(reasons[0])


def _attempt(model_type: str, overrides: Mapping[str, Any]) -> tuple[Any, str]:
    """Try one way; return a model that runs, or None and the reason."""
    try:
        config = CONFIG_MAPPING[model_type]()
        _shrink(config, overrides)
        for name, value in _MIXED.get(model_type, {}).items():
            setattr(config, name, value)
        # Counted before it is built: a dimension that was not shrunk may mean gigabytes.
        with torch.device("meta"):
            shape = AutoModelForCausalLM.from_config(config)
        size = sum(parameter.numel() for parameter in shape.parameters())
        if size > _MAX_PARAMETERS:
            return None, f"{size:,} parameters after shrinking"
        torch.manual_seed(_SEED)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        with torch.inference_mode():
            model(input_ids=torch.tensor([[5, 6, 7]]))
        return model, ""
    except Exception as error:  # noqa: BLE001 - whatever a foreign constructor raises
        return None, (str(error).strip() or type(error).__name__).splitlines()[0]


def _ways() -> Iterator[Mapping[str, Any]]:
    yield {}
    yield {"head_dim": None}
    yield {"num_key_value_heads": 4}
    yield {"linear_num_key_heads": 4}
    yield {_FILL: 1}


def _shrink(config: Any, overrides: Mapping[str, Any]) -> None:
    """Set every known dimension of a config, and of the configs inside it, in place."""
    values = {**_SIZES, **overrides}
    fields = config.to_dict()
    for name in getattr(config, "attribute_map", {}):
        fields.setdefault(name, getattr(config, name, None))
    for name, old in fields.items():
        value = _shrunk(name, old, values)
        if value is not None:
            # A field that follows from others takes no value.
            with suppress(AttributeError):
                setattr(config, name, value)
    for name in getattr(config, "sub_configs", {}):
        inner = getattr(config, name, None)
        if hasattr(inner, "to_dict"):
            _shrink(inner, overrides)


def _shrunk(name: str, old: Any, values: Mapping[str, Any]) -> Any:
    """Return a field's new value, or None to leave it."""
    if name == "is_decoder":
        return True
    if name in _DEVIATIONS and isinstance(old, float):
        return 0.3
    if name.endswith("token_id") and isinstance(old, int) and old >= VOCABULARY:
        return 1
    if isinstance(old, list) and len(old) > _LAYERS and name != "architectures":
        return _spread(old)
    given = isinstance(old, int) and not isinstance(old, bool) and old
    if given or (old is None and _FILL in values):
        return values.get(name)
    return None


def _spread(layers: list[Any]) -> list[Any]:
    """Shorten a list with an entry a layer, keeping each kind that occurs."""
    kinds = list(dict.fromkeys(map(str, layers)))
    first = [next(entry for entry in layers if str(entry) == kind) for kind in kinds]
    return (first * _LAYERS)[:_LAYERS]
