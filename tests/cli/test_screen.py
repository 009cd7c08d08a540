"""The screen: the best answer known, in its place, readable at any width and without colours."""

import re
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress

from pie_cli.cli.blocks import Look, _cuts, block
from pie_cli.cli.folding import folded
from pie_cli.cli.render import Renderer
from pie_cli.cli.reports import TextReport
from pie_cli.cli.words import duration, not_run, times_as_long
from pie_cli.results import Comparison, Prediction, Recompute, Speedup, Timings, TokenCounts
from pie_cli.text.cursor import Position

TEXT = "def f(a):\n    b = a +\n    return b\n\nx = f(1)\n"
TIMES = Timings(0.3, 0.2, 1.1, 15.0, 1.4, 16.6, 18.0)


def prediction(text: str, line: int, column: int = 1, **more: Any) -> Prediction:
    tokens = TokenCounts(1_287, 1_268, 240, 19, 35)
    place = Position(line, column)
    found = Prediction(text, place, "pie+seam", False, tokens, TIMES, 2, 1, 0, "newline")
    return replace(found, completes_line=column > 1, **more)


def comparison(first: Prediction, text: str | None = None) -> Comparison:
    said = first.text if text is None else text
    times = replace(TIMES, line=1_404.0)
    return Comparison(
        "full", said, first.at, first.completes_line, said == first.text, times, Speedup(84.6, 78.0)
    )


class Screen:
    """A terminal of some size, and what is on it: cursor movements are played out."""

    def __init__(self, width: int = 60, height: int = 40, **options: Any) -> None:
        self.file = StringIO()
        console = Console(
            file=self.file, width=width, height=height, force_terminal=True, highlight=False
        )
        for name, value in options.items():
            setattr(console, name, value)
        self.renderer = Renderer(out=console, clock=lambda: "14:03:22")

    @property
    def rows(self) -> list[str]:
        rows, row = [""], 0
        pattern = re.compile(r"\x1b\[(\d*)([AK])|\x1b\[[\d;]*m|(\r)|(\n)|([^\x1b\r\n]+)")
        for count, code, back, newline, text in pattern.findall(self.file.getvalue()):
            if code == "A":
                row -= int(count)
            elif code == "K":
                rows[row] = ""
            elif newline:
                row += 1
                rows += [""] * (row == len(rows))
            elif text:
                rows[row] += text
            else:
                assert back or not code
        return rows


def plain(first: Prediction, better: Comparison | None = None, text: str = TEXT) -> list[str]:
    return [row.plain for row in block("a.py", text, first, better, Look())]


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0.34, "0.3 ms"),
        (8.26, "8.3 ms"),
        (9.96, "10 ms"),
        (183.4, "183 ms"),
        (999.7, "1.0 s"),
        (1_404, "1.4 s"),
        (9_960, "10 s"),
        (77_922.6, "78 s"),
        (150_000, "2.5 min"),
        (1_830_000, "30 min"),
    ],
)
def test_times_have_two_or_three_digits(ms: float, words: str) -> None:
    assert duration(ms) == words


def test_how_many_times_as_long_has_two_or_three_digits() -> None:
    assert [times_as_long(f).split()[0] for f in (1.24, 9.97, 78.4)] == ["1.2", "10", "78"]


def test_the_limit_that_is_advised_would_suffice() -> None:
    for ms in (20_001.0, 44_000.0, 99_999.0):
        found = re.search(r"--compare-limit (\d+)", not_run(Recompute(ms, measured=False)))
        assert found is not None
        assert int(found[1]) * 1e3 >= ms


@pytest.mark.parametrize(
    ("width", "rows"),
    [
        (80, ["  516 ms, kept 1,268 of 1,287 tokens, not confirmed yet"]),
        (40, ["  516 ms, kept 1,268 of 1,287 tokens,", "  not confirmed yet"]),
        (30, ["  516 ms,", "  kept 1,268 of 1,287 tokens,", "  not confirmed yet"]),
        (20, ["  516 ms, kept 1,268", "  of 1,287 tokens,", "  not confirmed yet"]),
    ],
)
def test_words_wrap_between_phrases(width: int, rows: list[str]) -> None:
    assert folded("  516 ms, kept 1,268 of 1,287 tokens, not confirmed yet", width) == rows


def test_what_cannot_wrap_stays_whole() -> None:
    assert folded("a/long/path.py, b", 8) == ["a/long/path.py,", "b"]
    assert folded("", 8) == [""]


def test_a_rule_too_narrow_for_what_changed_has_it_below() -> None:
    screen = Screen(40)
    screen.renderer.rule("src/inventory.py", "12 lines added, 3 removed")
    rows = [row for row in screen.rows if row]
    assert rows == [f"── 14:03:22  src/inventory.py {'─' * 10}", "  12 lines added, 3 removed"]


