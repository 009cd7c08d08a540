"""Time from a key to the line: `pie lsp` beside llama.cpp's server, on the same edits.

    llama-server -m MODEL.gguf -t 2 -c 8192 --port 8080
    python docs/keypress.py --model MODEL.gguf --against http://127.0.0.1:8080/completion

Text of pie's own sources is opened, about as many tokens as asked for. Each edit types a letter in
the middle and asks for a line at once: at the text's end, or with `--ask edit` after the letter.
The clock runs from sending the change to having the answer. The first edit is not counted. Between
two there is a pause, in which pie makes its cache exact, as while somebody looks at a line.

`/completion` gets the text before the place of the question, as models do that cannot fill in the
middle; `/infill` gets both sides. The other server answers afterwards, when pie is gone: greedy,
from the cache of its last prompt, up to the line's end. Whatever has one of these routes can be
asked, `pie serve` as well.
"""

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from editor import Clock, Editor, Place

from pie_cli.evaluation.cases.documents import built_in_sources

_CHARS_PER_TOKEN = 3.2
_PLACES = 7
"""Lines in the middle that take turns."""


@dataclass(frozen=True)
class Moment:
    """What a server is asked about: a text, and the place in it in characters."""

    text: str
    offset: int


@dataclass(frozen=True)
class Answer:
    """What a server said.

    Attributes:
        ms: from sending the change to having the line.
        first_ms: until its first token, as the server says.
        encoded: tokens that ran through the model before it.
        line: said.
    """

    ms: float
    first_ms: float
    encoded: int
    line: str


def main() -> None:
    """Print a row for each edit, then the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="pie-nano")
    parser.add_argument("--against", help="URL of a server's /completion or /infill")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between two edits")
    parser.add_argument("--ask", choices=("end", "edit"), default="end")
    options = parser.parse_args()
    command = [sys.executable, "-m", "pie_cli", "lsp", "--model", options.model]
    settings = {
        "maxTokens": options.max_tokens,
        "threads": options.threads,
        "contextTokens": 2 * options.tokens,
    }
    with closing(Editor(command, settings)) as editor:
        total = _open(editor, options.tokens)
        moments, ours = zip(
            *_ask_pie(editor, options.edits + 1, options.ask, options.pause), strict=True
        )
    theirs: list[Answer] = []
    if options.against:
        theirs = list(_ask_other(options.against, moments, options.max_tokens, options.pause))
    print(f"{options.model}, {total:,} tokens, {options.threads} threads; milliseconds")
    _print_rows(ours[1:], theirs[1:])


def _open(editor: Editor, tokens: int) -> int:
    """Open a text of about so many tokens, and return how many they are."""
    lines = [line for _, text in built_in_sources() for line in text.split("\n") if line.isascii()]
    count, length = 0, 0.0
    while length < tokens * _CHARS_PER_TOKEN:
        length += len(lines[count]) + 1
        count += 1
    total = _opened(editor, lines[:count])
    return _opened(editor, lines[: count * tokens // total])


def _opened(editor: Editor, lines: Sequence[str]) -> int:
    editor.open("\n".join([*lines, ""]))
    editor.complete((len(lines), 0)).result()
    return int(editor.command("pie.explain").result()["document"]["tokens"]["total"])


def _ask_pie(
    editor: Editor, edits: int, ask: str, pause_s: float
) -> Iterator[tuple[Moment, Answer]]:
    """Edit and ask, so many times."""
    middle = len(editor.lines) // 2
    for number in range(edits):
        row = middle + number % _PLACES
        here = row, len(editor.lines[row])
        clock = Clock()
        editor.replace(here, here, "x")
        end = len(editor.lines) - 1
        place = (end, len(editor.lines[end])) if ask == "end" else (row, here[1] + 1)
        result = editor.complete(place, clock.stop).result()
        document = editor.command("pie.explain").result()["document"]
        line = result["items"][0]["insertText"] if result else ""
        first_ms, encoded = document["timings_ms"]["first_token"], document["tokens"]["encoded"]
        assert clock.ms is not None
        yield (
            Moment(editor.text, _offset(editor.lines, place)),
            Answer(clock.ms, first_ms, encoded, line),
        )
        time.sleep(pause_s)


def _offset(lines: Sequence[str], place: Place) -> int:
    return sum(len(line) + 1 for line in lines[: place[0]]) + place[1]


def _ask_other(
    url: str, moments: Sequence[Moment], max_tokens: int, pause_s: float
) -> Iterator[Answer]:
    """Ask another server about each moment."""
    for moment in moments:
        before, after = moment.text[: moment.offset], moment.text[moment.offset :]
        body: dict[str, Any] = {
            "prompt": before,
            "n_predict": max_tokens,
            "temperature": 0.0,
            "top_k": 1,
            "cache_prompt": True,
            "stop": ["\n"],
        }
        if urlsplit(url).path.endswith("/infill"):
            head, newline, line = before.rpartition("\n")
            body |= {"input_prefix": head + newline, "prompt": line, "input_suffix": after}
        headers = {"Content-Type": "application/json"}
        clock = Clock()
        asked = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked) as response:
            found = json.loads(response.read())
        clock.stop()
        timings = found["timings"]
        assert clock.ms is not None
        yield Answer(clock.ms, timings["prompt_ms"], timings["prompt_n"], found["content"])
        time.sleep(pause_s)


def _print_rows(ours: Sequence[Answer], theirs: Sequence[Answer]) -> None:
    names = ("", "pie: line", "first", "encoded", "other: line", "first", "encoded", "line, part")
    print("".join(f"{name:>13}" for name in names[: 8 if theirs else 4]))
    for number, mine in enumerate(ours):
        cells = [f"{number + 1}", *_cells(mine)]
        if theirs:
            other = theirs[number]
            cells += [*_cells(other), f"1/{other.ms / mine.ms:.1f}"]
        print("".join(f"{cell:>13}" for cell in cells))
    middle = [median(answer.ms for answer in ours)]
    cells = ["median", f"{middle[0]:.1f}", f"{median(answer.first_ms for answer in ours):.1f}", ""]
    if theirs:
        middle.append(median(answer.ms for answer in theirs))
        first = median(answer.first_ms for answer in theirs)
        cells += [f"{middle[1]:.1f}", f"{first:.1f}", "", f"1/{middle[1] / middle[0]:.1f}"]
    print("".join(f"{cell:>13}" for cell in cells))


def _cells(answer: Answer) -> tuple[str, str, str]:
    return f"{answer.ms:.1f}", f"{answer.first_ms:.1f}", f"{answer.encoded:,}"


if __name__ == "__main__":
    main()
