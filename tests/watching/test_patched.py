"""Patches as git makes them, in every form, on trees that hold them or not: read as git would."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pie_cli.errors import InputError, PatchError, PieError
from pie_cli.text.applying import PatchDoesNotApply
from pie_cli.watching.files import NotText
from pie_cli.watching.patched import PatchedFile, find_edit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

BODY = """\
def a(x):
    y = x + 1
    return y


def b(x):
    z = x * 2
    return z
"""
CHANGED = BODY.replace("x * 2", "x * 3")
LATIN = b"/* caf\xe9 */\nint a;\n"


class Repository:
    """A git repository in the working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", "-b", "main", "--template=", ".")

    def git(self, *arguments: str, check: bool = True) -> bytes:
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, capture_output=True, check=False
        )
        assert done.returncode == 0 or not check, done.stderr.decode()
        return done.stdout

    def write(self, **files: str | bytes) -> None:
        """Write files; `__` in a name is for a full stop."""
        for name, content in files.items():
            path = self.folder / name.replace("__", ".").replace("ƒ", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, message: str = "one") -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)

    def read(self, name: str = "m.py") -> str:
        return (self.folder / name).read_bytes().decode()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with m.py committed, without anybody's settings of git."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "x")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "x@example.invalid")
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path / "tree")
    made = Repository(tmp_path / "tree")
    made.write(m__py=BODY)
    made.commit()
    return made


def side(found: PatchedFile) -> str:
    return "open" if found.reading.is_open else found.reading.side


def check(found: PatchedFile, before: str, after: str, understood: str, name: str = "m.py") -> None:
    assert (found.reading.edit.before, found.reading.edit.after) == (before, after)
    assert side(found) == understood
    assert found.path.resolve() == Path(name).resolve()
    assert found.reading.edit.hunks


def on_both_sides(
    repository: Repository, before: str, after: str, *options: str, name: str = "m.py"
) -> None:
    """Check that a diff by git is read rightly on the text before it and on the one after."""
    key = name.replace(".", "__")
    repository.write(**{key: before})
    repository.commit("before")
    repository.write(**{key: after})
    patch = repository.git("diff", *options)
    check(find_edit(None, patch), before, after, "applied", name)
    repository.write(**{key: before})
    check(find_edit(None, patch), before, after, "not applied", name)


BLOCK = (
    "def test():\n    s = Server()\n    s.start()\n    s.ping()\n    s.stop()\n    assert s\n\n\n"
)
RECORD = '  {\n    "name": "a",\n    "size": 1,\n    "kind": "x",\n    "last": true\n  },\n'

REPETITIVE = {
    "appended": (BODY, BODY + "\n\ndef c(x):\n    return x\n"),
    "prepended": ("import sys\n\n\n" + BODY, "import os\nimport sys\n\n\n" + BODY),
    "first of equal blocks edited": (
        "import x\n\n\n" + BLOCK * 3,
        "import x\n\n\n" + BLOCK.replace("ping()", "ping(3)") + BLOCK * 2,
    ),
    "middle one of equal records edited": (
        "[\n" + RECORD * 5 + "]\n",
        "[\n" + RECORD * 2 + RECORD.replace("1", "2") + RECORD * 2 + "]\n",
    ),
    "one more of equal lines": ("a\n" * 12 + "b\n", "a\n" * 13 + "b\n"),
    "one less of equal lines": ("a\n" * 12 + "b\n", "a\n" * 11 + "b\n"),
    "an equal block removed": ("import x\n\n\n" + BLOCK * 4, "import x\n\n\n" + BLOCK * 3),
    "a block pasted again": ("import x\n\n\n" + BLOCK * 3, "import x\n\n\n" + BLOCK * 4),
    "final newline gone": (BODY, BODY[:-1]),
    "final newline comes": (BODY[:-1], BODY),
    "emptied": (BODY, ""),
    "filled": ("", BODY),
}


