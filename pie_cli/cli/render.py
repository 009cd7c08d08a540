"""Everything a person sees: text, colour, progress."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from io import TextIOWrapper
from threading import Timer
from typing import IO

from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import ControlType
from rich.table import Table
from rich.text import Text

from pie_cli.cli import logs
from pie_cli.cli.blocks import Look, block
from pie_cli.cli.folding import folded
from pie_cli.cli.tally import MedianTimes, Summary
from pie_cli.cli.visible import visible
from pie_cli.cli.words import (
    duration,
    explained,
    explained_comparison,
    not_run,
    unconfirmed,
    verdict,
    what_it_took,
)
from pie_cli.results import Comparison, Prediction, Recompute

TABLE_COLUMNS = 120
"""Characters that a table may take up, also where the terminal is narrower."""

FACT_LABELS = 12
"""Characters that the labels of facts take up, so that lists of them stand in line."""

PROGRESS_AFTER_S = 1.0
"""What takes longer than this shows how far it is."""

_RULE_COLUMNS = 80
_UP, _ERASE = ControlType.CURSOR_UP, ControlType.ERASE_IN_LINE


def _time_of_day() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


@dataclass(frozen=True)
class _Shown:
    """The last prediction on the screen: its rows, and the width they were laid out for."""

    path: str
    text: str
    prediction: Prediction
    rows: int
    width: int


class Renderer:
    """Prints results to stdout and messages to stderr; plain text where they are no terminals.

    Args:
        quiet: print nothing: for a process that another one reports for.
        explains: tell of predictions in the method's vocabulary as well.
        out: what is printed to; by default stdout.
        clock: tells the time of day.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        explains: bool = False,
        out: Console | None = None,
        clock: Callable[[], str] = _time_of_day,
    ) -> None:
        self.out = out or _console(None if quiet else sys.stdout)
        self.err = _console(None if quiet else sys.stderr)
        self._explains = explains
        self._clock = clock
        self._shown: _Shown | None = None
        self._is_last = False

    def line(self, text: str) -> None:
        """Print one line of plain text to stdout, whatever it holds."""
        self._say(Text(visible(text)))

    def prose(self, text: str) -> None:
        """Print words to stdout; on a terminal they wrap between phrases."""
        self._say(*_folded(self.out, text, ""))

    def bare(self, text: str) -> None:
        """Print a text as it is, for a program that takes it; spelled out on a terminal.

        Nothing at all for an empty text.
        """
        if not text:
            return
        if self.out.is_terminal:
            for line in text.split("\n"):
                self.line(line)
        else:
            print(text)

    def note(self, text: str) -> None:
        """Print one line of information to stderr, unless only errors are wanted there."""
        if not logs.is_quiet():
            self._is_last = False
            self._complain(*_folded(self.err, text, "dim"))

    def error(self, cause: str, remedy: str) -> None:
        """Print a failure to stderr, one or two lines."""
        self._is_last = False
        first, *more = _folded(self.err, f"     {cause}", "")
        self._complain(Text.assemble(("pie: ", "bold red"), first[5:]), *more)
        if remedy:
            self._complain(*_folded(self.err, f"     {remedy}", "dim"))

    def _complain(self, *rows: Text) -> None:
        """Print rows to stderr."""
        for row in rows:
            self.err.print(row)

    @contextmanager
    def progress(
        self, title: str, *, after_s: float = 0.0
    ) -> Iterator[Callable[[str, int, int], None]]:
        """Show a bar on stderr while the body runs, if stderr is a terminal.

        Args:
            title: what is being done.
            after_s: how long the body has run when the bar appears.

        Yields:
            A function to call with (stage, done, total); total 0 is unknown.
        """
        title = visible(title)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeRemainingColumn(),
        )
        is_shown = not logs.is_quiet() and self.err.is_terminal
        bar = Progress(*columns, console=self.err, transient=True, disable=not is_shown)
        task = bar.add_task(title, total=None)
        # Also where nothing is reported for long.
        timer = Timer(after_s, bar.start)
        timer.daemon = True

        def report(stage: str, done: int, total: int) -> None:
            in_bytes = stage in ("download", "convert")
            what = f": {done / 1e9:.2f} GB" if in_bytes else f": {stage}" * bool(stage)
            bar.update(task, description=f"{title}{what}", completed=done, total=total or None)

        try:
            if not is_shown:
                pass
            elif after_s:
                timer.start()
            else:
                bar.start()
            yield report
        finally:
            timer.cancel()
            if timer.ident is not None:
                timer.join()
            bar.stop()

    def rule(self, what: str, detail: str = "") -> None:
        """Print a rule with the time of day, and what comes below it."""
        line = "\u2500" if self.out.encoding.lower().startswith("utf") else "-"
        title = Text.assemble(f"{line * 2} {self._clock()}  ", (visible(what), "bold"))
        beside = Text(f"  {detail}" if detail else "")
        width = self.out.width if self.out.is_terminal else _RULE_COLUMNS
        below = self.out.is_terminal and title.cell_len + beside.cell_len > width
        left = width - title.cell_len - 1 - (0 if below else beside.cell_len)
        rule = Text(f" {line * left}" if left > 0 else "", "dim")
        self._say(Text(""), title + rule if below else title + beside + rule)
        if below:
            self.prose(f"  {detail}")

    def headline(self, path: str, detail: str) -> None:
        """Print what comes below it."""
        self._say(Text.assemble((visible(path), "bold"), f"  {detail}" if detail else ""))

    def prediction(
        self, path: str, text: str, prediction: Prediction, *, compares: bool = False
    ) -> None:
        """Print the predicted line among its neighbours, and what it took.

        Args:
            path: of the file.
            text: of the file.
            prediction: in it.
            compares: whether a comparison is to come, which may put another line in its place.
        """
        worth = unconfirmed(prediction, will_be_compared=compares)
        status = [f"{what_it_took(prediction)}, {worth}"]
        status += [explained(prediction)] if self._explains else []
        rows = [*block(path, text, prediction, None, self._look), *self._status(status)]
        self._say(*rows)
        self._shown = _Shown(path, text, prediction, len(rows), self.out.width)
        self._is_last = True

    def comparison(self, comparison: Comparison) -> None:
        """Print what recomputing says; on a terminal a line that it corrects is replaced."""
        shown, better = self._shown, None if comparison.agrees else comparison
        if shown is None or not self._can_replace(shown):
            self._say(*self._verdict(comparison))
            if shown is not None and better is not None:
                first = replace(shown.prediction, text="")
                self._say(*block(shown.path, shown.text, first, better, self._look))
            return
        self.out.control(*[Control((_UP, 1), (_ERASE, 2))] * shown.rows)
        self.answer(shown.path, shown.text, shown.prediction, comparison)

    def answer(self, path: str, text: str, prediction: Prediction, comparison: Comparison) -> None:
        """Print a prediction that was compared: the best line in its place, and the verdict."""
        better = None if comparison.agrees else comparison
        status = [what_it_took(prediction)]
        status += [explained(prediction)] if self._explains else []
        self._say(
            *block(path, text, prediction, better, self._look),
            *self._status(status),
            *self._verdict(comparison),
        )

    def _verdict(self, comparison: Comparison) -> list[Text]:
        said = [verdict(comparison)]
        said += [explained_comparison(comparison)] if self._explains else []
        return self._status(said, "green" if comparison.agrees else "yellow")

    def not_compared(self, recompute: Recompute) -> None:
        """Print what the comparison would take that is not run."""
        self._say(*self._status([not_run(recompute)]))

    @property
    def _look(self) -> Look:
        """What blocks look like on stdout: styles need a terminal that has colours."""
        out = self.out
        coloured = out.is_terminal and out.color_system is not None and not out.no_color
        return Look(out.width if out.is_terminal else None, coloured, highlighted=coloured)

    def _status(self, lines: Sequence[str], style: str = "dim") -> list[Text]:
        """Lay lines below a block out, wrapped on a terminal."""
        return [row for line in lines for row in _folded(self.out, f"  {line}", style)]

    def _can_replace(self, shown: "_Shown") -> bool:
        """Tell whether what was shown is right above, as it was printed."""
        out = self.out
        return (
            self._is_last
            and out.is_terminal
            and not out.is_dumb_terminal
            and not out.legacy_windows
            and shown.width == out.width
            and shown.rows < out.height
        )

    def _say(self, *rows: Text) -> None:
        """Print rows to stdout: nothing above them is replaced any more."""
        self._is_last = False
        for row in rows:
            self.out.print(row)

    def title(self, text: str) -> None:
        """Print one line that what follows stands under."""
        self._say(*_folded(self.out, text, "bold cyan"))

    def aside(self, text: str) -> None:
        """Print words of lesser weight to stdout."""
        self._say(*_folded(self.out, text, "dim"))

    def summary(self, summary: Summary) -> None:
        """Print what became of a watched file's saves: counts, median times, agreement."""
        counts = [f"{summary.saves} save{'s' * (summary.saves != 1)}"]
        if summary.superseded:
            counts.append(f"{summary.superseded} superseded")
        if summary.errors:
            counts.append(f"{summary.errors} error{'s' * (summary.errors != 1)}")
        self.out.print(Text(", ".join(counts), style="bold"))
        self._median("answers", summary.prediction_ms)
        by = "full recompute" if summary.baseline == "full" else f"recompute ({summary.baseline})"
        self._median(by, summary.comparison_ms)
        if summary.agreement_pct is not None:
            self.prose(
                f"  the same line in {summary.agreed} of {summary.comparisons} comparisons"
                f" ({summary.agreement_pct:.0f} %)"
            )

    def _median(self, name: str, times: MedianTimes | None) -> None:
        if times is not None:
            self.prose(f"  {name}: {duration(times.line)}, median of {times.count}")

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
        """Print a table; on a terminal that is too narrow for it, each row as words below its name.

        Args:
            columns: their titles.
            rows: their cells.
            title: a line above.
            left: indices of the columns that are left-aligned; the others are for numbers.
            dense: one blank between columns rather than two.
        """
        if title:
            self._say(*_folded(self.out, title, "italic"))
        gap = 1 if dense else 2
        if self.out.is_terminal and _table_width(columns, rows, gap) > self.out.width:
            self._rows_as_words(columns, rows, left)
            return
        table = Table(box=None, pad_edge=False, collapse_padding=dense)
        for index, name in enumerate(columns):
            title_cell = Text(visible(name))
            table.add_column(title_cell, justify="left" if index in left else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        # Rich takes what is no terminal for 80 columns wide, and would cut cells off.
        _console(self.out.file, max(self.out.width, TABLE_COLUMNS)).print(table)

    def _rows_as_words(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int]
    ) -> None:
        names = next(index for index in range(len(columns) + 1) if index not in left)
        for row in rows:
            said = [f"{name} {cell}" for name, cell in zip(columns, row, strict=True) if cell]
            said = said[sum(map(bool, row[:names])) :]
            self._say(*_folded(self.out, ", ".join(filter(None, row[:names])), "bold"))
            self.prose(f"  {', '.join(said)}")


def _table_width(columns: Sequence[str], rows: Sequence[Sequence[str]], gap: int) -> int:
    """Return how many cells the lines of a table take up."""
    cells = zip(columns, *rows, strict=True)
    widths = [max(cell_len(visible(cell)) for cell in column) for column in cells]
    return sum(widths) + gap * (len(widths) - 1)


def _folded(console: Console, text: str, style: str) -> list[Text]:
    """Lay words out: on a terminal in rows that fit it."""
    spelled = visible(text)
    rows = folded(spelled, console.width) if console.is_terminal else [spelled]
    return [Text(row, style) for row in rows]


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
