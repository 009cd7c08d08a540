"""The benchmark as a picture. Imports matplotlib, an extra, only to draw."""

import statistics
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from pie_cli.errors import InputError, PieError
from pie_cli.evaluation.latency import Row

_FORMATS = (".png", ".svg", ".pdf")
_NAMES = {"full": "full recompute"}
# Distinct in print and to colour-blind eyes (Okabe and Ito).
_COLOURS = {"full": "#7f7f7f", "prefix": "#56b4e9", "cfe": "#e69f00", "pie": "#009e73"}
_FURTHER_COLOURS = ("#0072b2", "#cc79a7", "#d55e00", "#f0e442")
_GROUP_WIDTH = 0.8


def check_plot(path: Path) -> None:
    """Refuse what could only fail after the measurements.

    Raises:
        InputError: no folder to write to, or a format that is not drawn.
        PieError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"cannot draw {path}", f"name a file that ends in {', '.join(_FORMATS)}")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"cannot write {path}", "name a file in a folder that exists")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise PieError(
            "drawing needs matplotlib, which is not installed",
            "install pie with the extra: pip install 'pie-cli[plot]', or leave --plot out",
        ) from error


def draw(path: Path, rows: Sequence[Row], caption: str) -> None:
    """Draw the time to the first token by context length, a bar a strategy.

    A bar is the median over all edits of one context length, its whisker runs from the fastest to
    the slowest kind of edit.

    Raises:
        InputError: the file cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter

    contexts = sorted({row.context_tokens for row in rows})
    figure = Figure(figsize=(2.6 + 1.9 * len(contexts), 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    strategies = tuple(dict.fromkeys(row.strategy for row in rows))
    colours = _coloured(strategies)
    width = _GROUP_WIDTH / len(strategies)
    for index, strategy in enumerate(strategies):
        medians = [
            [
                row.first_token_ms.median
                for row in rows
                if row.context_tokens == context and row.strategy == strategy
            ]
            for context in contexts
        ]
        heights = [statistics.median(values) for values in medians]
        places = [
            group + (index + 0.5) * width - _GROUP_WIDTH / 2 for group in range(len(contexts))
        ]
        spans = [
            [height - min(values) for height, values in zip(heights, medians, strict=True)],
            [max(values) - height for height, values in zip(heights, medians, strict=True)],
        ]
        bars = axes.bar(
            places,
            heights,
            0.92 * width,
            yerr=spans,
            color=colours[strategy],
            label=_NAMES.get(strategy, strategy),
            error_kw={"elinewidth": 1, "ecolor": "#333333"},
        )
        axes.bar_label(bars, [_short(height) for height in heights], padding=2, fontsize=8)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,g}")
    # Within one power of ten the ticks between have labels, too: as numbers, not as powers.
    axes.yaxis.set_minor_formatter(LogFormatter())
    axes.margins(y=0.15)
    axes.set_xticks(range(len(contexts)), [f"{context:,}" for context in contexts])
    axes.set_xlabel("context, tokens")
    axes.set_ylabel("edit to first token, ms (median)")
    axes.set_title(caption, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(strategies), frameon=False, fontsize=8)
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}", "name another file") from error


def _coloured(strategies: Sequence[str]) -> dict[str, str]:
    """Give the plain strategies their own colours, the others the next ones."""
    others = [strategy for strategy in strategies if strategy not in _COLOURS]
    return _COLOURS | dict(zip(others, cycle(_FURTHER_COLOURS), strict=False))


def _short(time_ms: float) -> str:
    return f"{time_ms:,.0f}" if time_ms >= 10 else f"{time_ms:.1f}"