@pytest.mark.parametrize("case", REPETITIVE)
@pytest.mark.parametrize("options", [(), ("-U1",), ("-U0",)], ids=" ".join)
def test_a_diff_is_never_made_twice(
    repository: Repository, case: str, options: tuple[str, ...]
) -> None:
    on_both_sides(repository, *REPETITIVE[case], *options)


@pytest.mark.parametrize("case", REPETITIVE)
def test_where_nothing_decides_the_reading_is_open(repository: Repository, case: str) -> None:
    """Without git's names for the contents two sides may fit alike; then the user decides."""
    before, after = REPETITIVE[case]
    repository.write(m__py=before)
    repository.commit("before")
    repository.write(m__py=after)
    lines = repository.git("diff").splitlines(keepends=True)
    patch = b"".join(line for line in lines if not line.startswith(b"index "))
    for text, right in ((after, "applied"), (before, "not applied")):
        repository.write(m__py=text)
        found = find_edit(None, patch)
        assert side(found) in (right, "open")
        for asked in ("applied", "not applied"):
            if asked == right:
                told = find_edit(None, patch, asked)
                assert (told.reading.edit.before, told.reading.edit.after) == (before, after)


def test_a_file_that_grew_at_its_end_since_holds_no_place_for_what_was_appended(
    repository: Repository,
) -> None:
    repository.write(m__py=BODY + "\n\ndef c(x):\n    return x\n")
    patch = repository.git("diff")
    repository.write(m__py=repository.read() + "\n\ndef d(x):\n    return x\n")
    with pytest.raises(PatchDoesNotApply, match="not at its end"):
        find_edit(None, patch)
    repository.write(m__py="#!/bin/sh\n" + BODY.replace("def a", "import os\ndef a"))
    patch = repository.git("diff")
    repository.write(m__py="# new\n" + BODY)
    with pytest.raises(PatchDoesNotApply):
        find_edit(None, patch)


def test_the_other_files_of_a_patch_tell_the_side_of_one_that_fits_both_ways(
    repository: Repository,
) -> None:
    """As for git, which refuses a patch that one of its files refuses."""
    before, after = REPETITIVE["an equal block removed"]
    repository.write(m__py=before, a__py=BODY)
    repository.commit()
    repository.write(m__py=after, a__py=CHANGED)
    lines = repository.git("diff").splitlines(keepends=True)
    patch = b"".join(line for line in lines if not line.startswith(b"index "))
    check(find_edit(None, patch), before, after, "applied")
    repository.write(m__py=before, a__py=BODY)
    check(find_edit(None, patch), before, after, "not applied")


def crlf(text: str) -> str:
    return text.replace("\n", "\r\n")


@pytest.mark.parametrize("how", ["eol=crlf", "text", "text=auto", "autocrlf"])
@pytest.mark.parametrize("drift", ["", "# a line that came since\n"])
def test_a_crlf_checkout_has_patches_with_lf(repository: Repository, how: str, drift: str) -> None:
    if how == "autocrlf":
        repository.git("config", "core.autocrlf", "true")
    else:
        repository.write(__gitattributes=f"*.py text {how}\n")
    repository.git("config", "core.safecrlf", "false")
    repository.write(m__py=crlf(BODY))
    repository.commit()
    repository.write(m__py=crlf(CHANGED))
    patch = repository.git("diff")
    assert b"\r" not in patch
    before, after = crlf(drift + BODY), crlf(drift + CHANGED)
    repository.write(m__py=after)
    check(find_edit(None, patch), before, after, "applied")
    repository.write(m__py=before)
    check(find_edit(None, patch), before, after, "not applied")


def test_a_file_with_both_line_ends_keeps_them(repository: Repository) -> None:
    repository.write(__gitattributes="*.py eol=crlf\n", m__py=crlf(BODY))
    repository.git("config", "core.safecrlf", "false")
    repository.commit()
    mixed = crlf(CHANGED).replace("def b(x):\r\n", "def b(x):\n")
    repository.write(m__py=mixed)
    found = find_edit(None, repository.git("diff"))
    assert found.reading.edit.after == mixed
    assert found.reading.edit.before == mixed.replace("x * 3", "x * 2")
    assert len(found.reading.edit.hunks) == 1


