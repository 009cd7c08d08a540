"""A model's tokenizer: loaded as it was saved, checked against the model, its special ids."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pie_cli.errors import ModelError, PieError
from pie_cli.models.checkpoint import read_json
from pie_cli.models.faults import one_line
from pie_cli.models.gguf.files import ORIGIN
from pie_cli.regular import read_regular

_PREFIX: Final = re.compile(rb'"continuing_subword_prefix"\s*:\s*"[^"]')
_SAMPLE: Final = "def f(x, y):\n    return x + y  # ½ 日本\n"


def load_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerBase:
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
    _check_prefix(folder / "tokenizer.json")
    try:
        tokenizer = loader.from_pretrained(
            str(folder),
            trust_remote_code=trust_remote_code,
            local_files_only=not trust_remote_code,
        )
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            _try_out(tokenizer)
    except PieError:
        raise
    except BaseException as error:
        # Rust's tokenizer raises bare Exceptions, converters whatever they meet; a panic is not
        # even an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"the tokenizer in {folder} cannot be loaded: {one_line(error)}",
            "save the tokenizer with the model again, as tokenizer.json",
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer in {folder} has no fast version", "convert it to tokenizer.json"
        )
    return tokenizer


def _check_prefix(file: Path) -> None:
    """Refuse merges that lack the prefix of their second part: tokenizers would abort on them.

    Raises:
        ModelError: so it is, or the file cannot be read.
    """
    if not file.exists() or not _PREFIX.search(read_regular(file)):
        return
    model = read_json(file).get("model")
    fields = model if isinstance(model, dict) else {}
    prefix, merges = fields.get("continuing_subword_prefix"), fields.get("merges")
    for merge in merges if isinstance(merges, list) else ():
        parts = merge.split(" ") if isinstance(merge, str) else merge
        second = parts[1] if isinstance(parts, list) and len(parts) > 1 else None
        if not isinstance(second, str) or not second.startswith(str(prefix)):
            raise ModelError(
                f"{file} has merges that do not continue with {prefix!r}",
                "save the tokenizer with the model again",
            )


def _try_out(tokenizer: PreTrainedTokenizerFast) -> None:
    """Encode a line: some damaged tokenizers load, and fail on the first text."""
    backend = tokenizer.backend_tokenizer
    # A prompt is never cut or filled up by the tokenizer, whatever its file says.
    backend.no_truncation()
    backend.no_padding()
    backend.encode(_SAMPLE)


def check_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """Refuse a tokenizer whose ids the model has no embedding for.

    Special tokens may lie beyond: text never turns into them.
    """
    rows = count_rows(model)
    top = top_id(tokenizer)
    if top >= rows:
        raise ModelError(
            f"the tokenizer in {folder} has ids up to {top}, the model a vocabulary of {rows}",
            "check that the tokenizer belongs to the model",
        )


def count_rows(model: Any) -> int:
    """Return the rows of a model's embedding."""
    return int(model.get_input_embeddings().weight.shape[0])


def top_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the largest id that text can turn into."""
    special = set(tokenizer.all_special_ids)
    special |= {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
    ids = tokenizer.get_vocab().values()
    return max((id_ for id_ in ids if id_ not in special), default=-1)


def find_bos(tokenizer: PreTrainedTokenizerBase, model: Any) -> int | None:
    """Return the tokenizer's first token; a config's may be but the default of its class."""
    bos_id = tokenizer.bos_token_id
    return bos_id if isinstance(bos_id, int) and 0 <= bos_id < count_rows(model) else None


def find_eos(
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
    rows = count_rows(model)
    return frozenset(id_ for id_ in found if isinstance(id_, int) and 0 <= id_ < rows)


def read_fim_ids(folder: Path) -> dict[str, int]:
    """Return the tokens for filling in a middle that a GGUF file named, by role.

    Args:
        folder: of the model; one that was no GGUF file names none.
    """
    if not (folder / ORIGIN).is_file():
        return {}
    named = read_json(folder / ORIGIN).get("fim")
    found = named if isinstance(named, dict) else {}
    return {str(role): id_ for role, id_ in found.items() if isinstance(id_, int)}
