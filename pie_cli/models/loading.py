"""Load a model with its tokenizer: checked, on its device, in its dtype, silently."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from pie_cli.config import DTYPES, check_dtype
from pie_cli.errors import CacheCapacityError, DeviceError, ModelError, PieError
from pie_cli.models import hub
from pie_cli.models import random_weights as random_models
from pie_cli.models.checkpoint import Checkpoint, inspect_folder, read_json, verify_checksums
from pie_cli.models.devices import available_bytes, can_map, pick_device
from pie_cli.models.faults import check_config, explain, one_line, quantization
from pie_cli.models.quiet import Progress, hushed
from pie_cli.models.registry import (
    EMBEDDED,
    EMBEDDED_FOLDER,
    ModelSource,
    Origin,
    resolve,
    shape_of,
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
        random_weights: whether they are random: fit for latency, not for predictions.
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
    random_weights: bool = False


def load(
    name: str = EMBEDDED,
    device: str = "auto",
    dtype: str = "auto",
    *,
    trust_remote_code: bool = False,
    random_weights: bool = False,
    attn_implementation: str = "sdpa",
    on_progress: Progress | None = None,
) -> LoadedModel:
    """Load a model by its name.

    Args:
        name: the embedded model, an alias, a local folder or a name on the hub.
        device: "auto" takes CUDA before MPS before the CPU, "map" all there are.
        dtype: "auto" is float32 on the CPU, elsewhere the checkpoint's own.
        trust_remote_code: whether code from the model's repository may run.
        random_weights: build the named shape with random weights, downloading nothing.
        attn_implementation: a name that transformers knows; models without SDPA fall back to eager.
        on_progress: told about the stages "download" (bytes) and "weights" (tensors).

    Raises:
        ModelError: not found, not whole, not safe, or not loadable.
        DeviceError: the device or dtype is not there.
        CacheCapacityError: the weights do not fit the device's memory.
    """
    source = resolve(name)
    check_dtype(dtype)
    device = pick_device(device)
    with hushed(on_progress):
        try:
            if random_weights:
                return _build(source, device, dtype, attn_implementation)
            return _load(source, device, dtype, trust_remote_code, attn_implementation, on_progress)
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
    folder = _folder_of(source, trust_remote_code, on_progress)
    checkpoint = inspect_folder(folder)
    check_config(folder, checkpoint.config, with_code=trust_remote_code)
    if source.origin is Origin.EMBEDDED:
        verify_checksums(folder)
    tokenizer = _load_tokenizer(folder, trust_remote_code)
    if quantization(checkpoint.config) is not None and dtype == "auto":
        # What unpacks the weights yields the type that they were made for, on a CPU as well.
        dtype = pick_dtype(_config_dtype(checkpoint), device, None)
    dtype = pick_dtype(dtype, device, checkpoint.dtype)
    _require_memory(_resident_bytes(checkpoint, dtype), device, source.name)
    placed = _placement(checkpoint, device)
    model = _load_weights(checkpoint, dtype, placed, trust_remote_code, attn_implementation)
    _check_vocabulary(folder, tokenizer, model)
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
    return _finish(source, model, tokenizer, device, dtype, _eos_ids(tokenizer, model, stored))


def _build(source: ModelSource, device: str, dtype: str, attn_implementation: str) -> LoadedModel:
    """Build a shape with random weights, straight in its dtype and on its device."""
    shape = shape_of(source)
    dtype = pick_dtype(dtype, device, "bfloat16")
    size = getattr(torch, dtype).itemsize
    _require_memory(shape.n_params * size, device, source.name)
    tokenizer = _load_tokenizer(_embedded_folder(), False)
    model = random_models.build(
        shape,
        device,
        dtype,
        attn_implementation=attn_implementation,
        tokens=_top_id(tokenizer) + 1,
    )
    _check_vocabulary(EMBEDDED_FOLDER, tokenizer, model)
    eos_ids = _eos_ids(tokenizer, model, {})
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
        bos_id=_bos_id(tokenizer, model),
        window=_window(model.config, tokenizer),
        n_params=sum(parameter.numel() for parameter in parameters),
        weights_bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        random_weights=random_weights,
    )


def _folder_of(source: ModelSource, with_code: bool, on_progress: Progress | None) -> Path:
    if source.origin is Origin.EMBEDDED:
        return _embedded_folder()
    if source.origin is Origin.FOLDER:
        return Path(source.location)
    return hub.fetch(source.location, with_code=with_code, on_progress=on_progress)


def _embedded_folder() -> Path:
    if not (EMBEDDED_FOLDER / "config.json").is_file():
        raise ModelError(
            f"the embedded model {EMBEDDED} is missing from this installation",
            "install pie again, or give another model with --model",
        )
    return EMBEDDED_FOLDER


def _load_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """Load a tokenizer as it was saved.

    With a tokenizer.json the generic class is used: the model's own class may rebuild the
    pre-tokenizer from its type instead, and so yield other ids than the model was trained on.
    """
    loader: Any = AutoTokenizer
    if (folder / "tokenizer.json").is_file():
        loader = PreTrainedTokenizerFast
    elif not any((folder / name).is_file() for name in ("tokenizer.model", "vocab.json")) and not (
        trust_remote_code
    ):
        raise ModelError(f"{folder} has no tokenizer.json", "save the tokenizer with the model")
    try:
        tokenizer = loader.from_pretrained(
            str(folder),
            trust_remote_code=trust_remote_code,
            local_files_only=not trust_remote_code,
        )
    except PieError:
        raise
    except Exception as error:
        # Rust's tokenizer raises bare Exceptions, converters whatever they meet.
        raise ModelError(
            f"the tokenizer in {folder} cannot be loaded: {one_line(error)}",
            "save the tokenizer with the model again, as tokenizer.json",
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer in {folder} has no fast version", "convert it to tokenizer.json"
        )
    return tokenizer


def _config_dtype(checkpoint: Checkpoint) -> str:
    config = checkpoint.config
    named = config.get("dtype", config.get("torch_dtype"))
    return str(named) if named in DTYPES and named != "auto" else checkpoint.dtype or "float32"


def _placement(checkpoint: Checkpoint, device: str) -> Placement:
    """Say where transformers shall put the weights while it loads them; None: on the CPU.

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
    except torch.OutOfMemoryError:
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


