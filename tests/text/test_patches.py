"""Patches: what is written is what `git apply` takes, what is read fits exactly or is refused."""

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from unidiff.patch import PatchSet

from pie_cli.errors import PatchError
from pie_cli.text.applying import FilePatch, PatchDoesNotApply, locate
from pie_cli.text.edit import LineHunk, split_lines
from pie_cli.text.patches import parse
from tests.diffs import apply, fits, reverse, unified_diff

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

lines = st.sampled_from(
    [
        "a\n",
        "b\n",
        "\n",
        "\r\n",
        "a\r\n",
        "x\ry\n",
        "\f\n",
        "\x0b\x1c\u2028\x85\n",
        " \n",
        "--- a/x\n",
        "+++ b/x\n",
        "-- \n",
        "@@ -1 +1 @@\n",
        "diff --git a/x b/x\n",
        "\\ No newline at end of file\n",
        "\\\n",
        "é\n",
    ]
)
endings = st.sampled_from(["", "", "z", "\r", "\\ No newline at end of file"])
texts = st.builds(lambda body, end: "".join(body) + end, st.lists(lines, max_size=30), endings)


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a text and one that differs in a few places, or altogether."""
    old = draw(texts)
    pieces = old.split("\n")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(pieces)))
        if draw(st.booleans()):
            pieces[at : at + draw(st.integers(0, 4))] = []
        pieces[at:at] = draw(texts).split("\n")[:3]
    return old, "\n".join(pieces)


def one(patch_text: str) -> FilePatch:
    files = parse(patch_text).files
    assert len(files) == 1
    return files[0]


@given(st.one_of(edited(), st.tuples(st.text(max_size=60), st.text(max_size=60))))
def test_a_diff_applied_gives_the_new_text_and_reversed_the_old(pair: tuple[str, str]) -> None:
    old, new = pair
    assume("\ufeff" not in old + new)
    patch_text = unified_diff(old, new, "some dir/x.py")
    if old == new:
        assert patch_text == ""
        return
    patch = one(patch_text)
    assert patch.path == "some dir/x.py"
    assert apply(old, patch) == new
    assert reverse(new, patch) == old
    assert fits(old, patch) in ("applies", "both")
    assert fits(new, patch) in ("reversed", "both")
    assert locate(old, patch).offset == 0


@given(edited())
def test_hunks_tell_which_lines_changed(pair: tuple[str, str]) -> None:
    old, new = pair
    assume(old != new)
    applied = locate(old, one(unified_diff(old, new, "x"))).edit
    old_lines, new_lines = split_lines(old), split_lines(new)
    at = new_at = 0
    for hunk in applied.hunks:
        assert old_lines[at : hunk.old_start] == new_lines[new_at : hunk.new_start]
        at, new_at = hunk.old_stop, hunk.new_stop
    assert old_lines[at:] == new_lines[new_at:]


def git(folder: Path, *arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments],
        cwd=folder,
        input=None if stdin is None else stdin.encode(),
        capture_output=True,
        check=False,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "HOME": str(folder), "LC_ALL": "C"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    git(folder, "init", "-q")
    git(folder, "config", "core.autocrlf", "false")
    git(folder, "config", "core.safecrlf", "false")
    return folder


@needs_git
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(edited(), st.sampled_from(["x.py", "a dir/my file.py", 'q"uote\\.py', "tab\there", "é.py"]))
def test_git_apply_takes_our_diffs(repository: Path, pair: tuple[str, str], name: str) -> None:
    old, new = pair
    assume(old != new)
    path = repository / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(old.encode())
    git(repository, "apply", "--whitespace=nowarn", "-", stdin=unified_diff(old, new, name))
    assert path.read_bytes() == new.encode()


@needs_git
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    edited(),
    st.sampled_from(["x.py", "b/y.py", "a dir/my b/file.py", 'q"uote\\.py', "tab\there", "é.py"]),
    st.sampled_from([(), ("--no-prefix",), ("-U0",), ("--patience", "-U1")]),
    st.sampled_from(["", "core.quotePath=false", "diff.mnemonicPrefix=true", "diff.noprefix=true"]),
)
def test_diffs_by_git_are_read_and_applied(
    repository: Path, pair: tuple[str, str], name: str, options: tuple[str, ...], config: str
) -> None:
    old, new = pair
    assume(old != new)
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(old.encode())
    git(repository, "add", "--", name)
    path.write_bytes(new.encode())
    setting = ("-c", config) if config else ()
    patch = one(git(repository, *setting, "diff", "--text", *options, "--", name))
    assert patch.path == name
    assert (patch.kind, patch.binary) == ("modify", False)
    assert apply(old, patch) == new
    assert reverse(new, patch) == old


@needs_git
def test_every_kind_of_change_that_git_writes(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    body = "".join(f"line {number}\n" for number in range(30))
    (tmp_path / "b").mkdir()
    for name, text in {
        "kept.py": body,
        "old name.py": body + "tail\n",
        "gone.py": "bye\n",
        "mode.py": "same\n",
        "b/in b.py": "1\n2\n",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "picture").write_bytes(b"\0\1\2")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "first")
    (tmp_path / "kept.py").write_text(body.replace("line 3\n", "line three\n"))
    (tmp_path / "old name.py").rename(tmp_path / "new name.py")
    (tmp_path / "new name.py").write_text(body + "tail\nmore")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "mode.py").chmod(0o755)
    (tmp_path / "new empty.py").write_text("")
    (tmp_path / "b/in b.py").unlink()
    (tmp_path / "b/added b.py").write_text("hello b/\n")
    (tmp_path / "picture").write_bytes(b"\0\3")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "second\n\n--- not a file\ndiff of words\n@ @\n")
    for options in ((), ("--no-prefix",), ("--src-prefix=x/", "--dst-prefix=y/"), ("--binary",)):
        found = {f.path: f for f in parse(git(tmp_path, "show", "-M", *options)).files}
        assert {path: f.kind for path, f in found.items()} == {
            "kept.py": "modify",
            "new name.py": "rename",
            "gone.py": "delete",
            "mode.py": "modify",
            "new empty.py": "add",
            "b/in b.py": "delete",
            "b/added b.py": "add",
            "picture": "modify",
        }
        renamed = found["new name.py"]
        assert (renamed.old_path, renamed.new_path) == ("old name.py", "new name.py")
        assert apply(body + "tail\n", renamed) == body + "tail\nmore"
        assert apply("same\n", found["mode.py"]) == "same\n"
        assert found["picture"].binary
        assert apply("bye\n", found["gone.py"]) == ""
        assert fits("hello b/\n", found["b/added b.py"]) == "reversed"
        assert fits(None, found["b/added b.py"]) == "applies"
        with pytest.raises(PatchError, match="picture is binary"):
            apply("", found["picture"])
    mail = git(tmp_path, "format-patch", "-1", "--stdout")
    assert {f.path for f in parse(mail).files} == set(found)


PLAIN = """\
--- lib/x.py.orig\t2024-01-01 10:00:00.000000000 +0100
+++ lib/x.py\t2024-01-02 10:00:00.000000000 +0100
@@ -1,3 +1,3 @@
 a
