"""Why transformers cannot load a model: what its config asks for, said in one line."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from transformers import __version__ as transformers_version
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.configuration_auto import (  # type: ignore[attr-defined, unused-ignore]
    CONFIG_MAPPING_NAMES,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from pie_cli.errors import ModelError
from pie_cli.models.registry import remedy

_KNOWN_ROPE_TYPES: Final = frozenset({"default", *ROPE_INIT_FUNCTIONS})
_AGAIN: Final = "download or save the model again"

_PACKAGES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "aqlm": ("aqlm", "accelerate"),
        "auto-round": ("auto_round",),
        "awq": ("gptqmodel", "accelerate"),
        "bitsandbytes": ("bitsandbytes", "accelerate"),
        "compressed-tensors": ("compressed_tensors",),
        "fp8": ("accelerate",),
        "gptq": ("gptqmodel", "optimum"),
        "hqq": ("hqq",),
        "torchao": ("torchao",),
    }
)
"""Packages that transformers loads quantised weights with, by method; others name theirs late."""


def quantization(config: Mapping[str, Any]) -> str | None:
    """Return the method by which a checkpoint's weights are quantised; None for plain weights."""
    settings = config.get("quantization_config")
    if settings is None:
        return None
    if not isinstance(settings, dict):
        return ""
    if settings.get("load_in_8bit") or settings.get("load_in_4bit"):
        return "bitsandbytes"
    return str(settings.get("quant_method", ""))


def check_config(folder: Path, config: Mapping[str, Any], *, with_code: bool) -> None:
    """Refuse what no loading can mend, before anything large is read.

    Args:
        folder: that the config is from.
        config: its config.json.
        with_code: whether the model may bring code of its own.

    Raises:
        ModelError: no causal language model that transformers knows, or quantised by a method whose
            packages are missing.
    """
    _check_family(folder, config, with_code=with_code)
    _check_quantization(folder, config)


def _check_family(folder: Path, config: Mapping[str, Any], *, with_code: bool) -> None:
    if "auto_map" in config:
        if with_code:
            return
        if str(config.get("model_type")) not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            raise ModelError(
                f"{folder} needs code of its own, which is not run unasked",
                "read that code, then pass --trust-remote-code",
            )
    family = config.get("model_type")
    if not family or not isinstance(family, str):
        raise ModelError(f"{folder / 'config.json'} names no model_type", _AGAIN)
    if family not in CONFIG_MAPPING_NAMES:
        raise ModelError(
            f"{folder} is of the type {family!r}, which transformers {transformers_version} does "
            "not know",
            "update transformers, or " + remedy(),
        )
    if family not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(f"{folder} is of the type {family!r}, which predicts no text", remedy())


def _check_quantization(folder: Path, config: Mapping[str, Any]) -> None:
    method = quantization(config)
    if method is None:
        return
    known = {*AUTO_QUANTIZATION_CONFIG_MAPPING, "bitsandbytes"}
    if method not in known:
        raise ModelError(
            f"{folder} is quantised by {method or 'an unnamed method'}, which transformers "
            f"{transformers_version} does not know",
            "update transformers, or use the model's plain weights",
        )
    missing = [name for name in _PACKAGES.get(method, ()) if not _is_installed(name)]
    if missing:
        packages = " ".join(name.replace("_", "-") for name in missing)
        plural = "s" * (len(missing) > 1)
        raise ModelError(
            f"{folder} is quantised by {method}, which needs the package{plural} {packages}",
            f"pip install {packages}, or use the model's plain weights",
        )


def explain(folder: Path, config: Mapping[str, Any], error: BaseException) -> ModelError:
    """Turn what transformers raised into one line."""
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{folder} needs code of its own, which is not run unasked",
            "read that code, then pass --trust-remote-code",
        )
    unknown = [name for name in _rope_types(config) if name not in _KNOWN_ROPE_TYPES]
    # Some families know more types than the table: blamed is what the error names.
    if unknown and unknown[0] in str(error):
        return ModelError(
            f"{folder / 'config.json'} asks for RoPE of the type {unknown[0]!r}, which "
            f"transformers {transformers_version} does not know",
            "update transformers, or " + remedy(),
        )
    method = quantization(config)
    if method is not None:
        return ModelError(
            f"{folder}, quantised by {method}, cannot be loaded here: {one_line(error)}",
            "mend that, or use the model's plain weights",
        )
    # A name that a table lacks; some libraries raise whole sentences as KeyError, too.
    if isinstance(error, KeyError) and " " not in str(error):
        return ModelError(
            f"{folder / 'config.json'} names {one_line(error)}, which transformers "
            f"{transformers_version} does not know",
            "check config.json, or update transformers",
        )
    return ModelError(f"the model in {folder} cannot be loaded: {one_line(error)}", remedy())


def one_line(error: BaseException) -> str:
    """Return an error's first line, with what it announces by a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    first = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return first.strip('"').rstrip(".")


def _rope_types(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the RoPE types that a config names, which may differ by layer type."""
    for key in ("rope_parameters", "rope_scaling"):
        settings = config.get(key)
        if not isinstance(settings, dict):
            continue
        for entry in (settings, *settings.values()):
            if isinstance(entry, dict):
                name = entry.get("rope_type", entry.get("type"))
                if name is not None:
                    yield str(name)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
