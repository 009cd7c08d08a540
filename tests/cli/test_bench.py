"""`pie bench`: options, the table, the JSON contract, the picture."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pie_cli.cli.app import app
from pie_cli.cli.bench import BenchOptions, _overall
from pie_cli.errors import ExitCode, InputError
from pie_cli.evaluation.runs.latency import _Bench
from pie_cli.plan.strategies import BENCHED

QUICK = ["--context-tokens", "96", "--edits", "insert,multi", "--edit-tokens", "2"]
QUICK += ["--repeats", "1", "--max-tokens", "3", "--device", "cpu"]
SPREADS = [
    f"{name}_ms" for name in ("tokenize", "diff", "update", "forward", "first_token", "line")
]


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["bench", *arguments])


def test_lists_are_read_and_duplicates_dropped():
    workload = BenchOptions.parse("1024, 4_096,1024", "multi,insert,multi", "1,16", 3).workload
    assert workload.context_tokens == (1_024, 4_096)
    assert workload.edits == ("multi", "insert")
    assert workload.edit_tokens == (1, 16)
    assert workload.repeats == 3


@pytest.mark.parametrize(
    ("contexts", "edits", "sizes", "repeats"),
    [
        ("many", "insert", "1", 1),
        ("1024", "insert", "1.5", 1),
        ("1024", "insertion", "1", 1),
        ("1024", ",", "1", 1),
        ("", "insert", "1", 1),
        ("-5", "insert", "1", 1),
        ("1024", "insert", "0", 1),
        ("1024", "insert", "1", 0),
        ("64", "insert", "16", 1),
    ],
)
def test_bad_lists_are_refused_with_a_remedy(contexts, edits, sizes, repeats):
    with pytest.raises(InputError) as caught:
        BenchOptions.parse(contexts, edits, sizes, repeats)
    assert caught.value.remedy


def test_bad_options_end_before_a_model_is_loaded():
    result = bench("--edits", "swap", "--model", "/nowhere")
    assert result.exit_code == ExitCode.INPUT
    assert "unknown edit 'swap'" in result.stderr
    assert result.stdout == ""


def test_a_context_beyond_the_window_is_refused(tiny_checkpoint: Path):
    result = bench("--model", str(tiny_checkpoint), "--context-tokens", "4096")
    assert result.exit_code == ExitCode.CAPACITY
    assert "exceeds the window" in result.stderr


def test_json_is_one_document_with_all_fields(tiny_checkpoint: Path):
    result = bench("--model", str(tiny_checkpoint), *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == "pie/1"
    assert document["broken_off"] is False
    assert document["model"] == str(tiny_checkpoint)
    named = {"pie", "torch", "transformers", "python", "platform", "cpu", "threads", "device_name"}
    assert named <= set(document["environment"])
    assert [row["strategy"] for row in document["rows"]] == list(BENCHED) * 2
    for row in document["rows"]:
        for name in (*SPREADS, "stock_forward_ms"):
            assert set(row[name]) == {"median", "p95"}
        assert set(row["reduction_pct"]) == {"first_token", "line"}
        assert row["context_tokens"] == 96
        assert row["edit"] in {"insert", "multi"}
        assert row["edit_tokens"] == 2
        assert isinstance(row["encoded_tokens"], int)
        assert row["agreement_pct"] in {0, 100}


def test_the_table_fits_100_columns_and_cuts_nothing_off(tiny_checkpoint: Path):
    result = bench("--model", str(tiny_checkpoint), *QUICK)
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if str(tiny_checkpoint) not in line]
    assert max(map(len, lines)) <= 100
    assert "…" not in result.stdout
    for strategy in BENCHED:
        assert sum(f" {strategy} " in line for line in lines) >= 2
    assert "own forward pass" in result.stdout
    assert not any(line != line.rstrip() for line in lines)


def test_a_95th_percentile_of_too_few_measurements_is_a_dash(tiny_checkpoint: Path):
    few = bench("--model", str(tiny_checkpoint), *QUICK).stdout
    enough = bench("--model", str(tiny_checkpoint), *QUICK, "--repeats", "5").stdout
    for said, dashes in ((few, 2), (enough, 0)):
        row = next(line for line in said.splitlines() if " pie " in line)
        assert row.split().count("-") == dashes
    assert "p95: of 5 measurements or more." in few


@pytest.mark.parametrize("measured", [0, 1, 2])
def test_what_was_measured_before_ctrl_c_is_printed(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, measured: int
):
    whole, cases = _Bench._measure_case, iter(range(measured))

    def broken_off(self, *arguments, **options):
        if next(cases, None) is None:
            raise KeyboardInterrupt
        whole(self, *arguments, **options)

    monkeypatch.setattr(_Bench, "_measure_case", broken_off)
    # Three repeats of two edits: all rows are there after two cases.
    quick = [*QUICK[:-6], "--repeats", "3", *QUICK[-4:]]
    result = bench("--model", str(tiny_checkpoint), *quick, "--profile", "--json")
    assert result.exit_code == 130
    assert "broken off" in result.stderr
    document = json.loads(result.stdout)
    assert document["broken_off"] is True
    assert [row["strategy"] for row in document["rows"]] == list(BENCHED) * measured
    assert len(document["profiles"]) == measured
    cases = iter(range(measured))
    result = bench("--model", str(tiny_checkpoint), *quick)
    assert (result.exit_code, "own forward pass" in result.stdout) == (130, measured > 0)
    assert (result.stdout == "") == (measured == 0)


@pytest.mark.parametrize("name", ["times.bmp", "times", "nowhere/times.png"])
def test_a_picture_that_cannot_be_written_is_refused_at_once(name: str, tmp_path: Path):
    result = bench("--plot", str(tmp_path / name), "--model", "/nowhere")
    assert result.exit_code == ExitCode.INPUT


def test_a_missing_matplotlib_is_named_with_the_extra(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("pie_cli.evaluation.report.figures.figures_can_be_drawn", lambda: False)
    result = bench("--plot", str(tmp_path / "times.png"), "--model", "/nowhere")
    assert result.exit_code == ExitCode.FAILURE
    assert "pie-cli[plot]" in result.stderr


def test_the_picture_is_drawn(tiny_checkpoint: Path, tmp_path: Path):
    pytest.importorskip("matplotlib", reason="drawing is an extra")
    picture = tmp_path / "times.png"
    result = bench("--model", str(tiny_checkpoint), *QUICK, "--plot", str(picture), "--json")
    assert result.exit_code == 0, result.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    json.loads(result.stdout)


def test_progress_is_that_of_all_workloads():
    seen: list[tuple[str, int, int]] = []
    for index in range(2):
        _overall(lambda *told: seen.append(told), index, 2, "a", 3, 4)
    assert seen == [("a", 3, 8), ("a", 7, 8)]
