"""Evaluations and benchmarks as pictures. Imports matplotlib, an extra, only to draw."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from pie_cli.errors import InputError, PieError
from pie_cli.evaluation.report.summary import SESSION
from pie_cli.evaluation.report.tables import policy_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from pie_cli.evaluation.runs.latency import Row

Panel: TypeAlias = Callable[["Axes"], None]

_FORMATS = (".png", ".svg", ".pdf")
_BAR_GROUP = 0.8

_COLOURS = {"full": "#7f7f7f", "prefix": "#56b4e9", "cfe": "#e69f00", "pie": "#009e73"}
# Distinct in print and to colour-blind eyes: Okabe and Ito's others, then shades between, for
# repaired strategies in their order.
_FURTHER = ("#d55e00", "#0072b2", "#cc79a7", "#f0e442", "#8c564b", "#17becf", "#000000")
_MARKERS = "osD^vP*X"
# Of a legend's small print, to tell how many entries fit side by side.
_CHARS_PER_INCH = 15


def figures_can_be_drawn() -> bool:
    """Tell whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


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
    if not figures_can_be_drawn():
        raise PieError(
            "drawing needs matplotlib, which is not installed",
            "install pie with the extra: pip install 'pie-cli[plot]', or leave --plot out",
        )


def draw_latency(path: Path, rows: Sequence["Row"], caption: str) -> None:
    """Draw the time to the first token by context length, a bar a strategy.

    A bar is the median over all edits of one context length, its whisker runs from the fastest to
    the slowest kind of edit.

    Raises:
        InputError: the file cannot be written.
    """
    contexts = sorted({row.context_tokens for row in rows})
    strategies = list(dict.fromkeys(row.strategy for row in rows))
    style = _Style(strategies)

    def draw(axes: "Axes") -> None:
        for index, strategy in enumerate(strategies):
            medians = [
                [
                    row.first_token_ms.median
                    for row in rows
                    if row.context_tokens == context and row.strategy == strategy
                ]
                for context in contexts
            ]
            heights = [median(values) for values in medians]
            pairs = list(zip(heights, medians, strict=True))
            bars = axes.bar(
                **_bar_places(len(contexts), len(strategies), index),
                height=heights,
                yerr=[[h - min(v) for h, v in pairs], [max(v) - h for h, v in pairs]],
                color=style.of(strategy)["color"],
                label=style.label(strategy),
                error_kw={"elinewidth": 1, "ecolor": "#333333"},
            )
            labels = [f"{h:,.0f}" if h >= 10 else f"{h:.1f}" for h in heights]
            axes.bar_label(bars, labels, padding=2, fontsize=7)
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
        axes.margins(y=0.15)
        axes.set_xticks(range(len(contexts)), [f"{context:,}" for context in contexts])
        axes.set_xlabel("context, tokens")
        axes.set_ylabel("edit to first token, ms (median)")

    _save(path, [draw], caption)


def draw_figures(folder: Path, document: dict[str, Any]) -> list[str]:
    """Draw what an evaluation has figures for.

    Args:
        folder: exists; PNG files are written there.
        document: of `summary.json`.

    Returns:
        Names of the files, those of `tables.PICTURES`.

    Raises:
        InputError: a file that cannot be written.
    """
    caption = (
        f"{document['model']}, {document['environment']['dtype']}, "
        f"{document['settings']['context_tokens']:,} tokens of context"
    )
    drawn = []
    for name, panels in _figures(document).items():
        if panels:
            _save(folder / name, panels, caption)
            drawn.append(name)
    return drawn


def _figures(document: dict[str, Any]) -> dict[str, list[Panel]]:
    """Give the panels of each picture, none where there is nothing to show."""
    style = _Style(document["settings"]["strategies"])
    plain = [row for row in document["rows"] if row["task"] != SESSION and row["cases"]]
    tasks = list(dict.fromkeys(row["task"] for row in plain))
    groups, drift = document["groups"], document["sessions"]["drift"]
    return {
        "cost.png": [
            _cost([r for r in plain if r["task"] == task], task, style, until)
            for task in tasks
            for until in ("first_token", "line")
        ],
        "distance.png": _grouped(groups, "distance", "lines from the edit", style),
        "size.png": [
            *_grouped(groups, "moved", "tokens that the text after it moved", style),
            *_grouped(groups, "changed", "tokens that came and went", style),
        ],
        "cosine.png": [
            _cosine([e for e in document["cosines"] if e["task"] == task], task, kind, style)
            for task in tasks
            for kind in ("keys", "values")
            if any(entry["task"] == task for entry in document["cosines"])
        ],
        "drift.png": _drifts(drift, style) if drift else [],
    }


class _Style:
    """One colour and marker a strategy, the same in all pictures."""

    def __init__(self, strategies: Sequence[str]) -> None:
        further = [name for name in strategies if name not in _COLOURS]
        self._colours = _COLOURS | {
            name: _FURTHER[index % len(_FURTHER)] for index, name in enumerate(further)
        }
        self._order = list(strategies)

    def of(self, name: str) -> dict[str, Any]:
        """Return the keywords that a line or point of a strategy is drawn with."""
        strategy, _, every = name.partition("@")
        marker = _MARKERS[self._order.index(strategy) % len(_MARKERS)]
        style = {"color": self._colours[strategy], "marker": marker, "markersize": 4}
        return style | ({"linestyle": "--" if every == "1" else ":"} if every else {})

    def label(self, name: str) -> str:
        """Return what the legend calls a strategy."""
        return "full recompute" if name == "full" else policy_name(name).removesuffix(" saves")


