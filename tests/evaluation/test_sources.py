"""Sources: what is read, what is left out and why, what is made, and always the same."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pie_cli.errors import InputError, PieError
from pie_cli.evaluation.cases import records, sources
from pie_cli.evaluation.cases.case import TASKS
from pie_cli.evaluation.cases.documents import reach_start
from pie_cli.evaluation.cases.sources import LINES, PLACES, load, spread
from pie_cli.text.edit import diff_lines, split_lines
from tests.evaluation.test_adversarial import SOURCE

FILE = "".join(
    f"def shape_{n}(width, height):\n    total_{n} = width * height + {n}\n    return total_{n}\n\n"
    for n in range(60)
)
EDIT = {
    "id": "one",
    "path": "src/shape.py",
    "lang": "python",
    "before": FILE,
    "after": FILE.replace("total_3 = width", "total_3 = 2 * width"),
    "target_line": 41,
    "target_line_before": 41,
    "target": "    total_10 = width * height + 10",
    "task": "replace",
}
REPOBENCH = {
    "repo_name": "someone/shapes",
    "file_path": "shapes/area.py",
    "context": [{"path": "shapes/base.py", "snippet": "class Base:\n    pass"}],
    "import_statement": "from shapes.base import Base",
    "cropped_code": "\n\n" + FILE,
    "next_line": "def last(base: Base):",
    "level": "8k",
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def double(numbers):\n    """Return each number twice as large."""\n',
    "canonical_solution": "    doubled = []\n    for number in numbers:\n"
    "        doubled.append(2 * number)\n    return doubled\n",
    "entry_point": "double",
}


def write(path: Path, records, ending: str = "\n") -> Path:
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + ending for r in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


# Real edits


@pytest.mark.parametrize("name", ["cases.jsonl", "cases.jsonl.gz"])
def test_a_real_edit_is_cut_at_its_target(tmp_path: Path, name: str):
    loaded = load(str(write(tmp_path / name, [EDIT])), "real")
    (case,) = loaded.cases
    lines = split_lines(FILE)
    assert case.before.above == "".join(lines[:41])
    assert case.before.below == case.after.below == "".join(lines[42:])
    assert case.after.above == case.before.above.replace("total_3 = width", "total_3 = 2 * width")
    assert case.before.line == case.after.line == 41
    assert (case.target, case.id, case.kind) == (EDIT["target"], "one", "replace")
    assert case.distance == 41 - 14 + 1
    assert case.shares_identifier
    assert loaded.skipped == ()


def test_a_folder_is_read_with_all_its_files_in_order(tmp_path: Path):
    (tmp_path / "java").mkdir()
    write(tmp_path / "b.jsonl", [EDIT | {"id": "b"}])
    write(tmp_path / "java" / "c.jsonl.gz", [EDIT | {"id": "c", "lang": "java"}])
    write(tmp_path / "a.jsonl", [EDIT | {"id": "a"}])
    (tmp_path / "README.md").write_text("no record")
    cases = load(str(tmp_path), "real").cases
    assert [case.id for case in cases] == ["a", "b", "c"]
    assert cases[2].language == "java"


def test_ids_that_occur_again_are_numbered(tmp_path: Path):
    path = write(tmp_path / "cases.jsonl", [EDIT, EDIT, EDIT])
    assert [case.id for case in load(str(path), "real").cases] == ["one", "one#2", "one#3"]


MALFORMED = {
    "no JSON": '{"before": ',
    "no JSON object": "[1, 2]",
    "it has no before": {k: v for k, v in EDIT.items() if k != "before"},
    "after is no text": EDIT | {"after": 3},
    "target_line is no line number": EDIT | {"target_line": "41"},
    "target line 9999 outside": EDIT | {"target_line": 9_999},
    "not the target that it names": EDIT | {"target": "other"},
    "the same up to the target": EDIT | {"after": FILE},
    "none of the known shapes": {"text": "x"},
    "versions holds fewer than two": {"versions": ["x"], "path": "a.py"},
    "next_line is empty": REPOBENCH | {"next_line": "\n"},
    "canonical_solution is empty": HUMANEVAL | {"canonical_solution": "\n"},
}


@pytest.mark.parametrize("reason", MALFORMED)
def test_a_malformed_record_is_named_skipped_and_counted(tmp_path: Path, reason: str):
    path = write(tmp_path / "cases.jsonl", [EDIT, MALFORMED[reason], EDIT | {"id": "three"}])
    loaded = load(str(path), "real")
    assert [case.id for case in loaded.cases] == ["one", "three"]
    (skipped,) = loaded.skipped
    assert skipped.where == "cases.jsonl:2"
    assert reason in skipped.reason
    with pytest.raises(InputError, match=r"cases\.jsonl:2: .*" + reason):
        load(str(path), "real", strict=True)


def test_a_file_cut_off_is_named_and_what_came_before_it_stays(tmp_path: Path):
    path = write(tmp_path / "cases.jsonl.gz", [EDIT | {"id": str(n)} for n in range(40)])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    loaded = load(str(path), "real")
    assert 0 < len(loaded.cases) < 40
    assert "cut off" in loaded.skipped[-1].reason


@pytest.mark.parametrize(
    ("make", "cause"),
    [
        (lambda folder: folder / "nowhere", "no such file or folder"),
        (lambda folder: folder, "neither records nor git repositories"),
        (lambda folder: write(folder / "cases.csv", []), "cannot read cases"),
        (lambda folder: write(folder / "cases.jsonl", []), "holds no cases for task real"),
        (lambda folder: write(folder / "cases.jsonl", ["{"]), "all 1 records were left out"),
        (lambda folder: write(folder / "cases.jsonl.gz", []).with_suffix(".gz"), "holds no cases"),
        (lambda folder: write(folder / "cases.jsonl", [REPOBENCH]), "have no edits of their own"),
        (lambda folder: write(folder / "cases.jsonl", [REPOBENCH, "{"]), "have no edits of their"),
    ],
)
def test_an_empty_set_is_an_error_with_a_remedy(tmp_path: Path, make, cause: str):
    with pytest.raises(InputError) as caught:
        load(str(make(tmp_path)), "real")
    assert cause in caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize("at", [0, 1, 12, 40, 200, -12, -2])
def test_a_damaged_file_is_skipped_from_the_damage_on_and_counted(tmp_path: Path, at: int):
    path = write(tmp_path / "b.jsonl.gz", [EDIT | {"id": f"{n * n:x}"} for n in range(400)])
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    data[at + 1 if at < -2 or at >= 0 else -1] ^= 0x5A
    path.write_bytes(data)
    write(tmp_path / "a.jsonl", [EDIT | {"id": "whole"}])
    loaded = load(str(tmp_path), "real")
    assert "whole" in [case.id for case in loaded.cases]
    assert len(loaded.skipped) == 1
    assert loaded.skipped[0].where.startswith("b.jsonl.gz:")
    with pytest.raises(InputError, match=r"b\.jsonl\.gz"):
        load(str(tmp_path), "real", strict=True)


def test_a_file_that_only_claims_to_be_compressed_is_named(tmp_path: Path):
    (tmp_path / "cases.jsonl.gz").write_text("plain")
    with pytest.raises(InputError, match=r"cases\.jsonl\.gz.*[Nn]ot a gzip"):
        load(str(tmp_path / "cases.jsonl.gz"), "real")


@pytest.mark.parametrize("name", ["cases.jsonl", "cases.jsonl.gz", "cases.parquet", "a.txt"])
def test_pipes_hold_no_cases(tmp_path: Path, name: str):
    os.mkfifo(tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(InputError):
            load(str(path), "prose" if name == "a.txt" else "real")


def test_an_unknown_task_is_refused():
    with pytest.raises(InputError, match="unknown task 'replace'"):
        load(None, "replace")


# Sessions, RepoBench, HumanEval


def test_sessions_are_read_with_their_versions(tmp_path: Path):
    session = {"id": "s", "path": "a.py", "versions": [{"commit": "1", "text": "x"}, {"text": "y"}]}
    path = write(tmp_path / "sessions.jsonl", [session, session | {"versions": ["a", "b"]}])
    loaded = load(str(path), "session")
    assert [s.versions for s in loaded.sessions] == [("x", "y"), ("a", "b")]
    assert [s.id for s in loaded.sessions] == ["s", "s#2"]
    assert loaded.sessions[0].language == "python"


def test_a_repobench_prompt_has_context_imports_and_code_in_order(tmp_path: Path):
    path = write(tmp_path / "bench.jsonl", [REPOBENCH])
    (case,) = load(str(path), "insertion", seed=1).cases
    assert case.after.text == (
        "# Path: shapes/base.py\nclass Base:\n    pass\nfrom shapes.base import Base\n"
        + FILE.rstrip()
        + "\n"
    )
    assert case.target == "def last(base: Base):"
    assert (case.path, case.language) == ("shapes/area.py", "python")


def test_imports_that_all_code_repeats_stand_once(tmp_path: Path):
    record = {k: v for k, v in REPOBENCH.items() if k != "cropped_code"}
    record["all_code"] = record["import_statement"] + "\n" + FILE
    path = write(tmp_path / "bench.jsonl", [record | {"context": None}])
    (case,) = load(str(path), "deletion").cases
    assert case.after.text.count("from shapes.base import Base") == 1


def test_small_tasks_become_short_cases(tmp_path: Path):
    records = [HUMANEVAL | {"task_id": f"HumanEval/{n}"} for n in range(6)]
    cases = load(str(write(tmp_path / "tasks.jsonl", records)), "short").cases
    assert cases
    assert all(case.task == "short" and case.target == "    doubled = []" for case in cases)
    assert all(case.after.above == HUMANEVAL["prompt"] for case in cases)


def test_a_parquet_file_needs_pyarrow_and_says_so(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "bench.parquet").write_bytes(b"PAR1")
    with pytest.raises(PieError, match=r"pip install 'pie-cli\[parquet\]'"):
        load(str(tmp_path), "insertion")


def test_a_parquet_file_is_read_row_by_row(tmp_path: Path):
    pyarrow = pytest.importorskip("pyarrow", reason="reading Parquet is an extra")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.Table.from_pylist([REPOBENCH, REPOBENCH | {"next_line": ""}])
    parquet.write_table(table, tmp_path / "bench.parquet")
    loaded = load(str(tmp_path / "bench.parquet"), "insertion")
    assert len(loaded.cases) == 1
    assert loaded.skipped[0].where == "bench.parquet: row 2"
    (tmp_path / "bench.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match="cannot read"):
        load(str(tmp_path / "bench.parquet"), "insertion")


# Data sets on the hub


def test_a_data_set_is_read_like_a_folder(tmp_path: Path, monkeypatch):
    write(tmp_path / "python.jsonl", [REPOBENCH])
    asked = {}

    def snapshot_download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    loaded = load("hub:someone/bench", "insertion")
    assert len(loaded.cases) == 1
    assert loaded.source == "hub:someone/bench"
    assert (asked["name"], asked["repo_type"]) == ("someone/bench", "dataset")
    assert set(asked["allow_patterns"]) == {"*.jsonl", "*.jsonl.gz", "*.parquet"}


def test_a_data_set_out_of_reach_is_an_error_with_a_remedy(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def snapshot_download(name, **options):
        raise failure

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for cause, failure in (  # noqa: B007 - the fake raises it
        ("not in reach", LocalEntryNotFoundError("offline")),
        ("cannot be had", OSError("full")),
    ):
        with pytest.raises(InputError, match=cause) as caught:
            records.data_set("someone/bench")
        assert "local file" in caught.value.remedy


# Synthesised


@pytest.fixture
def edits(tmp_path: Path) -> str:
    texts = (FILE.replace("width * height", f"width_{n} * height") + SOURCE for n in range(4))
    records = [EDIT | {"id": str(n), "after": text} for n, text in enumerate(texts)]
    records = [r | {"target": r["after"].split("\n")[41]} for r in records]
    return str(write(tmp_path / "cases.jsonl", records))


def changed(case) -> list[tuple[int, int]]:
    """Return lines removed and added by each hunk."""
    hunks = diff_lines(case.before.text, case.after.text)
    return [(h.old_stop - h.old_start, h.new_stop - h.new_start) for h in hunks]


def test_insertion_puts_lines_back_and_deletion_takes_foreign_ones_out(edits: str):
    for case in load(edits, "insertion").cases:
        assert changed(case) == [(0, LINES)]
        assert case.after.line == 41
        assert case.after.below == case.before.below
    for case in load(edits, "deletion").cases:
        assert sum(removed for removed, _ in changed(case)) == LINES
        assert not any(added for _, added in changed(case))


def test_multi_does_several_of_both(edits: str):
    for case in load(edits, "multi").cases:
        half = PLACES // 2
        assert sum(removed > 0 for removed, _ in changed(case)) == half
        assert sum(added > 0 for _, added in changed(case)) == half


@pytest.mark.parametrize("task", ["insertion", "deletion", "multi"])
def test_edits_are_within_the_context(edits: str, task: str):
    for case in load(edits, task, context_tokens=450).cases:
        lines = split_lines(case.after.above)
        first = diff_lines(case.before.above, case.after.above)[0].new_start
        assert first >= reach_start(lines, len(lines), 450) - 1
        assert first > 5


@pytest.mark.parametrize("task", [t for t in TASKS if t not in ("session", "real", "short")])
def test_the_seed_alone_decides(edits: str, task: str):
    spec = None if task == "prose" else edits
    limit = 6
    first, again, other = (load(spec, task, seed=seed, limit=limit) for seed in (5, 5, 6))
    assert first == again
    assert first.cases != other.cases
    everything = [case.id for case in load(spec, task, seed=5).cases]
    assert len(set(everything)) == len(everything)


def test_a_limit_spreads_over_all_there_is():
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(3), 10) == [0, 1, 2]
    assert spread(range(3), None) == [0, 1, 2]


def test_all_takes_each_task_that_there_is_something_for(edits: str):
    cases = load(edits, "all", limit=2).cases
    counts = {task: sum(case.task == task for case in cases) for task in TASKS}
    assert counts == {
        "real": 2,
        "insertion": 2,
        "deletion": 2,
        "multi": 2,
        "adversarial": 2,
        "prose": 0,
        "short": 2,
        "session": 0,
        "all": 0,
    }


def test_short_cuts_keep_the_edit_and_one_edge(edits: str):
    for case in load(edits, "short").cases:
        assert len(case.after.text) <= 3 * sources.SHORT_TOKENS
        assert case.before.above != case.after.above
        assert case.before.below
        assert case.after.below
        assert case.before.line == case.after.line


# Built in


@pytest.mark.parametrize("task", ["real", "session"])
def test_what_nobody_can_make_up_needs_cases(task: str):
    with pytest.raises(InputError, match="no built-in cases") as caught:
        load(None, task)
    assert "--cases" in caught.value.remedy


def test_a_bare_machine_has_cases_of_python():
    loaded = load(None, "insertion", limit=20)
    assert len(loaded.cases) == 20
    assert {case.language for case in loaded.cases} == {"python"}
    assert "built-in" in loaded.source


# Prose


PROSE = "A short paragraph stands here. It has two sentences of its own.\n\n" + "\n\n".join(
    f"Sentence number {n} tells of the garden. The {n}th flower grows in it, they say."
    for n in range(20)
)


def test_prose_is_written_a_sentence_a_line_without_code_and_tables(tmp_path: Path):
    noise = "# Title\n\n| a | b |\n\n```\nprint('No. Really.')\n```\n\n- An item. Not one.\n\n"
    (tmp_path / "one.md").write_text(noise + PROSE)
    (tmp_path / "two.txt").write_text(PROSE.replace("garden", "harbour"))
    cases = load(str(tmp_path), "prose").cases
    assert {case.kind for case in cases} == {"sentence", "summary", "question"}
    for case in cases:
        assert case.task == "prose"
        assert case.after.below is None
        assert not any(word in case.after.text for word in ("print", "Title", "item"))
        assert case.target.endswith(".")
        assert len(changed(case)) == 1
    by_kind = {case.kind: case for case in cases}
    assert by_kind["summary"].target == "A short paragraph stands here."
    assert by_kind["summary"].target not in by_kind["summary"].after.text
    assert by_kind["question"].after.text.endswith("Answer:\n")
    asked = by_kind["question"].after.text.split('"')[1]
    assert f"{asked}\n{by_kind['question'].target}\n" in by_kind["question"].after.text


def test_of_a_long_document_the_beginning_is_taken(tmp_path: Path):
    (tmp_path / "one.txt").write_text(PROSE)
    cases = load(str(tmp_path), "prose", context_tokens=900).cases
    assert cases
    for case in cases:
        assert len(case.after.text) < 3 * 900
        assert case.after.text[:20] in PROSE.replace(". ", ".\n")[:200]


# History


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of twelve commits of one file: the first makes it, one changes a comment."""
    folder = tmp_path_factory.mktemp("repos") / "shapes"
    folder.mkdir()
    git(folder, "init", "-q")
    text = FILE
    for number in range(12):
        (folder / "shape.py").write_text(text)
        (folder / "binary.py").write_bytes(bytes([number, 255]))
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", f"commit {number}")
        if number == 5:
            text = text.replace("def shape_0", "# a comment\ndef shape_0")
        else:
            text = text.replace(f"height + {20 + number}\n", f"height - {number}\n")
    return folder


