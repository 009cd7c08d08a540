"""Random edits of real files: pie's reading of a patch beside `git apply` and `git apply -R`."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

import pie_cli
from pie_cli.errors import PatchError
from pie_cli.text.edit import Edit, split_lines
from pie_cli.text.reading import Reading
from pie_cli.watching.patched import find_edit

EDITS = 300
"""Random edits that are tried; 10,000 and more were, before this was set."""

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

SOURCES = sorted(Path(pie_cli.__file__).parent.rglob("*.py"))


def git(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes]:
    done = subprocess.run(["git", *arguments], input=stdin, capture_output=True, check=False)
    return done.returncode, done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.chdir(tmp_path)
    git("init", "-q", ".")
    return tmp_path


def some_lines(rng: random.Random) -> list[str]:
    """Cut a piece out of a real file, or repeat a small one."""
    lines = split_lines(rng.choice(SOURCES).read_text(encoding="utf-8"))
    start = rng.randrange(max(1, len(lines)))
    lines = lines[start : start + rng.choice((0, 1, 3, 6, 20, 60, 200))]
    if rng.random() < 0.35:
        lines = lines[: rng.choice((1, 2, 4, 8))] * rng.randint(2, 5)
        lines += lines[: rng.choice((0, 2))]
    return lines


def edited(rng: random.Random, lines: list[str]) -> list[str]:
    """Insert, delete, replace, copy or double some lines, often at an end."""
    lines = list(lines)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.choice((0, len(lines), rng.randint(0, len(lines)), rng.randint(0, len(lines))))
        size = rng.choice((1, 1, 1, 2, 3, 8))
        here = lines[at : at + size]
        source = rng.randint(0, len(lines))
        lines[at : at + size] = rng.choice(
            (
                [],
                [f"x = {rng.randrange(9)}\n" for _ in here],
                [*here, *here],
                [*(f"new{rng.randrange(3)}\n" for _ in range(size)), *here],
                [*lines[source : source + size], *here],
                [*lines[max(0, at - size) : at], *here],
                ["\n", *here],
            )
        )
    return lines


def text_of(rng: random.Random, lines: list[str]) -> str:
    text = "".join(lines)
    return text if rng.random() < 0.85 else text.removesuffix("\n")


def by_git(tree: str, patch: bytes, *options: str) -> str | None:
    """Return what `git apply` makes of a text; None where it refuses."""
    path = Path("m.py")
    path.write_bytes(tree.encode())
    refused, _ = git("apply", *options, "-", stdin=patch)
    text = path.read_bytes().decode() if path.exists() else ""
    path.write_bytes(tree.encode())
    return None if refused else text


def read(patch: bytes) -> Reading | None:
    """Return what pie makes of it."""
    try:
        return find_edit(None, patch).reading
    except PatchError:
        return None


@pytest.mark.parametrize("part", range(3))
def test_random_edits_are_read_as_git_reads_them(repository: Path, part: int) -> None:
    rng = random.Random(part)
    tried = agreed = refused = 0
    while tried < EDITS // 3:
        lines = some_lines(rng)
        old, new = text_of(rng, lines), text_of(rng, edited(rng, lines))
        if old == new or not new:
            continue
        tried += 1
        side, tree = rng.choice((("not applied", old), ("applied", new)))
        drifts = rng.random() < 0.35
        if drifts:
            tree = text_of(rng, edited(rng, split_lines(tree)))
        if rng.random() < 0.1:
            old, new, tree = (text.replace("\n", "\r\n") for text in (old, new, tree))
        Path("m.py").write_bytes(old.encode())
        git("add", "m.py")
        Path("m.py").write_bytes(new.encode())
        _, patch = git("diff", "--text", *rng.choice(((), (), ("-U1",), ("-U5",), ("--patience",))))
        has_ids = rng.random() < 0.5
        if not has_ids:
            kept = [line for line in patch.splitlines(True) if not line.startswith(b"index ")]
            patch = b"".join(kept)
        expected = {
            "not applied": by_git(tree, patch),
            "applied": by_git(tree, patch, "--reverse"),
        }
        found = read(patch)
        if found is None:
            assert set(expected.values()) == {None}, (tree, patch)
            refused += 1
            continue
        edit, understood, is_open = found.edit, found.side, found.is_open
        assert tree == (edit.before if understood == "not applied" else edit.after)
        other = edit.after if understood == "not applied" else edit.before
        assert other == expected[understood], (tree, patch, understood)
        assert_hunks_are_whole(edit)
        if not drifts and expected[side] is not None and not is_open:
            assert understood == side, (tree, patch)
        assert not (is_open and has_ids and not drifts), (tree, patch)
        agreed += 1
    assert agreed > tried / 2
    assert refused > tried / 50


def assert_hunks_are_whole(edit: Edit) -> None:
    """Check that outside of the hunks both texts have the same lines."""
    before, after = split_lines(edit.before), split_lines(edit.after)
    at = new_at = 0
    for hunk in edit.hunks:
        assert before[at : hunk.old_start] == after[new_at : hunk.new_start]
        at, new_at = hunk.old_stop, hunk.new_stop
    assert before[at:] == after[new_at:]
