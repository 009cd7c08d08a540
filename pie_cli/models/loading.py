"""Load a model with its tokenizer: checked, on its device, in its dtype, silently."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from pie_cli.config import DEFAULT_MODEL, DTYPES, check_dtype
from pie_cli.errors import CacheCapacityError, DeviceError, ModelError, PieError
from pie_cli.models import hub
from pie_cli.models import random_weights as random_models
from pie_cli.models.checkpoint import Checkpoint, inspect_folder, read_json, verify_checksums
from pie_cli.models.choice import EMBEDDED
from pie_cli.models.devices import available_bytes, can_map, pick_device
from pie_cli.models.faults import check_config, explain, quantization
from pie_cli.models.plausible import check_counts, check_sizes
from pie_cli.models.quiet import Progress, hushed
from pie_cli.models.registry import (
    EMBEDDED_FOLDER,
    ModelSource,
    Origin,
    resolve,
    shape_of,
)
from pie_cli.models.sealed import sealed
from pie_cli.models.tokenizers import (
    check_vocabulary,
    count_rows,
    find_bos,
    find_eos,
    load_tokenizer,
    read_fim_ids,
    top_id,
)

T = TypeVar("T")
Placement: TypeAlias = str | dict[str, str] | None

DEFAULT_WINDOW: Final = 2_048
"""Positions assumed where a config names none."""

_WINDOW_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
# Buffers that older versions stored with the weights; today they are computed.
_STORED_BUFFERS = (".inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias")


@dataclass(frozen=True)
class LoadedModel:
    """A model, ready to run.

    Attributes:
        model: in evaluation mode, without gradients.
        tokenizer: always one of the fast kind, with a `backend_tokenizer`.
        name: what to call the model in results.
        device: "cpu", "cuda", "cuda:N" or "mps"; "map" for several.
        dtype: "float32", "bfloat16" or "float16".
        eos_ids: the token ids that end a text.
        bos_id: the token id a prompt begins with, where the tokenizer has one.
        window: positions that the model was made for.
        n_params: parameters, tied ones counted once.
        weights_bytes: memory that they take.
        rows: of the embedding: token ids below this can be used.
        random_weights: whether they are random: fit for latency, not for predictions.
        fim_ids: tokens for filling in a middle, by role, where the model's file names them.
        weights: "full", or "int8" where they are to be rounded to eight bits.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    device: str
    dtype: str
    eos_ids: frozenset[int]
    bos_id: int | None
    window: int
    n_params: int
    weights_bytes: int
    rows: int
    random_weights: bool = False
    fim_ids: Mapping[str, int] = field(default_factory=dict)
    weights: str = "full"


def load(
    name: str = DEFAULT_MODEL,
    device: str = "auto",
    dtype: str = "auto",
    *,
    trust_remote_code: bool = False,
    random_weights: bool = False,
    weights: str = "full",
    attn_implementation: str = "sdpa",
    on_progress: Progress | None = None,
) -> LoadedModel:
    """Load a model by its name.

    Args:
        name: an alias, a local folder, a GGUF file or a name on the hub; by default the best at
            hand.
        device: "auto" takes CUDA before MPS before the CPU, "map" all there are.
        dtype: "auto" is float32 on the CPU, elsewhere the checkpoint's own.
        trust_remote_code: whether code from the model's repository may run.
        random_weights: build the named shape with random weights, downloading nothing.
        weights: "full", or "int8": `prepare` is to round them to eight bits.
        attn_implementation: a name that transformers knows; models without SDPA fall back to eager.
        on_progress: told about the stages "download" (bytes) and "weights" (tensors).

    Raises:
        PieError: Python was started with -OO.
        ModelError: not found, not whole, not safe, or not loadable.
        DeviceError: the device or dtype is not there.
        CacheCapacityError: the weights do not fit the device's memory.
    """
    if __doc__ is None:
        raise PieError(
            "Python leaves docstrings out, which transformers needs to build a model",
            "unset PYTHONOPTIMIZE, and start Python without -OO",
        )
    source = resolve(name)
    check_dtype(dtype)
    device = pick_device(device)
    with hushed(on_progress):
        try:
            if random_weights:
                loaded = _build(source, device, dtype, attn_implementation)
            else:
                loaded = _load(
                    source, device, dtype, trust_remote_code, attn_implementation, on_progress
                )
            return replace(loaded, weights=weights)
        except torch.OutOfMemoryError as error:
            raise CacheCapacityError(
                f"{name} does not fit the memory of {device}",
                "give a smaller model or --device cpu",
            ) from error


