"""Token healing: what of a prompt's end could merge with the text that follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pie_cli.prompt.tokenizer import TextTokenizer

_MAX_TAKEN: Final = 16
"""Tokens taken back at most: a longer stretch is no end of a word, nor a run of blanks."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What was taken back from a prompt's end; the prediction has to spell it first.

    Attributes:
        text: as it stands in the file.
        token_ids: as the prompt would have had them.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()


NOTHING: Final = Taken()


def take_back(tokenizer: TextTokenizer, text: str, token_ids: Sequence[int]) -> Taken:
    """Find the last tokens of a text that might be others, did the text go on.

    They are those that reach into the longest end of the text with which a longer token begins: no
    token that crosses the text's end could begin before it.

    Args:
        tokenizer: the model's.
        text: before the spot.
        token_ids: of it.
    """
    if not text or not token_ids or (tokenizer.by_line and text.endswith("\n")):
        return NOTHING
    open_bytes = tokenizer.open_end(text)
    if not open_bytes:
        return NOTHING
    taken = b""
    for count in range(1, min(_MAX_TAKEN, len(token_ids)) + 1):
        piece = tokenizer.pieces(token_ids[len(token_ids) - count : len(token_ids) - count + 1])[0]
        taken = piece + taken
        if len(taken) < open_bytes:
            continue
        spelled = _decoded(taken)
        if spelled is not None:
            # A tokenizer that changes its text cannot be asked for it again.
            fits = text.endswith(spelled)
            return Taken(spelled, tuple(token_ids[-count:])) if fits else NOTHING
    return NOTHING


def _decoded(taken: bytes) -> str | None:
    """Return the text of some bytes, None where they begin or end within a character."""
    try:
        return taken.decode()
    except UnicodeDecodeError:
        return None
