"""Results on disk: a line a case, appended as it is done, kept through a kill and a full disk."""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from pie_cli.errors import InputError
from pie_cli.evaluation.runs.outcomes import Record, record_from_json, record_to_json
from pie_cli.regular import is_regular, read_regular
from pie_cli.storing import reason, remedy

RESULTS = "results.jsonl"
SETTINGS = "settings.json"
_PART = "results-{}.jsonl"
_PARTS = "results-*.jsonl"


class ResultFile:
    """Appends records to one process's file; each unit of work is on disk before the next begins.

    What a kill or a full disk left half written at the end of the file is cut off on opening.

    Args:
        folder: exists.
        part: number of this process where several write, each to a file of its own.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, folder: Path, part: int | None = None) -> None:
        self.path = folder / (RESULTS if part is None else _PART.format(part))
        with _writing(self.path):
            # Unbuffered: what a full disk did not take must not be tried again on closing.
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(_whole_bytes(self.path))

    def append(self, records: Sequence[Record]) -> None:
        """Write the records of one case or session.

        Raises:
            InputError: they cannot be written; what was written before stays readable.
        """
        text = "".join(json.dumps(record_to_json(record)) + "\n" for record in records)
        size = os.fstat(self._file.fileno()).st_size
        with _writing(self.path):
            try:
                left = memoryview(text.encode())
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(size)
                raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a folder whose results would be mixed with others.

    Raises:
        InputError: it holds results, and `resume` is not asked for; or it is none.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is no folder", "name a folder with --out")
    if _has_results(folder) and not resume:
        raise InputError(
            f"{folder} holds results already", "give --resume to go on, or another --out"
        )


def prepare_folder(folder: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Make the folder and note the settings that its results are made with.

    Raises:
        InputError: the folder holds results and `resume` is not asked for, or they were made with
            other settings, which it names; or the folder cannot be written.
    """
    check_folder(folder, resume=resume)
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    noted = _noted_settings(folder)
    if resume and noted is not None:
        _check_same(folder, noted, settings)
    write_whole(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")


def read_records(folder: Path) -> list[Record]:
    """Read what a folder holds, complete units only, each once.

    Raises:
        InputError: a file that cannot be read, or a line that is none of ours.
    """
    units: dict[tuple[str, str], list[Record]] = {}
    for path in _result_files(folder):
        for unit in _units(path):
            units.setdefault(unit[0].unit, unit)
    return [record for unit in units.values() for record in unit]


def merge_parts(folder: Path, records: Iterable[Record]) -> None:
    """Put all records in one file in place of the processes' own."""
    text = "".join(json.dumps(record_to_json(record)) + "\n" for record in records)
    write_whole(folder / RESULTS, text)
    for part in folder.glob(_PARTS):
        part.unlink()


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    fresh = path.with_name(f".{path.name}.new")
    with _writing(path):
        try:
            with fresh.open("wb") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say what cannot be written, and that nothing is lost."""
    try:
        if path.exists() and not (path.is_dir() or is_regular(path)):
            raise OSError(errno.EINVAL, "not a regular file")
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {reason(error)}",
            f"{remedy(error)}, or name another --out; what is there stays, and --resume goes on"
            " with it",
        ) from error


def _result_files(folder: Path) -> list[Path]:
    merged = folder / RESULTS
    return [*([merged] if merged.exists() else []), *sorted(folder.glob(_PARTS))]


def _has_results(folder: Path) -> bool:
    return any(path.stat().st_size for path in _result_files(folder))


def _noted_settings(folder: Path) -> dict[str, Any] | None:
    path = folder / SETTINGS
    try:
        noted = json.loads(read_regular(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}", "name another folder with --out") from None
    if not isinstance(noted, dict):
        raise InputError(f"{path} holds no settings", "name another folder with --out")
    return noted


def _check_same(folder: Path, noted: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    names = dict.fromkeys((*settings, *noted))
    changed = [name for name in names if settings.get(name) != noted.get(name)]
    if changed:
        differences = ", ".join(
            f"{name} {noted.get(name)!r}, now {settings.get(name)!r}" for name in changed
        )
        raise InputError(
            f"the results in {folder} were made with other settings: {differences}",
            "give the same ones to go on, or another --out",
        )


def _units(path: Path) -> Iterator[list[Record]]:
    """Give the complete units of a file, each a case's one record or a session's saves."""
    for _, group in groupby(_lines(path), key=lambda entry: entry[0].unit):
        unit = [record for record, _ in group]
        if len(unit) == max(1, unit[0].saves):
            yield unit


def _whole_bytes(path: Path) -> int:
    """Return where the last complete unit of a file ends."""
    end = 0
    for _, group in groupby(_lines(path), key=lambda entry: entry[0].unit):
        unit = list(group)
        if len(unit) < max(1, unit[0][0].saves):
            break
        end = unit[-1][1]
    return end


def _lines(path: Path) -> Iterator[tuple[Record, int]]:
    """Give each record and where its line ends; a torn last line is none.

    Raises:
        InputError: a whole line that is no record.
    """
    end = 0
    try:
        data = read_regular(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check its permissions") from None
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        end += len(line) + 1
        try:
            record = record_from_json(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise InputError(
                f"line {number} of {path} is no result of pie eval",
                "name another folder with --out, or take the line out",
            ) from None
        yield record, end
