"""Edits from an editor's ranges: the text that they lead to, and hunks that say how."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.text.edit import Edit, LineHunk, split_lines

TEXTS = st.text(alphabet="ab\n\r ", max_size=40)


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, list[tuple[int, int, str]], str]:
    """Give a text, ranges applied one after the other, and what they lead to."""
    before = text = draw(TEXTS)
    ranges = []
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(text)))
        stop = draw(st.integers(start, min(len(text), start + 8)))
        new = draw(st.text(alphabet="ab\n", max_size=6))
        ranges.append((start, stop, new))
        text = text[:start] + new + text[stop:]
    return before, ranges, text


def rebuilt(edit: Edit) -> str:
    """Apply the hunks to the lines before."""
    old, new = split_lines(edit.before), split_lines(edit.after)
    lines, at = [], 0
    for hunk in edit.hunks:
        lines += [*old[at : hunk.old_start], *new[hunk.new_start : hunk.new_stop]]
        at = hunk.old_stop
    return "".join([*lines, *old[at:]])


@given(edited())
def test_ranges_lead_to_the_text_and_the_hunks_rebuild_it(
    case: tuple[str, list[tuple[int, int, str]], str],
) -> None:
    before, ranges, after = case
    edit = Edit.of_ranges(before, ranges)
    assert (edit.before, edit.after) == (before, after)
    assert rebuilt(edit) == after
    for one, other in zip(edit.hunks, edit.hunks[1:], strict=False):
        assert one.old_stop < other.old_start
        assert one.new_stop < other.new_start
    for hunk in edit.hunks:
        assert hunk.old_stop > hunk.old_start or hunk.new_stop > hunk.new_start


@given(edited())
def test_where_nothing_changed_there_is_no_hunk(
    case: tuple[str, list[tuple[int, int, str]], str],
) -> None:
    before, ranges, after = case
    back = [*ranges, (0, len(after), before)]
    assert Edit.of_ranges(before, back).hunks == ()


def test_a_wrong_hunk_does_not_rebuild_the_text() -> None:
    edit = Edit.of_ranges("a\nb\nc\n", [(2, 3, "x")])
    assert edit.hunks == (LineHunk(1, 2, 1, 2),)
    assert rebuilt(Edit(edit.before, edit.after, (LineHunk(0, 1, 0, 1),))) != edit.after


@pytest.mark.parametrize(
    ("ranges", "hunks"),
    [
        ([(2, 2, "new\n")], (LineHunk(1, 1, 1, 2),)),
        ([(1, 1, "\nnew")], (LineHunk(1, 1, 1, 2),)),
        ([(0, 2, "")], (LineHunk(0, 1, 0, 0),)),
        ([(4, 5, "x"), (0, 1, "y")], (LineHunk(0, 1, 0, 1), LineHunk(2, 3, 2, 3))),
        ([(0, 1, "y"), (2, 3, "x")], (LineHunk(0, 2, 0, 2),)),
    ],
)
def test_typed_lines_are_hunks_of_their_own(
    ranges: list[tuple[int, int, str]], hunks: tuple[LineHunk, ...]
) -> None:
    assert Edit.of_ranges("a\nb\nc\n", ranges).hunks == hunks


@pytest.mark.parametrize("span", [(-1, 0), (3, 2), (0, 7)])
def test_a_span_outside_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no span"):
        Edit.of_ranges("a\nb\nc\n", [(*span, "")])
