"""The paper's three tasks, made from any text: lines that come back, foreign lines that go, both.

The paper's summaries give neither the number of lines nor of places; ours are options:
`TaskOptions.lines` and `places`.
"""

from collections.abc import Sequence
from random import Random
from typing import Literal, TypeAlias

from pie_cli.evaluation.cases.case import EvalCase, Gap
from pie_cli.evaluation.cases.documents import Document, cursor_of, edit_case, reach_start
from pie_cli.text.edit import split_lines

SyntheticTask: TypeAlias = Literal["insertion", "deletion", "multi"]

SYNTHETIC: tuple[SyntheticTask, ...] = ("insertion", "deletion", "multi")
"""The tasks."""


def synthetic_case(
    task: SyntheticTask,
    document: Document,
    foreign: Sequence[str],
    random: Random,
    *,
    lines: int,
    places: int,
    context_tokens: int,
) -> EvalCase | None:
    """Make one case of a task.

    The document is the text after the edit; the text before it lacks lines above the cursor
    (insertion), has foreign ones (deletion), or one after the other (multi).

    Args:
        task: which.
        document: its own cursor is taken where it has one, else a random one.
        foreign: lines of another text, with their newlines.
        random: chooses cursor and places.
        lines: of each place.
        places: of `multi`; the others have one.
        context_tokens: the edit lies within so many tokens before the cursor.

    Returns:
        The case, or None where the text has no room for the edit.
    """
    own = split_lines(document.text)
    cursor = cursor_of(document, own, random)
    if cursor is None or cursor >= len(own):
        return None
    after, below = own[:cursor], "".join(own[cursor + 1 :])
    start = reach_start(after, cursor, context_tokens)
    wanted = places if task == "multi" else 1
    before = list(after)
    # Each place has its own stretch, so that they neither touch nor overlap; the last goes first.
    stretch = (cursor - start) // wanted
    for place in reversed(range(wanted)):
        takes = task == "insertion" or (task == "multi" and place % 2 == 0)
        first = start + place * stretch
        if takes:
            at = _block(before, first, first + stretch, lines, random)
            if at is None:
                return None
            del before[at : at + lines]
        else:
            piece = _piece(foreign, lines, random)
            if piece is None or stretch < 1:
                return None
            at = first + random.randrange(stretch)
            before[at:at] = piece
    return edit_case(
        f"{document.id}:{task}",
        task,
        document,
        Gap("".join(before), below),
        Gap("".join(after), below),
        own[cursor].rstrip("\r\n"),
        task,
    )


def _block(lines: Sequence[str], start: int, stop: int, size: int, random: Random) -> int | None:
    """Find a block of lines inside a stretch that is not all blank; a line around it stays."""
    places = [
        at
        for at in range(start, stop - size)
        if any(line.strip() for line in lines[at : at + size])
    ]
    return random.choice(places) if places else None


def _piece(lines: Sequence[str], size: int, random: Random) -> list[str] | None:
    at = _block(lines, 0, len(lines), size, random)
    return None if at is None else list(lines[at : at + size])