def pick_dtype(dtype: str, device: str, stored: str | None) -> str:
    """Return the dtype to use, settled.

    Args:
        dtype: as asked for, perhaps "auto".
        device: settled.
        stored: the checkpoint's dtype, where known.

    Raises:
        DeviceError: bfloat16 asked of a GPU that has none.
    """
    check_dtype(dtype)
    no_bfloat16 = device.startswith("cuda") and not torch.cuda.is_bf16_supported()
    if dtype == "bfloat16" and no_bfloat16:
        raise DeviceError(f"{device} has no bfloat16", "use --dtype float16 or float32")
    if dtype != "auto":
        return dtype
    if device == "cpu":
        # bfloat16 on the CPU rounds the answer, and is faster only where its instructions are.
        return "float32"
    settled = stored or "float32"
    return "float16" if settled == "bfloat16" and no_bfloat16 else settled


def _load(
    source: ModelSource,
    device: str,
    dtype: str,
    trust_remote_code: bool,
    attn_implementation: str,
    on_progress: Progress | None,
) -> LoadedModel:
    """Load real weights from wherever they are."""
    if source.origin is Origin.GGUF:
        folder, dtype = _converted(source, device, dtype, on_progress)
    else:
        folder = _folder_of(source, trust_remote_code, on_progress)
    checkpoint = inspect_folder(folder)
    check_config(folder, checkpoint.config, with_code=trust_remote_code)
    if source.origin is Origin.EMBEDDED:
        verify_checksums(folder)
    else:
        check_counts(checkpoint)
    with sealed(checkpoint, with_code=trust_remote_code) as shown:
        seen = replace(checkpoint, folder=shown)
        tokenizer = load_tokenizer(shown, trust_remote_code)
        if quantization(checkpoint.config) is not None and dtype == "auto":
            # What unpacks the weights yields the type that they were made for, on a CPU as well.
            dtype = pick_dtype(_config_dtype(checkpoint), device, None)
        dtype = pick_dtype(dtype, device, checkpoint.dtype)
        _require_memory(_resident_bytes(checkpoint, dtype), device, source.name)
        if source.origin is not Origin.EMBEDDED and not trust_remote_code:
            check_sizes(seen)
        placed = _placement(checkpoint, device)
        model = _load_weights(seen, dtype, placed, trust_remote_code, attn_implementation)
        model.name_or_path = model.config.name_or_path = str(folder)
        check_vocabulary(folder, tokenizer, model)
    if placed is None:
        model.to(torch.device(device))  # type: ignore[arg-type, unused-ignore]
    elif model.device.type == "meta":
        raise CacheCapacityError(
            f"{source.name} does not fit the memory of all devices together",
            "give a smaller model or --dtype bfloat16",
        )
    stored = checkpoint.config
    if (folder / "generation_config.json").is_file():
        stored = {**stored, "generation": read_json(folder / "generation_config.json")}
    eos_ids = find_eos(tokenizer, model, stored)
    fim_ids = read_fim_ids(folder)
    return _finish(source, model, tokenizer, device, dtype, eos_ids, fim_ids=fim_ids)


def _build(source: ModelSource, device: str, dtype: str, attn_implementation: str) -> LoadedModel:
    """Build a shape with random weights, straight in its dtype and on its device."""
    shape = shape_of(source)
    dtype = pick_dtype(dtype, device, "bfloat16")
    size = getattr(torch, dtype).itemsize
    _require_memory(shape.n_params * size, device, source.name)
    tokenizer = load_tokenizer(_embedded_folder(), False)
    model = random_models.build(
        shape,
        device,
        dtype,
        attn_implementation=attn_implementation,
        tokens=top_id(tokenizer) + 1,
    )
    check_vocabulary(EMBEDDED_FOLDER, tokenizer, model)
    eos_ids = find_eos(tokenizer, model, {})
    return _finish(source, model, tokenizer, device, dtype, eos_ids, random_weights=True)


def _finish(
    source: ModelSource,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    device: str,
    dtype: str,
    eos_ids: frozenset[int],
    *,
    random_weights: bool = False,
    fim_ids: Mapping[str, int] | None = None,
) -> LoadedModel:
    model.eval()
    model.requires_grad_(False)
    parameters = list(model.parameters())
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=source.name,
        device=device,
        dtype=dtype,
        eos_ids=eos_ids,
        bos_id=find_bos(tokenizer, model),
        window=_window(model.config, tokenizer),
        n_params=sum(parameter.numel() for parameter in parameters),
        weights_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        rows=count_rows(model),
        random_weights=random_weights,
        fim_ids=fim_ids or {},
    )


def _folder_of(source: ModelSource, with_code: bool, on_progress: Progress | None) -> Path:
    if source.origin is Origin.EMBEDDED:
        return _embedded_folder()
    if source.origin is Origin.FOLDER:
        return Path(source.location)
    return hub.fetch(source.location, with_code=with_code, on_progress=on_progress)


