"""One strategy tried on one edit: a session is given the edit, its answer is scored."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from torch import Tensor

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.engine.device import stamp
from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.plain.threshold import ThresholdEngine
from pie_cli.engine.probe import Probe
from pie_cli.errors import CacheCapacityError, InputError, ModelError
from pie_cli.evaluation.cases.case import Gap
from pie_cli.evaluation.runs.metrics import (
    KeysValues,
    edit_similarity,
    exact_match,
    has_stale_echo,
    layer_cosines,
    next_token_kl,
)
from pie_cli.evaluation.runs.outcomes import Outcome
from pie_cli.evaluation.runs.research import ResearchEngine, served, with_research
from pie_cli.plan.strategies import Strategy, parse
from pie_cli.prompt.assembly import Prompt
from pie_cli.prompt.fim import PSM, SPM
from pie_cli.results import Prediction
from pie_cli.session import EditSession

FULL: Final = parse("full")

LAYOUTS: Final = ("auto", "plain", PSM, SPM)
"""Of prompts: as `watch` and `complete` have them, with nothing below the cursor, in one order."""

# Relative to what the figures mean, these are far below rounding; they keep results.jsonl small.
_DIGITS_KL = 9
_DIGITS_COSINE = 6


@dataclass(frozen=True, eq=False)
class Trial:
    """An edit that a session has answered.

    Attributes:
        prediction: its answer.
        prompt: that the answer continues.
        encoded: tokens run through the model.
        logits: float32 [choices], of the tokens that may follow the prompt.
        states: keys and values by layer, views of the session's cache; None where that no longer
            has a slot a token.
        cache_bytes: memory of the cache.
    """

    prediction: Prediction
    prompt: Prompt
    encoded: int
    logits: Tensor
    states: KeysValues | None
    cache_bytes: int


@dataclass(frozen=True)
class Question:
    """What is asked after an edit.

    Attributes:
        target: the true line; None where there is none.
        obsolete: names and values that the edit took out of the text.
        compared: positions whose keys and values are compared with full recompute's.
    """

    target: str | None
    obsolete: tuple[str, ...] = ()
    compared: Sequence[int] = ()


class Laboratory:
    """A model, and the settings of the sessions that it is tried in.

    Args:
        model: prepared.
        strategies: that are to be tried.
        context_tokens: longest prompt.
        max_tokens: most tokens of a predicted line.
        layout: of prompts, one of `LAYOUTS`.
        latency: milliseconds that repair without a budget may fill up.

    Raises:
        CacheCapacityError: a context beyond the window or what is edited, or no room for a line.
        InputError: a layout that the model does not know.
        ModelError: a model whose cache is not edited: every strategy would be full recompute.
    """

    def __init__(
        self,
        model: PreparedModel,
        strategies: Sequence[Strategy],
        context_tokens: int,
        max_tokens: int,
        layout: str = "auto",
        latency: int = Settings.latency,
    ) -> None:
        if context_tokens > model.window:
            raise CacheCapacityError(
                f"a context of {context_tokens} tokens exceeds the window of {model.name}: "
                f"{model.window}",
                f"give --context-tokens up to {model.window}",
            )
        limit = model.capability.limit
        if limit is not None and context_tokens + max_tokens > limit:
            raise CacheCapacityError(
                f"the cache of {model.name} is edited up to {limit:,} tokens, the line included",
                f"give --context-tokens up to {limit - max_tokens}",
            )
        if not model.capability.edits:
            raise ModelError(
                f"the cache of {model.name} is never edited: there is nothing to evaluate",
                "name a model whose keys can be moved; pie doctor says which can",
            )
        self._model = laid_out(model, layout)
        if not all(strategy.serves for strategy in strategies):
            self._model = with_research(self._model)
        # Sessions only encode the text before the edit, and learn the machine's pace, if anybody
        # asks for it.
        first = next((one for one in strategies if one.takes_time and one.serves), FULL)
        self._settings = Settings(
            strategy=first.name,
            max_tokens=max_tokens,
            context_tokens=context_tokens,
            latency=latency,
        )
        self.session("")

    def session(self, path: str) -> EditSession:
        """Make a session of a file, without text yet."""
        return EditSession(self._model, path, self._settings)

    def roomy_session(self, path: str) -> EditSession:
        """Make a session whose prompts may be as long as the model's window."""
        return EditSession(self._model, path, replace(self._settings, context_tokens=None))

    def fork(self, session: EditSession, strategy: Strategy) -> EditSession:
        """Return a session in the same state that follows edits by a strategy."""
        twin = session.fork(served(strategy).name)
        if isinstance(twin.engine, ResearchEngine):
            twin.engine.strategy = strategy
        # Copying the cache is no part of what is timed next.
        stamp(self._model.loaded.model.device)
        return twin

    def try_out(self, session: EditSession, gap: Gap) -> Trial:
        """Give a session a new text and look at its answer, and at what its cache holds then."""
        prediction = session.update(gap.text, at=gap.cursor)
        engine, prompt = session.engine, session.prompt
        assert isinstance(engine, EditedEngine | ThresholdEngine)
        assert prompt is not None
        held: Sequence[int] = prompt.token_ids
        encoded = prediction.tokens.encoded
        if isinstance(engine, ResearchEngine) and engine.strategy and not engine.strategy.serves:
            held, encoded = engine.held, engine.encoded
        probe = Probe(self._model.loaded.model, engine, held)
        logits = probe.next_logits()
        if prompt.healed.text:
            choices = self._model.tokenizer.tokens_starting_with(prompt.healed.text.encode())
            logits = logits[list(choices)]
        whole = len(held) == len(prompt.token_ids)
        states = probe.keys_values() if whole else None
        return Trial(prediction, prompt, encoded, logits, states, session.cache_bytes)