def test_new_and_renamed_files_of_a_crlf_checkout(repository: Repository) -> None:
    repository.write(__gitattributes="*.py eol=crlf\n", m__py=crlf(BODY))
    repository.git("config", "core.safecrlf", "false")
    repository.commit()
    repository.write(new__py=crlf(CHANGED))
    repository.git("add", "-N", "new.py")
    patch = repository.git("diff")
    check(find_edit(None, patch), "", crlf(CHANGED), "applied", "new.py")
    repository.git("rm", "-qf", "new.py")
    check(find_edit(None, patch), "", crlf(CHANGED), "not applied", "new.py")
    repository.git("mv", "m.py", "n.py")
    repository.write(n__py=crlf(CHANGED))
    patch = repository.git("diff", "-M", "HEAD")
    check(find_edit(None, patch), crlf(BODY), crlf(CHANGED), "applied", "n.py")
    repository.git("mv", "n.py", "m.py")
    repository.write(m__py=crlf(BODY))
    check(find_edit(None, patch), crlf(BODY), crlf(CHANGED), "not applied", "m.py")


def test_line_ends_count_where_git_converts_none(repository: Repository) -> None:
    repository.write(m__py=CHANGED)
    patch = repository.git("diff")
    repository.write(m__py=crlf(CHANGED).replace("def a", "def aa"))
    with pytest.raises(PatchDoesNotApply, match="only the line ends differ"):
        find_edit(None, patch)


def test_a_patch_that_lost_its_carriage_returns_is_refused(repository: Repository) -> None:
    """git refuses it, though its names for the contents are right."""
    repository.write(m__py=crlf(BODY))
    repository.commit()
    repository.write(m__py=crlf(CHANGED))
    with pytest.raises(PatchDoesNotApply, match="only the line ends differ"):
        find_edit(None, repository.git("diff").replace(b"\r", b""))


def test_a_patch_that_is_crlf_throughout(repository: Repository) -> None:
    """Of a CRLF file by a plain diff on Windows, or converted on its way."""
    repository.write(m__py=CHANGED)
    patch = repository.git("diff").replace(b"\n", b"\r\n")
    check(find_edit(None, patch), BODY, CHANGED, "applied")
    repository.write(m__py=crlf(BODY))
    check(find_edit(None, patch), crlf(BODY), crlf(CHANGED), "not applied")


def test_a_file_in_another_encoding_leaves_the_others_readable(repository: Repository) -> None:
    repository.write(a__c=LATIN, z__c=LATIN)
    repository.commit()
    repository.write(a__c=LATIN + b"\xe9\n", z__c=LATIN + b"\xe9\n", m__py=CHANGED)
    patch = repository.git("diff")
    for file in (None, Path("m.py")):
        check(find_edit(file, patch), BODY, CHANGED, "applied")
    with pytest.raises(PieError):
        find_edit(Path("z.c"), patch)
    # Nothing of the hunk is in another encoding, but the file is.
    repository.write(z__c=LATIN + b"int b;\n" * 9)
    repository.commit()
    repository.write(z__c=LATIN + b"int b;\n" * 10, m__py=BODY)
    patch = repository.git("diff")
    check(find_edit(None, patch), CHANGED, BODY, "applied")
    repository.write(m__py=CHANGED)
    with pytest.raises(NotText):
        find_edit(None, repository.git("diff"))


def test_nobodys_name_in_a_mail_matters(repository: Repository) -> None:
    repository.write(m__py=CHANGED)
    repository.commit("two")
    mail = repository.git("format-patch", "-1", "--stdout")
    check(find_edit(None, mail.replace(b"From: x", b"From: Ren\xe9")), BODY, CHANGED, "applied")


