"""`pie complete`: patches in all their forms, the JSON contract, and errors that help."""

import json
import re
import subprocess
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pie_cli.cli.app import app
from pie_cli.cli.complete import read_patch
from pie_cli.cli.places import place_of
from pie_cli.cli.render import Renderer
from pie_cli.errors import ExitCode, InputError
from tests.conftest import SOURCE
from tests.diffs import unified_diff

BEFORE = SOURCE
AFTER = SOURCE.replace("    return size\n", "    print(size)\n    return size\n", 1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with one source file."""
    (tmp_path / "area.py").write_text(BEFORE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def complete(tiny_checkpoint: Path, folder: Path):
    def run(*arguments: str, stdin: str | None = None) -> Result:
        options = ["--model", str(tiny_checkpoint), "--device", "cpu", "--max-tokens", "12"]
        # On a tiny model the default has time to repair everything.
        options += ["--strategy", "pie+seam:8"]
        return CliRunner().invoke(app, ["complete", *options, *arguments], input=stdin)

    return run


def document(result: Result) -> dict:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def patch_file(
    folder: Path, before: str = BEFORE, after: str = AFTER, path: str = "area.py"
) -> str:
    (folder / "edit.patch").write_text(unified_diff(before, after, path))
    return str(folder / "edit.patch")


def test_a_patch_prints_one_document_of_the_contract(complete, folder):
    options = ("--edit", patch_file(folder), "--json", "--at", "end")
    result = document(complete("area.py", *options))
    assert result["schema"] == "pie/1"
    assert result["path"] == "area.py"
    assert result["strategy"] == "pie+seam:8"
    assert result["at"] == {"line": 50, "column": 1}
    assert result["lines"] == {"added": 1, "removed": 0}
    assert (result["form"], result["context"]) == ("plain", [])
    assert (result["window_dropped"], result["window_dropped_below"]) == (0, 0)
    tokens = result["tokens"]
    assert tokens["reused"] + tokens["encoded"] == tokens["total"]
    assert 0 < tokens["shifted"] <= tokens["reused"]
    assert tokens["encoded"] < 0.1 * tokens["total"]
    assert (tokens["stale"] > 0) == (not result["exact"])
    timings = result["timings_ms"]
    parts = sum(timings[name] for name in ("tokenize", "diff", "update", "forward"))
    assert timings["first_token"] == pytest.approx(parts, rel=0.05)
    assert timings["line"] >= timings["first_token"]
    assert result["import_ms"] > 0
    assert result["load_ms"] > 0
    assert result["encode_before_ms"] > 0
    comparison = result["comparison"]
    assert comparison["strategy"] == "full"
    assert comparison["agrees"] == (comparison["prediction"] == result["prediction"])
    assert set(comparison["timings_ms"]) == set(timings)
    assert set(comparison["speedup"]) == {"first_token", "line"}


def cursor_of(result: dict, text: str) -> int:
    """Return the line of the cursor: the prediction goes on with it, or is the one below."""
    at = result["at"]
    if not result["completes_line"]:
        assert at["column"] == 1
        return at["line"] - 1
    assert at["column"] == len(text.split("\n")[at["line"] - 1].rstrip("\r")) + 1
    return at["line"]


def test_a_patch_is_predicted_where_it_ends(complete, folder):
    """The tiny model knows the suffix first: an edit just above the hole is an append."""
    result = document(complete("--edit", patch_file(folder), "--json"))
    assert cursor_of(result, AFTER) == 3
    assert result["form"] == "suffix-prefix-middle"
    assert result["exact"]
    assert result["comparison"]["agrees"]
    assert result["tokens"]["encoded"] < 0.1 * result["tokens"]["total"]
    asked = document(complete("--edit", patch_file(folder), "--json", "--at", "edit"))
    assert asked["at"] == result["at"]


def test_the_hunk_is_that_of_the_patch(complete, folder):
    """Of equal lines a diff of the texts would take the last ones for the new ones."""
    before = "a = 1\n" * 3 + "b = 2\n"
    (folder / "area.py").write_text(before)
    stdin = (
        "--- a/area.py\n+++ b/area.py\n@@ -1,4 +1,5 @@\n a = 1\n+a = 1\n a = 1\n a = 1\n b = 2\n"
    )
    after = "a = 1\n" + before
    result = document(complete("--edit", "-", "--json", stdin=stdin))
    assert cursor_of(result, after) == 2
    (folder / "area.py").write_text(after)
    applied = document(complete("--edit", "-", "--applied", "--json", stdin=stdin))
    assert cursor_of(applied, after) == 2


def test_a_pure_deletion_is_predicted_above_its_gap(complete, folder):
    after = SOURCE.replace("    return size\n", "", 1)
    patch = patch_file(folder, BEFORE, after)
    result = document(complete("--edit", patch, "--json"))
    assert cursor_of(result, after) == 2
    assert result["lines"] == {"added": 0, "removed": 1}


@pytest.mark.parametrize(
    "arguments",
    [
        ("area.py", "--at", "2:11"),
        ("--at", "area.py:2:11"),
        ("area.py", "--at", "./area.py:2:11:"),
        ("area.py:2:11",),
        (" area.py:2:11: error: expected ':' (line 3)",),
        ("area.py:2:11:size =",),
        ("area.py(2,11): error TS1005",),
        ("area.py#L2C11",),
    ],
)
def test_a_place_may_be_pasted_with_its_file(complete, folder, arguments):
    result = document(complete(*arguments, "--json"))
    assert result["path"] == "area.py"
    assert result["at"] == {"line": 2, "column": 11}


@pytest.mark.parametrize(
    "place",
    [
        "area.py:2",
        "area.py(2)",
        "area.py#L2",
        'File "area.py", line 2, in area',
    ],
)
def test_a_place_without_a_column_is_a_line(place):
    assert place_of(Path(place), "edit") == place_of(None, place) == (Path("area.py"), "2")


@pytest.mark.parametrize(
    "arguments",
    [
        ("area.py:2:0: C0116: a linter that counts columns from 0",),
        ("area.py(2,0)",),
        ("area.py", "--at", "2:0"),
    ],
)
def test_column_0_is_the_line_s_beginning_however_it_is_given(complete, folder, arguments):
    result = document(complete(*arguments, "--json"))
    assert result["at"] == {"line": 2, "column": 1}
    assert not result["completes_line"]


@pytest.mark.parametrize("name", ["area.py", "area.py:", "area.py:x", "a (2).py", "2024:01", "#L2"])
def test_what_names_no_place_stays_a_file(name):
    assert place_of(Path(name), "edit") == (Path(name), "edit")


def test_a_file_that_is_called_like_a_place_is_a_file(complete, folder):
    (folder / "area.py:2").write_text(BEFORE)
    result = document(complete("area.py:2", "--json"))
    assert result["path"] == "area.py:2"
    assert cursor_of(result, BEFORE) == len(BEFORE.rstrip().split("\n"))


def test_several_lines_are_predicted_where_asked_for(complete, folder):
    one = document(complete("area.py", "--json", "--at", "3"))
    several = document(complete("area.py", "--json", "--at", "3", "--lines", "4"))
    found = [line for line in several["prediction"].split("\n") if line.strip()]
    assert 1 <= len(found) <= 4
    assert several["prediction"].startswith(one["prediction"].split("\n")[0][:12])


def test_a_column_completes_its_line(complete, folder):
    """What is typed of the line is neither repeated nor lost, and no further line begins."""
    result = document(complete("area.py", "--json", "--at", "2:11"))
    assert result["at"] == {"line": 2, "column": 11}
    assert "\n" not in result["prediction"]
    shown = complete("area.py", "--at", "2:11").stdout
    assert shown.count("    size =") >= 1


def test_a_patch_on_stdin_that_is_applied_already_gives_the_same(complete, folder):
    first = document(complete("--edit", patch_file(folder), "--json"))
    (folder / "area.py").write_text(AFTER)
    stdin = unified_diff(BEFORE, AFTER, "area.py")
    second = document(complete("--edit", "-", "--json", stdin=stdin))
    for field in ("prediction", "tokens", "at", "exact"):
        assert first[field] == second[field]
    assert (folder / "area.py").read_text() == AFTER


def test_what_was_understood_of_a_patch_is_said(complete, folder):
    patch = patch_file(folder)
    assert "area.py is without the patch" in complete("--edit", patch).stderr
    (folder / "area.py").write_text(AFTER)
    assert "area.py holds the patch already" in complete("--edit", patch).stderr
    lines = [f"x{number} = {number}\n" for number in range(40)]
    after = [*lines[:20], "y = 1\n", *lines[20:]]
    patch = patch_file(folder, "".join(lines), "".join(after))
    (folder / "area.py").write_text("# new\n" + "".join(after))
    assert "already, 1 line off its stated place" in complete("--edit", patch).stderr


def test_where_a_patch_fits_both_ways_the_user_decides(complete, folder):
    """Of equal lines one may be there already, or come again."""
    same = " a = 1\n" * 3
    stdin = f"--- area.py\n+++ area.py\n@@ -4,6 +4,7 @@\n{same}+a = 1\n{same}"
    (folder / "area.py").write_text("a = 1\n" * 13)
    result = complete("--edit", "-", "--json", stdin=stdin)
    (line,) = [line for line in result.stderr.splitlines() if "both" in line]
    assert "taken as not applied" in line
    assert "--applied or --not-applied" in line
    told = {
        option: complete("--edit", "-", option, "--json", stdin=stdin)
        for option in ("--applied", "--not-applied")
    }
    assert not any("both" in one.stderr for one in told.values())
    totals = {option: document(one)["tokens"]["total"] for option, one in told.items()}
    assert totals["--not-applied"] == document(result)["tokens"]["total"]
    assert totals["--applied"] < totals["--not-applied"]


def test_no_stdin_to_read_a_patch_from(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="no stdin"):
        read_patch(Path("-"))


def test_git_diff_from_a_subfolder_finds_its_file(complete, folder, monkeypatch):
    (folder / "sub").mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.invalid"]
    for command in (["init", "-q"], ["add", "area.py"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True, cwd=folder)
    (folder / "area.py").write_text(AFTER)
    diff = subprocess.run(
        [*git, "diff"], check=True, cwd=folder, capture_output=True, text=True
    ).stdout
    monkeypatch.chdir(folder / "sub")
    result = document(complete("--edit", "-", "--json", stdin=diff))
    assert result["lines"] == {"added": 1, "removed": 0}


def test_full_and_prefix_agree_with_the_comparison(complete, folder):
    for strategy in ("full", "prefix"):
        result = document(complete("--edit", patch_file(folder), "--json", "--strategy", strategy))
        assert result["exact"]
        assert result["comparison"]["agrees"]


def test_a_line_counts_in_the_text_after_the_patch(complete, folder):
    result = document(complete("--edit", patch_file(folder), "--json", "--at", "20"))
    assert result["at"] == {"line": 20, "column": 1}
    assert result["tokens"]["encoded"] < 0.2 * result["tokens"]["total"]
    (folder / "area.py").write_text(AFTER)
    plain = document(complete("area.py", "--json", "--at", "20"))
    assert plain["prediction"] == result["comparison"]["prediction"]


def test_a_line_that_the_patch_makes_is_no_obstacle(complete, folder):
    """Before a final newline came, there was no line behind it."""
    (folder / "area.py").write_text("x = 1\ny = 2")
    stdin = unified_diff("x = 1\ny = 2", "x = 1\ny = 2\n", "area.py")
    result = document(complete("--edit", "-", "--json", "--at", "3", stdin=stdin))
    assert result["at"] == {"line": 3, "column": 1}


def test_a_file_elsewhere_keeps_its_whole_path(complete, folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere") / "area.py"
    other.write_text(BEFORE)
    elsewhere, here = (
        document(complete(str(other), "--json")),
        document(complete("area.py", "--json")),
    )
    assert elsewhere["path"] == other.as_posix()
    # The model is shown no more of it than its name.
    assert elsewhere["prediction"] == here["prediction"]


def test_the_last_file_of_a_patch_is_predicted_in_unless_one_is_named(complete, folder):
    (folder / "other.py").write_text(BEFORE)
    stdin = unified_diff(BEFORE, AFTER, "area.py") + unified_diff(BEFORE, AFTER, "other.py")
    result = complete("--edit", "-", "--json", stdin=stdin)
    assert document(result)["path"] == "other.py"
    assert "also changes 1 other file" in result.stderr
    assert document(complete("area.py", "--edit", "-", "--json", stdin=stdin))["path"] == "area.py"


def test_a_new_file_needs_not_be_there_yet(complete, folder):
    stdin = (
        "diff --git a/new.py b/new.py\nnew file mode 100644\n--- /dev/null\n+++ b/new.py\n"
        "@@ -0,0 +1,2 @@\n+import os\n+import sys\n"
    )
    result = document(complete("--edit", "-", "--json", stdin=stdin))
    assert result["path"] == "new.py"
    assert result["lines"] == {"added": 2, "removed": 0}
    assert not (folder / "new.py").exists()


def test_a_plain_completion_is_exact_and_has_no_comparison(complete):
    result = document(complete("area.py", "--json"))
    assert result["exact"]
    assert result["strategy"] == "full"
    assert result["comparison"] is None
    assert result["tokens"]["encoded"] == result["tokens"]["total"]


def test_text_says_what_was_spent_and_shows_the_line_in_place(complete, folder):
    result = complete("--edit", patch_file(folder))
    assert result.exit_code == 0
    assert result.stdout.startswith("area.py  1 line added\n")
    assert " >   3 " in result.stdout
    assert re.search(r"^  \d+ ms, kept \d+ of \d+ tokens, ", result.stdout, re.MULTILINE)
    assert re.search(r"^  (confirmed|corrected) by full recompute: ", result.stdout, re.MULTILINE)
    assert "reading the file before the edit, " in result.stdout
    assert "stale" not in result.stdout
    explained = complete("--edit", patch_file(folder), "--explain").stdout
    assert re.search(r"reused \(\d+ shifted, .* stale; ", explained)
    assert not any(line != line.rstrip() for line in result.stdout.split("\n"))


def test_control_characters_are_spelled_out(complete, folder):
    (folder / "area.py").write_text(BEFORE + "x = '\x1b[31m\u202e'\n")
    result = complete("area.py")
    assert result.exit_code == 0
    assert "\\x1b[31m\\u202e" in result.stdout
    assert "\x1b" not in result.stdout


def test_line_ends_of_another_system_are_not_shown(complete, folder):
    (folder / "area.py").write_bytes(BEFORE.replace("\n", "\r\n").encode())
    result = complete("area.py", "--at", "end")
    assert result.exit_code == 0
    assert "return size\n" in result.stdout
    assert "size\\x0d" not in result.stdout


def test_an_odd_file_name_stays_on_one_line(complete, folder):
    (folder / "two\nlines\udce9.py").write_text(BEFORE)
    result = complete("two\nlines\udce9.py")
    assert result.exit_code == 0
    assert result.stdout.startswith("two\\nlines\\udce9.py\n")
    assert complete("no\nfile.py").stderr.count("\n") == 2


def test_a_terminal_that_lacks_a_character_gets_its_code(monkeypatch):
    stdout = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stdout)
    Renderer().line("x = '日'")
    stdout.flush()
    assert stdout.buffer.getvalue() == b"x = '\\u65e5'\n"


def test_comparison_none_is_null(complete, folder):
    result = document(complete("--edit", patch_file(folder), "--json", "--compare", "none"))
    assert result["comparison"] is None


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "message"),
    [
        ([], None, ExitCode.INPUT, "nothing to complete"),
        (["area.py", "--applied"], None, ExitCode.INPUT, "name the patch with --edit"),
        (["area.py", "--not-applied"], None, ExitCode.INPUT, "name the patch with --edit"),
        (
            ["--edit", "-", "--applied", "--not-applied"],
            unified_diff("a\n", "b\n", "area.py"),
            ExitCode.INPUT,
            "exclude each other",
        ),
        (["area.py/x.py"], None, ExitCode.INPUT, "check the path"),
        (["x" * 300], None, ExitCode.INPUT, "check the path"),
        (["missing.py"], None, ExitCode.INPUT, "there is no file missing.py"),
        (["."], None, ExitCode.INPUT, "is a folder"),
        (["binary.py"], None, ExitCode.INPUT, "is binary"),
        (["latin.py"], None, ExitCode.INPUT, "is not UTF-8"),
        (["area.py", "--at", "999"], None, ExitCode.INPUT, "line 999 is outside the file"),
        (["area.py", "--at", "0"], None, ExitCode.INPUT, "is not a place"),
        (["area.py", "--at", "b.py:1"], None, ExitCode.INPUT, "is about another file"),
        (["area.py:1", "--at", "2"], None, ExitCode.INPUT, "are two places"),
        (["area.py", "--lines", "0"], None, ExitCode.INPUT, "--lines is 0"),
        (["area.py", "--at", "0:3"], None, ExitCode.INPUT, "is not a place"),
        (["area.py", "--at", "2:99"], None, ExitCode.INPUT, "column 99 is outside line 2, which"),
        (["area.py", "--strategy", "best"], None, ExitCode.INPUT, "unknown strategy"),
        (["area.py", "--device", "tpu"], None, ExitCode.DEVICE, "unknown device"),
        (["area.py", "--device", "cuda:99"], None, ExitCode.DEVICE, "there is no device"),
        (["--edit", "-"], "", ExitCode.PATCH, "empty"),
        (["--edit", "-"], "not a patch\n", ExitCode.PATCH, ""),
        (["--edit", "missing.patch"], None, ExitCode.INPUT, "there is no file missing.patch"),
        (
            ["--edit", "-"],
            unified_diff("a\n", "b\n", "elsewhere.py"),
            ExitCode.INPUT,
            "elsewhere.py, which is not below",
        ),
        (
            ["--edit", "-"],
            unified_diff("a\nb\nc\n", "a\nx\nc\n", "area.py"),
            ExitCode.PATCH,
            "hunk 1",
        ),
    ],
)
def test_bad_input_is_one_or_two_lines_with_a_code(
    complete, folder, arguments, stdin, code, message
):
    (folder / "binary.py").write_bytes(b"a\x00b")
    (folder / "latin.py").write_bytes("é = 1\n".encode("latin-1"))
    result = complete(*arguments, stdin=stdin)
    assert result.exit_code == code
    assert result.stdout == ""
    lines = result.stderr.strip().split("\n")
    assert 1 <= len(lines) <= 2
    assert lines[0].startswith("pie: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert (folder / "area.py").read_text() == BEFORE


def test_debug_shows_the_traceback(complete):
    result = complete("missing.py", "--debug")
    assert result.exit_code == ExitCode.INPUT
    assert "Traceback" in result.stderr


def test_an_unknown_model_names_the_embedded_one(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    result = CliRunner().invoke(app, ["complete", "area.py", "--model", "nobody/nothing"])
    assert result.exit_code == ExitCode.MODEL
    assert "pie-nano" in result.stderr


def test_a_text_from_stdin_is_completed_under_its_name(complete, folder: Path) -> None:
    stdin = complete("-", "--stdin-filename", "area.py", "--json", stdin=BEFORE)
    on_disk = complete("area.py", "--json")
    assert stdin.exit_code == 0, stdin.output
    here, there = json.loads(stdin.stdout), json.loads(on_disk.stdout)
    assert here["path"] == "area.py"
    assert here["prediction"] == there["prediction"]
    nowhere = complete("-", "--stdin-filename", "not/there.py", "--json", stdin=BEFORE)
    assert json.loads(nowhere.stdout)["path"] == "not/there.py"


def test_plain_prints_the_line_alone(complete, folder: Path) -> None:
    line = json.loads(complete("area.py", "--json").stdout)["prediction"]
    plain = complete("area.py", "--plain")
    assert plain.stdout == line + "\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "--edit", "p.diff"], "a patch is about a file on disk"),
        (["area.py", "--stdin-filename", "x.py"], "--stdin-filename names a text from stdin"),
        (["area.py", "--plain", "--json"], "exclude each other"),
    ],
)
def test_options_about_stdin_that_contradict_each_other_are_refused(
    complete, arguments: list[str], said: str
) -> None:
    result = complete(*arguments, stdin="")
    assert result.exit_code == ExitCode.INPUT
    assert said in " ".join(result.stderr.split())


def test_an_empty_text_from_stdin_is_an_empty_file_and_said_to_be(complete, folder: Path) -> None:
    (folder / "empty.py").write_text("")
    empty = complete("-", "--stdin-filename", "empty.py", "--json", stdin="")
    assert empty.stderr == "stdin is empty: what follows is about an empty file\n"
    here, there = document(empty), document(complete("empty.py", "--json"))
    assert (here["prediction"], here["path"]) == (there["prediction"], "empty.py")
    assert complete("-", "--plain", stdin="\n").stderr == ""
    quiet = complete("-", "--plain", "--quiet", stdin="")
    assert (quiet.exit_code, quiet.stderr) == (0, "")


def test_a_binary_text_from_stdin_is_refused(complete) -> None:
    result = complete("-", stdin="a\0b")
    assert result.exit_code == ExitCode.INPUT
    assert "stdin is binary" in result.stderr


def test_the_last_line_says_where_the_time_went(complete, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("pie_cli.cli.cold.import_ms", lambda: 100.0)
    plain = complete("area.py").stdout.splitlines()[-1]
    parts = re.fullmatch(
        r"  .+ in all: 100 ms importing torch and transformers, .+ loading the model,"
        r" .+ reading the file",
        plain,
    )
    assert parts, plain
    monkeypatch.setattr("pie_cli.cli.cold.import_ms", lambda: 9_000.0)
    after = complete("--edit", patch_file(folder)).stdout.splitlines()[-1]
    assert " in all: 9.0 s importing torch and transformers, " in after
    assert " reading the file before the edit, " in after
    assert " comparing; a running `pie watch` or `pie serve` keeps it all warm" in after


def test_beyond_the_limit_the_comparison_is_estimated_from_the_encoding_before(complete, folder):
    within = document(complete("--edit", patch_file(folder), "--json"))
    assert within["full_recompute"]["measured"] is True
    assert within["full_recompute"]["line_ms"] == within["comparison"]["timings_ms"]["line"]
    parts = within["load_ms"] + within["encode_before_ms"] + within["timings_ms"]["line"]
    assert within["total_ms"] > parts + within["full_recompute"]["line_ms"]
    beyond = document(complete("--edit", patch_file(folder), "--json", "--compare-limit", "0"))
    assert beyond["comparison"] is None
    assert beyond["full_recompute"]["measured"] is False
    # It is about the encoding before the edit, of which the line's tokens are no part.
    assert beyond["full_recompute"]["line_ms"] < 2 * beyond["encode_before_ms"] + 1_000
    shown = complete("--edit", patch_file(folder), "--compare-limit", "0").stdout
    assert "as measured before; it runs without --compare-limit" in shown
    assert "not confirmed" in shown or ", exact" in shown
    none = document(complete("--edit", patch_file(folder), "--json", "--compare", "none"))
    assert (none["comparison"], none["full_recompute"]) == (None, None)
