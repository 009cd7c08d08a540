"""The weights of a GGUF model as transformers wants them: named, unpacked, in torch's order.

Every weight of the model must come from the file and every tensor of the file must go into the
model: one left over means that the architecture was not understood.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, MODEL_ARCH_NAMES, GGMLQuantizationType
from transformers import AutoConfig, AutoModelForCausalLM

from pie_cli.errors import ModelError
from pie_cli.models.gguf.architectures import Architecture
from pie_cli.models.gguf.model import GgufModel, Placed
from pie_cli.models.gguf.rope import FREQUENCIES, LONG, SHORT

Kind = GGMLQuantizationType

PLAIN: Final[Mapping[Kind, torch.dtype]] = {
    Kind.F32: torch.float32,
    Kind.F16: torch.float16,
    Kind.BF16: torch.bfloat16,
}
_UNUSED: Final = re.compile(
    rf"{re.escape(FREQUENCIES)}|{re.escape(LONG)}|{re.escape(SHORT)}"
    r"|blk\.\d+\.(attn_rot_embd|rope_freqs).*"
)
_EXPERTS: Final = "mlp.experts.gate_up_proj"
_BLOCK_ELEMENTS: Final = 1 << 24


@dataclass(frozen=True)
class Weight:
    """A weight of the model, and where it comes from.

    Attributes:
        name: in the model.
        shape: of it.
        sources: tensors of the file, put one after the other along `axis`.
        axis: likewise.
        rows: first and stop, of the only source, where that holds more than this weight.
        heads: whose rows are put back from interleaved order; None for rows in order.
        shift: that was added to it.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[Placed, ...]
    axis: int = 0
    rows: tuple[int, int] | None = None
    heads: int | None = None
    shift: float = 0.0


def is_quantised(model: GgufModel) -> bool:
    """Tell whether unpacking gives more than what is stored."""
    return any(placed.tensor.kind not in PLAIN for placed in model.tensors.values())


def stored_dtype(model: GgufModel) -> str:
    """Return the dtype that the file's weights have or, where they are packed, bfloat16."""
    kinds = [
        placed.tensor.kind for placed in model.tensors.values() if len(placed.tensor.shape) > 1
    ]
    found = {PLAIN.get(kind, torch.bfloat16) for kind in kinds}
    return str(found.pop() if len(found) == 1 else torch.bfloat16).removeprefix("torch.")


def plan_weights(
    model: GgufModel, architecture: Architecture, config: Mapping[str, Any]
) -> tuple[Weight, ...]:
    """Say where each weight of a model comes from; reads no data.

    Raises:
        ModelError: a tensor is missing, has another shape than the metadata ask for, is not used,
            or is stored in a way that cannot be unpacked.
    """
    _check_kinds(model)
    shapes = _shapes(model, config)
    names = gguf.get_tensor_name_map(
        next(arch for arch, name in MODEL_ARCH_NAMES.items() if name == model.facts.architecture),
        int(config["num_hidden_layers"]),
    )
    planned = []
    for name, shape in shapes.items():
        if name == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        weight = _planned(model, names, name, shape)
        heads = _interleaved_heads(name, config) if architecture.interleaved else None
        shifted = architecture.shifted_norms and name.endswith("norm.weight")
        planned.append(replace(weight, heads=heads, shift=1.0 if shifted else 0.0))
    for weight in planned:
        _check_shape(model, weight)
    used = {placed.tensor.name for weight in planned for placed in weight.sources}
    rest = sorted(
        name for name in model.tensors if name not in used and not _UNUSED.fullmatch(name)
    )
    if rest:
        raise _mismatch(model, f"has more than it should: {rest[0]}{_more(rest)}")
    return tuple(planned)