SERIES: dict[str, Callable[[Repository], bytes]] = {
    "format-patch": lambda made: made.git("format-patch", "-3", "--stdout"),
    "log": lambda made: made.git("log", "-p", "-3"),
    "log, oldest first": lambda made: made.git("log", "-p", "-3", "--reverse"),
    "log, one line": lambda made: made.git("log", "-p", "-3", "--oneline"),
    "log, no names": lambda made: made.git("log", "-p", "-3", "--format=%n"),
    "diffs": lambda made: b"".join(
        made.git("diff", f"HEAD~{n}", f"HEAD~{n - 1}") for n in (3, 2, 1)
    ),
}


@pytest.mark.parametrize("form", SERIES)
@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("file", [None, Path("m.py")])
def test_a_series_is_one_edit(
    repository: Repository, form: str, with_ids: bool, file: Path | None
) -> None:
    third = CHANGED.replace("x * 3", "x * 4")
    last = third.replace("x + 1", "x - 1")
    for number, text in enumerate((CHANGED, third, last)):
        repository.write(m__py=text, a__py=f"a = {number}\n")
        repository.commit(f"commit {number}")
    patch = SERIES[form](repository)
    if not with_ids:
        lines = patch.splitlines(keepends=True)
        patch = b"".join(line for line in lines if not line.startswith(b"index "))
    check(find_edit(file, patch), BODY, last, "applied")
    # The second and the third commit changed the same line, one of them twice.
    assert [h.old_start for h in find_edit(file, patch).reading.edit.hunks] == [1, 6]
    repository.git("reset", "-q", "--hard", "HEAD~3")
    check(find_edit(file, patch), BODY, last, "not applied")
    repository.write(m__py=CHANGED)
    with pytest.raises(PatchDoesNotApply):
        find_edit(Path("m.py"), patch)


def test_a_series_follows_a_file_through_renames(repository: Repository) -> None:
    repository.git("mv", "m.py", "n.py")
    repository.write(n__py=CHANGED)
    repository.commit("two")
    third = CHANGED.replace("x + 1", "x - 1")
    repository.write(n__py=third)
    repository.commit("three")
    repository.git("mv", "n.py", "o.py")
    repository.commit("four")
    for patch in (
        repository.git("format-patch", "-3", "--stdout"),
        repository.git("log", "-p", "-M", "-3"),
    ):
        check(find_edit(None, patch), BODY, third, "applied", "o.py")
        check(find_edit(Path("m.py"), patch), BODY, third, "applied", "o.py")
    repository.git("reset", "-q", "--hard", "HEAD~3")
    check(find_edit(None, patch), BODY, third, "not applied", "m.py")


def test_two_files_that_change_names(repository: Repository) -> None:
    before = "".join(f"x = {number}\n" for number in range(99))
    after = before.replace("x = 5\n", "x = 555\n")
    repository.write(m__py=before, n__py=crlf(before[::-1]))
    repository.commit()
    for old, new in (("m.py", "o"), ("n.py", "m.py"), ("o", "n.py")):
        (repository.folder / old).rename(repository.folder / new)
    repository.write(n__py=after)
    repository.git("add", "-A")
    patch = repository.git("diff", "-M", "-B", "HEAD")
    assert patch.count(b"rename from") == 2
    check(find_edit(None, patch), before, after, "applied", "n.py")


def test_parts_undone_by_each_other_are_no_edit(repository: Repository) -> None:
    repository.write(m__py=CHANGED)
    repository.commit()
    repository.write(m__py=BODY)
    repository.commit()
    with pytest.raises(PatchError, match="as it is"):
        find_edit(None, repository.git("format-patch", "-2", "--stdout"))


def _link(repository: Repository) -> None:
    (repository.folder / "z").symlink_to("a")
    repository.git("add", "-A")
    repository.git("commit", "-qm", "link")
    (repository.folder / "z").unlink()
    (repository.folder / "z").symlink_to("b")


def _becomes_link(repository: Repository) -> None:
    repository.write(z__py=BODY)
    repository.commit()
    (repository.folder / "z.py").unlink()
    (repository.folder / "z.py").symlink_to("m.py")


def _new_link(repository: Repository) -> None:
    (repository.folder / "z").symlink_to("m.py")


