"""Cursors: read as people write them, found where people count, moved with the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.errors import InputError
from pie_cli.text.answer import Extent
from pie_cli.text.cursor import Cursor, Place, Position, extent_of, line_offset, position_at
from pie_cli.text.edit import Edit

TEXTS = st.text(alphabet="ab \n\r\t\f\ufeff", max_size=40)


@pytest.mark.parametrize(
    ("written", "cursor"),
    [
        ("end", Cursor()),
        ("edit", Cursor(follows_edits=True)),
        ("1", Cursor(0)),
        ("12:1", Cursor(11, 0)),
        ("12:0", Cursor(11, 0)),
        ("12:7", Cursor(11, 6)),
    ],
)
def test_cursors_are_read(written: str, cursor: Cursor) -> None:
    assert Cursor.parse(written) == cursor


@pytest.mark.parametrize("written", ["", "0", "0:3", "-1", "1:", ":1", "1:2:3", "ende", "1.5", "²"])
def test_anything_else_is_refused(written: str) -> None:
    with pytest.raises(InputError, match="is not a place"):
        Cursor.parse(written)


@given(TEXTS, st.data())
def test_a_place_is_where_people_count(text: str, data: st.DataObject) -> None:
    """Lines end at newlines only: a lone carriage return or a form feed is no line's end."""
    lines = text.split("\n")
    line = data.draw(st.integers(0, len(lines) - 1))
    place = Cursor(line).place(text)
    assert place.position == Position(line + 1, 1)
    assert text[: place.offset].count("\n") == line
    assert place.offset - (text.rfind("\n", 0, place.offset) + 1) == (
        line == 0 and text.startswith("\ufeff")
    )
    column = data.draw(st.integers(0, len(lines[line].removesuffix("\r"))))
    offset = sum(len(one) + 1 for one in lines[:line]) + column
    shown = position_at(text, offset)
    bom = line == 0 and text.startswith("\ufeff") and column > 0
    assert shown == Position(line + 1, column + 1 - bom)


@given(TEXTS, st.integers(0, 50))
def test_the_offset_of_a_line_is_that_of_counting(text: str, line: int) -> None:
    lines = text.split("\n")
    expected = sum(len(one) + 1 for one in lines[:line]) if line < len(lines) else None
    assert line_offset(text, line) == expected


def test_the_offset_of_a_line_far_down() -> None:
    text = "line\n" * 50_000
    for line in (0, 1, 13_107, 13_108, 49_999, 50_000):
        assert line_offset(text, line) == 5 * line
    assert line_offset(text, 50_001) is None


def test_outside_of_the_text_is_said_so() -> None:
    with pytest.raises(InputError, match="line 5 is outside the file, which has 2 lines"):
        Cursor(4).place("a\nb")
    with pytest.raises(InputError, match="column 4 is outside line 1, which has 2 characters"):
        Cursor(0, 3).place("ab\r\nc")
    assert Cursor(0, 2).place("ab\r\nc").offset == 2


def test_a_column_beyond_a_blank_lines_end_is_that_end() -> None:
    """As editors tell it that put the cursor where the indentation would be."""
    assert Cursor(1, 8).place("a\n    \nb").position == Position(2, 5)
    assert Cursor(1, 8).place("a\n\nb") == Place(2, 2, "line", Position(2, 1))
    assert Cursor(1, 8).place("a\n\r\nb").position == Position(2, 1)


@pytest.mark.parametrize(
    ("old", "new", "position"),
    [
        ("a\nb\n", "a\nx = 1\nb\n", (2, 6)),  # inserted
        ("a\nb\n", "a\nb = 1.", (2, 7)),  # typed, no newline yet
        ("a\nb\n", "a\ndef f():\n\n    \nb\n", (2, 9)),  # with blank lines below
        ("a\n\nb\nc\n", "a\n\nc\n", (1, 2)),  # deleted, a blank line above the gap
        ("b\na\n", "a\n", (1, 1)),  # deleted at the top
        ("a\nb\nc\n", "x\nb\nc\n\n", (1, 2)),  # a blank line elsewhere does not count
        ("a\nb\n", "a\nb\n\n\n", (2, 2)),  # nor alone
        ("a\nb\nc\nd\n", "x\nb\nd\n", (2, 2)),  # the lowest: a deletion
        ("a\r\nb\r\n", "a\r\nxy\r\nb\r\n", (2, 3)),  # before a carriage return
        ("\ufeffa\n", "\ufeffab\n", (1, 3)),
        ("a\nb\n", "\n\n", (1, 1)),
    ],
)
def test_the_cursor_is_the_end_of_what_was_edited_last(
    old: str, new: str, position: tuple[int, int]
) -> None:
    place = Cursor(follows_edits=True).moved(Edit.between(old, new)).place(new)
    assert place.position == Position(*position)


