"""Context keeps its place and its budget; sizes of memory and paths mean what people mean."""

import os
from pathlib import Path

import pytest

from pie_cli.cli.targets import find_targets
from pie_cli.errors import InputError
from pie_cli.workspace.context import Context
from pie_cli.workspace.memory import parse_size, share_of_free
from tests.workspace.played import documents_with

A, B, C, D, N = (Path(f"{name}.py") for name in "abcdn")
TEXT = "x" * 300


class Files(Context):
    """Context, and documents that change."""

    def __init__(self, budget_tokens: int = 1_000, *, keeps_changed: bool = True) -> None:
        self.documents = documents_with(n="named")
        super().__init__(
            self.documents,
            [N],
            keeps_changed=keeps_changed,
            budget_tokens=budget_tokens,
            show=str,
        )

    def saved(self, path: Path, text: str) -> None:
        if self.documents.change(path, text):
            self.changed(path)

    def gone(self, path: Path) -> None:
        self.documents.fail(path, InputError("it is gone"))
        self.lost(path)


def before(context: Files, path: Path) -> list[str]:
    return [file.path for file in context.before(path)]


def test_a_file_keeps_its_place_and_new_ones_come_last() -> None:
    files = Files()
    for path in (A, B, A, C, B):
        files.saved(path, TEXT)
    assert before(files, C) == ["n.py", "a.py", "b.py"]
    assert before(files, A) == ["n.py", "b.py", "c.py"]
    assert before(files, N) == ["a.py", "b.py", "c.py"]


def test_texts_are_those_saved_last_and_lost_files_are_left_out() -> None:
    files = Files()
    files.saved(A, "old")
    files.saved(A, "new")
    files.saved(N, "newer")
    assert [file.text for file in files.before(B)] == ["newer", "new"]
    files.gone(A)
    files.gone(N)
    files.gone(D)
    assert files.before(B) == ()
    files.saved(A, "back")
    files.saved(N, "back")
    assert before(files, B) == ["n.py", "a.py"]


def test_beyond_the_budget_those_saved_longest_ago_go_several_at_once() -> None:
    files = Files(budget_tokens=350)
    for path in (A, B, C):
        files.saved(path, TEXT)
    files.saved(A, TEXT.upper())
    assert before(files, D) == ["n.py", "a.py", "b.py", "c.py"]
    files.saved(D, TEXT)
    assert before(files, D) == ["n.py", "a.py", "b.py", "c.py"], "as many as the budget holds"
    files.saved(Path("e.py"), TEXT)
    assert before(files, Path("e.py")) == ["n.py", "a.py", "d.py"]


def test_a_file_larger_than_the_budget_never_stands_before_another() -> None:
    files = Files(budget_tokens=150)
    files.saved(A, TEXT)
    files.saved(B, 2 * TEXT)
    files.saved(C, TEXT)
    assert before(files, C) == ["n.py", "a.py"]


def test_with_one_file_only_what_the_user_named_is_context() -> None:
    files = Files(keeps_changed=False)
    files.saved(A, TEXT)
    assert before(files, B) == ["n.py"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("512 mb", 512 * 10**6), ("1.5GiB", 3 << 29), ("4K", 4096)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "2", "GB", "-1GB", "0MB", "2 apples", "1e9", "9" * 400 + "GB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no size of memory"):
        parse_size(text)


def test_the_default_is_a_part_of_what_is_free() -> None:
    assert 0 < share_of_free("cpu") < 1 << 44


# --- what the paths mean -------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("src/a.py", "src/sub/b.py", "other/c.py", "src/build/d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_file_and_folder_counts_once_as_it_was_named_first(root: Path) -> None:
    paths = ["src/a.py", "src", "./src/../src/a.py", str(root / "src"), "other/c.py"]
    targets = find_targets([Path(path) for path in paths], [])
    assert targets.files == (Path("src/a.py"), Path("other/c.py"))
    assert [tree.path for tree in targets.trees] == [Path("src")]
    assert targets.several
    assert targets.first() == (Path("src/a.py"), "src/a.py\n")


def test_context_that_is_watched_anyway_goes_by_that_path(root: Path) -> None:
    context = [root / "other/c.py", root / "src/sub/b.py", Path("src/build/d.py")]
    targets = find_targets([Path("src"), Path("other/c.py")], context)
    assert targets.context == (Path("other/c.py"), Path("src/sub/b.py"), Path("src/build/d.py"))
    assert targets.only_context == (Path("src/build/d.py"),), "a build folder's file is no source"
    assert targets.texts()[Path("src/sub/b.py")] == "src/sub/b.py\n"


def test_of_a_folder_the_first_readable_file_of_the_newest_is_chosen(root: Path) -> None:
    (root / "src/new.py").write_bytes(b"\x00")
    first = find_targets([Path("src")], []).first()
    assert first is not None
    assert first[0] in {Path("src/a.py"), Path("src/sub/b.py")}
    (root / "empty").mkdir()
    assert find_targets([Path("empty")], []).first() is None


@pytest.mark.parametrize("bad", ["none/a.py", "pipe", "binary.py", "loop", "x" * 300])
def test_bad_paths_are_refused_as_files_and_as_context(root: Path, bad: str) -> None:
    os.mkfifo(root / "pipe")
    (root / "binary.py").write_bytes(b"\x00")
    (root / "loop").symlink_to("loop")
    for paths, context in (([bad], []), (["src"], [bad])):
        with pytest.raises(InputError, match=bad):
            find_targets([Path(path) for path in paths], [Path(path) for path in context])


def test_a_file_to_watch_need_not_be_there_yet_but_context_must(root: Path) -> None:
    targets = find_targets([Path("new.py"), Path("src")], [])
    assert targets.awaited == (Path("new.py"),)
    assert targets.texts() == {}
    first = targets.first()
    assert first is not None
    assert first[0].is_relative_to("src")
    with pytest.raises(InputError, match="there is no file"):
        find_targets([Path("src")], [Path("new.py")])
    (root / "new.py").write_text("x = 1\n")
    assert targets.first() == (Path("new.py"), "x = 1\n")
    assert targets.texts() == {Path("new.py"): "x = 1\n"}


def test_a_folder_is_no_context(root: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        find_targets([Path("src")], [Path("other")])