def _submodule(repository: Repository) -> None:
    head = repository.git("rev-parse", "HEAD").decode().strip()
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{head},z")
    repository.git("commit", "-qm", "submodule")
    repository.git("update-index", "--cacheinfo", f"160000,{head[::-1]},z")


def _mode(repository: Repository) -> None:
    repository.write(z__py=BODY)
    repository.commit()
    (repository.folder / "z.py").chmod(0o755)


def _binary(repository: Repository) -> None:
    repository.write(z=b"\0\1")
    repository.commit()
    repository.write(z=b"\0\2" * 99)


def _deleted(repository: Repository) -> None:
    repository.write(z__py=BODY)
    repository.commit()
    (repository.folder / "z.py").unlink()


def _latin(repository: Repository) -> None:
    repository.write(z__c=LATIN)
    repository.commit()
    repository.write(z__c=LATIN + b"\xe9\n")


def _empty(repository: Repository) -> None:
    repository.write(z__py="")


def test_a_link_that_becomes_a_file(repository: Repository) -> None:
    (repository.folder / "z.py").symlink_to("m.py")
    repository.commit()
    (repository.folder / "z.py").unlink()
    repository.write(z__py=CHANGED)
    patch = repository.git("diff")
    check(find_edit(None, patch), "", CHANGED, "applied", "z.py")
    repository.git("checkout", "-q", "z.py")
    found = find_edit(None, patch)
    assert (found.reading.edit.before, found.reading.edit.after) == ("", CHANGED)


NO_TEXT = (_link, _becomes_link, _new_link, _submodule, _mode, _binary, _deleted, _latin, _empty)


@pytest.mark.parametrize("make", NO_TEXT)
@pytest.mark.parametrize("options", [(), ("--binary",), ("--submodule=log",)], ids=" ".join)
def test_what_is_no_text_is_passed_over(
    repository: Repository, make: Callable[[Repository], None], options: tuple[str, ...]
) -> None:
    make(repository)
    repository.write(m__py=CHANGED)
    if make is not _submodule:
        repository.git("add", "-A")
    patch = repository.git("diff", *options, "HEAD")
    check(find_edit(None, patch), BODY, CHANGED, "applied")
    check(find_edit(Path("m.py"), patch), BODY, CHANGED, "applied")
    repository.write(m__py=BODY)
    check(find_edit(None, patch), BODY, CHANGED, "not applied")


def test_nothing_but_what_is_no_text_is_refused(repository: Repository) -> None:
    _link(repository)
    with pytest.raises(PatchError, match="no text that remains"):
        find_edit(None, repository.git("diff"))


MESSAGES = (
    "@@ name @@ now expands",
    "@@@ name @@@",
    "diff --cc name of something",
    "diff --git is a command",
    "--- a/x\n+++ b/x\nno hunk",
    "--- a/x",
    "Binary files are left out",
    "index 1234567..89abcde",
    "rename from x",
    "    --- a/m.py\n    +++ b/m.py\n    @@ -1 +1 @@\n    -a\n    +b",
    "From 0123456789012345678901234567890123456789 on",
    "commit 0123456 did it",
    "\\ No newline at end of file",
)


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_may_look_like_patches(repository: Repository, message: str) -> None:
    repository.write(m__py=CHANGED)
    repository.commit(f"Subject\n\n{message}\n\nmore\n")
    mail = repository.git("format-patch", "-1", "--stdout")
    assert message.encode() in mail
    check(find_edit(None, mail), BODY, CHANGED, "applied")
    after = mail + b"\nOn Monday x wrote:\n" + message.encode() + b"\n"
    check(find_edit(None, after), BODY, CHANGED, "applied")
    before = message.encode() + b"\n" + repository.git("diff", "HEAD~")
    check(find_edit(None, before), BODY, CHANGED, "applied")