@given(TEXTS, TEXTS)
def test_the_edits_cursor_ends_a_line_with_content(old: str, new: str) -> None:
    """Of an edit's last line or one above it; blank lines come below it, never above."""
    edit = Edit.between(old, new)
    cursor = Cursor(follows_edits=True).moved(edit)
    assert cursor == cursor.within(new)
    place = cursor.place(new)
    line, behind = new[: place.offset].rsplit("\n", 1)[-1], new[place.offset : place.resumes]
    assert behind.strip("\ufeff") in ("", "\n", "\r\n")
    if place.begins == "either":
        assert line.strip(" \t\r\f\v\ufeff")
        assert not edit.hunks or place.position.line <= max(1, edit.hunks[-1].new_stop)
    else:
        assert place.offset == place.resumes
        assert not edit.hunks or not new[: place.offset].strip(" \t\r\f\v\ufeff\n")


def test_before_an_edit_the_cursor_is_the_end_of_the_last_line_with_content() -> None:
    edit = Cursor(follows_edits=True)
    assert edit.place("a\nb\n\n  \n") == Place(3, 4, "either", Position(2, 2))
    assert edit.place("a\r\nb") == Place(4, 4, "either", Position(2, 2))
    assert edit.place("") == Place(0, 0, "line", Position(1, 1))
    assert Cursor().place("a\nb") == Place(3, 3, "line", Position(2, 2))


def test_what_is_around_the_cursor_bounds_the_prediction() -> None:
    text = "def f():\n    x = g(1)\n\n\nend\n"
    assert extent_of(text, Cursor(1, 10).place(text), 2) == Extent(
        "rest", 2, "    x = g(", "end", "1)"
    )
    edited = Cursor(1, 12, follows_edits=True)
    assert extent_of(text, edited.place(text), 1) == Extent("either", 1, "    x = g(1)", "end")
    assert extent_of(text, Cursor(3).place(text), 1) == Extent("line", 1, "    x = g(1)", "end")
    assert extent_of("\n\nx = 1\n", Cursor(1).place("\n\nx = 1\n"), 1).is_top
    assert extent_of(text, Cursor().place(text), 1) == Extent("line", 1, "end", None)


@pytest.mark.parametrize(
    ("old", "new", "column", "expected"),
    [
        ("x = f(b)", "x = f(aa, b)", 6, 10),  # typed before
        ("x = f()", "x = f(a)", 6, 7),  # typed at
        ("x = f(b)", "x = f(b, c)", 6, 6),  # typed behind
        ("x = ", "x = 1", 4, 5),  # typed at the line's end
        ("x = f(b)", "y", 6, 1),  # another line
        ("x = f(b)", "f(b)", 6, 2),  # taken out before
    ],
)
def test_a_column_stays_before_what_stands_behind_it(
    old: str, new: str, column: int, expected: int
) -> None:
    old, new = f"first\n{old}\nlast\n", f"first\n{new}\nlast\n"
    moved = Cursor(1, column).moved(Edit.between(old, new))
    assert moved == Cursor(1, expected)


@given(TEXTS, TEXTS, st.integers(0, 8), st.integers(0, 8))
def test_a_moved_cursor_is_in_the_text(old: str, new: str, line: int, column: int) -> None:
    cursor = Cursor(line, column).within(old)
    cursor.place(old)
    moved = cursor.moved(Edit.between(old, new)).within(new)
    moved.place(new)
