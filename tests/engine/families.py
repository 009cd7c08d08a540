"""Tiny random models of many families: standard deviation 0.3, windows of 32."""

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 97
WINDOW = 32

_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 4_096,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_GROUPED: dict[str, Any] = {**_SIZES, "num_key_value_heads": 2}
_HEADED: dict[str, Any] = {**_GROUPED, "head_dim": 16}
_LEARNED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 512,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_CODEGEN: dict[str, Any] = {**_LEARNED, "n_positions": 4_096, "rotary_dim": 8}
_SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]


def _llama(**rope: Any) -> tuple[str, dict[str, Any]]:
    return "llama", {**_HEADED, "rope_parameters": {**_ROPE, **rope}}


# What the gate passes, by name: model type and config.
ROTATING: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": _llama(),
    "llama linear": _llama(rope_type="linear", rope_theta=100_000.0, factor=4.0),
    "llama llama3": _llama(
        rope_type="llama3",
        factor=8.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=512,
    ),
    "llama yarn": _llama(rope_type="yarn", factor=4.0, original_max_position_embeddings=1_024),
    "llama dynamic": _llama(rope_type="dynamic", factor=2.0),
    "qwen2": ("qwen2", _GROUPED),
    "qwen2 windows": (
        "qwen2",
        {**_GROUPED, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", _HEADED),
    "starcoder2": ("starcoder2", {**_GROUPED, "sliding_window": WINDOW}),
    "mistral": ("mistral", {**_HEADED, "sliding_window": WINDOW}),
    "gemma": ("gemma", _HEADED),
    "gemma2": ("gemma2", {**_HEADED, "sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "gemma3_text": (
        "gemma3_text",
        {
            **_HEADED,
            "sliding_window": WINDOW,
            "layer_types": _SLIDING,
            "query_pre_attn_scalar": 16,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "linear",
                    "rope_theta": 1_000_000.0,
                    "factor": 8.0,
                },
                "sliding_attention": _ROPE,
            },
        },
    ),
    "phi": ("phi", {**_SIZES, "rope_parameters": {**_ROPE, "partial_rotary_factor": 0.5}}),
    "phi3": ("phi3", {**_GROUPED, "sliding_window": WINDOW}),
    "stablelm": ("stablelm", {**_GROUPED, "use_qkv_bias": True, "qk_layernorm": True}),
    "gpt_neox": ("gpt_neox", _SIZES),
    "gptj": ("gptj", _CODEGEN),
    "codegen": ("codegen", _CODEGEN),
    "granite": ("granite", {**_GROUPED, "attention_multiplier": 0.25, "residual_multiplier": 0.5}),
    "cohere": ("cohere", {**_GROUPED, "use_qk_norm": True}),
    "cohere2": (
        "cohere2",
        {**_HEADED, "sliding_window": WINDOW, "layer_types": _SLIDING},
    ),
    "glm": ("glm", _HEADED),
    "olmo2": ("olmo2", _GROUPED),
    "smollm3": (
        "smollm3",
        {
            **_GROUPED,
            "num_hidden_layers": 4,
            "no_rope_layer_interval": 4,
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
        },
    ),
}


def build(kind: str, config: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    """Build a model of a type from its config, the same at each call."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **config), dtype=dtype)
    return model.eval()


def rotating(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """Build one of `ROTATING`."""
    return build(*ROTATING[name], dtype=dtype)


_MLA: dict[str, Any] = {
    **_SIZES,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
}
_HYBRID_HEADS: dict[str, Any] = {**_GROUPED, "num_hidden_layers": 4}

# What the gate refuses, by name: model type and config.
FALLING_BACK: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", _LEARNED),
    "gpt_bigcode": ("gpt_bigcode", _LEARNED),
    "bloom": (
        "bloom",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "n_layer": 3,
            "n_head": 4,
            "initializer_range": 0.3,
            "tie_word_embeddings": False,
        },
    ),
    "mpt": (
        "mpt",
        {
            "vocab_size": VOCABULARY,
            "d_model": 64,
            "n_layers": 3,
            "n_heads": 4,
            "max_seq_len": 512,
            "initializer_range": 0.3,
        },
    ),
    "deepseek_v3": ("deepseek_v3", _MLA),
    "gpt_oss": (
        "gpt_oss",
        {
            **_HEADED,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": WINDOW,
            "layer_types": _SLIDING,
            "rope_parameters": _ROPE,
        },
    ),
    "mamba": (
        "mamba",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "state_size": 8,
            "initializer_range": 0.3,
        },
    ),
    "jamba": (
        "jamba",
        {
            **_HYBRID_HEADS,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "num_experts": 2,
            "mamba_d_state": 8,
            "mamba_dt_rank": 4,
        },
    ),
    "qwen3_next": (
        "qwen3_next",
        {
            **_HYBRID_HEADS,
            "head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "layer_types": ["linear_attention", "full_attention"] * 2,
        },
    ),
    "recurrent_gemma": (
        "recurrent_gemma",
        {
            **_GROUPED,
            "attention_window_size": WINDOW,
            "lru_width": 64,
            "w_init_variance_scale": 0.3,
        },
    ),
}


def falling_back(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """Build one of `FALLING_BACK`."""
    return build(*FALLING_BACK[name], dtype=dtype)
