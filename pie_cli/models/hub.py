"""Bring a model from the hub into the local cache, only the files that pie will open.

A download ends as a plain folder, so that all that follows goes the same way as for a local
one.
"""

import errno
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling

from pie_cli.errors import ModelError
from pie_cli.models.cache import cache_folder
from pie_cli.models.checkpoint import INDEX, WEIGHTS
from pie_cli.models.choice import EMBEDDED
from pie_cli.models.gguf.files import SUFFIX
from pie_cli.models.quiet import Progress, reporting_bar
from pie_cli.models.registry import ALIASES, did_you_mean, remedy
from pie_cli.models.stores.lookup import alike
from pie_cli.models.transfer import LargeFile, bring
from pie_cli.storing import reason
from pie_cli.storing import remedy as mends

TIMEOUT_S: Final = 10.0
"""How long the hub may take for its first answer; without one the cache is used."""

_STORAGE_FAULTS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.ENOENT,
    }
)

_SMALL_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
    }
)


def fetch(repo_id: str, *, with_code: bool = False, on_progress: Progress | None = None) -> Path:
    """Return the folder of a hub model, downloaded where the cache lacks it.

    Args:
        repo_id: owner/name.
        with_code: whether to bring the repository's Python files too.
        on_progress: told about "download", in bytes.

    Raises:
        ModelError: unknown or gated, without safetensors, not storable, or neither the hub nor a
            cached copy in reach.
    """
    try:
        # One request without retries: it settles quickly whether the name and the hub are there.
        info = HfApi().model_info(repo_id, timeout=TIMEOUT_S, files_metadata=True)
        siblings = info.siblings or ()
        names = wanted_files((file.rfilename for file in siblings), with_code=with_code)
        if not any(name in names for name in (WEIGHTS, INDEX)):
            raise ModelError(
                f"{repo_id} has no weights in safetensors on the hub",
                _another_format(repo_id, [file.rfilename for file in siblings]),
            )
        large = _large_files(file for file in siblings if file.rfilename in names)
        bring(repo_id, str(info.sha), large, on_progress)
        return Path(_download(repo_id, names, on_progress))
    except ModelError:
        raise
    except GatedRepoError as error:
        raise ModelError(
            f"{repo_id} is gated on the hub", "accept its licence there and run `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"there is no model {repo_id} on the hub", did_you_mean(repo_id) or remedy()
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _STORAGE_FAULTS:
            raise ModelError(
                f"{repo_id} cannot be stored in {cache_folder()}: {reason(error)}",
                f"{mends(error)}, or point HF_HOME at another place",
            ) from error
        # The client's errors come from whichever HTTP library its version uses; all mean the same.
        return _cached(repo_id, error)


def wanted_files(names: Iterable[str], *, with_code: bool = False) -> list[str]:
    """Choose what to download of a repository: top level, safetensors, one copy of the weights."""
    top = [name for name in names if "/" not in name]
    wanted = [name for name in top if name in _SMALL_FILES or (with_code and name.endswith(".py"))]
    if WEIGHTS in top:
        wanted.append(WEIGHTS)
    elif INDEX in top:
        wanted.append(INDEX)
        wanted += [
            name for name in top if name.startswith("model-") and name.endswith(".safetensors")
        ]
    return sorted(wanted)


def _large_files(siblings: Iterable[RepoSibling]) -> list[LargeFile]:
    """Return what lies in large file storage; the rest is small and comes with the snapshot."""
    return [
        LargeFile(file.rfilename, file.lfs.sha256, file.lfs.size)
        for file in siblings
        if file.lfs is not None
    ]


def _download(repo_id: str, names: list[str], on_progress: Progress | None) -> str:
    bar = None if on_progress is None else reporting_bar("download", on_progress, unit="B")
    return snapshot_download(repo_id, allow_patterns=names, etag_timeout=TIMEOUT_S, tqdm_class=bar)


def _cached(repo_id: str, error: Exception) -> Path:
    """Return the cached copy, complete or not; the folder's own checks tell."""
    config = try_to_load_from_cache(repo_id, "config.json")
    if isinstance(config, str):
        return Path(config).parent
    if isinstance(error, HfHubHTTPError):
        code = getattr(error.response, "status_code", "an error")
        raise ModelError(f"the hub answered {code} for {repo_id}", remedy()) from error
    raise ModelError(
        f"the model hub is not in reach and {repo_id} is not in the local cache",
        _instead(repo_id)
        or "check the connection (HF_ENDPOINT names a mirror), give a local folder, or leave"
        f" --model out ({EMBEDDED} is always at hand)",
    ) from error


def _instead(repo_id: str) -> str:
    """Name what is on this disk and may be the same model, or what a name may have meant."""
    if repo_id not in ALIASES.values():
        return did_you_mean(repo_id)
    alias = next(alias for alias, name in ALIASES.items() if name == repo_id)
    stored = alike(alias)
    if stored is None:
        return ""
    return f"{stored.store} has it in another format: give --model {stored.name}"


def _another_format(repo_id: str, names: list[str]) -> str:
    files = [name for name in names if name.endswith(SUFFIX)]
    if not files:
        return remedy()
    return f"it has GGUF files: `hf download {repo_id} {files[0]}`, then give --model {repo_id}"
