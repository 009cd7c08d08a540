"""Prompts of cases and saves, cut from the left at lines that both sides of an edit share."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pie_cli.editable import PreparedModel
from pie_cli.errors import CacheCapacityError
from pie_cli.models.loading import LoadedModel
from pie_cli.prompt.assembly import PromptBuilder
from pie_cli.prompt.window import Edges
from pie_cli.text.edit import Edit, split_lines

_FILL = 0.75
_REFILL = 0.4


@dataclass(frozen=True)
class PromptPair:
    """Token ids of the cached prompt and of the one that is asked.

    Attributes:
        before: ids of the prompt before the edit.
        after: ids of the prompt behind it.
        truncated: whether text above the window's edge was left out.
        outside: whether the edit lies wholly above the edge: both prompts are the same.
    """

    before: list[int]
    after: list[int]
    truncated: bool
    outside: bool


def prompt_budget(loaded: LoadedModel, context_tokens: int, max_tokens: int) -> int:
    """Return the most tokens of a prompt: the context, but for a line's room in the window.

    Raises:
        CacheCapacityError: a context beyond the window, or a window without room for a line.
    """
    if context_tokens > loaded.window:
        raise CacheCapacityError(
            f"a context of {context_tokens} tokens exceeds the window of {loaded.name}: "
            f"{loaded.window}",
            f"give --context-tokens up to {loaded.window}",
        )
    budget = min(context_tokens, loaded.window - max_tokens)
    if budget < 1:
        raise CacheCapacityError(
            f"a line of {max_tokens} tokens leaves no room for text in the window of "
            f"{loaded.name}: {loaded.window}",
            "lower --max-tokens",
        )
    return budget


def head_of(model: PreparedModel, path: str, budget: int) -> list[int]:
    """Return the token ids that every prompt of a file begins with.

    Raises:
        CacheCapacityError: when the budget leaves no room behind them.
    """
    return PromptBuilder(model.tokenizer, model.loaded.bos_id, path, budget).head


def cut(model: PreparedModel, path: str, before: str, after: str, budget: int) -> PromptPair:
    """Build both prompts: the head, then the longest tail of whole lines that fits both.

    Both texts begin at the same line, as the window of a session does, whose edge moves along with
    the text. A line that alone exceeds the budget is cut within.

    Args:
        model: prepared.
        path: of the file, for the head.
        before: text up to the spot, before the edit.
        after: text up to the spot, behind the edit.
        budget: most tokens of a prompt.

    Raises:
        CacheCapacityError: when the budget leaves no room behind the head.
    """
    encode = model.tokenizer.encode
    head = head_of(model, path, budget)
    room = budget - len(head)
    edit = Edit.between(before, after)
    back = edit.reversed()
    new_lines, old_lines = split_lines(after), split_lines(before)

    def tails(edge: int) -> tuple[list[int], list[int]]:
        old_edge = Edges(edge).moved(back).top
        return encode("".join(old_lines[old_edge:])), encode("".join(new_lines[edge:]))

    last = max(0, len(new_lines) - 1)
    edge = bisect_left(range(last), True, key=lambda e: max(map(len, tails(e))) <= room)
    old_ids, new_ids = tails(edge)
    truncated = edge > 0 or max(len(old_ids), len(new_ids)) > room
    old, new = [*head, *old_ids[-room:]], [*head, *new_ids[-room:]]
    return PromptPair(old, new, truncated, outside=old == new)


def window(
    encode: Callable[[str], list[int]], lines: Sequence[str], edge: int, room: int
) -> tuple[list[int], int]:
    """Return the ids of the text from an edge on, which moves seldom and far, as a session's does.

    Args:
        encode: gives the token ids of a text.
        lines: of the text before the spot, each with its newline.
        edge: 0-based line that the last window began at, moved along with the text.
        room: most tokens.

    Returns:
        The ids, and the edge: the same while the text fits and fills two fifths of the room.
    """
    ids = encode("".join(lines[edge:]))
    if len(ids) > room or (edge and len(ids) < _REFILL * room):
        last = max(0, len(lines) - 1)
        edge = bisect_left(
            range(last), True, key=lambda e: len(encode("".join(lines[e:]))) <= _FILL * room
        )
        ids = encode("".join(lines[edge:]))
    return ids[-room:], edge