@pytest.mark.parametrize(("after_s", "shown"), [(0.0, True), (1e-3, True), (3_600.0, False)])
def test_progress_shows_also_where_nothing_is_reported(
    after_s: float, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Event()
    monkeypatch.setattr(Progress, "start", lambda _: started.set())
    renderer = Renderer()
    renderer.err = Console(file=StringIO(), force_terminal=True)
    with renderer.progress("reading", after_s=after_s):
        assert not shown or started.wait(60)
    assert started.is_set() is shown


def test_only_what_is_predicted_is_green() -> None:
    """Green names beside it would pass for a prediction, and light colours vanish on white."""
    text = "@a.b\nclass C(Exception):\n    def f(self):\n        return None\n"
    look = Look(80, coloured=True, highlighted=True)
    rows = block("a.py", text, prediction("    x = 'a'", 3), None, look)
    coloured = {
        (row.plain[span.start : span.end].strip(), str(span.style))
        for row in rows
        for span in row.spans
    }
    assert {("class", "bright_blue"), ("x = 'a'", "bold green")} <= coloured
    green = {word for word, style in coloured if "green" in style}
    assert green == {"x = 'a'", ">   3"}
    assert not any(light in style for _, style in coloured for light in ("cyan", "yellow"))


def test_a_new_line_pushes_the_others_down() -> None:
    rows = plain(prediction("    c = b", 3))
    assert rows == [
        "     1 def f(a):",
        "     2     b = a +",
        " >   3     c = b",
        "     4     return b",
        "     5",
        "     6 x = f(1)",
    ]


def test_typed_predicted_and_following_are_told_apart_without_colours() -> None:
    assert plain(prediction(" 1", 2, 12))[1:4] == [
        " >   2     b = a + 1",
        "                  ^^",
        "     3     return b",
    ]
    inside = plain(prediction("a, ", 5, 7))
    assert " >   5 x = f(a, 1)" in inside
    assert inside[inside.index(" >   5 x = f(a, 1)") + 1] == "             ^^^"


def test_typed_predicted_and_following_have_styles_of_their_own() -> None:
    rows = block("a.py", TEXT, prediction("a, ", 5, 7), None, Look(80, coloured=True))
    row = next(row for row in rows if row.plain.startswith(" >"))
    styles = {row.plain[span.start : span.end]: str(span.style) for span in row.spans}
    assert styles["a, "] == "bold green"
    assert styles["1)"] == "dim"
    assert "x = f(" not in styles or styles["x = f("] == ""
    assert not any("^" in row.plain for row in rows)


def test_a_prediction_is_wrapped_and_its_neighbours_are_cut() -> None:
    long = "    value = " + " + ".join(f"name_{n}" for n in range(20))
    text = f"{long}\n" * 2
    for width in (24, 40, 60):
        rows = [row.plain for row in block("a.py", text, prediction(long, 2), None, Look(width))]
        assert all(cell_len(row) <= width for row in rows)
        start = next(i for i, row in enumerate(rows) if row.startswith(" >"))
        stop = next(i for i, row in enumerate(rows) if i > start and row[5:6] == "3")
        assert "".join(row[7:] for row in rows[start:stop]) == long
        assert rows[0].endswith("…")
        assert len(rows) == stop - start + 2


def test_no_word_is_torn_that_fits_a_row() -> None:
    line = "        self.assert_equal(response.status_code, expected_code, 'No page')"
    rows = [row.plain[7:] for row in block("a.py", TEXT, prediction(line, 3), None, Look(34))]
    start = next(index for index, row in enumerate(rows) if "self" in row)
    assert rows[start : start + 4] == [
        "        self.assert_equal(",
        "response.status_code, ",
        "expected_code, 'No page')",
        "    return b",
    ]


LINES = st.text(st.sampled_from("ab_9 .,()'=日"), max_size=60)


@given(LINES, st.integers(2, 20))
def test_a_line_is_cut_into_pieces_that_fit_and_show_something(line: str, width: int) -> None:
    cuts = _cuts(line, width)
    pieces = [line[a:b] for a, b in pairwise([0, *cuts, len(line)])]
    assert all(cell_len(piece) <= width for piece in pieces)
    assert all(piece.strip() or cell_len(piece) >= width - 1 for piece in pieces[:-1])
    for before, after in pairwise(pieces):
        if re.search(r"\w$", before) and re.match(r"\w", after):
            assert " " not in before.strip(), "it is torn where a blank was nearer"


@pytest.mark.parametrize(("width", "is_table"), [(60, True), (19, True), (18, False)])
def test_a_table_too_wide_for_its_terminal_becomes_words(width: int, is_table: bool) -> None:
    screen = Screen(width)
    rows = [("pie", "1", "2.5"), ("", "12", "")]
    screen.renderer.table(("name", "cases", "same %"), rows, left=(0,))
    shown = [row.rstrip() for row in screen.rows if row]
    if is_table:
        assert shown == ["name  cases  same %", "pie       1     2.5", "         12"]
    else:
        assert shown == ["pie", "  cases 1,", "  same % 2.5", "  cases 12"]


def test_marks_stay_below_their_characters_where_a_line_wraps() -> None:
    first = prediction("日本語" * 6, 2, 12)
    rows = [row.plain for row in block("a.py", TEXT, first, None, Look(24))]
    above = ""
    marked = 0
    for row in rows:
        assert cell_len(row) <= 24
        if set(row.strip()) == {"^"}:
            wide = sum(cell_len(character) for character in above if character in "日本語")
            assert row.count("^") == wide
            marked += wide
        above = row
    assert marked == 2 * 18


def test_what_is_corrected_is_crossed_out_above_the_better_line() -> None:
    first = prediction(" 1", 2, 12)
    better = comparison(first, " b")
    rows = block("a.py", TEXT, first, better, Look(60, coloured=True))
    assert [row.plain for row in rows][1:4] == [
        " -   2     b = a + 1",
        " >   2     b = a + b",
        "     3     return b",
    ]
    assert any(str(span.style) == "dim strike" for span in rows[1].spans)
    nothing = plain(first, comparison(first, ""))
    assert nothing[1:4] == [
        " -   2     b = a + 1",
        "                  xx",
        "       (nothing to add)",
    ]


@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_a_contradicted_line_is_replaced_in_place_on_a_terminal(width: int) -> None:
    screen, first = Screen(width), prediction("    c = b", 3)
    screen.renderer.line("above")
    screen.renderer.prediction("a.py", TEXT, first, compares=True)
    assert "not confirmed yet" in " ".join(screen.rows)
    screen.renderer.comparison(comparison(first, "    d = 1"))
    rows = screen.rows
    assert rows[0] == "above"
    assert [row for row in rows if "c = b" in row] == [" -   3     c = b"]
    assert [row for row in rows if "d = 1" in row] == [" >   3     d = 1"]
    assert len([row for row in rows if "return b" in row]) == 1
    text = " ".join(" ".join(rows).split())
    assert "corrected by full recompute: 1.4 s, 78 times as long" in text
    assert "not confirmed" not in text


def test_a_confirmed_line_stays_and_says_so() -> None:
    screen, first = Screen(), prediction("    c = b", 3)
    screen.renderer.prediction("a.py", TEXT, first, compares=True)
    screen.renderer.comparison(comparison(first))
    rows = screen.rows
    assert len([row for row in rows if "c = b" in row]) == 1
    assert "  18 ms, kept 1,268 of 1,287 tokens" in rows
    assert "  confirmed by full recompute: 1.4 s, 78 times as long" in rows


@pytest.mark.parametrize("hindrance", ["printed", "too low", "resized", "dumb"])
def test_what_cannot_be_replaced_gets_a_second_block(
    hindrance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hindrance == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    screen = Screen(height=6 if hindrance == "too low" else 40)
    first = prediction("    c = b", 3)
    screen.renderer.prediction("a.py", TEXT, first, compares=True)
    if hindrance == "printed":
        screen.renderer.line("between")
    if hindrance == "resized":
        screen.renderer.out.width = 50
    screen.renderer.comparison(comparison(first, "    d = 1"))
    assert " >   3     c = b" in screen.rows
    assert " >   3     d = 1" in screen.rows


def test_a_pipe_gets_a_second_block_and_no_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    renderer, first = Renderer(clock=lambda: "14:03:22"), prediction(" 1", 2, 12)
    renderer.rule("a.py", "2 lines added, 1 removed")
    renderer.prediction("a.py", TEXT, first, compares=True)
    renderer.comparison(comparison(first, " b"))
    assert capsys.readouterr().out == (
        "\n── 14:03:22  a.py  2 lines added, 1 removed " + "─" * 36 + "\n"
        "     1 def f(a):\n >   2     b = a + 1\n                  ^^\n     3     return b\n"
        "     4\n     5 x = f(1)\n  18 ms, kept 1,268 of 1,287 tokens, not confirmed yet\n"
        "  corrected by full recompute: 1.4 s, 78 times as long\n"
        "     1 def f(a):\n >   2     b = a + b\n                  ^^\n     3     return b\n"
        "     4\n     5 x = f(1)\n"
    )


def test_without_colours_marks_tell_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen()
    screen.renderer.prediction("a.py", TEXT, prediction(" 1", 2, 12))
    assert "                  ^^" in screen.rows
    assert not re.search(r"\x1b\[[\d;]*3\d", screen.file.getvalue())


def test_a_text_that_another_process_asks_about_is_not_said_to_be_new() -> None:
    screen = Screen()
    report = TextReport(screen.renderer)
    report.reading("a.py", asked=False)
    report.reading("a.py", asked=True)
    assert screen.rows[:2] == [
        "Reading a.py for the first time",
        "Reading a.py as pie complete asks",
    ]


def test_the_rule_fits_its_terminal() -> None:
    for width in (20, 40, 100):
        screen = Screen(width)
        screen.renderer.rule("a.py", "1 line added")
        assert all(cell_len(row) <= width for row in screen.rows)
        assert "14:03:22" in " ".join(screen.rows)