-b
+B
 c
"""


def test_a_plain_diff_names_the_new_file() -> None:
    patch = one(PLAIN)
    assert (patch.path, patch.kind) == ("lib/x.py", "modify")
    assert apply("a\nb\nc\n", patch) == "a\nB\nc\n"


def test_a_plain_diff_with_prefixes_is_stripped_and_keeps_the_spelling() -> None:
    patch = one(PLAIN.replace("lib/x.py.orig", "a/lib/x.py").replace("+++ lib", "+++ b/lib"))
    assert patch.new_names == ("lib/x.py", "b/lib/x.py")


def test_several_plain_files_and_binary_ones_among_text() -> None:
    text = f"Only in x: y\n{PLAIN}Binary files old/p.png and new/p.png differ\n{PLAIN}"
    files = parse(text).files
    assert [(f.path, f.binary) for f in files] == [
        ("lib/x.py", False),
        ("new/p.png", True),
        ("lib/x.py", False),
    ]


def test_a_new_file_in_a_plain_diff() -> None:
    patch = one("--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+x\n")
    assert (patch.kind, patch.old_path, patch.new_path) == ("add", None, "new.py")
    assert apply(None, patch) == "x\n"
    assert reverse("x\n", patch) == ""
    with pytest.raises(PatchDoesNotApply, match="there already"):
        apply("x\n", patch)


def test_deleting_a_file_that_holds_more_is_refused() -> None:
    patch = one("--- a/old.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n")
    assert apply("x\n", patch) == ""
    with pytest.raises(PatchDoesNotApply, match="holds more lines"):
        apply("x\ny\n", patch)


def test_a_hunk_is_found_at_the_nearest_place_and_the_next_one_moves_with_it() -> None:
    old = "".join(f"{number}\n" for number in range(60))
    new = old.replace("\n20\n", "\ntwenty\n").replace("\n50\n", "\nfifty\n")
    patch = one(unified_diff(old, new, "x"))
    moved = "top\n" * 7 + old
    applied = locate(moved, patch)
    assert applied.edit.after == "top\n" * 7 + new
    assert applied.offset == 7 + 7
    assert applied.edit.hunks == (LineHunk(27, 28, 27, 28), LineHunk(57, 58, 57, 58))
    twice = old + "gap\n" * 3 + old
    assert apply(twice, patch) == new + "gap\n" * 3 + old


def test_context_is_never_fuzzed_and_the_failing_hunk_is_named() -> None:
    old = "".join(f"{number}\n" for number in range(60))
    new = old.replace("\n20\n", "\ntwenty\n").replace("\n50\n", "\nfifty\n")
    patch = one(unified_diff(old, new, "src/x.py"))
    broken = old.replace("\n48\n", "\nother\n")
    with pytest.raises(PatchDoesNotApply, match=r"hunk 2 of 2 for src/x\.py \(line 13 ") as caught:
        apply(broken, patch)
    assert caught.value.hunk == 2
    assert caught.value.remedy
    assert fits(broken, patch) == "neither"


def test_line_ends_that_differ_are_named_as_the_reason() -> None:
    patch = one(PLAIN)
    with pytest.raises(PatchDoesNotApply, match="only the line ends differ"):
        apply("a\r\nb\r\nc\r\n", patch)


def test_a_patch_that_is_crlf_throughout_is_about_such_a_file_or_was_converted() -> None:
    patch = one(PLAIN.replace("\n", "\r\n"))
    assert patch.crlf
    assert apply("a\r\nb\r\nc\r\n", patch) == "a\r\nB\r\nc\r\n"
    assert apply("a\nb\nc\n", patch.with_lf()) == "a\nB\nc\n"


def test_a_missing_final_newline_must_be_missing_in_the_file() -> None:
    patch = one(unified_diff("a\nb", "a\nB", "x"))
    assert apply("a\nb", patch) == "a\nB"
    with pytest.raises(PatchDoesNotApply):
        apply("a\nb\n", patch)
    gains = one("--- x\n+++ x\n@@ -1,0 +2 @@\n+end\n\\ No newline at end of file\n")
    assert apply("a\n", gains) == "a\nend"
    with pytest.raises(PatchDoesNotApply):
        apply("a\nb\n", gains)
    with pytest.raises(PatchDoesNotApply):
        apply("a", gains)


def test_the_mark_of_a_missing_newline_is_read_in_any_language() -> None:
    text = "--- x\n+++ x\n@@ -1 +1 @@\n-a\n+b\n\\ Kein Zeilenumbruch am Dateiende.\n"
    assert apply("a\n", one(text)) == "b"


def test_a_patch_without_context_may_fit_both_ways() -> None:
    patch = one("--- x\n+++ x\n@@ -1,0 +2 @@\n+a\n")
    assert fits("a\na\n", patch) == "both"
    assert fits("a\nb\n", patch) == "applies"


def test_a_rename_may_quote_one_side_only() -> None:
    text = (
        'diff --git a/plain name.py "b/tab\\there.py"\nsimilarity index 100%\n'
        'rename from plain name.py\nrename to "tab\\there.py"\n'
    )
    patch = one(text)
    assert (patch.old_path, patch.new_path) == ("plain name.py", "tab\there.py")
    assert apply("x\n", patch) == "x\n"
    assert patch.reversed().path == "plain name.py"
    mode = 'diff --git "a/tab\\there.py" "b/tab\\there.py"\nold mode 100644\nnew mode 100755\n'
    assert one(mode).path == "tab\there.py"


def test_names_that_the_git_header_does_not_tell_come_from_the_lines_below() -> None:
    text = "diff --git one two three\n--- x/a b.py\t\n+++ y/a b.py\t\n@@ -1 +1 @@\n-a\n+b\n"
    assert one(text).path == "a b.py"
    other = "diff --git one two three\n--- one.py\n+++ two three.py\n@@ -1 +1 @@\n-a\n+b\n"
    assert (one(other).old_path, one(other).path) == ("one.py", "two three.py")


def test_an_empty_file_is_created_and_deleted_without_hunks() -> None:
    header = "diff --git a/x y.py b/x y.py\n{} file mode 100644\nindex 0000000..e69de29\n"
    created, deleted = one(header.format("new")), one(header.format("deleted"))
    assert (created.kind, created.path, created.old_path) == ("add", "x y.py", None)
    assert (deleted.kind, deleted.path, deleted.new_path) == ("delete", "x y.py", None)
    assert apply(None, created) == apply("", deleted) == ""
    assert fits("text\n", created) == "neither"


def test_an_empty_context_line_may_have_lost_its_blank() -> None:
    assert apply("a\n\nb\n", one("--- x\n+++ x\n@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n")) == "a\n\nc\n"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "the patch is empty"),
        (" \n\n", "the patch is empty"),
        ("hello\n", "holds no unified diff"),
        ("\x1b[1mdiff --git a/x b/x\x1b[m\n\x1b[1m--- a/x\x1b[m\n", "coloured"),
        ("diff --cc x\nindex 1,2..3\n--- a/x\n+++ b/x\n@@@ -1 -1 +1 @@@\n", "line 1 .* merge"),
        ("@@ -1 +1 @@\n-a\n+b\n", "line 1 .* without a file name"),
        ("--- x\n+++ x\n@@ -1,2 +1,2 @@\n a\n-b\n", r"hunk 1 of x \(line 3 .* is shorter"),
        ("--- x\n+++ x\n@@ -1,2 +1,2 @@\n a\n-b\nno\n", r"hunk 1 of x \(line 3 .* is shorter"),
        ("--- x\n+++ x\n@@ -1,2 +1,1 @@\n-a\n+b\n+c\n", r"hunk 1 of x .* header counts"),
        ("--- x\n+++ x\n@@ -1 +1 @@\n a\n", "hunk 1 of x .* changes nothing"),
        ("--- x\n+++ x\n@@ -1,0 +1,0 @@\n", "hunk 1 of x .* changes nothing"),
        ("--- x\n+++ x\n@@ one @@\n a\n", "line 3 .* malformed hunk header"),
        (f"--- x\n+++ x\n@@ -{'9' * 5000} +1 @@\n-a\n", "line 3 .* malformed hunk header"),
        ('--- "x\n+++ x\n@@ -1 +1 @@\n-a\n+b\n', "line 1 .* quoted path"),
        ("--- x\n+++ x\n@@ -1,2 +1 @@\n-a\n\\ No\n-b\n+c\n", "missing newline in the middle"),
        ("--- /dev/null\n+++ x\n@@ -1 +1 @@\n-a\n+b\n", "line 1 .* creates x"),
        ("--- x\n+++ /dev/null\n@@ -1 +1 @@\n-a\n+b\n", "line 1 .* deletes x"),
    ],
)
def test_malformed_patches_name_what_is_wrong(text: str, cause: str) -> None:
    with pytest.raises(PatchError, match=cause):
        parse(text)


@given(st.text(alphabet='-+@ 019,abx/\n\\\t"dif g', max_size=120), st.text(max_size=20))
def test_anything_is_read_or_refused(text: str, file: str) -> None:
    try:
        for patch in parse(text).files:
            fits(file, patch)
    except PatchError:
        pass


def test_a_hunk_stated_far_outside_the_file_is_still_found() -> None:
    patch = one("--- x\n+++ x\n@@ -999999999,2 +999999999,2 @@\n a\n-a\n+b\n")
    assert apply("a\na\n", patch) == "a\nb\n"


def test_a_hunk_without_context_stands_where_it_says_or_not_at_all() -> None:
    patch = one("--- x\n+++ x\n@@ -2 +2 @@\n-a\n+b\n")
    assert apply("a\na\na\n", patch) == "a\nb\na\n"
    with pytest.raises(PatchDoesNotApply, match="hunk 1 of 1"):
        apply("a\nc\na\n", patch)


def test_unidiff_reads_the_patch_as_a_whole_under_its_own_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once, names and hunks of all files, and nothing of what surrounds them."""
    seen: list[list[str]] = []

    def reads(lines: list[str]) -> PatchSet:
        seen.append(lines)
        return PatchSet(lines)

    monkeypatch.setattr("pie_cli.text.patches.PatchSet", reads)
    hunk = ["@@ -1,2 +1,2 @@\n", " a\n", "-b\n", "+c\n", "\\ No newline at end of file\n"]
    other = ["--- old.py\t2024-01-01 10:00:00\n", "+++ a dir/new.py\n", "@@ -1 +1 @@\n"]
    other += ["-\u2028\n", "+\x0c\n"]
    text = (
        "From 0123456 Mon Sep 17 00:00:00 2001\nSubject: x\n\n@@ -a @@\n--- b\n---\n"
        'diff --git "a/t\\ta" "b/t\\ta"\nindex 1234567..89abcde 100644\n'
        '--- "a/t\\ta"\n+++ "b/t\\ta"\n'
        + "".join(hunk).replace(" @@", " @@ def f():")
        + "-- \n2.39\n"
        "diff --git a/m b/m\nold mode 100644\nnew mode 100755\n"
        "diff --git a/p b/p\nindex 1..2\nGIT binary patch\nliteral 1\nIcmZPo000310RR91\n\n"
        "literal 0\nHcmV?d00001\n\n"
        "diff --cc q\nindex 1,2..3\n--- a/q\n+++ b/q\n@@@ -1 -1 +1 @@@\n--a\n++b\n" + "".join(other)
    )
    files = parse(text).files
    assert seen == [['--- "a/t\\ta"\n', '+++ "b/t\\ta"\n', *hunk, *other]]
    assert [(f.path, len(f.hunks), f.binary) for f in files] == [
        ("t\ta", 1, False),
        ("m", 0, False),
        ("p", 0, True),
        ("a dir/new.py", 1, False),
    ]
    assert apply("a\nb\n", files[0]) == "a\nc"
    assert apply("\u2028\n", files[-1]) == "\x0c\n"


