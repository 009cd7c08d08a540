"""docs/architecture.md tells which modules one save visits on its way to the forward pass."""

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.session import EditSession
from tests.conftest import SOURCE

ROOT = Path(__file__).parents[1]
PACKAGE = f"{ROOT / 'pie_cli'}/"
FORWARD = "engine/forward.py"


def visited(session: EditSession, text: str) -> list[str]:
    """Return the modules entered from `update` to the forward pass, in the order of first entry."""
    modules: dict[str, None] = {}

    def profile(frame: FrameType, event: str, _: Any) -> None:
        path = frame.f_code.co_filename
        if event == "call" and FORWARD not in modules and path.startswith(PACKAGE):
            modules[path.removeprefix(PACKAGE)] = None

    sys.setprofile(profile)
    try:
        session.update(text)
    finally:
        sys.setprofile(None)
    return list(modules)


@pytest.mark.parametrize("insert", ["import sys\n", "    # a comment\n    size = 1\n"])
def test_a_save_visits_the_modules_that_the_architecture_names(
    tiny_model: PreparedModel, insert: str
) -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    line = re.search(r"(?ms)^From the session to the forward pass: (.+?)\.\n\n", text)
    assert line is not None
    named = re.findall(r"`([\w/]+\.py)`", line[1])
    session = EditSession(tiny_model, "area.py", Settings(max_tokens=4))
    session.open(SOURCE)
    session.update(insert + SOURCE)
    session.compare()
    found = visited(session, SOURCE[:200] + "\n" + insert + SOURCE[200:])
    assert set(found) <= {*named, FORWARD}, sorted(set(found) - set(named))
    assert found[0] == "session.py"
    assert found[-1] == "engine/forward.py"
