"""Greedy decoding of the next line, from choices that any engine gives."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pie_cli.engine.protocol import Decoding, ForcedPrefix, Line, StoppedBy

# Blank lines, then a line with content and its newline.
_FULL_LINE = re.compile(r"\s*\S[^\n]*\n")

# What is left of a line that was begun, and its newline.
_REST_OF_LINE = re.compile(r"[^\n]*\n")


@dataclass(frozen=True, slots=True)
class Choice:
    """The best token of one row of logits.

    Attributes:
        token_id: of the highest logit; the first of equal ones.
        margin: by how much it is above the next best one; infinite where it is alone.
    """

    token_id: int
    margin: float


class Rows(Protocol):
    """Logits after consecutive tokens, one row each."""

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def best(self, first: int) -> list[Choice]:
        """Choose from all tokens, in each row from `first` on; waits for the device."""
        ...

    def best_among(self, row: int, allowed: Sequence[int]) -> Choice:
        """Choose from some tokens, in one row."""
        ...


class Steps(Protocol):
    """Passes over one token each after a prompt, and the way back."""

    def now(self) -> float:
        """Return `perf_counter` seconds once the device is done."""
        ...

    def step(self, token_id: int) -> Rows:
        """Append a token; return the one row after it."""
        ...

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on."""
        ...


@dataclass(frozen=True, eq=False)
class FirstPass:
    """The pass over a prompt's fresh tokens and the draft.

    Attributes:
        rows: after the prompt, then after each draft token.
        draft: the token ids that rode along.
        began_at, spliced_at: `perf_counter` seconds before and after the cache was edited.
    """

    rows: Rows
    draft: tuple[int, ...]
    began_at: float
    spliced_at: float


def decode_line(steps: Steps, prompt_length: int, first: FirstPass, decoding: Decoding) -> Line:
    """Take over what the draft got right, then step until the line ends.

    An edit that does not change the prediction costs one pass for the whole line: the draft was
    verified in the pass over the fresh tokens. Batched rows and single steps differ in the last
    bits: in float32 the draft changes no token unless the top two logits are closer than 1e-4.

    Args:
        steps: hold the prompt and the draft; afterwards also what was generated.
        prompt_length: tokens.
        first: the pass over the prompt's last token and the draft.
        decoding: what ends the line.
    """
    chooser = _Chooser(decoding.forced)
    choices = chooser.choose(first.rows, first.draft)
    first_token_at = steps.now()
    agreed = _agreed(first.draft, choices)
    taken, stopped_by = take([], choices[: agreed + 1], decoding)
    accepted = min(agreed, len(taken))
    passes = 1
    steps.truncate(prompt_length + agreed)
    while stopped_by is None:
        if decoding.should_stop():
            stopped_by = "interrupted"
            break
        rows = steps.step(taken[-1].token_id)
        passes += 1
        taken, stopped_by = take(taken, chooser.choose(rows), decoding)
    token_ids = tuple(choice.token_id for choice in taken)
    return Line(
        token_ids=token_ids,
        text=line_text(token_ids, stopped_by, decoding),
        stopped_by=stopped_by,
        margins=tuple(choice.margin for choice in taken),
        passes=passes,
        accepted=accepted,
        began_at=first.began_at,
        spliced_at=first.spliced_at,
        first_token_at=first_token_at,
        ended_at=steps.now(),
    )


class _Chooser:
    """Picks the greedy token of each row; while a prefix is forced, among those that spell it.

    Args:
        forced: what is to be spelled first.
    """

    def __init__(self, forced: ForcedPrefix | None) -> None:
        self._forced = forced
        self._left = forced.text.encode() if forced else b""

    def choose(self, rows: Rows, draft: Sequence[int] = ()) -> list[Choice]:
        """Choose the token of each row; waits for the device.

        Args:
            rows: the first after what was chosen so far, each further one after one more token of
                the draft.
            draft: of which each row's token is the choice before the next row. Where it is not,
                the rows below mean nothing and are left out while a prefix is forced.
        """
        chosen: list[Choice] = []
        while self._forced and self._left and len(chosen) < len(rows):
            row = len(chosen)
            chosen.append(rows.best_among(row, self._forced.allowed(self._left)))
            token_id = chosen[row].token_id
            self._left = self._left[len(self._forced.spell(token_id)) :]
            if row < len(draft) and token_id != draft[row]:
                return chosen
        return chosen + rows.best(len(chosen))


def _agreed(draft: Sequence[int], choices: Sequence[Choice]) -> int:
    """Count the draft tokens before the first that the model would not have chosen."""
    for index, (drafted, choice) in enumerate(zip(draft, choices, strict=False)):
        if drafted != choice.token_id:
            return index
    return len(draft)


def take(
    taken: Sequence[Choice], choices: Sequence[Choice], decoding: Decoding
) -> tuple[list[Choice], StoppedBy | None]:
    """Append choices until one of them ends the line."""
    line = list(taken)
    for choice in choices:
        line.append(choice)
        if choice.token_id in decoding.eos_ids:
            return line, "end"
        if _line([one.token_id for one in line], decoding)[1]:
            return line, "newline"
        if len(line) >= decoding.max_tokens:
            return line, "max_tokens"
    return line, None


def line_text(token_ids: Sequence[int], stopped_by: StoppedBy, decoding: Decoding) -> str:
    """Return a line's text, cut after its content; a forced prefix is no part of it."""
    text, complete = _line(token_ids[:-1] if stopped_by == "end" else token_ids, decoding)
    return text.removesuffix("\n").removesuffix("\r") if complete else text


def _line(token_ids: Sequence[int], decoding: Decoding) -> tuple[str, bool]:
    """Return the text of a line, its newline included, and whether it has one."""
    text = decoding.detokenize(token_ids)
    if decoding.forced:
        # As long as it is not spelled out there is no text of the line.
        prefix = decoding.forced.text
        text = text.removeprefix(prefix) if text.startswith(prefix) else ""
    line = (_REST_OF_LINE if decoding.rest_of_line else _FULL_LINE).match(text)
    return (line.group(), True) if line else (text, False)
