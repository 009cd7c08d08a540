"""Bring the records of a data set from the hub into the local cache."""

from pathlib import Path
from typing import Final

from pie_cli.errors import InputError
from pie_cli.evaluation.records import SUFFIXES

TIMEOUT_S: Final = 10.0
"""How long the hub may take for its first answer; without one the cache is used."""

_REMEDY = "check name and network, or give --cases a local file"


def data_set(name: str) -> Path:
    """Return the folder that holds a data set's JSONL and Parquet files, nothing else of it.

    Args:
        name: owner/name.

    Raises:
        InputError: unknown, gated, without such files, or neither the hub nor a cached copy in
            reach.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        folder = snapshot_download(
            name,
            repo_type="dataset",
            allow_patterns=[f"*{suffix}" for suffix in SUFFIXES],
            etag_timeout=TIMEOUT_S,
        )
    except GatedRepoError as error:
        raise InputError(
            f"the data set {name} is gated on the hub",
            "accept its licence there and run `hf auth login`",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(f"there is no data set {name} on the hub", _REMEDY) from error
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"the hub is not in reach and the data set {name} is not in the local cache", _REMEDY
        ) from error
    except Exception as error:
        # The client's errors come from whichever HTTP library its version uses.
        raise InputError(f"the data set {name} cannot be had: {error}", _REMEDY) from error
    return Path(folder)
