"""Greedy decoding of the next line, from choices that any engine gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pie_cli.engine.choosing import Choice, Chooser, Rows
from pie_cli.engine.protocol import Decoding, Line, StoppedBy
from pie_cli.text.answer import Answer


class Steps(Protocol):
    """Passes over a few tokens each after a prompt, and the way back."""

    def now(self) -> float:
        """Return `perf_counter` seconds once the device is done."""
        ...

    def run(self, token_ids: Sequence[int]) -> Rows:
        """Append tokens; return the row after each."""
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
    """Take over what the draft got right, then go on in further passes until the line ends.

    An edit that does not change the prediction costs one pass for the whole line: the draft was
    verified in the pass over the fresh tokens. Batched rows and single steps differ in the last
    bits: in float32 the draft changes no token unless the top two logits are closer than 1e-4.

    Args:
        steps: hold the prompt and the draft; afterwards also what was generated.
        prompt_length: tokens.
        first: the pass over the prompt's last token and the draft.
        decoding: what ends the line.
    """
    chooser = Chooser(decoding)
    choices = chooser.choose(first.rows, first.draft)
    first_token_at = steps.now()
    agreed = _agreed(first.draft, choices)
    taken, stopped_by = take([], choices[: agreed + 1], decoding)
    accepted = min(agreed, len(taken))
    passes = 1
    in_doubt = _in_doubt(taken, decoding)
    steps.truncate(prompt_length + agreed)
    while stopped_by is None and not in_doubt:
        if decoding.should_stop():
            stopped_by = "interrupted"
            break
        so_far = [choice.token_id for choice in taken]
        guess = _guess(decoding, so_far)
        choices = chooser.choose(steps.run([so_far[-1], *guess]), guess)
        passes += 1
        agreed = _agreed(guess, choices)
        taken, stopped_by = take(taken, choices[: agreed + 1], decoding)
        in_doubt = _in_doubt(taken[len(so_far) :], decoding)
        if guess and decoding.look_up is not None:
            accepted += min(agreed, len(taken) - len(so_far))
            decoding.look_up.learn(len(guess), agreed)
            steps.truncate(prompt_length + len(so_far) + agreed)
    token_ids = tuple(choice.token_id for choice in taken)
    answer = answer_of(token_ids, decoding)
    return Line(
        token_ids=token_ids,
        text=answer.text,
        completes_line=answer.completes_line,
        stopped_by=stopped_by or "doubt",
        in_doubt=in_doubt,
        margins=tuple(choice.margin for choice in taken),
        passes=passes,
        accepted=accepted,
        began_at=first.began_at,
        spliced_at=first.spliced_at,
        first_token_at=first_token_at,
        ended_at=steps.now(),
    )


def _guess(decoding: Decoding, token_ids: Sequence[int]) -> tuple[int, ...]:
    """Return what may follow the tokens so far, no more than the line has room for."""
    if decoding.look_up is None:
        return ()
    return decoding.look_up.propose(token_ids)[: max(0, decoding.max_tokens - len(token_ids) - 1)]


def _agreed(draft: Sequence[int], choices: Sequence[Choice]) -> int:
    """Count the draft tokens before the first that the model would not have chosen."""
    for index, (drafted, choice) in enumerate(zip(draft, choices, strict=False)):
        if drafted != choice.token_id:
            return index
    return len(draft)


def take(
    taken: Sequence[Choice], choices: Sequence[Choice], decoding: Decoding
) -> tuple[list[Choice], StoppedBy | None]:
    """Append choices until one of them ends the prediction."""
    line = list(taken)
    for choice in choices:
        line.append(choice)
        if choice.token_id in decoding.eos_ids:
            return line, "end"
        if _read([one.token_id for one in line], decoding).complete:
            return line, "newline"
        if len(line) >= decoding.max_tokens or _is_endless(line, decoding):
            return line, "max_tokens"
    return line, None


def _in_doubt(choices: Sequence[Choice], decoding: Decoding) -> bool:
    """Tell whether one of a pass's choices was made by too small a margin."""
    doubt = decoding.doubt
    return doubt is not None and any(choice.margin < doubt for choice in choices)


def _is_endless(line: Sequence[Choice], decoding: Decoding) -> bool:
    """Tell whether the last tokens are of one line that has as many as a line may have."""
    most = decoding.line_tokens
    if most is None or len(line) < most:
        return False
    return "\n" not in decoding.detokenize([choice.token_id for choice in line[-most:]])


def answer_of(token_ids: Sequence[int], decoding: Decoding) -> Answer:
    """Return what of the generated tokens is the prediction; a forced prefix is no part of it."""
    ended = bool(token_ids) and token_ids[-1] in decoding.eos_ids
    return _read(token_ids[:-1] if ended else token_ids, decoding)


def _read(token_ids: Sequence[int], decoding: Decoding) -> Answer:
    text = decoding.detokenize(token_ids)
    if decoding.forced:
        # As long as it is not spelled out there is no text of the line.
        prefix = decoding.forced.text
        text = text.removeprefix(prefix) if text.startswith(prefix) else ""
    return decoding.extent.read(text)