def _converted(
    source: ModelSource, device: str, dtype: str, on_progress: Progress | None
) -> tuple[Path, str]:
    """Return a GGUF model's folder of safetensors, and the dtype that it is for."""
    from pie_cli.models.gguf.converted import converted
    from pie_cli.models.gguf.model import open_gguf
    from pie_cli.models.gguf.weights import stored_dtype

    model = open_gguf(Path(source.location))
    dtype = pick_dtype(dtype, device, stored_dtype(model))
    _require_memory(model.elements * getattr(torch, dtype).itemsize, device, source.name)
    return converted(model, dtype, on_progress), dtype


def _embedded_folder() -> Path:
    if not (EMBEDDED_FOLDER / "config.json").is_file():
        raise ModelError(
            f"the embedded model {EMBEDDED} is missing from this installation",
            "install pie again, or give another model with --model",
        )
    return EMBEDDED_FOLDER


def _config_dtype(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    named = config.get("dtype", config.get("torch_dtype"))
    return str(named) if named in DTYPES and named != "auto" else checkpoint.dtype or "float32"


def _placement(checkpoint: Checkpoint, device: str) -> Placement:
    """Say where transformers is to put the weights while it loads them; None: on the CPU.

    Some quantised weights cannot be moved once they are loaded.
    """
    if device == "map":
        return "auto"
    quantised = quantization(checkpoint.config) is not None
    return {"": device} if quantised and can_map() else None


def _load_weights(
    checkpoint: Checkpoint,
    dtype: str,
    placed: Placement,
    trust_remote_code: bool,
    attn_implementation: str,
) -> Any:
    """Load a checkpoint, all of it and nothing else."""
    folder = checkpoint.folder

    def attempt(implementation: str) -> tuple[Any, Mapping[str, Iterable[Any]]]:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=getattr(torch, dtype),
            device_map=placed,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            local_files_only=not trust_remote_code,
            attn_implementation=implementation,
            # They are refused below, with their shapes.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        model, info = loaded
        return model, info

    try:
        model, info = _with_attention(attempt, attn_implementation)
    except (torch.OutOfMemoryError, PieError):
        raise
    except Exception as error:
        raise explain(folder, checkpoint.config, error) from error
    _check_complete(folder, info)
    return model


def _with_attention(attempt: Callable[[str], T], implementation: str) -> T:
    try:
        return attempt(implementation)
    except ValueError as error:
        # GPT-J and others have no SDPA path; transformers says so by this word only.
        if implementation == "eager" or "scaled_dot_product_attention" not in str(error):
            raise
        return attempt("eager")


def _check_complete(folder: Path, info: Mapping[str, Iterable[Any]]) -> None:
    """Refuse a model of which some weights stayed as they were initialised, or were left over."""
    for key, stored, asked in sorted(info.get("mismatched_keys", ())):
        raise ModelError(
            f"{key} is {_dimensions(stored)} in {folder}, but {_dimensions(asked)} by config.json",
            "check that config.json and the weights belong together",
        )
    missing = sorted(str(key) for key in info.get("missing_keys", ()))
    unexpected = sorted(
        key
        for key in map(str, info.get("unexpected_keys", ()))
        if not key.endswith(_STORED_BUFFERS)
    )
    for keys, what in ((missing, "lacks"), (unexpected, "has more than its config asks for:")):
        if keys:
            more = f" and {len(keys) - 1} more weights" if len(keys) > 1 else ""
            raise ModelError(
                f"the checkpoint in {folder} {what} {keys[0]}{more}",
                "check that config.json and the weights belong together",
            )


def _dimensions(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"


def _window(config: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    text = config.get_text_config()
    for key in _WINDOW_KEYS:
        value = getattr(text, key, None)
        if isinstance(value, int) and value > 0:
            return value
    # A tokenizer that knows no limit says 1e30.
    limit = tokenizer.model_max_length
    return int(limit) if 0 < limit < 10_000_000 else DEFAULT_WINDOW


def _resident_bytes(checkpoint: Checkpoint, dtype: str) -> int:
    """Estimate the weights' size in memory from their size on disk."""
    if quantization(checkpoint.config) is not None:
        return checkpoint.weights_bytes
    sizes = {"float32": 4, "bfloat16": 2, "float16": 2}
    return checkpoint.weights_bytes * sizes[dtype] // sizes.get(checkpoint.dtype or dtype, 4)


def _require_memory(needed_bytes: int, device: str, name: str) -> None:
    """Refuse early what would be killed, or thrash, late."""
    available = available_bytes(device)
    if available is not None and needed_bytes > available:
        raise CacheCapacityError(
            f"{name} needs {needed_bytes / 1e9:.1f} GB for its weights, "
            f"{device} has {available / 1e9:.1f} GB free",
            "give a smaller model, --dtype bfloat16 or another --device",
        )
