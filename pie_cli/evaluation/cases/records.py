"""Records of a file, a folder or a data set on the hub: read one by one, each with its place."""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pie_cli.errors import InputError, PieError
from pie_cli.regular import is_regular

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
"""Endings of the files that are read."""

_HUB_TIMEOUT_S = 10.0
"""How long the hub may take for its first answer; without one the cache is used."""

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Skipped:
    """A record that was left out.

    Attributes:
        where: file and line, or file and row.
        reason: what is wrong with it.
    """

    where: str
    reason: str


@dataclass
class Problems:
    """Collects what has to be left out.

    Attributes:
        strict: whether the first one ends it all.
        skipped: so far.
    """

    strict: bool = False
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, where: str, reason: str) -> None:
        """Leave a record out.

        Raises:
            InputError: under `strict`.
        """
        if self.strict:
            raise InputError(f"{where}: {reason}", "mend the record, or leave --strict out")
        self.skipped.append(Skipped(where, reason))


def record_files(path: Path) -> list[Path]:
    """List the files of records at a path: itself, or those below it, in order.

    Raises:
        InputError: nothing there, or a file of another kind.
    """
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.name.endswith(SUFFIXES) and p.is_file())
    if not path.exists():
        raise InputError(f"no cases at {path}: no such file or folder", "check the path")
    if not path.name.endswith(SUFFIXES):
        raise InputError(
            f"cannot read cases from {path}", f"name a file that ends in {', '.join(SUFFIXES)}"
        )
    if not is_regular(path):
        raise InputError(f"cannot read {path}: not a regular file", "name a file of cases")
    return [path]


def data_set(name: str) -> Path:
    """Return the folder that holds a data set's JSONL and Parquet files, nothing else of it.

    Args:
        name: owner/name.

    Raises:
        InputError: unknown, gated, without such files, or neither the hub nor a cached copy in
            reach.
    """
    from huggingface_hub import errors, snapshot_download

    remedy = "check name and network, or give --cases a local file"
    try:
        folder = snapshot_download(
            name,
            repo_type="dataset",
            allow_patterns=[f"*{suffix}" for suffix in SUFFIXES],
            etag_timeout=_HUB_TIMEOUT_S,
        )
    except errors.GatedRepoError as error:
        raise InputError(
            f"the data set {name} is gated on the hub",
            "accept its licence there and run `hf auth login`",
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise InputError(f"there is no data set {name} on the hub", remedy) from error
    except errors.LocalEntryNotFoundError as error:
        raise InputError(
            f"the hub is not in reach and the data set {name} is not in the local cache", remedy
        ) from error
    except Exception as error:
        # The client's errors come from whichever HTTP library its version uses.
        raise InputError(f"the data set {name} cannot be had: {error}", remedy) from error
    return Path(folder)


def read_records(path: Path, problems: Problems) -> Iterator[tuple[str, Record]]:
    """Read the records of one file.

    Args:
        path: a file that ends in one of `SUFFIXES`.
        problems: told of lines that hold no record.

    Yields:
        Where a record is ("cases.jsonl:12"), and its fields.

    Raises:
        InputError: the file cannot be opened.
        PieError: a Parquet file without pyarrow installed.
    """
    rows = _parquet(path, problems) if path.suffix == ".parquet" else _json_lines(path, problems)
    for where, record in rows:
        if isinstance(record, dict):
            yield where, record
        else:
            problems.skip(where, "no JSON object")


def _json_lines(path: Path, problems: Problems) -> Iterator[tuple[str, Any]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                where = f"{path.name}:{number}"
                if not line.strip():
                    continue
                try:
                    yield where, json.loads(line)
                except (ValueError, RecursionError) as error:
                    problems.skip(where, f"no JSON: {error}")
    except EOFError:
        problems.skip(f"{path.name}:{number + 1}", "the file ends in the midst: cut off")
    except (gzip.BadGzipFile, zlib.error) as error:
        problems.skip(f"{path.name}:{number + 1}", f"damaged from here on: {error}")
    except OSError as error:
        if number:
            problems.skip(f"{path.name}:{number + 1}", f"cannot be read: {error}")
        else:
            raise InputError(
                f"cannot read {path}: {error.strerror or error}", "check the file"
            ) from error


def _parquet(path: Path, problems: Problems) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise PieError(
            f"reading {path.name} needs pyarrow, which is not installed",
            "install pie with the extra: pip install 'pie-cli[parquet]', or use JSONL",
        ) from error
    row = 0
    try:
        for batch in ParquetFile(path).iter_batches(batch_size=64):
            for record in batch.to_pylist():
                row += 1
                yield f"{path.name}: row {row}", record
    except PermissionError as error:
        raise InputError(f"cannot read {path}: {error}", "check the file") from error
    except (OSError, ValueError, ArrowException) as error:
        problems.skip(f"{path.name}: row {row + 1}", f"damaged from here on: {error}")
