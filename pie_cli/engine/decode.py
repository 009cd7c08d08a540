"""Greedy decoding of the next line, the previous prediction as a draft."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from pie_cli.engine.clock import stamp
from pie_cli.engine.forward import encode
from pie_cli.engine.model import CausalModel
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Plan

StoppedBy = Literal["newline", "end", "max_tokens", "interrupted"]

# Blank lines, then a line with content and its newline.
_FULL_LINE = re.compile(r"\s*\S[^\n]*\n")

# What is left of a line that was begun, and its newline.
_REST_OF_LINE = re.compile(r"[^\n]*\n")


@dataclass(frozen=True, eq=False)
class Owed:
    """Text that was taken back from the prompt's end: the line has to spell it before it goes on.

    Attributes:
        text: as decoded tokens give it.
        tokens: that it had in the prompt.
        allowed: the token ids that begin with some bytes, or that these begin with; no control
            tokens among them.
        spell: the bytes that a token id adds to a text.
    """

    text: str
    tokens: int
    allowed: Callable[[bytes], Sequence[int]]
    spell: Callable[[int], bytes]


@dataclass(frozen=True)
class DecodeOptions:
    """How a line is decoded.

    Attributes:
        detokenize: turns generated token ids into their exact text.
        eos_ids: tokens that end the text.
        max_tokens: generated tokens at most, at least 1.
        should_stop: asked before each pass but the first; a newer save gives up the line.
        rest_of_line: whether the line ends at the first newline, as one does that was begun before
            the prompt's end; else blank lines come before its content.
        owed: what the line must spell first; no part of its text.
    """

    detokenize: Callable[[Sequence[int]], str]
    eos_ids: frozenset[int] = frozenset()
    max_tokens: int = 64
    should_stop: Callable[[], bool] = lambda: False
    rest_of_line: bool = False
    owed: Owed | None = None

    @property
    def limit(self) -> int:
        """Tokens to generate at most, those included that spell what is owed."""
        return self.max_tokens + (self.owed.tokens if self.owed else 0)


@dataclass(frozen=True)
class Line:
    """A predicted line.

    Attributes:
        token_ids: as generated, the token that ended the line last: the draft for the next
            prediction.
        text: blank lines before the content kept, cut at the newline that ends it (which may stand
            inside a token), a carriage return before it cut as well.
        stopped_by: what ended it.
        passes: forward passes, the first one included.
        accepted: draft tokens that the model agreed with.
        began_at, spliced_at, first_token_at, ended_at: `perf_counter` seconds, taken when the
            device was done. In `decode_after`, the first three are one stamp.
    """

    token_ids: tuple[int, ...]
    text: str
    stopped_by: StoppedBy
    passes: int
    accepted: int
    began_at: float
    spliced_at: float
    first_token_at: float
    ended_at: float


@dataclass(frozen=True, eq=False)
class Executed:
    """An executed plan.

    Attributes:
        logits: float32 [1 + len(draft), vocabulary]: after the prompt, then after each draft token.
        began_at, spliced_at: `perf_counter` seconds before and after the splice.
    """

    logits: Tensor
    began_at: float
    spliced_at: float


def execute(
    model: CausalModel,
    cache: SlotCache,
    plan: Plan,
    token_ids: Sequence[int],
    rotation: ModelRotation | None,
    draft: Sequence[int] = (),
) -> Executed:
    """Turn the cache of the old prompt into that of the new one: splice, then one forward pass.

    What the plan takes from copies is filled in between.

    The pass runs over all fresh tokens of all hunks together; the draft rides along behind the
    prompt. Afterwards the cache holds prompt and draft: `cache.truncate(plan.length)` drops the
    draft.

    Args:
        model: with the engine's attention installed.
        cache: holds the sequence that the plan was made from.
        plan: for the new prompt.
        token_ids: of the whole new prompt.
        rotation: found by the gate; may be None where the plan does not rotate.
        draft: token ids that may follow the prompt.

    Raises:
        ValueError: when plan and prompt differ in length, or a rotating plan comes without a
            rotation.
    """
    if len(token_ids) != plan.length:
        raise ValueError(f"a plan for {plan.length} tokens, a prompt of {len(token_ids)}")
    if plan.rotate and rotation is None and plan.shifted:
        raise ValueError(f"strategy {plan.strategy} needs the model's rotation")
    began_at = stamp(model.device)
    cache.splice(plan.kept, plan.length, rotation if plan.rotate else None)
    for run in plan.stored:
        cache.put(run)
    cache.extend(plan.length + len(draft))
    spliced_at = stamp(model.device)
    positions: Sequence[int] = [*plan.fresh, *range(plan.length, plan.length + len(draft))]
    fresh_ids = [token_ids[position] for position in plan.fresh]
    last = plan.encoded - 1
    logits = encode(
        model, cache, [*fresh_ids, *draft], positions, range(last, last + 1 + len(draft))
    )
    return Executed(logits, began_at, spliced_at)


def decode_line(
    model: CausalModel,
    cache: SlotCache,
    plan: Plan,
    token_ids: Sequence[int],
    rotation: ModelRotation | None,
    options: DecodeOptions,
    draft: Sequence[int] = (),
) -> Line:
    """Execute a plan and predict the line that follows.

    Afterwards the cache holds exactly the new prompt.

    An edit that does not change the prediction costs one pass for the whole line: the draft is
    verified in the pass over the fresh tokens. Batched rows and single steps differ in the last
    bits: in float32 the draft changes no token unless the top two logits are closer than 1e-4.

    Args:
        model: with the engine's attention installed.
        cache: holds the sequence that the plan was made from.
        plan: for the new prompt.
        token_ids: of the whole new prompt.
        rotation: found by the gate; may be None where the plan does not rotate.
        options: what ends the line.
        draft: the previous prediction's token ids.
    """
    draft = tuple(draft[: options.limit - 1])
    try:
        executed = execute(model, cache, plan, token_ids, rotation, draft)
        steps = _SlotSteps(model, cache)
        return finish(steps, plan.length, executed, options, draft)
    finally:
        cache.truncate(min(plan.length, cache.length))


def decode_after(
    model: CausalModel,
    cache: SlotCache,
    prompt_length: int,
    logits: Tensor,
    options: DecodeOptions,
    draft: Sequence[int] = (),
) -> Line:
    """Predict the line that follows a prompt whose last logits are known, as after a refresh.

    Args:
        model: with the engine's attention installed.
        cache: holds the prompt, and the draft if one rode along; afterwards the prompt alone.
        prompt_length: tokens.
        logits: float32 [1 + len(draft), vocabulary].
        options: what ends the line.
        draft: the token ids that rode along in the pass that gave the logits.
    """
    if len(logits) != 1 + len(draft):
        raise ValueError(f"{len(logits)} rows of logits for a draft of {len(draft)} tokens")
    try:
        now = stamp(model.device)
        steps = _SlotSteps(model, cache)
        return finish(steps, prompt_length, Executed(logits, now, now), options, tuple(draft))
    finally:
        cache.truncate(prompt_length)


class Steps(Protocol):
    """Passes over one token each behind a prompt, and the way back."""

    @property
    def device(self) -> torch.device:
        """Where the passes run."""
        ...

    def step(self, token_id: int) -> Tensor:
        """Append a token; return the logits behind it, float32 [1, vocabulary]."""
        ...

    def truncate(self, length: int) -> None:
        """Forget every token from `length` on."""
        ...


class _SlotSteps:
    """Steps in slots."""

    def __init__(self, model: CausalModel, cache: SlotCache) -> None:
        self._model = model
        self._cache = cache

    @property
    def device(self) -> torch.device:
        return self._model.device

    def step(self, token_id: int) -> Tensor:
        position = self._cache.length
        self._cache.extend(position + 1)
        return encode(self._model, self._cache, [token_id], range(position, position + 1), (0,))

    def truncate(self, length: int) -> None:
        self._cache.truncate(length)


def finish(
    steps: Steps,
    prompt_length: int,
    executed: Executed,
    options: DecodeOptions,
    draft: tuple[int, ...],
) -> Line:
    """Take over what the draft got right, then step until the line ends.

    Args:
        steps: hold the prompt and the draft; afterwards also what was generated.
        prompt_length: tokens.
        executed: the pass over the prompt's last token and the draft.
        options: what ends the line.
        draft: the token ids that rode along.
    """
    chooser = _Chooser(options.owed)
    choices = chooser.choose(executed.logits, draft)
    first_token_at = stamp(steps.device)
    agreed = _agreed(draft, choices)
    token_ids, stopped_by = take([], choices[: agreed + 1], options)
    accepted = min(agreed, len(token_ids))
    passes = 1
    steps.truncate(prompt_length + agreed)
    while stopped_by is None:
        if options.should_stop():
            stopped_by = "interrupted"
            break
        logits = steps.step(token_ids[-1])
        passes += 1
        token_ids, stopped_by = take(token_ids, chooser.choose(logits), options)
    return Line(
        token_ids=tuple(token_ids),
        text=line_text(token_ids, stopped_by, options),
        stopped_by=stopped_by,
        passes=passes,
        accepted=accepted,
        began_at=executed.began_at,
        spliced_at=executed.spliced_at,
        first_token_at=first_token_at,
        ended_at=stamp(steps.device),
    )


class _Chooser:
    """Picks the greedy token of each row; while text is owed, among those that spell it.

    Args:
        owed: what is to be spelled first.
    """

    def __init__(self, owed: Owed | None) -> None:
        self._owed = owed
        self._left = owed.text.encode() if owed else b""

    def choose(self, logits: Tensor, draft: Sequence[int] = ()) -> list[int]:
        """Return the token of each row; waits for the device.

        Args:
            logits: float32 [rows, vocabulary], the first row behind what was chosen so far, each
                further one behind one more token of the draft.
            draft: of which each row's token is the choice before the next row. Where it is not,
                the rows behind mean nothing and are left out while text is owed.
        """
        chosen: list[int] = []
        while self._owed and self._left and len(chosen) < len(logits):
            row = len(chosen)
            chosen.append(self._spelling(self._owed, logits[row]))
            if row < len(draft) and chosen[row] != draft[row]:
                return chosen
        free: list[int] = torch.argmax(logits[len(chosen) :], dim=-1).tolist()
        return chosen + free

    def _spelling(self, owed: Owed, row: Tensor) -> int:
        allowed = torch.tensor(owed.allowed(self._left), device=row.device)
        token_id = int(allowed[torch.argmax(row[allowed])])
        self._left = self._left[len(owed.spell(token_id)) :]
        return token_id


def _agreed(draft: Sequence[int], choices: Sequence[int]) -> int:
    """Count the draft tokens before the first that the model would not have chosen."""
    for index, (drafted, chosen) in enumerate(zip(draft, choices, strict=False)):
        if drafted != chosen:
            return index
    return len(draft)


def take(
    token_ids: list[int], choices: Sequence[int], options: DecodeOptions
) -> tuple[list[int], StoppedBy | None]:
    """Append choices until one of them ends the line."""
    taken = list(token_ids)
    for token_id in choices:
        taken.append(token_id)
        if token_id in options.eos_ids:
            return taken, "end"
        if _line(taken, options)[1]:
            return taken, "newline"
        if len(taken) >= options.limit:
            return taken, "max_tokens"
    return taken, None


def line_text(token_ids: Sequence[int], stopped_by: StoppedBy, options: DecodeOptions) -> str:
    """Return a line's text, cut behind its content; what was owed is no part of it."""
    text, complete = _line(token_ids[:-1] if stopped_by == "end" else token_ids, options)
    return text.removesuffix("\n").removesuffix("\r") if complete else text


def _line(token_ids: Sequence[int], options: DecodeOptions) -> tuple[str, bool]:
    """Return the text of a line, its newline included, and whether it has one."""
    text = options.detokenize(token_ids)
    if options.owed:
        # As long as it is not spelled out there is no text of the line.
        text = text.removeprefix(options.owed.text) if text.startswith(options.owed.text) else ""
    line = (_REST_OF_LINE if options.rest_of_line else _FULL_LINE).match(text)
    return (line.group(), True) if line else (text, False)
