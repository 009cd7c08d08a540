"""Comparing orders: every form is asked for the same hidden lines, none of which it sees."""

import gzip
import json
from pathlib import Path

import pytest

from pie_cli.cli.orders import main
from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.errors import InputError
from pie_cli.evaluation.orders import HiddenLine, compare_orders, read_hidden_lines
from pie_cli.prompt.fim import PSM, SPM
from tests.conftest import SOURCE

CASES = [HiddenLine("area.py", SOURCE, line) for line in (1, 9, 21)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    records = [{"path": c.path, "after": c.text, "target_line": c.line} for c in CASES]
    lines = "\n".join(map(json.dumps, records)) + "\n"
    (tmp_path / "cases.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    return tmp_path / "cases.jsonl.gz"


def test_every_form_is_measured(tiny_model: PreparedModel) -> None:
    rows = compare_orders(tiny_model, CASES, Settings(max_tokens=4))
    assert [row.form for row in rows] == ["plain", PSM, SPM]
    assert all(row.cases == len(CASES) for row in rows)
    exact = {row.form: row.exact_pct for row in rows}
    # A save just above the gap moves what stands behind it, if that comes last.
    assert exact == {"plain": 100.0, PSM: 0.0, SPM: 100.0}
    assert all(row.encoded_tokens < 40 for row in rows)


def test_the_line_is_found_again_by_who_knows_it(
    tiny_model: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the figures: a prediction that is the line counts as a match."""
    monkeypatch.setattr(
        "pie_cli.engine.decode.line_text", lambda *_: "    size = width * height + 2"
    )
    (row, *_) = compare_orders(tiny_model, CASES[1:2], Settings(max_tokens=1))
    assert (row.exact_match_pct, row.edit_similarity) == (100.0, 100.0)
    (row, *_) = compare_orders(tiny_model, CASES[:1], Settings(max_tokens=1))
    assert row.exact_match_pct == 0.0
    assert 0.0 < row.edit_similarity < 100.0


def test_cases_are_read_evenly_spaced(path: Path) -> None:
    assert read_hidden_lines(path) == CASES
    assert read_hidden_lines(path, 1) == CASES[:1]
    for text in ("", "{}\n", "nonsense"):
        path.with_suffix("").write_text(text)
        with pytest.raises(InputError):
            read_hidden_lines(path.with_suffix(""))


def test_the_command_prints_one_document(
    path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(tiny_checkpoint), "--device", "cpu", "--limit", "1"]
    assert main([str(path), *options, "--max-tokens", "2"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["form"] for row in document["rows"]] == ["plain", PSM, SPM]
    assert document["environment"]["dtype"] == "float32"
    assert main([str(path.parent / "missing.jsonl"), *options]) == 3
