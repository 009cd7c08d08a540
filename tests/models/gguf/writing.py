"""Tiny models written as GGUF with gguf-py, the way llama.cpp's own converter writes them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType as Kind
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tests.prompt import kinds

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
WINDOW = 512

_INTERLEAVED = ("llama", "granite", "smollm3")


def default_rope(**further: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, **further}}


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8_192,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "long_factor": [1 + i * 0.2 for i in range(8)],
    "short_factor": [1 + i * 0.05 for i in range(8)],
    "original_max_position_embeddings": 128,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}

MODELS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "llama", default_rope()),
    "llama, biases and tied": (
        "llama",
        "llama",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, **default_rope()},
    ),
    "llama, linear": ("llama", "llama", default_rope(rope_type="linear", factor=4.0)),
    "llama 3": ("llama", "llama", {"rope_parameters": LLAMA3, "max_position_embeddings": 16_384}),
    "mistral": ("llama", "mistral", {"sliding_window": None, **default_rope()}),
    "qwen2": ("qwen2", "qwen2", {"tie_word_embeddings": True, **default_rope(rope_theta=1e6)}),
    "qwen2, yarn": ("qwen2", "qwen2", {"rope_parameters": YARN}),
    "qwen3": ("qwen3", "qwen3", {"head_dim": 32, **default_rope()}),
    "qwen3moe": (
        "qwen3moe",
        "qwen3_moe",
        {
            "head_dim": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
            **default_rope(),
        },
    ),
    "gemma": ("gemma", "gemma", {"head_dim": 16, **default_rope()}),
    "gemma2": (
        "gemma2",
        "gemma2",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 24, **default_rope()},
    ),
    "gemma3": (
        "gemma3",
        "gemma3_text",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 24,
            "num_hidden_layers": 7,
        },
    ),
    "starcoder2": (
        "starcoder2",
        "starcoder2",
        {"use_bias": True, "sliding_window": None, **default_rope()},
    ),
    "phi2": (
        "phi2",
        "phi",
        {"num_key_value_heads": 4, **default_rope(partial_rotary_factor=0.5)},
    ),
    "phi3": ("phi3", "phi3", {"sliding_window": 24, **default_rope()}),
    "phi3, longrope": (
        "phi3",
        "phi3",
        {
            "rope_parameters": LONGROPE,
            "original_max_position_embeddings": 128,
            "sliding_window": None,
        },
    ),
    "stablelm": (
        "stablelm",
        "stablelm",
        {"use_qkv_bias": True, **default_rope(partial_rotary_factor=0.25)},
    ),
    "granite": (
        "granite",
        "granite",
        {
            "attention_multiplier": 0.1,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "logits_scaling": 2.0,
            **default_rope(),
        },
    ),
    "smollm3": ("smollm3", "smollm3", default_rope()),
    "olmo2": ("olmo2", "olmo2", default_rope()),
    "seed_oss": (
        "seed_oss",
        "seed_oss",
        {"head_dim": 16, "attention_bias": True, "attention_out_bias": False, **default_rope()},
    ),
}
"""By name: llama.cpp's architecture, transformers' family, what its config says besides sizes."""


def build(family: str, further: Mapping[str, Any], vocabulary: int) -> PreTrainedModel:
    """Build a tiny random model; norms and biases are random as well, so that none is trivial."""
    sizes = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": WINDOW,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**sizes, **further})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def write_model(
    path: Path,
    architecture: str,
    model: PreTrainedModel,
    *,
    vocabulary: Callable[[gguf.GGUFWriter], None],
    kind: Kind = Kind.F32,
    change: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    tensors: Callable[[dict[str, np.ndarray]], None] = lambda tensors: None,
    split: int = 0,
) -> None:
    """Write a model.

    Args:
        path: of the file.
        architecture: llama.cpp's name.
        model: whose weights are written.
        vocabulary: writes the tokenizer.
        kind: matrices are quantised to it where their rows allow.
        change: writes further metadata.
        tensors: changes what will be written, by name.
        split: tensors a file, 0 for all in one.
    """
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    write_config(writer, model.config.to_dict())
    vocabulary(writer)
    change(writer)
    stored = tensors_of(architecture, model)
    tensors(stored)
    for name, data in stored.items():
        quantised = kind is not Kind.F32 and data.ndim > 1 and data.shape[-1] % 32 == 0
        packed = gguf.quantize(data, kind) if quantised else data
        writer.add_tensor(name, packed, raw_dtype=kind if quantised else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors_of(architecture: str, model: PreTrainedModel) -> dict[str, np.ndarray]:
    """Name and order a model's weights as llama.cpp's converter does."""
    config = model.config
    known = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(known, config.num_hidden_layers)
    found: dict[str, np.ndarray] = {}
    for name, weight in model.state_dict().items():
        data = weight.numpy()
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name.endswith("experts.gate_up_proj"):
            layer = name.split(".")[2]
            gate, up = np.split(data, 2, axis=1)
            found[f"blk.{layer}.ffn_gate_exps.weight"] = np.ascontiguousarray(gate)
            found[f"blk.{layer}.ffn_up_exps.weight"] = np.ascontiguousarray(up)
            continue
        if architecture in _INTERLEAVED and (".q_proj." in name or ".k_proj." in name):
            queries = ".q_proj." in name
            heads = config.num_attention_heads if queries else config.num_key_value_heads
            halves = data.reshape(heads, 2, data.shape[0] // heads // 2, *data.shape[1:])
            data = halves.swapaxes(1, 2).reshape(data.shape)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            data = data + 1
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored is not None
        stored += "" if stored.endswith((".weight", ".bias")) else ".weight"
        found[stored] = np.ascontiguousarray(data)
    rope = config.to_dict()["rope_parameters"]
    if rope.get("rope_type") == "llama3":
        found["rope_freqs.weight"] = llama3_factors(rope, config.head_dim)
    if rope.get("rope_type") == "longrope":
        for which in ("long", "short"):
            factors = np.array(rope[f"{which}_factor"], np.float32)
            found[f"rope_factors_{which}.weight"] = factors
    return found


def llama3_factors(rope: Mapping[str, Any], head_dim: int) -> np.ndarray:
    """Return what positions are divided by, by frequency, one after the other."""
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (index / head_dim)
        smooth = (low / wavelength - 1) / (low / high - 1)
        blended = 1 / ((1 - smooth) / rope["factor"] + smooth)
        factors.append(
            1.0 if wavelength < high else rope["factor"] if wavelength > low else blended
        )
    return np.array(factors, np.float32)


def write_config(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    """Write a config's entries under llama.cpp's keys."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if config.get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if "rms_norm_eps" in config:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    for name in ("layer_norm_eps", "norm_epsilon"):
        if name in config:
            writer.add_layer_norm_eps(config[name])
    _write_scaling(writer, rope)
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    experts = config.get("num_experts") or config.get("num_local_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    for key, add in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
        ("attention_multiplier", writer.add_attention_scale),
        ("embedding_multiplier", writer.add_embedding_scale),
        ("residual_multiplier", writer.add_residual_scale),
        ("logits_scaling", writer.add_logit_scale),
    ):
        if config.get(key):
            add(config[key])


