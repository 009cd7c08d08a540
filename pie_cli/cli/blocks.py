"""A predicted line among its neighbours, laid out for a width; rich's text with it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Final, Literal, TypeAlias

from rich.cells import cell_len
from rich.style import Style
from rich.syntax import ANSISyntaxTheme, Syntax
from rich.text import Text

from pie_cli.cli.visible import shortened, visible
from pie_cli.results import Comparison, Prediction
from pie_cli.text.cursor import BOM

NEIGHBOURS: Final = 3
"""Lines shown before and after a prediction."""

LINE_CHARS: Final = 400
"""Characters of a line of code that are shown."""

BESIDE_CHARS: Final = 160
"""Characters shown of what comes before a prediction in its line, and as many after it."""

_TAB: Final = 4
_MIN_DIGITS: Final = 3
_NOTHING: Final = "(nothing to add)"

_BREAKS: Final = re.compile(r"(?<=\s)(?=\S)|(?<=[,;.=/|(\[{])(?=[^\s,;.=/|)\]}])")
"""Between a blank or a sign and what it leads to: no name, number or operator is torn there."""

# Few colours, which can be read on light and on dark; green is what is predicted.
_COLOURS: Final = ANSISyntaxTheme(
    {
        ("Comment",): Style(dim=True),
        ("Keyword",): Style(color="bright_blue"),
        ("Operator", "Word"): Style(color="bright_blue"),
        ("Literal",): Style(color="magenta"),
    }
)

Kind: TypeAlias = Literal["code", "typed", "predicted", "following", "replaced", "note"]
_STYLES: Final[dict[Kind, str]] = {
    "code": "dim",
    "typed": "",
    "predicted": "bold green",
    "following": "dim",
    "replaced": "dim strike",
    "note": "dim",
}


@dataclass(frozen=True)
class Look:
    """What a block may look like.

    Attributes:
        width: characters of a row; None where rows are as long as they are.
        coloured: whether styles tell what was typed from what is predicted; else a row of marks
            does.
        highlighted: whether the neighbours are coloured as code.
    """

    width: int | None = None
    coloured: bool = False
    highlighted: bool = False


@dataclass(frozen=True)
class _Line:
    """One line of a block: its number, the mark in the gutter, and its parts."""

    number: int | None
    parts: tuple[tuple[str, Kind], ...]
    mark: str = " "


def block(
    path: str, text: str, prediction: Prediction, better: Comparison | None, look: Look
) -> list[Text]:
    """Lay the best answer out in its place, row by row.

    Args:
        path: of the file, whose name tells the language.
        text: that the prediction is in.
        prediction: the first answer.
        better: what contradicts it: it takes its place, and the first one is crossed out above it.
        look: of the block.
    """
    lines = list(_lines(text, prediction, better))
    digits = max(_MIN_DIGITS, *(len(str(line.number or 0)) for line in lines))
    code = partial(_highlighted, path) if look.highlighted else Text
    return [row for line in lines for row in _rows(line, digits, code, look)]


def _lines(text: str, first: Prediction, better: Comparison | None) -> Iterator[_Line]:
    lines = text.removeprefix(BOM).split("\n")
    best = better or first
    row = best.at.line - 1
    # A line that was begun is completed in its place; else a new line pushes the next ones down.
    completes = bool(best.text) and best.at.column > 1
    for index in range(max(0, row - NEIGHBOURS), row):
        yield _line(index, lines[index], "code")
    if better is not None and first.text:
        yield from _predicted(lines, first, "replaced", "-")
    if best.text:
        yield from _predicted(lines, best, "predicted", ">")
    else:
        yield _Line(None, ((_NOTHING, "note"),))
    added = best.text.count("\n") + 1 if best.text else 0
    below = lines[row + completes :]
    if below and below[-1] == "":
        below.pop()
    for index, line in enumerate(below[:NEIGHBOURS]):
        yield _line(row + added + index, line, "code")


def _predicted(
    lines: Sequence[str], answer: Prediction | Comparison, kind: Kind, mark: str
) -> Iterator[_Line]:
    """Give the lines of an answer, the first and the last with what is in the file beside them."""
    row, column = answer.at.line - 1, answer.at.column - 1
    line = lines[row].removesuffix("\r") if column and row < len(lines) else ""
    typed = line[:column]
    if len(typed) > BESIDE_CHARS:
        typed = f"…{typed[-BESIDE_CHARS:]}"
    rest = shortened(line[column:], BESIDE_CHARS)
    said = answer.text.split("\n")
    for index, one in enumerate(said):
        parts: list[tuple[str, Kind]] = [(visible(one.removesuffix("\r")), kind)]
        if index == 0 and typed:
            parts.insert(0, (visible(typed), "typed"))
        if index == len(said) - 1 and rest:
            parts.append((visible(rest), "following"))
        yield _Line(row + index + 1, tuple(parts), mark)


def _line(index: int, line: str, kind: Kind) -> _Line:
    # The file's own line ends are nothing to see.
    return _Line(index + 1, ((visible(line.removesuffix("\r"), LINE_CHARS), kind),))


def _rows(
    line: _Line, digits: int, code: "partial[Text] | type[Text]", look: Look
) -> Iterator[Text]:
    """Lay a line out: a prediction wraps, a neighbour is cut."""
    content, kinds = Text(), ""
    for part, kind in line.parts:
        start = len(content)
        spelled = _without_tabs(part, content.plain)
        shown = code(spelled) if kind in ("code", "typed") else Text(spelled)
        if look.coloured:
            shown.stylize(_STYLES[kind] if kind != "code" or not look.highlighted else "")
        content.append_text(shown)
        kinds += kind[0] * (len(content) - start)
    number = f"{line.number if line.number is not None else '':>{digits}}"
    gutter = Text(f" {line.mark} {number}", _gutter_style(line.mark) if look.coloured else "")
    if not content.plain.strip():
        gutter.rstrip()
        yield gutter
        return
    width = None if look.width is None else max(8, look.width - len(gutter) - 1)
    cuts = [] if width is None else _cuts(content.plain, width)
    if line.mark == " " and cuts:
        content = content[: _end_of_row(content.plain, 0, width or 0) - 1] + Text("…", "dim")
        cuts = []
    marks_own_parts = "t" in kinds or "f" in kinds
    begins = [0, *cuts]
    for begin, piece in zip(begins, content.divide(cuts), strict=True):
        lead = gutter if begin == 0 else Text(" " * len(gutter))
        yield Text.assemble(lead, " ", piece)
        if not look.coloured and marks_own_parts:
            marks = _marks(piece.plain, kinds[begin : begin + len(piece)])
            if marks.strip():
                yield Text(f"{' ' * len(gutter)} {marks}")


def _marks(text: str, kinds: str) -> str:
    """Return what is put below a row so that predicted characters are told from the others."""
    return "".join(
        ("^" if kind == "p" else "x" if kind == "r" else " ") * cell_len(character)
        for character, kind in zip(text, kinds, strict=True)
    ).rstrip()


def _gutter_style(mark: str) -> str:
    return {">": "bold green", "-": "dim"}.get(mark, "dim")


def _without_tabs(text: str, before: str) -> str:
    """Spell tabs as blanks, up to the next stop in the line."""
    if "\t" not in text:
        return text
    return (before + text).expandtabs(_TAB)[len(before) :]


def _cuts(text: str, width: int) -> list[int]:
    """Return where to cut a line of code so that each piece fits a width in cells.

    That is where something begins that need not be torn, and anywhere in a word that fits no row.
    """
    cuts, begin = [], 0
    while (stop := _end_of_row(text, begin, width)) < len(text):
        # Never after blanks alone: such a row would show nothing.
        shown = begin + len(text[begin:]) - len(text[begin:].lstrip())
        breaks = [found.end() for found in _BREAKS.finditer(text, shown + 1, stop + 1)]
        begin = max((place for place in breaks if place <= stop), default=stop)
        cuts.append(begin)
    return cuts


def _end_of_row(text: str, begin: int, width: int) -> int:
    """Return where the first character is that does not fit a row any more."""
    cells = 0
    for place in range(begin, len(text)):
        cells += cell_len(text[place])
        if cells > width:
            return place
    return len(text)


def _highlighted(path: str, line: str) -> Text:
    lexer = Syntax.guess_lexer(PurePath(path).name)
    text = Syntax("", lexer, theme=_COLOURS, background_color="default").highlight(line)
    text.right_crop(len(text) - len(text.plain.rstrip("\n")))
    return text if text.plain == line else Text(line)
