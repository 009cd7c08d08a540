"""Results survive a kill and a full disk; results of other settings are never mixed."""

import json
import os
from pathlib import Path

import pytest

from pie_cli.errors import InputError
from pie_cli.evaluation.runs.outcomes import Record
from pie_cli.evaluation.runs.store import (
    ResultFile,
    check_folder,
    merge_parts,
    prepare_folder,
    read_records,
    write_whole,
)
from tests.disks import full_disk
from tests.evaluation.helpers import record

SETTINGS = {"model": "tiny", "seed": 0}


def session(name: str) -> list[Record]:
    return [record(name, task="session", save=save, saves=3) for save in (1, 2, 3)]


def write(folder: Path, *units: list[Record], part: int | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    file = ResultFile(folder, part)
    for unit in units:
        file.append(unit)
    file.close()
    return file.path


def test_what_was_appended_is_read_back(tmp_path: Path):
    write(tmp_path, [record("a")], session("s"))
    write(tmp_path, [record("b")], part=1)
    assert read_records(tmp_path) == [record("a"), *session("s"), record("b")]
    assert read_records(tmp_path / "nowhere") == []


@pytest.mark.parametrize("torn", [1, 40, 1_000_000])
def test_a_torn_end_is_dropped_and_written_over(tmp_path: Path, torn: int):
    """A kill can end a line, or a session, anywhere."""
    path = write(tmp_path, [record("a")], session("s"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[: max(first, len(whole) - torn)])
    assert read_records(tmp_path) == [record("a")]
    write(tmp_path, session("s"))
    assert path.read_bytes() == whole


def test_a_unit_that_two_files_hold_counts_once(tmp_path: Path):
    write(tmp_path, [record("a")], part=0)
    write(tmp_path, [record("a")], [record("b")], part=1)
    assert read_records(tmp_path) == [record("a"), record("b")]


def test_parts_become_one_file(tmp_path: Path):
    write(tmp_path, [record("a")], part=0)
    write(tmp_path, [record("b")], part=1)
    merge_parts(tmp_path, read_records(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]
    assert read_records(tmp_path) == [record("a"), record("b")]


def test_a_whole_line_that_is_no_result_is_named(tmp_path: Path):
    path = write(tmp_path, [record("a")])
    path.write_text(path.read_text() + '{"case": "b"}\n')
    with pytest.raises(InputError, match=r"line 2 of .*results\.jsonl"):
        read_records(tmp_path)


def test_results_are_not_written_over_unasked(tmp_path: Path):
    prepare_folder(tmp_path / "out", SETTINGS, resume=False)
    prepare_folder(tmp_path / "out", SETTINGS, resume=False)
    write(tmp_path / "out", [record("a")])
    with pytest.raises(InputError, match="holds results already") as caught:
        check_folder(tmp_path / "out", resume=False)
    assert "--resume" in caught.value.remedy
    prepare_folder(tmp_path / "out", SETTINGS, resume=True)


def test_other_settings_are_refused_and_named(tmp_path: Path):
    prepare_folder(tmp_path, SETTINGS, resume=False)
    write(tmp_path, [record("a")])
    with pytest.raises(InputError, match=r"seed 0, now 1, limit None, now 5"):
        prepare_folder(tmp_path, SETTINGS | {"seed": 1, "limit": 5}, resume=True)
    assert json.loads((tmp_path / "settings.json").read_text()) == SETTINGS


def test_a_file_is_no_folder(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="no folder"):
        check_folder(tmp_path / "file", resume=True)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        prepare_folder(tmp_path / "file" / "out", SETTINGS, resume=False)


def test_a_full_disk_keeps_what_was_computed(tmp_path: Path):
    path = write(tmp_path, [record("a")])
    whole = path.read_bytes()
    file = ResultFile(tmp_path)
    with (
        pytest.raises(InputError, match="cannot write") as caught,
        full_disk(len(whole) + 100),
    ):
        file.append([record("b")])
    file.close()
    assert "--resume" in caught.value.remedy
    assert path.read_bytes() == whole
    assert read_records(tmp_path) == [record("a")]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path):
    write_whole(tmp_path / "summary.json", "old")
    with pytest.raises(InputError, match="cannot write"), full_disk(100):
        write_whole(tmp_path / "summary.json", "new" * 100)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert (tmp_path / "summary.json").read_text() == "old"


@pytest.mark.parametrize("name", ["results.jsonl", "results-1.jsonl", "settings.json"])
def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)

    def resume() -> None:
        prepare_folder(tmp_path, SETTINGS, resume=True)
        read_records(tmp_path)
        ResultFile(tmp_path).close()

    with pytest.raises(InputError, match="not a regular file"):
        resume()


@pytest.mark.parametrize("content", ["[]", "7", "[" * 100_000])
def test_settings_that_are_none_are_refused(tmp_path: Path, content: str):
    (tmp_path / "settings.json").write_text(content)
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(InputError):
        prepare_folder(tmp_path, SETTINGS, resume=True)


def test_a_line_that_is_nested_without_end_is_no_result(tmp_path: Path):
    (tmp_path / "results.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(InputError, match="line 1"):
        read_records(tmp_path)
