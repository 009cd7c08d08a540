"""Which token comes next: the best one, within what a line's beginning allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pie_cli.engine.protocol import Decoding


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

    def best(self, first: int, stop: int | None = None) -> list[Choice]:
        """Choose from all tokens, in each of the rows [first, stop); waits for the device."""
        ...

    def best_among(self, row: int, allowed: Sequence[int]) -> Choice:
        """Choose from some tokens, in one row."""
        ...


class Chooser:
    """Picks the greedy token of each row; at a line's beginning, among those that may come.

    While a forced prefix is spelled, these are the tokens that spell it. Then, if the model is to
    say whether the line before the cursor is done, those that say so are preferred by a margin. A
    new line begins between the columns that it may. Once a line has content, nothing is steered.

    Args:
        decoding: what is to be spelled, decided and kept to first.
    """

    def __init__(self, decoding: Decoding) -> None:
        forced, start = decoding.forced, decoding.line_start
        self._forced = forced
        self._left = forced.text.encode() if forced else b""
        self._spell = forced.spell if forced else start.spell if start else _nothing
        self._end = decoding.line_end
        self._start = start
        self._in_line = decoding.extent.begins == "either"
        self._eos_ids = decoding.eos_ids
        # What was said after the forced prefix, as long as it is blank.
        self._said = b""

    def choose(self, rows: Rows, draft: Sequence[int] = ()) -> list[Choice]:
        """Choose the token of each row; waits for the device.

        Args:
            rows: the first after what was chosen so far, each further one after one more token of
                the draft.
            draft: of which each row's token is the choice before the next row. Where it is not,
                the rows below mean nothing and are left out while the choice is steered.
        """
        chosen: list[Choice] = []
        while self._steers and len(chosen) < len(rows):
            row = len(chosen)
            choice = self._steered(rows, row)
            self._note(choice.token_id)
            chosen.append(choice)
            if row < len(draft) and choice.token_id != draft[row]:
                return chosen
        return chosen + rows.best(len(chosen))

    @property
    def _steers(self) -> bool:
        return bool(self._left or self._end or self._start)

    def _steered(self, rows: Rows, row: int) -> Choice:
        """Choose a token at the beginning of the line."""
        if not (self._forced and self._left):
            choice = self._best(rows, row)
            if self._end is not None:
                choice = self._preferring_end(rows, row, choice, self._end.token_ids)
            return self._kept_to_columns(rows, row, choice, None)
        allowed = self._forced.allowed(self._left)
        choice = rows.best_among(row, allowed)
        if self._end is not None and self._beyond(choice.token_id):
            ending = [i for i in allowed if _ends_line(self._beyond(i))]
            choice = self._preferring_end(rows, row, choice, ending)
        return self._kept_to_columns(rows, row, choice, allowed)

    def _preferring_end(
        self, rows: Rows, row: int, choice: Choice, ending: Sequence[int]
    ) -> Choice:
        """Return the best token that does not go on with the line, but for a clearly better one.

        Args:
            rows: to choose from.
            row: of them.
            choice: the best token.
            ending: those that do not go on with the line, or not yet.
        """
        assert self._end is not None
        if choice.token_id in self._eos_ids or not ending:
            return choice
        other = rows.best_among(row, ending).token_id
        if other == choice.token_id:
            return choice
        margin = rows.best_among(row, (choice.token_id, other)).margin
        within = _is_word(self._beyond(choice.token_id))
        needed = self._end.word_margin if within else self._end.margin
        return choice if margin >= needed else Choice(other, -margin)

    def _kept_to_columns(
        self, rows: Rows, row: int, choice: Choice, allowed: Sequence[int] | None
    ) -> Choice:
        """Return the best token with which the new line still begins where it may."""
        if self._start is None or self._fits(self._beyond(choice.token_id)):
            return choice
        if allowed is None:
            allowed = self._start.allowed(self._fits)
        else:
            allowed = [i for i in allowed if self._fits(self._beyond(i))]
        return rows.best_among(row, allowed) if allowed else choice

    def _fits(self, added: bytes) -> bool:
        """Tell whether the new line, if there is one yet, may begin with what is added."""
        said = (self._said + added).decode(errors="replace")
        if self._in_line and (said[: len(said) - len(said.lstrip())].find("\n") < 0):
            return True
        return self._start is None or self._start.indent.fits(said)

    def _beyond(self, token_id: int) -> bytes:
        """Return what a token adds after what is left of the forced prefix."""
        return self._spell(token_id)[len(self._left) :]

    def _note(self, token_id: int) -> None:
        """Go on after a token."""
        beyond = self._beyond(token_id)
        if beyond or not self._left:
            self._end = None
        self._left = self._left[len(self._spell(token_id)) :] if self._forced else b""
        self._said += beyond
        if self._said.strip() or token_id in self._eos_ids:
            self._start = None

    @staticmethod
    def _best(rows: Rows, row: int) -> Choice:
        return rows.best(row, row + 1)[0]


def _ends_line(beyond: bytes) -> bool:
    """Tell whether a token that spells so much more does not go on with the line."""
    return not beyond or beyond.lstrip(b" \t\f\v").startswith((b"\r", b"\n"))


def _is_word(beyond: bytes) -> bool:
    """Tell whether what is added begins within a word."""
    text = beyond.decode(errors="replace")
    return text[:1].isalnum() or text.startswith("_")


def _nothing(_token_id: int) -> bytes:
    return b""
