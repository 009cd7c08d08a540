"""Replay hours of typing into `pie lsp`, as fast as it keeps up, and see if it stays as it was.

    python docs/replay.py --changes 72000 --model pie-nano

72,000 changes are two hours at ten a second. Lines of pie's own sources are typed, character by
character with mistakes taken back, over other lines of a document that stays about as long as it
is. At each pause a line is asked for. Mostly the typing waits for it, and takes some; else it goes
on, and the answer to the older text must not come. Both sides' texts are compared all along.
Prints a row for each tenth of the changes, and ends with 1 where anything was wrong.
"""

import argparse
import hashlib
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from editor import Clock, Editor, Place

from pie_cli.evaluation.cases.documents import built_in_sources

_LOOK = 25
"""Changes between two comparisons of the texts, at most."""

_COLUMNS = ("changes", "s", "MB", "asked", "lines", "none", "median, ms", "p95, ms")


@dataclass
class Seen:
    """What came of the questions.

    Attributes:
        looked_at: the newest version that the server has said it has.
        times_ms: of the questions that were waited for, since the last row.
    """

    asked: int = 0
    lines: int = 0
    none: int = 0
    old: int = 0
    taken: int = 0
    unequal: int = 0
    looked_at: int = 0
    times_ms: list[float] = field(default_factory=list)

    def answer(self, version: int, result: Any) -> None:
        """Take in an answer to a question about a version, in the order in which answers come."""
        if result is None:
            self.none += 1
            return
        self.lines += 1
        self.old += version < self.looked_at

    def look(self, version: int, digest: str, found: Any) -> None:
        """Take in what the server says that it has."""
        self.looked_at = found["version"]
        self.unequal += (found["version"], found["digest"]) != (version, digest)


def main() -> int:
    """Type, and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--changes", type=int, default=72_000)
    parser.add_argument("--model", default="pie-nano")
    parser.add_argument("--lines", type=int, default=150, help="of the document, about")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    source = [
        line
        for _, text in built_in_sources()
        for line in text.split("\n")
        if len(line) < 100 and line.isascii()
    ]
    command = [sys.executable, "-m", "pie_cli", "lsp", "--model", options.model]
    seen, began = Seen(), perf_counter()
    print("".join(f"{name:>11}" for name in _COLUMNS), flush=True)
    with closing(Editor(command, {"maxTokens": 16})) as editor:
        editor.open("\n".join(source[: options.lines]))
        session = _session(editor, source, options.lines, chance, seen)
        rows = {options.changes * part // 10 for part in range(1, 11)}
        for change, _ in enumerate(itertools.islice(session, options.changes), 1):
            if change in rows:
                _print_row(change, perf_counter() - began, editor, seen)
        _look(editor, seen)
    wrong = {
        "answers to an old version": seen.old,
        "texts unequal": seen.unequal,
        "questions without an answer": seen.asked - seen.lines - seen.none,
        "exit code": editor.process.returncode,
    }
    print(f"lines taken: {seen.taken}; " + "; ".join(f"{k}: {v}" for k, v in wrong.items()))
    return 1 if any(wrong.values()) else 0


def _session(
    editor: Editor, source: list[str], n_lines: int, chance: random.Random, seen: Seen
) -> Iterator[None]:
    """Type without an end; each step is one change."""
    for place in _typed(editor, source, n_lines, chance):
        yield
        if editor.version - seen.looked_at > _LOOK:
            _look(editor, seen)
        if chance.random() < 0.04:
            yield from _paused(editor, place, chance, seen)


def _typed(
    editor: Editor, source: list[str], n_lines: int, chance: random.Random
) -> Iterator[Place]:
    """Yield where the caret is after each change."""
    while True:
        row = chance.randrange(len(editor.lines))
        over = min(len(editor.lines) - row - 1, max(0, len(editor.lines) - n_lines))
        editor.replace((row, 0), (row + over, len(editor.lines[row + over])), "")
        yield row, 0
        line = chance.choice(source)
        indent = len(line) - len(line.lstrip())
        if indent:
            editor.replace((row, 0), (row, 0), line[:indent])
            yield row, indent
        for column in range(indent, len(line)):
            here = row, column
            if chance.random() < 0.03:
                editor.replace(here, here, chance.choice("xé😀"))
                yield row, column + 1
                editor.replace(here, (row, column + 1), "")
                yield here
            if editor.lines[row] != line[:column]:
                # A line was taken here.
                break
            editor.replace(here, here, line[column])
            yield row, column + 1
        if chance.random() < 0.3:
            end = row, len(editor.lines[row])
            editor.replace(end, end, "\n")
            yield row + 1, 0


def _paused(editor: Editor, place: Place, chance: random.Random, seen: Seen) -> Iterator[None]:
    """Ask for a line; wait for it and perhaps take it, or go on."""
    version, clock = editor.version, Clock()
    seen.asked += 1

    def came(result: Any) -> None:
        clock.stop()
        seen.answer(version, result)

    answer = editor.complete(place, came)
    if chance.random() < 0.3:
        editor.replace(place, place, " ")
        yield
        editor.replace(place, (place[0], place[1] + 1), "")
        yield
        _look(editor, seen)
        return
    result = answer.result(timeout=600)
    if clock.ms is not None:
        seen.times_ms.append(clock.ms)
    if result is not None and chance.random() < 0.3:
        seen.taken += 1
        (item,) = result["items"]
        editor.replace(place, place, item["insertText"])
        editor.command("pie.accepted")
        yield


def _look(editor: Editor, seen: Seen) -> None:
    """Have the server say which text it has."""
    version, digest = editor.version, hashlib.sha256(editor.text.encode()).hexdigest()
    asked = editor.command("pie.explain", lambda found: seen.look(version, digest, found))
    asked.result(timeout=600)


def _print_row(change: int, elapsed_s: float, editor: Editor, seen: Seen) -> None:
    process_id = str(editor.process.pid)
    listed = subprocess.run(
        ["ps", "-o", "rss=", "-p", process_id], capture_output=True, text=True, check=True
    )
    times, seen.times_ms = seen.times_ms or [0.0], []
    p95 = quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
    megabytes = int(listed.stdout) / 1024
    counts = (seen.asked, seen.lines, seen.none)
    numbers = [f"{change:,}", f"{elapsed_s:.0f}", f"{megabytes:.0f}", *(f"{n:,}" for n in counts)]
    print("".join(f"{n:>11}" for n in (*numbers, f"{median(times):.0f}", f"{p95:.0f}")), flush=True)


if __name__ == "__main__":
    sys.exit(main())
