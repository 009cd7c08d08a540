"""Draw the screen of `pie watch` at some widths, as SVG.

    python docs/screens.py [FOLDER]

The embedded model predicts, on the demo's file; nothing is made up but the saves.
"""

import re
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from pie_cli import EditSession, load, prepare
from pie_cli.cli.demo_script import texts
from pie_cli.cli.render import Renderer
from pie_cli.cli.words import what_changed
from pie_cli.config import Settings
from pie_cli.results import Comparison, Prediction

WIDTHS = (60, 100, 160)
NAME = "inventory.py"
TYPED = "\n            if best is None or item.pr"
"""At the file's end: a line that is saved half typed."""

_CHARACTER = 12.2  # the width of one, as rich draws it
_FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_TEXT = re.compile(r'x="([\d.]+)"( y="[\d.]+") textLength="[\d.]+"([^>]*)>((?:&#160;)*)([^<]*)<')


def draw(folder: Path, widths: Sequence[int] = WIDTHS) -> list[Path]:
    """Write a picture for each width, and return their paths."""
    first, helper, renamed = texts()[:3]
    session = EditSession(prepare(load("pie-nano")), NAME, Settings())
    session.open(first)
    session.update(helper)
    session.compare()
    saves = []
    for text in (renamed, renamed.rstrip() + TYPED):
        prediction = session.update(text)
        comparison = session.compare()
        if comparison is not None:
            saves.append((text, prediction, comparison))
    return [_picture(folder / f"screen-{width}.svg", width, saves) for width in widths]


def _picture(path: Path, width: int, saves: Sequence[tuple[str, Prediction, Comparison]]) -> Path:
    console = Console(
        file=StringIO(),
        width=width,
        record=True,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
    )
    times = iter(("14:03:22", "14:03:31"))
    renderer = Renderer(out=console, clock=lambda: next(times))
    for text, prediction, comparison in saves:
        renderer.rule(NAME, what_changed(prediction))
        renderer.answer(NAME, text, prediction, comparison)
    svg = console.export_svg(title="pie watch", theme=DIMMED_MONOKAI)
    # No font from elsewhere, and no blanks that some programs swallow: text begins where it is.
    path.write_text(_TEXT.sub(_without_blanks, _FONT.sub("", svg)), encoding="utf-8")
    return path


def _without_blanks(found: re.Match[str]) -> str:
    x, y, rest, blanks, text = found.groups()
    left = float(x) + _CHARACTER * blanks.count("&")
    cells = len(re.sub(r"&#?\w+;", "x", text))
    return f'x="{left:g}"{y} textLength="{_CHARACTER * cells:g}"{rest}>{text}<'


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