def _check_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """Refuse a tokenizer whose ids the model has no embedding for.

    Special tokens may lie beyond: text never turns into them.
    """
    rows = int(model.get_input_embeddings().weight.shape[0])
    top = _top_id(tokenizer)
    if top >= rows:
        raise ModelError(
            f"the tokenizer in {folder} has ids up to {top}, the model a vocabulary of {rows}",
            "check that the tokenizer belongs to the model",
        )


def _top_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the largest id that text can turn into."""
    special = set(tokenizer.all_special_ids)
    special |= {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = tokenizer.get_vocab().values()
    return max((id_ for id_ in ids if id_ not in special), default=-1)


def _bos_id(tokenizer: PreTrainedTokenizerBase, model: Any) -> int | None:
    """Return the tokenizer's first token; a config's may be but the default of its class."""
    bos_id = tokenizer.bos_token_id
    rows = int(model.get_input_embeddings().weight.shape[0])
    return bos_id if isinstance(bos_id, int) and 0 <= bos_id < rows else None


def _eos_ids(
    tokenizer: PreTrainedTokenizerBase, model: Any, stored: Mapping[str, Any]
) -> frozenset[int]:
    """Collect what ends a text.

    Only what the files say: the config's classes have defaults of their own, which are ordinary
    tokens in other vocabularies.
    """
    found: list[Any] = [tokenizer.eos_token_id]
    for config in (stored, stored.get("generation", {})):
        value = config.get("eos_token_id")
        found += value if isinstance(value, list) else [value]
    rows = int(model.get_input_embeddings().weight.shape[0])
    return frozenset(id_ for id_ in found if isinstance(id_, int) and 0 <= id_ < rows)


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