def test_combined_parts_beside_clean_ones(repository: Repository) -> None:
    repository.git("switch", "-qc", "other")
    repository.write(m__py=CHANGED)
    repository.commit()
    repository.git("switch", "-q", "main")
    repository.write(m__py=BODY.replace("x * 2", "x * 4"), clean__py=BODY)
    repository.commit()
    repository.git("merge", "-q", "other", check=False)
    conflict = repository.git("diff")
    assert b"diff --cc m.py" in conflict
    with pytest.raises(PatchError, match="combined diff of a merge"):
        find_edit(None, conflict)
    repository.write(clean__py=CHANGED)
    patch = repository.git("diff")
    assert b"diff --cc m.py" in patch
    check(find_edit(None, patch), BODY, CHANGED, "applied", "clean.py")
    check(find_edit(None, conflict + patch), BODY, CHANGED, "applied", "clean.py")
    repository.git("add", "-A")
    repository.git("commit", "-qm", "merged")
    show = repository.git("show", "--format=", "-c")
    plain = repository.git("diff", "HEAD~", "--", "clean.py")
    check(find_edit(Path("clean.py"), show + plain), BODY, CHANGED, "applied", "clean.py")


@pytest.mark.parametrize("options", [(), ("--no-prefix",), ("-R",)], ids=" ".join)
@pytest.mark.parametrize(
    ("old", "new"), [("one.py", "two.py"), ("old/m.py", "new/m.py"), ("b/m.py", "a/n.py")]
)
def test_two_files_compared(
    repository: Repository, options: tuple[str, ...], old: str, new: str
) -> None:
    for name, text in ((old, BODY), (new, CHANGED)):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    if "-R" in options:
        old, new = new, old
    (repository.folder / "m.py").unlink()
    patch = repository.git("diff", "--no-index", *options, old, new, check=False)
    before, after = Path(old).read_text(), Path(new).read_text()
    if "-R" in options:
        before, after, new = after, before, old
    check(find_edit(None, patch), before, after, "applied", new)
    Path(new).write_text(before)
    check(find_edit(None, patch), before, after, "not applied", new)


PLAIN_HUNK = "@@ -4,5 +4,5 @@\n \n \n def b(x):\n-    z = x * 2\n+    z = x * 3\n     return z\n"


@pytest.mark.parametrize(
    "names",
    [
        ("m.py.orig\t2024-01-01 10:00:00.000000000 +0100", "m.py\t2024-01-02 10:00:00 +0100"),
        ("m.py.orig   2024-01-01 10:00:00.000000000 +0100", "m.py   2024-01-02 10:00:00 +0100"),
        ("m.py 24-01-01", "m.py 2024-01-02 10:00:00"),
        ("a/m.py", "b/m.py"),
        ("m.py", "m.py.new"),
        ("./m.py", "./m.py"),
        ("../old/m.py", "tree/m.py"),
        ("project-1.0/m.py", "project-1.1/m.py"),
        ('"m.py"', '"m.py"'),
    ],
)
def test_names_of_plain_diffs(repository: Repository, names: tuple[str, str]) -> None:
    patch = f"--- {names[0]}\n+++ {names[1]}\n{PLAIN_HUNK}".encode()
    check(find_edit(None, patch), BODY, CHANGED, "not applied")
    repository.write(m__py=CHANGED)
    check(find_edit(None, patch), BODY, CHANGED, "applied")


def test_a_date_of_1970_is_a_file_that_is_not_there(repository: Repository) -> None:
    added = "".join(f"+{line}\n" for line in BODY.splitlines())
    patch = (
        "--- new.py\t1970-01-01 01:00:00.000000000 +0100\n"
        f"+++ new.py\t2024-01-02 10:00:00.000000000 +0100\n@@ -0,0 +1,8 @@\n{added}"
    ).encode()
    check(find_edit(None, patch), "", BODY, "not applied", "new.py")
    repository.write(new__py=BODY)
    check(find_edit(None, patch), "", BODY, "applied", "new.py")
    repository.write(new__py="something else\n")
    with pytest.raises(PatchDoesNotApply):
        find_edit(None, patch)