def laid_out(model: PreparedModel, layout: str) -> PreparedModel:
    """Return a model that is asked in one layout only.

    Raises:
        InputError: one that the model does not know.
    """
    if layout == "auto":
        return model
    if layout == "plain":
        return replace(model, fim=None)
    for order in model.fim.layouts if model.fim else ():
        if model.fim and order == layout:
            return replace(model, fim=model.fim.only(order))
    raise InputError(
        f"{model.name} fills in no middle as {layout}", "use --layout auto for what it can"
    )


def score(trial: Trial, full: Trial, question: Question, refresh_ms: float = 0.0) -> Outcome:
    """Score a trial against the true line and against full recompute."""
    line, target = trial.prediction.text, question.target
    keys = values = None
    if question.compared and trial.states is not None and full.states is not None:
        keys, values = (
            tuple(round(cosine, _DIGITS_COSINE) for cosine in cosines)
            for cosines in layer_cosines(full.states, trial.states, question.compared)
        )
    stale_echo = None
    if question.obsolete:
        stale_echo = has_stale_echo(line, full.prediction.text, question.obsolete)
    return Outcome(
        line=line,
        token_ids=trial.prediction.token_ids,
        exact_match=None if target is None else exact_match(line, target),
        edit_similarity=None if target is None else round(edit_similarity(line, target), 4),
        agrees=line == full.prediction.text,
        exact=trial.prediction.exact,
        kl=round(next_token_kl(full.logits, trial.logits), _DIGITS_KL),
        stale_echo=stale_echo,
        encoded=trial.encoded,
        stale=trial.prediction.tokens.stale,
        key_cosine=keys,
        value_cosine=values,
        cache_bytes=trial.cache_bytes,
        passes=trial.prediction.passes,
        first_token_ms=round(trial.prediction.timings_ms.first_token, 3),
        line_ms=round(trial.prediction.timings_ms.line, 3),
        refresh_ms=round(refresh_ms, 3),
    )
