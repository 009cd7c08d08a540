"""Everything a person sees: text, colour, progress. The one module that imports rich."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from pie_cli.cli.tally import MedianTimes, Summary
from pie_cli.session import Comparison, Prediction

NEIGHBOURS = 3
"""Lines shown before and behind a prediction."""

# Control characters, and the marks that reorder text on screen.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Spell control characters out, so that no file and no model can steer the terminal."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


class Renderer:
    """Prints results to stdout and messages to stderr; plain text where they are no terminals."""

    def __init__(self) -> None:
        self.out = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.err = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())

    def line(self, text: str) -> None:
        """Print one line of plain text to stdout, whatever it holds."""
        self.out.print(Text(visible(text)))

    def note(self, text: str) -> None:
        """Print one line of information to stderr."""
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
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        with Progress(
            *columns, console=self.err, transient=True, disable=not self.err.is_terminal
        ) as bar:
            task = bar.add_task(title, total=None)

            def report(stage: str, done: int, total: int) -> None:
                bar.update(
                    task, description=f"{title}: {stage}", completed=done, total=total or None
                )

            yield report

    def prediction(self, path: str, text: str, prediction: Prediction) -> None:
        """Print what changed, the predicted line among its neighbours, and pie's time."""
        self.out.print(_headline(path, prediction))
        self.out.print(
            Padding(_in_place(path, text, prediction, self.out.is_terminal), (0, 0, 0, 1))
        )
        self.out.print(
            _times(
                f"{prediction.strategy:<6}",
                prediction.timings_ms.first_token,
                prediction.timings_ms.line,
                _trust(prediction),
            )
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
            self.out.print(Text(f"        predicts another line: {visible(line)}", style="yellow"))

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
        self._median(summary.strategy, summary.prediction_ms, summary.predictions)
        self._median(summary.baseline, summary.comparison_ms, summary.comparisons)
        if summary.agreement_pct is not None:
            self.out.print(
                f"       same line in {summary.agreed} of {summary.comparisons} comparisons"
                f" ({summary.agreement_pct:.0f} %)"
            )

    def _median(self, name: str, times: MedianTimes | None, count: int) -> None:
        if times is not None:
            remark = f"median of {count}"
            self.out.print(_times(f"{name:<6}", times.first_token, times.line, remark))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Print a table; numbers are right-aligned."""
        table = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
        for index, name in enumerate(columns):
            table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(Text(visible(cell)) for cell in row))
        self.out.print(table)


def _headline(path: str, prediction: Prediction) -> Text:
    tokens = prediction.tokens
    parts = [
        f"+{prediction.lines_added} -{prediction.lines_removed} lines"
        if prediction.lines_added or prediction.lines_removed
        else "no edit"
    ]
    parts.append(f"{tokens.encoded:,} tokens encoded")
    if tokens.reused:
        parts.append(f"{tokens.reused:,} reused ({tokens.shifted:,} shifted)")
    if prediction.window_dropped:
        parts.append(f"{prediction.window_dropped:,} lines above the window left out")
    return Text.assemble((visible(path), "bold"), "  ", (", ".join(parts), "dim"))


def _trust(prediction: Prediction) -> str:
    return "exact" if prediction.exact else f"approximate: {prediction.tokens.stale:,} stale tokens"


def _times(name: str, first_token: float, line: float, remark: str) -> Text:
    return Text.assemble(
        (f" {name:<6}", "bold"),
        f"{first_token:9,.1f} ms to the first token, {line:9,.1f} ms to the line  ",
        (remark, "dim"),
    )


def _in_place(path: str, text: str, prediction: Prediction, is_terminal: bool) -> RenderableType:
    """Show the predicted line where it would stand."""
    lines = text.split("\n")
    row = prediction.at.line - 1
    typed = lines[row][: prediction.at.column - 1] if row < len(lines) else ""
    added = (typed + prediction.text).split("\n")
    before = lines[max(0, row - NEIGHBOURS) : row]
    behind = [] if prediction.at.column > 1 else lines[row : row + NEIGHBOURS]
    if behind and behind[-1] == "":
        behind.pop()
    if not prediction.text:
        return Group(
            _code(path, before, row - len(before) + 1, is_terminal),
            Text("     (nothing to add)", style="dim"),
        )
    return Group(
        _code(path, before, row - len(before) + 1, is_terminal),
        _code(path, added, row + 1, is_terminal, mark=">"),
        _code(path, behind, row + len(added) + 1, is_terminal),
    )


def _code(
    path: str, lines: Sequence[str], first: int, is_terminal: bool, mark: str = " "
) -> RenderableType:
    """Show numbered lines, coloured by the file's language on a terminal."""
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=is_terminal, overflow="ellipsis")
    for number, line in enumerate(lines, first):
        code: RenderableType = Text(visible(line).expandtabs(4))
        if is_terminal:
            code = _highlighted(path, visible(line).expandtabs(4))
        style = "bold green" if mark != " " else "dim"
        table.add_row(Text(f"{mark} {number:>5}", style=style), code)
    return table


def _highlighted(path: str, line: str) -> Text:
    lexer = Syntax.guess_lexer(PurePath(path).name)
    text = Syntax("", lexer, theme="ansi_dark", background_color="default").highlight(line)
    text.rstrip()
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