def _cost(rows: Sequence[dict[str, Any]], task: str, style: _Style, until: str) -> Panel:
    """Agreement with full recompute against the time to the first token, or to the line."""

    def draw(axes: "Axes") -> None:
        for row in rows:
            low, high = row["ci"]["agreement"]
            axes.errorbar(
                [row[f"{until}_ms_median"]],
                [row["agreement"]],
                yerr=[[row["agreement"] - low], [high - row["agreement"]]],
                label=style.label(row["strategy"]),
                capsize=2,
                linewidth=1,
                **style.of(row["strategy"]),
            )
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
        axes.set_xlabel(f"to the {until.replace('_', ' ')}, ms (median)")
        axes.set_ylabel("same line as full recompute, %")
        axes.set_title(f"{task}, {rows[0]['cases']:,} cases", fontsize=9)

    return draw


def _grouped(groups: Sequence[dict[str, Any]], by: str, label: str, style: _Style) -> list[Panel]:
    """Agreement by group, a panel a task."""
    chosen = [group for group in groups if group["by"] == by]
    tasks = dict.fromkeys(group["task"] for group in chosen)
    return [
        _bars([group for group in chosen if group["task"] == task], task, label, style)
        for task in tasks
    ]


def _bars(groups: Sequence[dict[str, Any]], task: str, label: str, style: _Style) -> Panel:
    def draw(axes: "Axes") -> None:
        names = [name for name in groups[0]["agreement"] if name != "full"]
        for index, name in enumerate(names):
            axes.bar(
                **_bar_places(len(groups), len(names), index),
                height=[group["agreement"][name] for group in groups],
                color=style.of(name)["color"],
                label=style.label(name),
            )
        ticks = [f"{group['group']}\n({group['cases']:,})" for group in groups]
        axes.set_xticks(range(len(groups)), ticks, fontsize=7)
        axes.set_ylim(0, 104)
        axes.set_xlabel(f"{label} (cases)")
        axes.set_ylabel("same line as full recompute, %")
        axes.set_title(task, fontsize=9)

    return draw


def _cosine(entries: Sequence[dict[str, Any]], task: str, kind: str, style: _Style) -> Panel:
    def draw(axes: "Axes") -> None:
        for entry in entries:
            if entry["strategy"] in {"full", "prefix"}:
                continue
            name = entry["strategy"]
            axes.plot(entry[kind], label=style.label(name), linewidth=1, **style.of(name))
        axes.set_xlabel("layer")
        axes.set_ylabel(f"cosine of {kind}")
        axes.set_title(task, fontsize=9)
        _whole_numbers(axes)

    return draw


def _drifts(drift: Sequence[dict[str, Any]], style: _Style) -> list[Panel]:
    """Divergence, cosine of keys, cumulative time and memory, by number of the save."""
    names = list(drift[0]["kl_mean"])
    saves = [step["save"] for step in drift]

    def panel(
        label: str, values: Callable[[str], list[float]], scale: str, *, exact: bool
    ) -> Panel:
        def draw(axes: "Axes") -> None:
            for name in names:
                if exact or name not in {"full", "prefix"}:
                    look = style.of(name) | {"markersize": 3}
                    axes.plot(saves, values(name), label=style.label(name), linewidth=1, **look)
            axes.set_yscale(scale, **({"linthresh": 1e-6} if scale == "symlog" else {}))
            axes.set_xlabel("save")
            axes.set_ylabel(label)
            _whole_numbers(axes)

        return draw

    def of(field: str, factor: float = 1.0) -> Callable[[str], list[float]]:
        return lambda name: [_factored(step[field][name], factor) for step in drift]

    def cumulative(name: str) -> list[float]:
        total, totals = 0.0, []
        for step in drift:
            total += step["first_token_ms_mean"][name] / 1e3
            totals.append(total)
        return totals

    return [
        panel("KL from full recompute, nats", of("kl_mean"), "symlog", exact=False),
        panel("cosine of keys", of("key_cosine"), "linear", exact=False),
        panel("answers so far, s", cumulative, "linear", exact=True),
        panel("cache, MB", of("cache_bytes_mean", 1e-6), "linear", exact=True),
    ]


def _bar_places(groups: int, bars: int, index: int) -> dict[str, Any]:
    """Return where one bar of each group is, and how wide."""
    width = _BAR_GROUP / max(1, bars)
    places = [group + (index + 0.5) * width - _BAR_GROUP / 2 for group in range(groups)]
    return {"x": places, "width": width}


def _factored(value: float | None, factor: float) -> float:
    return float("nan") if value is None else value * factor


def _plain_numbers(axis: "Axis") -> None:
    """Label a logarithmic axis with numbers, also between powers of ten."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter("{x:,g}")
    axis.set_minor_formatter(LogFormatter())


def _whole_numbers(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _save(path: Path, panels: Sequence[Panel], caption: str) -> None:
    """Draw panels side by side, two or three a row, with one legend below."""
    from matplotlib.figure import Figure

    columns = min(len(panels), 2 if len(panels) in {2, 4} else 3)
    rows = -(-len(panels) // columns)
    width = max(5.0, 4.2 * columns)
    figure = Figure(figsize=(width, 0.8 + 3.2 * rows), dpi=150, layout="constrained")
    legend: dict[str, Any] = {}
    for index, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, index)
        panel(axes)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(which="both", labelsize=7)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(8)
        handles, labels = axes.get_legend_handles_labels()
        legend |= dict(zip(labels, handles, strict=True))
    figure.suptitle(caption, fontsize=9)
    longest = max(map(len, legend), default=0)
    figure.legend(
        list(legend.values()),
        list(legend),
        loc="outside lower center",
        ncols=max(1, min(len(legend), int(width * _CHARS_PER_INCH / (8 + longest)))),
        frameon=False,
        fontsize=7,
    )
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}", "name another place; the results are complete"
        ) from error
