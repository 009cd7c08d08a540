"""Positions in all three encodings, and documents that follow an editor's changes."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.errors import InputError
from pie_cli.serving.buffers import Buffers, Replacement, path_of
from pie_cli.serving.items import insertion, replacement
from pie_cli.serving.positions import clean, cursor_at, offset_at, position_of
from pie_cli.watching.tree import MAX_FILE_BYTES
from pie_cli.workspace.documents import Change, Documents, Gone

TEXTS = st.text(alphabet="ab\n\r é€😀", max_size=30)
ENCODINGS = st.sampled_from(["utf-8", "utf-16", "utf-32"])
URI = "file:///code/a.py"


def units(text: str, encoding: str) -> int:
    size = {"utf-8": 1, "utf-16": 2, "utf-32": 4}[encoding]
    name = encoding if size == 1 else f"{encoding}-le"
    return len(text.encode(name)) // size


def reference(text: str, offset: int, encoding: str) -> tuple[int, int]:
    """Return line and units of an offset, by splitting as the protocol says."""
    lines = re.split("\r\n|\n|\r", text[:offset])
    return len(lines) - 1, units(lines[-1], encoding)


@given(TEXTS, st.data(), ENCODINGS)
def test_offsets_and_positions_are_each_others_inverse(
    text: str, data: st.DataObject, encoding: str
) -> None:
    offset = data.draw(st.integers(0, len(text)))
    if text[offset - 1 : offset + 1] == "\r\n":
        offset -= 1
    position = reference(text, offset, encoding)
    assert position_of(text, offset, encoding) == position
    assert offset_at(text, *position, encoding) == offset


def test_encodings_are_told_apart() -> None:
    """The control: a character beyond 16 bits has another width in each."""
    assert [offset_at("😀b", 0, 2, e) for e in ("utf-8", "utf-16", "utf-32")] == [0, 1, 2]


def test_beyond_a_line_is_its_end_and_within_a_character_before_it() -> None:
    assert offset_at("ab\r\ncd", 0, 99) == 2
    assert offset_at("a😀b", 0, 2) == 1
    assert offset_at("ab\n", 2, 0) == 3
    for line in (3, -1):
        with pytest.raises(InputError, match="outside the document"):
            offset_at("ab\n", line, 0)


@pytest.mark.parametrize(
    ("offset", "text", "completes", "inserted"),
    [
        (5, " + 1", True, " + 1"),
        (5, "y = 2", False, "\ny = 2"),
        (6, "y = 2", False, "y = 2\n"),
        (7, "y = 2", True, "y = 2"),
        (11, "y = 2", False, "y = 2"),
        (5, "  ", True, None),
    ],
)
def test_a_line_of_its_own_gets_a_line_end_where_there_is_none(
    offset: int, text: str, completes: bool, inserted: str | None
) -> None:
    made = SimpleNamespace(text=text, completes_line=completes)
    assert insertion("x = 1\nz =\n\n", offset, made) == inserted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after", "said", "item"),
    [
        ("f(", ")", "a, b", ("a, b", 0)),
        ("f(", ")", "a, b)", ("a, b", 0)),
        ("def f(", ")", "self, x):", ("self, x):", 1)),
        ("if f(", "):", "a)", ("a", 0)),
        ('print("', '")', 'hi", name)', ('hi", name)', 2)),
        ("f(", ")", ")", None),
        ("f(", ")\r", "a)", ("a", 0)),
        ("def f(", ")", "self):\n    return 1", ("self):\n    return 1", 1)),
        ("f(", ")  # why", "a\nb = 2", ("a)  # why\nb = 2", 8)),
        ("x = ", "", "f(a)\ny = 1", ("f(a)\ny = 1", 0)),
        ("foo(", ")", "\n    3,\n    4,\n)", ("\n    3,\n    4,\n)", 1)),
        ("if foo(", "):", "a,\n    b):\n    c", ("a,\n    b):\n    c", 2)),
        ("foo(bar(", "))", "a),\n    b)", ("a),\n    b)", 2)),
        ("foo(", ")", "a,\n    b", ("a,\n    b)", 1)),
        ("# don't load(", ")", "it)", ("it", 0)),
    ],
)
def test_what_an_editor_closed_is_not_closed_again_and_further_lines_come_below_it(
    before: str, after: str, said: str, item: tuple[str, int] | None
) -> None:
    made = SimpleNamespace(text=said, completes_line=True)
    text = f"y = 0\n{before}{after}\nz = 1\n"
    assert replacement(text, 6 + len(before), made) == item  # type: ignore[arg-type]


def test_at_the_end_of_a_line_the_model_says_whether_it_goes_on() -> None:
    text = "x = 1\n    \nz = (2)"
    follows = [cursor_at(text, offset).follows_edits for offset in (5, 4, 10, 17, 18)]
    assert follows == [True, False, False, False, True]


def test_halves_of_characters_are_replaced_one_by_one() -> None:
    assert clean("a\ud800b\udfff") == "a\ufffdb\ufffd"


def test_a_cursor_counts_as_the_rest_of_pie_does() -> None:
    assert cursor_at("\ufeffab\ncd", 5).column == 1
    assert cursor_at("\ufeffab\ncd", 2).column == 1


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, str, list[list[tuple[int, int, str]]]]:
    """Give a text, an encoding, and notifications of some changes each."""
    text = now = draw(TEXTS)
    notifications = []
    for _ in range(draw(st.integers(1, 4))):
        changes = []
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(now)))
            stop = draw(st.integers(start, len(now)))
            new = draw(TEXTS)
            # No editor points between a carriage return and its newline.
            if "\r\n" in (now[start - 1 : start + 1], now[stop - 1 : stop + 1]):
                continue
            changes.append((start, stop, new))
            now = now[:start] + new + now[stop:]
        notifications.append(changes)
    return text, draw(ENCODINGS), notifications


@given(edits())
def test_documents_are_what_the_editor_has_and_the_workspace_hears_of_each_edit(
    case: tuple[str, str, list[list[tuple[int, int, str]]]],
) -> None:
    text, encoding, notifications = case
    documents = Documents()
    buffers = Buffers(documents)
    buffers.encoding = encoding
    buffers.open(URI, 1, text)
    for version, changes in enumerate(notifications, 2):
        before, replacements = text, []
        for start, stop, new in changes:
            replacements.append(
                Replacement(new, reference(text, start, encoding), reference(text, stop, encoding))
            )
            text = text[:start] + new + text[stop:]
        documents.take(0)
        buffers.change(URI, version, replacements)
        buffer = buffers.get(URI)
        assert buffer is not None
        assert (buffer.text, buffer.version) == (text, version)
        assert documents.version(buffer.path) == version
        taken = documents.take(0).newest
        if text == before:
            assert taken is None
        else:
            assert taken is not None
            assert taken.edit is not None
            assert (taken.edit.before, taken.edit.after) == (before, text)
            assert taken.cursor is not None


def opened(text: str = "a\nb\n") -> tuple[Documents, Buffers]:
    documents = Documents()
    buffers = Buffers(documents)
    buffers.open(URI, 5, text)
    return documents, buffers


def text_of(buffers: Buffers) -> Any:
    buffer = buffers.get(URI)
    return buffer and buffer.text


@pytest.mark.parametrize("version", [5, 4, -1])
def test_a_version_twice_or_backwards_is_the_next_one(version: int) -> None:
    documents, buffers = opened()
    buffers.change(URI, version, [Replacement("y", (1, 0), (1, 0))])
    buffers.change(URI, version, [Replacement("x", (0, 0), (0, 0))])
    assert text_of(buffers) == "xa\nyb\n"
    assert documents.version(Path("/code/a.py")) == 7


@pytest.mark.parametrize("span", [((9, 0), (9, 1)), ((1, 0), (0, 0)), ((0, 0), (9, 0))])
def test_a_range_outside_costs_its_document_until_the_whole_text_comes(span: Any) -> None:
    documents, buffers = opened()
    other = "file:///code/other.py"
    buffers.open(other, 1, "kept")
    with pytest.raises(InputError):
        buffers.change(URI, 6, [Replacement("x", *span)])
    assert text_of(buffers) is None
    assert documents.get(Path("/code/a.py")) is None
    buffers.change(URI, 7, [Replacement("y", (0, 0), (0, 0))])
    assert text_of(buffers) is None
    assert buffers.get(other).text == "kept"  # type: ignore[union-attr]
    buffers.change(URI, 8, [Replacement("whole"), Replacement("!", (0, 5), (0, 5))])
    assert text_of(buffers) == "whole!"


def test_a_document_opened_again_begins_again() -> None:
    documents, buffers = opened()
    buffers.open(URI, 1, "new")
    assert documents.version(Path("/code/a.py")) == 1
    kinds = [type(item) for item in documents.take(0).items]
    assert kinds == [Change, Gone, Change]


def test_a_huge_document_is_not_kept() -> None:
    documents, buffers = opened("x" * (MAX_FILE_BYTES + 1))
    assert text_of(buffers) is None
    assert documents.get(Path("/code/a.py")) is None
    buffers.change(URI, 6, [Replacement("small")])
    assert text_of(buffers) == "small"
    buffers.change(URI, 7, [Replacement("y" * (MAX_FILE_BYTES + 1), (0, 0), (0, 0))])
    assert text_of(buffers) is None


def test_what_is_not_open_is_no_document() -> None:
    _, buffers = opened()
    buffers.close("file:///code/never.py")
    with pytest.raises(InputError, match="not open"):
        buffers.change("file:///code/never.py", 1, [])
    buffers.close(URI)
    assert len(buffers) == 0


def test_paths_of_uris() -> None:
    assert path_of("file:///code/a%20b.py") == Path("/code/a b.py")
    assert path_of("file:///c:/code/a.py") == Path("c:/code/a.py")
    assert path_of("untitled:Untitled-1") == Path("untitled:Untitled-1")