def _write_scaling(writer: gguf.GGUFWriter, rope: Mapping[str, Any]) -> None:
    kind = rope["rope_type"]
    scaling = {
        "linear": gguf.RopeScalingType.LINEAR,
        "yarn": gguf.RopeScalingType.YARN,
        "longrope": gguf.RopeScalingType.LONGROPE,
    }.get(kind)
    if scaling is None:
        return
    writer.add_rope_scaling_type(scaling)
    if kind in {"linear", "yarn"}:
        writer.add_rope_scaling_factor(rope["factor"])
    if kind in {"yarn", "longrope"}:
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def byte_level(
    tokenizer: Tokenizer, name: str | None, *, bos: bool | None = None
) -> Callable[[gguf.GGUFWriter], None]:
    """Return what writes a byte-level tokenizer, split by a name."""
    state = json.loads(tokenizer.to_str())
    tokens, types = _tokens_of(tokenizer, state)
    merges = [" ".join(merge) for merge in state["model"]["merges"]]

    def write(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        if name is not None:
            writer.add_tokenizer_pre(name)
        writer.add_token_list(tokens)
        writer.add_token_types(types)
        writer.add_token_merges(merges)
        end = tokenizer.token_to_id(kinds.CONTROL[0])
        if end is not None:
            writer.add_bos_token_id(end)
            writer.add_eos_token_id(end)
        if bos is not None:
            writer.add_add_bos_token(bos)

    return write


def raw_byte_level(
    tokens: list[str], merges: list[str], name: str | None, types: list[int] | None = None
) -> Callable[[gguf.GGUFWriter], None]:
    """Return what writes a byte-level vocabulary as it is given."""

    def write(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        if name is not None:
            writer.add_tokenizer_pre(name)
        writer.add_token_list(tokens)
        writer.add_token_types(types or [NORMAL] * len(tokens))
        writer.add_token_merges(merges)

    return write


def sentencepiece(
    scores: Mapping[str, float], *, space_prefix: bool | None = None, types: Any = None
) -> Callable[[gguf.GGUFWriter], None]:
    """Return what writes a SentencePiece vocabulary: tokens with scores, after the usual first."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *scores]
    kinds_of = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    kinds_of += [(types or {}).get(piece, NORMAL) for piece in scores]

    def write(writer: gguf.GGUFWriter) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores([0.0] * 259 + list(scores.values()))
        writer.add_token_types(kinds_of)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        if space_prefix is not None:
            writer.add_add_space_prefix(space_prefix)

    return write


def write_vocabulary(path: Path, vocabulary: Callable[[gguf.GGUFWriter], None]) -> None:
    """Write a file that holds a tokenizer and nothing else."""
    writer = gguf.GGUFWriter(path, "llama")
    vocabulary(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def _tokens_of(tokenizer: Tokenizer, state: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    added = {token["content"]: token["special"] for token in state["added_tokens"]}
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    tokens = [token for token, _ in vocabulary]
    types = [
        NORMAL if token not in added else CONTROL if added[token] else USER_DEFINED
        for token in tokens
    ]
    return tokens, types
