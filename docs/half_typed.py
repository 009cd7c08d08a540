"""Measure how a model treats finished and half-typed lines of real edits.

    python docs/half_typed.py CASES.jsonl.gz... --model FOLDER --margins 0,1,2.5

Each case is a file after a commit; the last line with content that the commit changed is its line.
Finished: the cursor is at its end; going on with it is wrong. Cut: it is cut after one of its
tokens, chosen at random, as if saved half typed; what is said up to the newline is compared with
what was cut off. The text below is the file's own, for models that look at it.
"""

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pie_cli import EditSession, load, prepare
from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.text.cursor import Cursor, edited_end
from pie_cli.text.edit import Edit
from pie_cli.text.matching import similarity


@dataclass
class Tally:
    """Counts at one margin."""

    finished: int = 0
    continued: int = 0
    cut: int = 0
    completed: int = 0
    exact: int = 0
    similar: float = 0.0

    def row(self, margin: float) -> str:
        """Return a row of the table."""
        cuts = max(1, self.cut)
        return (
            f"| {margin:g} | {self.finished} | {100 * self.continued / max(1, self.finished):.1f} |"
            f" {self.cut} | {100 * self.completed / cuts:.1f} | {100 * self.exact / cuts:.1f} |"
            f" {self.similar / cuts:.1f} |"
        )


def main() -> None:
    """Print a table with one row a margin."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--model", default="pie-nano")
    parser.add_argument("--context-tokens", type=int, default=1024)
    parser.add_argument("--margins", default=f"{Settings.line_margin:g}")
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--half", choices=("odd", "even"), help="of the cases, after shuffling")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = prepare(load(options.model))
    tallies = {float(margin): Tally() for margin in options.margins.split(",")}
    chosen = random.Random(options.seed)
    cases = [case for path in options.cases for case in _read(path)]
    chosen.shuffle(cases)
    taken = cases[: options.limit]
    if options.half:
        taken = taken[options.half == "odd" :: 2]
    for case in taken:
        settings = Settings(
            strategy="prefix", compare="none", context_tokens=options.context_tokens
        )
        _measure(model, case, settings, tallies, chosen)
    print("| margin | finished | wrongly continued, % | cut | completed, % | EM, % | ES |")
    print("|---|---|---|---|---|---|---|")
    for margin, tally in tallies.items():
        print(tally.row(margin))


def _read(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        yield from map(json.loads, stream)


def _measure(
    model: EditableModel,
    case: dict[str, str],
    settings: Settings,
    tallies: dict[float, Tally],
    chosen: random.Random,
) -> None:
    """Ask at each margin about a case's line, whole and cut."""
    after = case["after"]
    line, column = edited_end(Edit.between(case["before"], after))
    whole = after.split("\n")[line]
    ids = model.tokenizer.encode(whole.strip())
    if not ids or column != len(whole):
        return
    kept = model.tokenizer.decode(ids[: chosen.randrange(1, len(ids))]) if len(ids) > 1 else ""
    indent = len(whole) - len(whole.lstrip())
    session = EditSession(model, case["path"], settings)
    session.prime(after, at=Cursor(line, column, follows_edits=True))
    for typed in (whole, whole[: indent + len(kept)]):
        if typed == whole[:indent]:
            continue
        lines = after.split("\n")
        lines[line] = typed
        for margin, tally in tallies.items():
            session.settings = replace(settings, line_margin=margin)
            session._decoder._settings = session.settings  # noqa: SLF001 - one session for all
            at = Cursor(line, len(typed), follows_edits=True)
            answer = session.update("\n".join(lines), at=at)
            said = answer.text.split("\n")[0] if answer.completes_line else ""
            if typed == whole:
                tally.finished += 1
                tally.continued += answer.completes_line
                continue
            missing = whole[len(typed) :]
            tally.cut += 1
            tally.completed += answer.completes_line
            tally.exact += said.strip() == missing.strip()
            tally.similar += similarity(said.strip(), missing.strip())


if __name__ == "__main__":
    main()
