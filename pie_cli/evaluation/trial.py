"""One strategy tried on one pair of prompts: its plan executed, its line decoded, both scored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pie_cli.editable import PreparedModel
from pie_cli.engine.decode import FirstPass, decode_line
from pie_cli.engine.device import stamp
from pie_cli.engine.edited import EditedEngine, Executed, _Steps, execute
from pie_cli.engine.forward import encode
from pie_cli.engine.logits import LogitRows
from pie_cli.engine.protocol import Decoding
from pie_cli.engine.slots import SlotCache
from pie_cli.errors import ModelError
from pie_cli.evaluation import eviction
from pie_cli.evaluation.deviation import deviating_positions
from pie_cli.evaluation.metrics import (
    edit_similarity,
    exact_match,
    has_stale_echo,
    layer_cosines,
    next_token_kl,
)
from pie_cli.evaluation.outcomes import Outcome
from pie_cli.plan.plan import Alignment, Plan, align, make_plan
from pie_cli.plan.repair import repair_positions
from pie_cli.plan.strategies import Strategy, parse
from pie_cli.timing import elapsed_ms

FULL = parse("full")

# Relative to what the figures mean, these are far below rounding; they keep results.jsonl small.
_DIGITS_KL = 9
_DIGITS_COSINE = 6


@dataclass(frozen=True, eq=False)
class Trial:
    """An executed strategy.

    Attributes:
        slots: the cache, holding the prompt.
        alignment: what both prompts share.
        plan: executed.
        logits: float32 [vocabulary], of the next token.
        first_token_ms: from having the token ids to the first token.
        line: predicted.
        line_ids: the same as token ids.
    """

    slots: SlotCache
    alignment: Alignment
    plan: Plan
    logits: Tensor
    first_token_ms: float
    line: str
    line_ids: tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """What is asked behind a prompt.

    Attributes:
        target: the true line; None where there is none.
        obsolete: names and values that the edit took out of the text.
        compared: positions whose keys and values are compared with full recompute's.
    """

    target: str | None
    obsolete: tuple[str, ...] = ()
    compared: Sequence[int] = ()


class Laboratory:
    """A model, and how lines are decoded with it.

    Args:
        model: prepared.
        max_tokens: most tokens of a predicted line.
        seed: of what strategies choose at random.

    Raises:
        ModelError: a model whose cache is not edited: every strategy would be full recompute.
    """

    def __init__(self, model: PreparedModel, max_tokens: int, seed: int) -> None:
        loaded = model.loaded
        if not isinstance(model.new_engine(1), EditedEngine):
            raise ModelError(
                f"the cache of {loaded.name} is never edited: there is nothing to evaluate",
                "name a model whose keys can be moved; pie doctor says which can",
            )
        self.model = model
        self.seed = seed
        self._decoding = Decoding(model.tokenizer.decode_continuation, loaded.eos_ids, max_tokens)

    def encode(self, token_ids: Sequence[int], room: int) -> SlotCache:
        """Encode a prompt from scratch in one pass, with storage for `room` tokens and a line."""
        slots = SlotCache.for_model(self.model.loaded.model, room + self._decoding.max_tokens)
        slots.splice((), len(token_ids), None)
        positions = range(len(token_ids))
        encode(self.model.loaded.model, slots, token_ids, positions, (len(token_ids) - 1,))
        return slots

    def try_out(
        self,
        strategy: Strategy,
        slots: SlotCache,
        old_ids: Sequence[int],
        new_ids: Sequence[int],
        draft: Sequence[int] = (),
    ) -> Trial:
        """Bring a cache in step with a new prompt by a strategy, and predict the next line.

        What is timed begins with both prompts' ids and ends with the first token: alignment, choice
        of repaired tokens, plan, splice, forward pass. The line is decoded behind that; the draft,
        verified in one further pass, only saves time.

        Args:
            strategy: any.
            slots: hold the old prompt; afterwards the new one.
            old_ids: of the old prompt.
            new_ids: of the new prompt.
            draft: token ids that may be the line.
        """
        model = self.model.loaded.model
        began = stamp(model.device)
        alignment = align(old_ids, new_ids)
        positions = self._repaired(strategy, slots, alignment, old_ids, new_ids)
        plan = make_plan(strategy.base, alignment, positions)
        executed = self._execute(strategy, slots, plan, new_ids)
        first = int(executed.logits[0].argmax())
        first_token_ms = elapsed_ms(began, stamp(model.device))
        line, line_ids = self._line(slots, executed.logits[:1], first, draft)
        return Trial(slots, alignment, plan, executed.logits[0], first_token_ms, line, line_ids)

    def _repaired(
        self,
        strategy: Strategy,
        slots: SlotCache,
        alignment: Alignment,
        old_ids: Sequence[int],
        new_ids: Sequence[int],
    ) -> tuple[int, ...]:
        """Choose the tokens that a strategy computes anew besides the changed ones."""
        by_tensors = [repair for repair in strategy.repairs if repair.kind == "deviation"]
        by_text = tuple(repair for repair in strategy.repairs if repair.kind != "deviation")
        pieces = self.model.tokenizer.pieces
        positions = set(
            repair_positions(
                replace(strategy, repairs=by_text),
                alignment,
                old_ids,
                new_ids,
                pieces,
                seed=self.seed,
            )
        )
        for repair in by_tensors:
            positions.update(
                deviating_positions(self.model, slots, alignment, new_ids, repair.budget)
            )
        return tuple(sorted(positions))

    def _execute(
        self, strategy: Strategy, slots: SlotCache, plan: Plan, new_ids: Sequence[int]
    ) -> Executed:
        if strategy.evict is not None:
            return eviction.run(self.model, slots, strategy, plan, new_ids)
        return execute(self.model.loaded.model, slots, plan, new_ids, self.model.rotation)

    def _line(
        self, slots: SlotCache, logits: Tensor, first: int, draft: Sequence[int]
    ) -> tuple[str, tuple[int, ...]]:
        """Decode the line behind the first token's logits [1, vocabulary]."""
        model, length = self.model.loaded.model, slots.length
        # The last token ends the line: nothing follows from it.
        draft = tuple(draft[:-1]) if draft and draft[0] == first else ()
        if draft:
            slots.extend(length + len(draft))
            positions = range(length, length + len(draft))
            rows = encode(model, slots, draft, positions, range(len(draft)))
            logits = torch.cat([logits, rows])
        ahead = FirstPass(LogitRows(logits), tuple(draft), 0.0, 0.0)
        line = decode_line(_Steps(model, slots), length, ahead, self._decoding)
        slots.truncate(length)
        return line.text, line.token_ids