def test_a_new_file_does_not_fit_an_empty_one(repository: Repository) -> None:
    """git refuses as well: the file is there already."""
    repository.write(new__py=BODY)
    repository.git("add", "-N", "new.py")
    patch = repository.git("diff")
    repository.write(new__py="")
    with pytest.raises(PatchDoesNotApply, match="there already"):
        find_edit(None, patch)
    (repository.folder / "new.py").unlink()
    check(find_edit(None, patch), "", BODY, "not applied", "new.py")


@pytest.fixture
def nested(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """The working directory is a folder of the repository with an m.py of its own."""
    repository.write(subƒm__py=BODY, subƒn__py=BODY)
    repository.commit()
    monkeypatch.chdir(repository.folder / "sub")
    return repository


def test_files_named_from_elsewhere(nested: Repository, tmp_path: Path) -> None:
    nested.write(m__py=CHANGED, subƒn__py=CHANGED)
    patch = nested.git("diff")
    (tmp_path / "link").symlink_to(nested.folder)
    for file in ("../m.py", "../sub/../m.py", tmp_path / "link/m.py", nested.folder / "m.py"):
        check(find_edit(Path(file), patch), BODY, CHANGED, "applied", "../m.py")
    for file in ("n.py", "./n.py", "../sub/n.py", tmp_path / "link/sub/n.py"):
        check(find_edit(Path(file), patch), BODY, CHANGED, "applied", "n.py")


def test_paths_may_be_relative_to_the_working_directory(nested: Repository) -> None:
    nested.write(subƒm__py=CHANGED)
    for patch in (
        nested.git("diff", "--relative=sub"),
        nested.git("-C", "sub", "diff", "--relative"),
        nested.git("diff"),
    ):
        for file in (None, Path("m.py")):
            check(find_edit(file, patch), BODY, CHANGED, "applied", "m.py")
        nested.write(subƒm__py=BODY, m__py="other = 1\n")
        check(find_edit(None, patch), BODY, CHANGED, "not applied", "m.py")
        nested.write(subƒm__py=CHANGED, m__py=BODY)


def test_a_rename_is_found_by_its_old_name(repository: Repository) -> None:
    repository.write(other__py=BODY)
    repository.commit()
    repository.git("mv", "m.py", "n.py")
    repository.write(n__py=CHANGED, other__py=CHANGED)
    patch = repository.git("diff", "-M", "HEAD")
    for file in (Path("m.py"), Path("n.py")):
        check(find_edit(file, patch), BODY, CHANGED, "applied", "n.py")
    repository.git("reset", "-q", "--hard")
    for file in (Path("m.py"), Path("n.py")):
        check(find_edit(file, patch), BODY, CHANGED, "not applied", "m.py")


@pytest.mark.parametrize("name", ["{top}/out.py", "../out.py", "sub/../../out.py", "link/out.py"])
def test_paths_that_leave_the_tree_need_a_file(
    repository: Repository, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "out.py"
    outside.write_text(BODY)
    repository.write(subƒx="")
    (repository.folder / "link").symlink_to(tmp_path)
    path = name.format(top=tmp_path)
    for patch in (
        f"--- {path}\n+++ {path}\n{PLAIN_HUNK}",
        f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n{PLAIN_HUNK}",
        f"--- /dev/null\n+++ {path.replace('out', 'new')}\n@@ -0,0 +1 @@\n+x\n",
    ):
        with pytest.raises(InputError):
            find_edit(None, patch.encode())
    edit = find_edit(outside, f"--- {path}\n+++ {path}\n{PLAIN_HUNK}".encode()).reading.edit
    assert (edit.before, edit.after) == (BODY, CHANGED)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000 + "y", "m.py/x", "\0"])
def test_names_that_no_file_can_have(repository: Repository, name: str) -> None:
    with pytest.raises(PieError):
        find_edit(None, f"--- {name}\n+++ {name}\n{PLAIN_HUNK}".encode())


def test_utf_16_is_named(repository: Repository) -> None:
    repository.write(m__py=CHANGED)
    patch = repository.git("diff").decode().encode("utf-16")
    with pytest.raises(PatchError, match="UTF-16"):
        find_edit(None, patch)
