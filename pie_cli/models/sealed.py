"""A model's folder as transformers may see it: nothing in it names what to fetch or to run.

Configs can name far more than sizes: kernels and code on the hub, base models of adapters, other
files. transformers follows such names, some without being asked. So it gets a folder of ours: the
files that were looked through, and copies of the configs without these names.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

from huggingface_hub import constants
from transformers.integrations import hub_kernels

from pie_cli.errors import ModelError, PieError
from pie_cli.models.checkpoint import INDEX, WEIGHTS, Checkpoint, read_json
from pie_cli.regular import is_regular

TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer.model",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)

_CODE_KEYS: Final = re.compile(
    r"\w*(attn|attention|experts|kernel)_implementation\w*|\w*auto_map|custom_\w+|\w*kernels?_config"
    r"|use_kernels|fusion_config|distributed_config|transformers_weights|gguf_file|extra_files"
    r"|_?name_or_path|base_model_name_or_path|_commit_hash|\w*revision|trust_remote_code"
    r"|adapter_kwargs|adapter_config|peft_config|backbone|use_\w+_backbone"
)
# Arguments of the tokenizers' classes that a file has no business to set.
_OPENING_KEYS: Final = re.compile(
    r"\w+_files?|init_inputs|tokenizer_object|post_processor|chat_template|is_local"
    r"|local_files_only|cache_dir|token|proxies|subfolder|force_download|_json_\w+|processor_class"
)
_SPECIAL_TOKENS: Final = re.compile(r"\w+_tokens?")

_fetch_kernel: Final = hub_kernels.get_kernel


def without_code(value: Any) -> Any:
    """Return a config without what names code, kernels or other repositories, at any depth."""
    if isinstance(value, dict):
        return {
            key: without_code(entry)
            for key, entry in value.items()
            if not _CODE_KEYS.fullmatch(str(key))
        }
    return [without_code(entry) for entry in value] if isinstance(value, list) else value


@contextmanager
def sealed(checkpoint: Checkpoint, *, with_code: bool) -> Iterator[Path]:
    """Make a folder of what is safe to see of a checkpoint; it is gone after the body.

    In the body the hub is out of reach, and from then on kernels cannot be fetched, for some are
    only wanted when a model first runs. Not for two threads at once: what it changes belongs to the
    process.

    Args:
        checkpoint: looked through.
        with_code: whether its own code may run: then the body gets the folder itself.

    Raises:
        ModelError: a file is unreadable; what the body raises names the checkpoint's folder.
    """
    _allow_kernels(allowed=with_code)
    if with_code:
        yield checkpoint.folder
        return
    with tempfile.TemporaryDirectory(prefix="pie-model-") as name, _offline():
        folder = Path(name)
        _fill(folder, checkpoint)
        try:
            yield folder
        except PieError as error:
            own = str(checkpoint.folder)
            error.cause = error.cause.replace(name, own)
            error.remedy = error.remedy.replace(name, own)
            error.args = tuple(str(part).replace(name, own) for part in error.args)
            raise


def _fill(folder: Path, checkpoint: Checkpoint) -> None:
    source = checkpoint.folder.absolute()
    _write(folder / "config.json", without_code(checkpoint.config))
    for name, keep in (
        ("tokenizer_config.json", lambda key: not _OPENING_KEYS.fullmatch(key)),
        ("special_tokens_map.json", _SPECIAL_TOKENS.fullmatch),
    ):
        if (source / name).exists():
            stored = without_code(read_json(source / name))
            _write(folder / name, {key: entry for key, entry in stored.items() if keep(key)})
    weights = [path.name for path in checkpoint.weight_files]
    index = [] if weights == [WEIGHTS] else [INDEX]
    for name in (*TOKENIZER_FILES, *weights, *index):
        if is_regular(source / name):
            (folder / name).symlink_to(source / name)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the hub's client from the network."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _allow_kernels(*, allowed: bool) -> None:
    hub_kernels.get_kernel = _fetch_kernel if allowed else _refuse_kernel


def _refuse_kernel(kernel_name: object = "", *_args: object, **_kwargs: object) -> NoReturn:
    raise ModelError(
        f"it asks for the kernel {kernel_name} of the hub, which is code and not run unasked",
        "read that code, then pass --trust-remote-code",
    )
