"""`pie eval`: options, the table, the JSON contract, the report, resuming, several processes."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pie_cli.cli import eval as command
from pie_cli.cli.app import app
from pie_cli.errors import ExitCode

ROOT = Path(__file__).parents[2]
NAMED = (
    "em es agreement kl_mean kl_p95 stale_echo encoded_tokens_mean first_token_ms_median".split()
)


def evaluate(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of the form that `real` reads, one of them malformed."""
    path = tmp_path_factory.mktemp("cases") / "cases.jsonl"
    lines = []
    for number in range(6):
        before = [f"def area_{n}(a, b):\n    return a * b + {n}\n" for n in range(10)]
        after = list(before)
        after[2 + number] = f"def area_{2 + number}(a):\n    b = {number}\n    return a * b\n"
        texts = ["".join(before) + "end = 1\n", "".join(after) + "end = 1\n"]
        target = texts[1].count("\n") - 1
        record = {
            "id": f"made-{number}",
            "path": "shop/area.py",
            "lang": "python",
            "before": texts[0],
            "after": texts[1],
            "target_line": target,
            "target_line_before": texts[0].count("\n") - 1,
            "target": "end = 1",
            "distance": 2 * (8 - number) + 1,
            "shares_ident": bool(number % 2),
            "task": "replace",
        }
        lines.append(json.dumps(record))
    lines.insert(3, '{"id": "broken", "before": 7}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def quick(tiny_checkpoint: Path, cases: Path) -> list[str]:
    words = ["--model", str(tiny_checkpoint), "--device", "cpu", "--cases", str(cases)]
    words += ["--task", "real", "--context-tokens", "512", "--max-tokens", "4"]
    return [*words, "--strategies", "full,prefix,cfe,pie,pie+seam:3"]


@pytest.fixture(scope="module")
def unbroken(quick: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "out"
    result = evaluate(*quick, "--out", out)
    assert result.exit_code == 0, result.output
    return out


def untimed(document: Any) -> Any:
    """Leave out what each run measures anew, and how it was started."""
    if isinstance(document, dict):
        return {
            name: untimed(value)
            for name, value in document.items()
            if "_ms" not in name and name not in {"reduction_pct", "environment"}
        }
    return [untimed(entry) for entry in document] if isinstance(document, list) else document


def summary(folder: Path) -> Any:
    return untimed(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def test_json_is_one_document_with_all_fields(quick: list[str]):
    result = evaluate(*quick, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == "pie/1"
    assert {"environment", "model", "seed", "rows"} <= set(document)
    rows = document["rows"]
    assert [row["strategy"] for row in rows] == ["full", "prefix", "cfe", "pie", "pie+seam:3"]
    for row in rows:
        assert row["task"] == "real"
        assert row["cases"] == 6
        for name in NAMED:
            assert name in row
        assert 0 <= row["agreement"] <= 100
        for name in ("em", "agreement"):
            low, high = row["ci"][name]
            assert low <= row[name] <= high
        if row["strategy"] in {"full", "prefix"}:
            assert row["agreement"] == 100
            assert row["kl_mean"] < 1e-9
    assert len(document["skipped"]) == 1


def test_the_table_goes_to_stdout_and_what_was_skipped_to_stderr(quick: list[str]):
    result = evaluate(*quick)
    assert result.exit_code == 0
    assert re.search(r"^real +full +6 ", result.stdout, re.MULTILINE)
    assert re.search(r"^ +pie\+seam:3 +6 ", result.stdout, re.MULTILINE)
    assert "1 malformed records skipped" in result.stdout
    assert "cases.jsonl:4" in result.stderr
    assert "…" not in result.stdout


def test_a_folder_holds_results_summary_report_and_plots(unbroken: Path):
    names = {path.name for path in unbroken.iterdir()}
    assert {"results.jsonl", "settings.json", "summary.json", "report.md"} <= names
    assert len((unbroken / "results.jsonl").read_text().splitlines()) == 6
    report = (unbroken / "report.md").read_text(encoding="utf-8")
    assert "| real | full | 6 |" in report
    pictures = {name for name in names if name.endswith(".png")}
    assert set(re.findall(r"\]\((\w+\.png)\)", report)) == pictures
    if find_spec("matplotlib"):
        assert {"cost.png", "distance.png", "size.png", "cosine.png"} <= pictures


def test_without_matplotlib_there_is_a_report_and_a_line_that_says_how(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(command, "figures_can_be_drawn", lambda: False)
    result = evaluate(*quick, "--limit", "1", "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "pip install 'pie-cli[plot]'" in result.stderr
    assert not list((tmp_path / "out").glob("*.png"))
    assert ".png" not in (tmp_path / "out" / "report.md").read_text()


def test_a_killed_run_resumes_to_the_same_summary(quick: list[str], tmp_path: Path, unbroken: Path):
    """As SIGKILL leaves it: some cases, and half a line."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("settings.json", "results.jsonl"):
        (out / name).write_bytes((unbroken / name).read_bytes())
    lines = (out / "results.jsonl").read_bytes().splitlines(keepends=True)
    kept = b"".join(lines[:2])
    (out / "results.jsonl").write_bytes(kept + lines[2][: len(lines[2]) // 2])
    result = evaluate(*quick, "--out", out, "--resume")
    assert result.exit_code == 0, result.stderr
    assert (out / "results.jsonl").read_bytes().startswith(kept)
    assert summary(out) == summary(unbroken)


def test_resuming_what_is_complete_computes_nothing(
    quick: list[str], unbroken: Path, monkeypatch: pytest.MonkeyPatch
):
    before = summary(unbroken)
    monkeypatch.setattr("pie_cli.evaluation.runs.cases.CaseRunner.run", None)
    assert evaluate(*quick, "--out", unbroken, "--resume").exit_code == 0
    assert summary(unbroken) == before


@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupt_says_what_becomes_of_the_results(
    kept: bool, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pie_cli.evaluation.runs.cases.CaseRunner.run", broken_off)
    result = evaluate(*quick, *(["--out", str(tmp_path / "out")] if kept else []))
    assert result.exit_code == 130
    assert ("--resume goes on" if kept else "is lost; --out DIR") in result.stderr


def test_results_are_never_written_over_or_mixed(quick: list[str], unbroken: Path):
    result = evaluate(*quick, "--out", unbroken)
    assert result.exit_code == ExitCode.INPUT
    assert "holds results already" in result.stderr
    result = evaluate(*quick, "--out", unbroken, "--resume", "--seed", "5", "--limit", "3")
    assert result.exit_code == ExitCode.INPUT
    assert "seed 0, now 5" in result.stderr
    assert "cases 6, now 3" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategies", "full,fast"], "unknown strategy 'fast'"),
        (["--strategies", ","], "no strategies"),
        (["--task", "surreal"], "unknown task 'surreal'"),
        (["--limit", "0"], "--limit is 0"),
        (["--context-tokens", "3"], "--context-tokens is 3"),
        (["--refresh-every", "often"], "no list of whole numbers"),
        (["--refresh-every=-1"], "--refresh-every is -1"),
        (["--seed", "-1"], "--seed is -1"),
        (["--resume"], "nothing to resume"),
        (["--cases", "/nowhere/cases.jsonl"], "/nowhere/cases.jsonl"),
    ],
)
def test_bad_options_end_before_a_model_is_loaded(arguments: list[str], message: str):
    result = evaluate("--model", "/nowhere/model", *arguments)
    assert result.exit_code == ExitCode.INPUT
    assert message in result.stderr
    assert result.stdout == ""


def test_strict_makes_a_malformed_record_fatal(quick: list[str]):
    result = evaluate(*quick, "--strict")
    assert result.exit_code == ExitCode.INPUT
    assert "cases.jsonl:4" in result.stderr


def test_a_set_without_cases_is_an_error(quick: list[str], tmp_path: Path):
    (tmp_path / "empty.jsonl").write_text("")
    result = evaluate(*quick, "--cases", tmp_path / "empty.jsonl")
    assert result.exit_code == ExitCode.INPUT
    assert result.stdout == ""


def test_a_context_beyond_the_window_is_refused(quick: list[str]):
    result = evaluate(*quick, "--context-tokens", "4096")
    assert result.exit_code == ExitCode.CAPACITY
    assert "exceeds the window" in result.stderr


def test_a_case_longer_than_the_context_is_cut_and_counted(quick: list[str]):
    result = evaluate(*quick, "--context-tokens", "100", "--json")
    assert result.exit_code == 0, result.stderr
    counts = json.loads(result.stdout)["counts"]["real"]
    assert counts["truncated"] == 6
    assert 0 < counts["outside"] < 6


def test_where_nothing_is_in_view_it_says_so(quick: list[str]):
    result = evaluate(*quick, "--context-tokens", "40")
    assert result.exit_code == 0, result.stderr
    assert "6 not measured" in result.stdout
    assert "Nothing was measured" in result.stdout


def test_sessions_are_replayed(tiny_checkpoint: Path, tmp_path: Path):
    versions = ["a = 1\nb = 2\nc = 3\n" * 3]
    versions += [versions[0].replace("b = 2", f"b = {n}\nd = {n}", 1) for n in range(3)]
    record = {
        "id": "s1",
        "path": "a.py",
        "lang": "python",
        "versions": [{"commit": str(n), "text": text} for n, text in enumerate(versions)],
    }
    path = tmp_path / "sessions.jsonl"
    path.write_text(json.dumps(record) + "\n")
    words = ["--model", tiny_checkpoint, "--device", "cpu", "--cases", path, "--task", "session"]
    words += ["--strategies", "full,pie", "--refresh-every", "0,2", "--max-tokens", "3"]
    result = evaluate(*words, "--context-tokens", "256", "--out", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    named = [(row["strategy"], row["refresh_every"], row["cases"]) for row in rows]
    assert named == [("full", 0, 3), ("pie", 0, 3), ("pie", 2, 3)]
    assert "## Sessions" in (tmp_path / "out" / "report.md").read_text()


def test_two_processes_give_the_summary_of_one(quick: list[str], tmp_path: Path, unbroken: Path):
    pytest.importorskip("accelerate")
    out = tmp_path / "out"
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*launch, "-m", "pie_cli", "eval", *quick, "--out", str(out), "--json"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["rows"]
    assert sorted(path.name for path in out.glob("results*")) == ["results.jsonl"]
    assert summary(out) == summary(unbroken)
