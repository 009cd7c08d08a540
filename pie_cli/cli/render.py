"""Everything a person sees: text, colour, progress. The one module that imports rich."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import PurePath
from typing import IO

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from pie_cli.cli import logs
from pie_cli.cli.tally import MedianTimes, Summary
from pie_cli.cli.visible import LONGEST, shortened, visible
from pie_cli.results import Comparison, Prediction
from pie_cli.text.cursor import BOM

NEIGHBOURS = 3
"""Lines shown before and behind a prediction."""

TABLE_COLUMNS = 120
"""Characters that a table may take up, also where the terminal is narrower."""

FACT_LABELS = 12
"""Characters that the labels of facts take up, so that lists of them stand in line."""

LINE_CHARS = 400
"""Characters of a line of code that are shown."""

BESIDE_CHARS = 160
"""Characters shown of what comes before a prediction in its line, and as many after it."""


class Renderer:
    """Prints results to stdout and messages to stderr; plain text where they are no terminals.

    Args:
        quiet: print nothing: for a process that another one reports for.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.out = _console(None if quiet else sys.stdout)
        self.err = _console(None if quiet else sys.stderr)

    def line(self, text: str) -> None:
        """Print one line of plain text to stdout, whatever it holds."""
        self.out.print(Text(visible(text)))

    def bare(self, text: str) -> None:
        """Print a text as it is, for a program that takes it; spelled out on a terminal."""
        if self.out.is_terminal:
            for line in text.split("\n"):
                self.line(line)
        else:
            print(text)

    def note(self, text: str) -> None:
        """Print one line of information to stderr, unless only errors are wanted there."""
        if not logs.is_quiet():
            self.err.print(Text(visible(text), style="dim"))

    def error(self, cause: str, remedy: str) -> None:
        """Print a failure to stderr, one or two lines."""
        self.err.print(Text.assemble(("pie: ", "bold red"), visible(cause)))
        if remedy:
            self.err.print(Text(f"     {visible(remedy)}", style="dim"))

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[str, int, int], None]]:
        """Show a bar on stderr while the body runs, if stderr is a terminal.

        Yields:
            A function to call with (stage, done, total); total 0 is unknown.
        """
        title = visible(title)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns,
            console=self.err,
            transient=True,
            disable=logs.is_quiet() or not self.err.is_terminal,
        ) as bar:
            task = bar.add_task(title, total=None)

            def report(stage: str, done: int, total: int) -> None:
                what = stage if stage == "weights" else f"{done / 1e9:.2f} GB"
                bar.update(
                    task, description=f"{title}: {what}", completed=done, total=total or None
                )

            yield report

    def prediction(self, path: str, text: str, prediction: Prediction) -> None:
        """Print what changed, the predicted line among its neighbours, and pie's time."""
        self.out.print(_headline(path, prediction))
        shown = _in_place(path, text, prediction, coloured=self.out.is_terminal)
        if self.out.is_terminal:
            self.out.print(shown, no_wrap=True, overflow="ellipsis")
        else:
            self.out.print(shown)
        times = prediction.timings_ms
        self.out.print(
            _times(prediction.strategy, times.first_token, times.line, _trust(prediction))
        )

    def comparison(self, comparison: Comparison) -> None:
        """Print the recompute's time, how much longer that is, and whether it predicts the same."""
        times, speedup = comparison.timings_ms, comparison.speedup
        longer = f"{speedup.first_token:.1f} and {speedup.line:.1f} times as long"
        self.out.print(_times(comparison.strategy, times.first_token, times.line, longer))
        if comparison.agrees:
            self.out.print(Text("        predicts the same line", style="green"))
        else:
            line = comparison.text.strip() or "(nothing to add)"
            self.out.print(Text(f"        predicts otherwise: {visible(line)}", style="yellow"))

    def title(self, text: str) -> None:
        """Print one line that what follows stands under."""
        self.out.print(Text(visible(text), style="bold cyan"))

    def aside(self, text: str) -> None:
        """Print one line of lesser weight to stdout."""
        self.out.print(Text(visible(text), style="dim"))

    def summary(self, summary: Summary) -> None:
        """Print what became of a watched file's saves: counts, median times, agreement."""
        counts = [f"{summary.saves} save{'s' * (summary.saves != 1)}"]
        if summary.superseded:
            counts.append(f"{summary.superseded} superseded")
        if summary.errors:
            counts.append(f"{summary.errors} error{'s' * (summary.errors != 1)}")
        self.out.print(Text(", ".join(counts), style="bold"))
        updates = summary.predictions - summary.opened
        self._median(summary.strategy, summary.prediction_ms, updates)
        self._median(summary.baseline, summary.comparison_ms, summary.comparisons)
        if summary.agreement_pct is not None:
            self.line(
                f"        same line in {summary.agreed} of {summary.comparisons} comparisons"
                f" ({summary.agreement_pct:.0f} %)"
            )

    def _median(self, name: str, times: MedianTimes | None, count: int) -> None:
        if times is not None:
            remark = f"median of {count}"
            self.out.print(_times(name, times.first_token, times.line, remark))

    def facts(self, title: str, facts: Sequence[tuple[str, str]]) -> None:
        """Print labels and values; on a terminal long values wrap in their own column."""
        if title:
            for part in title.split("\n"):
                self.out.print(Text(visible(part), style="bold"))
        width = max(FACT_LABELS, *(len(label) for label, _ in facts)) if facts[0][0] else 0
        if not self.out.is_terminal:
            for label, value in facts:
                self.line(f"  {label:<{width}}  {value}" if width else f"  {value}")
            return
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(min_width=width, max_width=FACT_LABELS * 2, style="dim")
        grid.add_column(overflow="fold")
        for label, value in facts:
            cells = [Text(visible(cell)) for cell in (label, value)]
            grid.add_row(*cells)
        self.out.print(Padding(grid, (0, 0, 0, 2 if width else 0)))

    @property
    def columns(self) -> int:
        """Characters that a line of stdout holds; many where it is no terminal."""
        return self.out.width if self.out.is_terminal else max(self.out.width, TABLE_COLUMNS)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        title: str = "",
        *,
        left: Collection[int] = (0, 1),
        dense: bool = False,
    ) -> None:
        """Print a table.

        Args:
            columns: their titles.
            rows: their cells.
            title: a line above.
            left: indices of the columns that are left-aligned; the others are for numbers.
            dense: one blank between columns rather than two.
        """
        if title:
            self.out.print(Text(visible(title), style="italic"))
        table = Table(box=None, pad_edge=False, collapse_padding=dense)
        for index, name in enumerate(columns):
            title_cell = Text(visible(name))
            table.add_column(title_cell, justify="left" if index in left else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        # Rich takes what is no terminal for 80 columns wide, and would cut cells off.
        _console(self.out.file, max(self.out.width, TABLE_COLUMNS)).print(table)


def _console(stream: IO[str] | None, width: int | None = None) -> Console:
    """Return a console that wraps on a terminal only; a closed stream takes nothing.

    Nothing that it prints is read as markup: strings come from everywhere.
    """
    if stream is None:
        return Console(quiet=True)
    if isinstance(stream, TextIOWrapper):
        # A terminal that cannot show a character gets its code, not a failure.
        stream.reconfigure(errors="backslashreplace")
    return Console(
        file=stream,
        width=width,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=width is None and not stream.isatty(),
    )


def _headline(path: str, prediction: Prediction) -> Text:
    tokens = prediction.tokens
    parts = [
        f"+{prediction.lines_added} -{prediction.lines_removed} lines"
        if prediction.lines_added or prediction.lines_removed
        else "no edit"
        if tokens.reused
        else "opened"
    ]
    parts.append(f"{tokens.encoded:,} token{'s' * (tokens.encoded != 1)} encoded")
    if tokens.reused:
        parts.append(f"{tokens.reused:,} reused ({tokens.shifted:,} shifted)")
    if prediction.context:
        files = len(prediction.context)
        parts.append(f"{files} other file{'s' * (files != 1)} in the prompt")
    left_out = (prediction.window_dropped, prediction.window_dropped_below)
    if any(left_out):
        parts.append(f"{left_out[0]:,} lines above and {left_out[1]:,} below the window left out")
    return Text.assemble((visible(path), "bold"), "  ", (", ".join(parts), "dim"))


def _trust(prediction: Prediction) -> str:
    return "exact" if prediction.exact else f"approximate: {prediction.tokens.stale:,} stale tokens"


def _times(name: str, first_token: float, line: float, remark: str) -> Text:
    return Text.assemble(
        (f" {name:<8}", "bold"),
        f"{first_token:9,.1f} ms first token, {line:9,.1f} ms line  ",
        (remark, "dim"),
    )


def _in_place(path: str, text: str, prediction: Prediction, *, coloured: bool) -> Text:
    """Show the predicted line where it would stand, between its neighbours."""
    lines = text.removeprefix(BOM).split("\n")
    row, column = prediction.at.line - 1, prediction.at.column - 1
    line = lines[row] if row < len(lines) else ""
    # A line that was begun is completed in its place; else the new line pushes the next ones down.
    begun = bool(column and prediction.text)
    rest = line[column:] if begun and prediction.form != "plain" else ""
    before = line[:column]
    if len(before) > BESIDE_CHARS:
        before = f"…{before[-BESIDE_CHARS:]}"
    rest = shortened(rest, BESIDE_CHARS)
    added = f"{before}{prediction.text}{rest}".split("\n") if prediction.text else []
    behind = lines[row + 1 :] if begun else lines[row:]
    if behind and behind[-1] == "":
        behind.pop()
    shown = Text("\n").join(
        [
            *_numbered(
                path, lines[max(0, row - NEIGHBOURS) : row], row + 1, last=True, coloured=coloured
            ),
            *_numbered(path, added, row + 1, mark=">", coloured=coloured),
            *_numbered(path, behind[:NEIGHBOURS], row + len(added) + 1, coloured=coloured),
        ]
    )
    return shown if added else Text.assemble(shown, ("\n  (nothing to add)", "dim"))


def _numbered(
    path: str,
    lines: Sequence[str],
    number: int,
    *,
    coloured: bool,
    mark: str = " ",
    last: bool = False,
) -> Iterator[Text]:
    """Number lines from `number` on, or with `last` up to the one before it."""
    first = number - len(lines) if last else number
    longest = LINE_CHARS if mark == " " else LONGEST
    for offset, line in enumerate(lines):
        # The file's own line ends are nothing to see.
        code = visible(line.removesuffix("\r"), longest).expandtabs(4)
        gutter = Text(f" {mark} {first + offset:>5}", "bold green" if mark != " " else "dim")
        shown = _highlighted(path, code) if coloured else Text(code)
        yield Text.assemble(gutter, " ", shown) if code else gutter


def _highlighted(path: str, line: str) -> Text:
    lexer = Syntax.guess_lexer(PurePath(path).name)
    text = Syntax("", lexer, theme="ansi_dark", background_color="default").highlight(line)
    text.rstrip()
    return text