def outcome(trial: Trial, full: Trial, question: Question, refresh_ms: float = 0.0) -> Outcome:
    """Score a trial against the true line and against full recompute."""
    target, positions = question.target, question.compared
    keys = values = None
    # What was cut down after the edit has no slot a token any more.
    if len(positions) and trial.slots.length == full.slots.length:
        keys, values = (
            tuple(round(cosine, _DIGITS_COSINE) for cosine in cosines)
            for cosines in layer_cosines(full.slots, trial.slots, positions)
        )
    stale_echo = None
    if question.obsolete:
        stale_echo = has_stale_echo(trial.line, full.line, question.obsolete)
    return Outcome(
        line=trial.line,
        exact_match=None if target is None else exact_match(trial.line, target),
        edit_similarity=None if target is None else round(edit_similarity(trial.line, target), 4),
        agrees=trial.line == full.line,
        kl=round(next_token_kl(full.logits, trial.logits), _DIGITS_KL),
        stale_echo=stale_echo,
        encoded=trial.plan.encoded,
        stale=len(kept_behind_a_change(trial)),
        key_cosine=keys,
        value_cosine=values,
        cache_bytes=trial.slots.memory_bytes,
        first_token_ms=round(trial.first_token_ms, 3),
        refresh_ms=round(refresh_ms, 3),
    )


def kept_behind_a_change(trial: Trial) -> list[int]:
    """List the positions that a plan takes over although something before them changed."""
    change = trial.alignment.first_change
    return [
        position
        for run in trial.plan.kept
        for position in range(max(change, run.new_start), run.new_stop)
    ]