def read_weight(weight: Weight, dtype: torch.dtype) -> torch.Tensor:
    """Read and unpack a weight.

    Args:
        weight: from `plan_weights`.
        dtype: of what was packed; plain weights keep theirs.

    Returns:
        The weight, contiguous.

    Raises:
        ModelError: the file ends before the tensor does: it has changed.
        OSError: it cannot be read.
    """
    pieces = [_unpacked(placed, dtype) for placed in weight.sources]
    found = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=weight.axis)
    if weight.rows is not None:
        found = found[slice(*weight.rows)]
    if weight.heads is not None:
        # A head's rows, from first and second halves by turns to first halves, then second ones.
        paired = found.view(weight.heads, found.shape[0] // weight.heads // 2, 2, *found.shape[1:])
        found = paired.transpose(1, 2).reshape(found.shape)
    if weight.shift:
        found = (found.float() - weight.shift).to(found.dtype)
    return found.contiguous()


def _planned(model: GgufModel, names: Any, name: str, shape: tuple[int, ...]) -> Weight:
    tensors = model.tensors
    if name.endswith(_EXPERTS):
        stem = f"blk.{re.sub(r'[^0-9]', '', name)}.ffn_"
        experts = [tensors.get(f"{stem}{part}_exps.weight") for part in ("gate", "up")]
        if None in experts:
            raise _mismatch(model, f"lacks {stem}gate_exps.weight")
        return Weight(name, shape, tuple(one for one in experts if one is not None), axis=1)
    stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if stored is None:
        raise _mismatch(model, f"has no place for {name}")
    # Weights that transformers keeps without a suffix, such as those of all experts.
    for candidate in (stored, f"{stored}.weight"):
        if candidate in tensors:
            return Weight(name, shape, (tensors[candidate],))
    fused = re.fullmatch(r"(blk\.\d+\.attn_)([qkv])(\..+)", stored)
    if fused and f"{fused[1]}qkv{fused[3]}" in tensors:
        whole = tensors[f"{fused[1]}qkv{fused[3]}"]
        return Weight(name, shape, (whole,), rows=_share(whole, fused[2], shape[0]))
    raise _mismatch(model, f"lacks {stored}")


def _share(whole: Placed, part: str, rows: int) -> tuple[int, int]:
    """Return the rows of queries, keys or values in a tensor that holds these three in order."""
    total = whole.tensor.shape[0]
    if part == "q":
        return 0, rows
    return (total - 2 * rows, total - rows) if part == "k" else (total - rows, total)


def _shapes(model: GgufModel, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return what transformers asks for, without allocating it."""
    try:
        built = AutoConfig.for_model(**config)
        with torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(built)
        return {name: tuple(weight.shape) for name, weight in whole.state_dict().items()}
    except Exception as error:
        # Whatever a foreign constructor raises about dimensions that do not fit together.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _mismatch(model, f"describes no model that can be built: {reason}") from error


def _interleaved_heads(name: str, config: Mapping[str, Any]) -> int | None:
    if ".q_proj." in name:
        return int(config["num_attention_heads"])
    return int(config["num_key_value_heads"]) if ".k_proj." in name else None


def _check_kinds(model: GgufModel) -> None:
    for kind in {placed.tensor.kind for placed in model.tensors.values()} - set(PLAIN):
        _, block_bytes = GGML_QUANT_SIZES[kind]
        try:
            gguf.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
        except NotImplementedError as error:
            raise ModelError(
                f"{model.facts.path} is quantised as {kind.name}, which cannot be unpacked here",
                "give it in another quantisation, such as Q8_0 or Q4_K_M",
            ) from error


def _check_shape(model: GgufModel, weight: Weight) -> None:
    found = list(weight.sources[0].tensor.shape)
    found[weight.axis] = sum(placed.tensor.shape[weight.axis] for placed in weight.sources)
    if weight.rows is not None:
        found[0] = len(range(found[0])[slice(*weight.rows)])
    if tuple(found) != weight.shape:
        raise _mismatch(
            model,
            f"has {weight.sources[0].tensor.name} of {_shown(found)}, but its metadata ask for "
            f"{_shown(weight.shape)}",
        )


def _unpacked(placed: Placed, dtype: torch.dtype) -> torch.Tensor:
    tensor = placed.tensor
    with placed.path.open("rb") as file:
        file.seek(tensor.start)
        if tensor.kind in PLAIN:
            data = _taken(file.read(tensor.size_bytes), tensor.size_bytes, placed)
            return torch.frombuffer(bytearray(data), dtype=PLAIN[tensor.kind]).view(tensor.shape)
        # By blocks of rows: unpacking takes several times what it yields.
        width = tensor.shape[-1]
        rows = int(np.prod(tensor.shape[:-1], dtype=np.int64))
        row_bytes = tensor.size_bytes // rows
        found = torch.empty(rows, width, dtype=dtype)
        step = max(1, _BLOCK_ELEMENTS // width)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            data = _taken(file.read(count * row_bytes), count * row_bytes, placed)
            block = np.frombuffer(data, np.uint8).reshape(count, row_bytes)
            found[start : start + count] = torch.from_numpy(gguf.dequantize(block, tensor.kind))
        return found.view(tensor.shape)


def _taken(data: bytes, size: int, placed: Placed) -> bytes:
    if len(data) != size:
        raise ModelError(f"{placed.path} changed while it was read", "try again when it is whole")
    return data


def _shown(shape: Iterator[int] | list[int] | tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more tensors" if len(names) > 1 else ""


def _mismatch(model: GgufModel, how: str) -> ModelError:
    return ModelError(
        f"{model.facts.path} {how}",
        "download or convert the model again; if it is whole, pie does not read its kind",
    )