def test_history_gives_one_case_a_commit_of_code(repository: Path):
    loaded = load(str(repository.parent), "real")
    assert len(loaded.cases) == 10  # 11 changes, one of them of a comment
    for case in loaded.cases:
        assert case.path == "shape.py"
        assert case.kind == "replace"
        assert changed(case) == [(1, 1)]
        assert len(case.target.strip()) >= 8
        version = case.after.above + case.target + "\n" + (case.after.below or "")
        assert version == _version(repository, case.id)
    bands = {min(3, 1 + (case.distance > 3) + (case.distance > 40)) for case in loaded.cases}
    assert bands == {1, 2, 3}
    assert load(str(repository), "real").cases == loaded.cases


def _version(repository: Path, case_id: str) -> str:
    commit = case_id.rpartition("-")[2]
    done = subprocess.run(
        ["git", "-C", str(repository), "show", f"{commit}:shape.py"],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_history_gives_sessions_of_successive_versions(repository: Path):
    (session,) = load(str(repository), "session").sessions
    assert session.path == "shape.py"
    assert len(session.versions) == 12
    assert session.versions[0] == FILE
    assert all(a != b for a, b in zip(session.versions, session.versions[1:], strict=False))


def test_what_is_no_repository_though_it_looks_like_one_is_an_error(tmp_path: Path):
    (tmp_path / ".git").write_text("gitdir: /nowhere")
    with pytest.raises(InputError, match="git cannot read"):
        load(str(tmp_path), "real")


def test_without_git_its_absence_is_named(repository: Path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="needs git"):
        load(str(repository), "real")


# The open half of the real edits


@pytest.mark.shared
def test_the_shared_edits_are_read_whole():
    folder = Path(__file__).parents[3] / "shared" / "data" / "edits"
    if not folder.is_dir():
        pytest.skip(f"needs the real edits, which are not at {folder}")
    loaded = load(str(folder), "real", strict=True)
    assert len(loaded.cases) == 320
    assert {case.language for case in loaded.cases} == {"python", "java", "typescript", "go"}
    assert len(load(str(folder), "session", strict=True).sessions) == 12