def test_a_byte_that_is_not_utf_8_concerns_its_file_alone() -> None:
    text = unified_diff("a\n", "b\n", "x").encode() + unified_diff("a\n", "?\n", "y").encode()
    first, second = parse(text.replace(b"?", b"\xe9")).files
    assert (first.is_text, second.is_text) == (True, False)
    assert apply("a\n", first) == "b\n"


def test_a_hunk_belongs_to_the_end_or_the_beginning_where_it_has_no_context() -> None:
    appended = one(unified_diff("a\nb\nc\nd\n", "a\nb\nc\nd\ne\n", "x"))
    assert apply("0\na\nb\nc\nd\n", appended) == "0\na\nb\nc\nd\ne\n"
    with pytest.raises(PatchDoesNotApply, match="not at its end"):
        apply("a\nb\nc\nd\nz\n", appended)
    prepended = one(unified_diff("a\nb\nc\nd\n", "0\na\nb\nc\nd\n", "x"))
    assert apply("a\nb\nc\nz\n", prepended) == "0\na\nb\nc\nz\n"
    with pytest.raises(PatchDoesNotApply, match="not at its beginning"):
        apply("z\na\nb\nc\n", prepended)


def test_a_hunk_is_not_placed_on_what_another_one_made() -> None:
    """Neither moved there, nor before its time."""
    edit = " a\n-b\n+c\n d\n"
    again = " a\n-c\n+e\n d\n"
    patch = one(f"--- x\n+++ x\n@@ -2,3 +2,3 @@\n{edit}@@ -9,3 +9,3 @@\n{again}")
    with pytest.raises(PatchDoesNotApply, match="hunk 2 of 2"):
        apply("0\na\nb\nd\n", patch)
    assert apply("0\na\nc\nd\na\nb\nd\n", patch) == "0\na\ne\nd\na\nc\nd\n"
