"""Measuring: figures that can be worked out by hand."""

import gzip
import json
import math
from pathlib import Path

import pytest
import torch

from pie_cli.models.nano import measure as measuring
from tests.conftest import SOURCE

CASE = measuring.Case("area.py", SOURCE, 9)


@pytest.fixture
def scorer(tiny_checkpoint: Path) -> measuring.Scorer:
    return measuring.Scorer(tiny_checkpoint, "cpu")


def test_a_uniform_model_costs_the_vocabulary_s_bits(scorer: measuring.Scorer) -> None:
    """Whatever the windows, every token of the text is counted once."""
    with torch.no_grad():
        scorer.model.lm_head.weight.zero_()
    bits = len(scorer.encode(SOURCE)) * math.log2(scorer.model.config.vocab_size)
    for context in (64, 256, 1024):
        assert scorer.bits(CASE, context) == pytest.approx(bits, rel=1e-5)


def test_longer_contexts_agree_where_the_text_is_short(scorer: measuring.Scorer) -> None:
    assert scorer.bits(CASE, 900) == pytest.approx(scorer.bits(CASE, 1000), rel=1e-5)
    assert scorer.next_line(CASE, 900) == scorer.next_line(CASE, 1000)
    assert scorer.filled_line(CASE, 900) == scorer.filled_line(CASE, 1000)


def test_a_case_splits_at_its_target(scorer: measuring.Scorer) -> None:
    before, target, behind = CASE.parts
    assert before + target + behind == SOURCE
    assert target == SOURCE.split("\n")[9] + "\n"


def test_the_command_prints_one_document(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = tmp_path / "cases.jsonl.gz"
    with gzip.open(cases, "wt") as stream:
        record = {"path": "area.py", "after": SOURCE, "target_line": 9}
        stream.writelines(json.dumps(record) + "\n" for _ in range(4))
    arguments = [str(cases), "--model", str(tiny_checkpoint), "--contexts", "256", "--limit", "2"]
    assert measuring.main([*arguments, "--device", "cpu"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["cases"] == 2
    assert row["context_tokens"] == 256
    assert row["bits_per_byte"] > 0


def test_no_cases_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measuring.main([str(tmp_path / "none.jsonl.gz")]) == 3
    assert "there are no cases" in capsys.readouterr().err
