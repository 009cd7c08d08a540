"""Trees: what of a folder is somebody's own source text; git is asked about the ignored."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pie_cli.watching import tree as trees
from pie_cli.watching.ignoring import IgnoreRules
from pie_cli.watching.tree import SourceTree


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "project"


def grow(root: Path, *names: str) -> None:
    """Make files with their folders; a name that ends with a slash is a folder."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(f"{name}\n")


def held(tree: SourceTree) -> set[str]:
    """Walk the tree as a watch does."""
    return {
        entry.relative_to(tree.real).as_posix()
        for folder in tree.folders(tree.real)
        for entry in folder.iterdir()
        if entry.is_file() and tree.holds(entry)
    }


def git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@e", *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment
    ).stdout


def test_source_counts_and_what_is_data_hidden_vendored_or_generated_does_not(root: Path) -> None:
    source = ["a.py", "lib/b.RS", "lib/deep/c.tsx", "Makefile", "docker/Dockerfile"]
    other = """data.json notes.md image.png lib/x.py~ lib/x.py.tmp lib/#x.py# .hidden.py .venv/d.py
        node_modules/e/f.js lib/node_modules/g.js __pycache__/h.py build/i.py dist/j.py vendor/k.go
        third_party/l.c venv/m.py lib/site-packages/n.py p.egg-info/o.py lib/q.min.js""".split()
    grow(root, *source, *other)
    tree = SourceTree(root)
    assert held(tree) == set(source)
    assert {name for name in source + other if tree.covers(root / name)} == set(source)


def test_links_are_left_alone_but_the_tree_may_be_one(root: Path) -> None:
    grow(root, "src/a.py")
    (root / "src" / "round").symlink_to("..")
    (root / "src" / "b.py").symlink_to("a.py")
    link = root.parent / "link"
    link.symlink_to(root)
    tree = SourceTree(link)
    assert held(tree) == {"src/a.py"}
    assert tree.given(root / "src" / "a.py") == link / "src" / "a.py"


def test_the_nearest_folders_come_first_and_what_cannot_be_read_has_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(root, "a/b/c/x.py", "d/e/y.py", "locked/f/z.py")
    scandir = os.scandir

    def refusing(folder: Path) -> object:
        if folder.name == "locked":
            raise PermissionError
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    tree = SourceTree(root)
    walked = [folder.relative_to(root).as_posix() for folder in tree.folders(root)]
    assert walked == [".", "a", "d", "locked", "a/b", "d/e", "a/b/c"]


def test_the_newest_file_is_the_one_saved_last_of_those_that_count(root: Path) -> None:
    names = ["a.py", "lib/b.py", "build/c.py", "d.md"]
    grow(root, *names)
    for age, name in enumerate(names):
        os.utime(root / name, (1_000 + age, 1_000 + age))
    tree = SourceTree(root)
    assert list(tree.newest()) == [root / "lib/b.py", root / "a.py"]
    assert tree.saved_since(1_001, [root, root / "lib"]) == [root / "lib/b.py"]


def test_looking_for_the_newest_file_is_bounded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow(root, *(f"d{n}/x.py" for n in range(9)))
    looked_into: list[Path] = []
    entries = trees._entries

    def counting(folder: Path) -> object:
        looked_into.append(folder)
        return entries(folder)

    monkeypatch.setattr(trees, "_entries", counting)
    monkeypatch.setattr(trees, "MAX_FOLDERS", 4)
    assert len(list(SourceTree(root).newest())) == 3
    assert len(set(looked_into)) <= 4
    monkeypatch.setattr(trees, "_MAX_FILES", 2)
    assert len(list(SourceTree(root).newest())) == 2


# --- ignore rules --------------------------------------------------------------------------------


def ignore_at_the_top(root: Path) -> None:
    (root / ".gitignore").write_text(
        "# mine\n*.gen.py\n!keep.gen.py\n/top.py\nout/\n\n! \nsub/*.c\n"
    )


def ignore_nested(root: Path) -> None:
    (root / ".gitignore").write_text("*.py\n")
    (root / "lib" / ".gitignore").write_text("!b.py\n/deep/\n")


def ignore_in_the_repository(root: Path) -> None:
    (root / ".git" / "info" / "exclude").write_text("b.py\ntop.py\n")
    (root / ".gitignore").write_text("!top.py\n")


def ignore_all_but(root: Path) -> None:
    (root / ".gitignore").write_text("/*\n!/lib/\n/lib/*\n!/lib/deep/\n\\#x.py\nlib/**/e.py\n")


@pytest.mark.parametrize(
    "ignore", [ignore_at_the_top, ignore_nested, ignore_in_the_repository, ignore_all_but]
)
def test_what_git_ignores_does_not_count(root: Path, ignore: Callable[[Path], None]) -> None:
    """git itself says what is ignored; the same files count, and only some of all."""
    names = """a.py top.py lib/top.py x.gen.py keep.gen.py lib/b.py lib/b.gen.py lib/deep/c.py
        lib/deep/e.py lib/deep/er/e.py out/d.py sub/x.c sub/y.py lib/out.py""".split()
    grow(root, *names)
    git(root, "init", "-q")
    ignore(root)
    shown = git(root, "ls-files", "--others", "--exclude-standard").split()
    assert held(SourceTree(root)) == {name for name in shown if not name.endswith(".gitignore")}
    assert 0 < len(held(SourceTree(root))) < len(names)


def test_rules_of_the_repository_around_hold_inside_and_in_worktrees(root: Path) -> None:
    grow(root, "src/a.py", "src/b_gen.py", "src/c.py")
    git(root, "init", "-q")
    git(root, "add", "src/a.py", "src/b_gen.py", "src/c.py")
    git(root, "commit", "-qm", "m")
    (root / ".gitignore").write_text("*_gen.py\n")
    (root / ".git" / "info" / "exclude").write_text("c.py\n")
    assert held(SourceTree(root / "src")) == {"a.py"}
    git(root, "worktree", "add", "-q", "../other")
    assert held(SourceTree(root.parent / "other")) == {"src/a.py", "src/b_gen.py"}


def test_who_names_an_ignored_folder_means_it(root: Path) -> None:
    grow(root, "out/build/a.py", "out/b.gen.py")
    git(root, "init", "-q")
    (root / ".gitignore").write_text("out/\n*.gen.py\n")
    assert held(SourceTree(root)) == set()
    assert held(SourceTree(root / "out")) == {"b.gen.py"}
    assert held(SourceTree(root / "out" / "build")) == {"a.py"}


def test_rules_that_change_are_read_again(root: Path) -> None:
    grow(root, "a.py")
    rules = IgnoreRules(root)
    assert not rules.ignores(root / "a.py", is_folder=False)
    (root / ".gitignore").write_bytes(b"a.py\n\xff[\n!\n")
    assert not rules.ignores(root / "a.py", is_folder=False), "read once"
    assert rules.reread(root)
    assert rules.ignores(root / "a.py", is_folder=False)
    assert not rules.reread(root)


@pytest.mark.parametrize("name", [".gitignore", "src/.gitignore", ".git/info/exclude"])
def test_a_pipe_in_the_place_of_ignore_rules_has_none(root: Path, name: str):
    grow(root, "src/a.py", ".git/info/")
    os.mkfifo(root / name)
    assert held(SourceTree(root)) == {"src/a.py"}
