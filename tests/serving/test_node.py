"""The protocol layer of VS Code's language client, in Node, where it is installed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SOURCE

ROOT = Path(__file__).parents[2]


def test_the_client_of_vs_code_is_answered(tiny_checkpoint: Path, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node")
    package = "require('vscode-languageserver-protocol/node')"
    if subprocess.run([node, "-e", package], capture_output=True, check=False).returncode:
        pytest.skip("needs npm's vscode-languageserver-protocol on NODE_PATH")
    file = tmp_path / "area.py"
    file.write_text(SOURCE)
    script = Path(__file__).with_name("client.js")
    result = subprocess.run(
        [node, str(script), sys.executable, str(tiny_checkpoint), str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["state"], found["sync"], found["code"]) == ("ready", 2, 0)
    assert found["offered"] is True
    assert found["second"] == found["third"] == 1
    assert found["cancelled"] in ("answered", -32800)
    assert (found["version"], found["accepted"]) == (3, 1)
    lines = SOURCE.split("\n")
    lines[9] = "    more = '😀' + 1\n    " + lines[9][4:]
    lines[1] = lines[1][:8] + found["inserted"] + lines[1][8:]
    text = "\n".join(lines)
    assert found["digest"] == hashlib.sha256(text.encode()).hexdigest()
    assert found["tokens"]["encoded"] < found["tokens"]["total"] / 3
    assert found["titles"][0] == "loading the model"
