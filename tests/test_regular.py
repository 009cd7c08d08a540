"""Reading comes to an end: no pipe, no device, no name that no file can have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pie_cli.regular import is_named_pipe, is_regular, read_regular

STRANGE = ["\0", "\ud800", "n" * 300, "a/" * 3_000, "", "~nobody"]


@pytest.mark.parametrize("name", STRANGE)
def test_no_name_is_too_strange_to_ask_about(tmp_path: Path, name: str):
    assert not is_regular(tmp_path / name)
    assert not is_named_pipe(tmp_path / name)
    with pytest.raises(OSError, match=r"."):
        read_regular(tmp_path / name)


def test_files_are_read_and_links_followed(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").symlink_to("a")
    assert read_regular(tmp_path / "b") == b"text"
    assert read_regular(tmp_path / "a", 4) == b"text"
    with pytest.raises(OSError, match="larger than"):
        read_regular(tmp_path / "a", 3)


def test_pipes_and_devices_are_not(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    assert is_named_pipe(tmp_path / "link")
    for name in ("pipe", "link", "device"):
        assert not is_regular(tmp_path / name)
        for pipes in (False, True):
            with pytest.raises(OSError, match="not a regular file"):
                read_regular(tmp_path / name, pipes=pipes)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_what_a_shell_puts_in_a_file_s_place_may_be_read():
    reader, writer = os.pipe()
    os.write(writer, b"patch")
    os.close(writer)
    program = (
        "import sys; from pathlib import Path; from pie_cli.regular import read_regular\n"
        "sys.stdout.buffer.write(read_regular(Path(sys.argv[1]), pipes=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, f"/dev/fd/{reader}"],
        pass_fds=[reader],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    os.close(reader)
    assert done.stdout == b"patch"
