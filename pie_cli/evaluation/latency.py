"""Time every strategy on the same edits, in the same process.

What is timed is what users get: `EditSession.update`, from having the new text to the first token
and to the line, so tokenizing, diffing, planning, splicing, the forward pass and decoding. Each
measurement starts from a copy of one session in full swing: opened, edited, its comparison run
complete, so that the cache is exact and has its storage. (What the first edit of a session pays
once, room to grow and in 16-bit types the home copies of keys, is not timed.) No strategy drafts
from a previous prediction.

Within a repeat the strategies take turns, each case beginning with another one. `full` and `prefix`
encode thousands of tokens each time; they are exact and their time depends on lengths alone, so
they run in one of five repeats (`EXACT_EVERY`), the others in each. Full recompute does not
depend on the edit at all, so its times are those of all cases of a context length together. Rows
say how many measurements stand behind them. Agreement counts the cases where full recompute ran;
the cases of a repeat share a text but end at different lines of it, so each predicts another line.
"""

import inspect
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.engine.attention import stock_attention
from pie_cli.engine.device import stamp
from pie_cli.engine.model import CausalModel
from pie_cli.errors import CacheCapacityError
from pie_cli.evaluation.workload import (
    Case,
    Workload,
    check_fits,
    edit_text,
    passages,
    source_lines,
    without_last_lines,
)
from pie_cli.plan.strategies import BENCHED, check, parse
from pie_cli.prompt.assembly import PromptBuilder
from pie_cli.results import Prediction
from pie_cli.session import EditSession
from pie_cli.text.edit import split_lines
from pie_cli.timing import Spread, elapsed_ms, spread

EXACT_EVERY = 5
"""Repeats of which one runs the strategies that re-encode most of the prompt."""

PATH = "source.py"
"""What the prompt's head calls the text."""

_EXACT = ("full", "prefix")
_PHASES = ("tokenize", "diff", "update", "forward", "first_token", "line")

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Reduction:
    """Time that a strategy saves against full recompute, per cent of medians."""

    first_token: float
    line: float


@dataclass(frozen=True)
class Row:
    """One strategy on one kind and size of edit at one context length.

    Attributes:
        strategy: of the plan.
        context_tokens, edit, edit_tokens: of the workload.
        prompt_tokens: of the prompt behind the edit; the middle one.
        encoded_tokens: that ran through the model; the middle one.
        tokenize_ms, diff_ms, update_ms, forward_ms: phases up to the first token, as in `Timings`.
        first_token_ms, line_ms: from having the new text.
        reduction_pct: against full recompute at this context length.
        agreement_pct: cases in which the line is that of full recompute.
        measurements: timings behind each of the spreads; for `full`, all of this context length.
        compared: cases behind the agreement.
        stock_forward_ms: the model's own forward pass over prompts of this context length, by
            transformers alone, to the first token; compare with `forward_ms` of `full`.
    """

    strategy: str
    context_tokens: int
    edit: str
    edit_tokens: int
    prompt_tokens: int
    encoded_tokens: int
    tokenize_ms: Spread
    diff_ms: Spread
    update_ms: Spread
    forward_ms: Spread
    first_token_ms: Spread
    line_ms: Spread
    reduction_pct: Reduction
    agreement_pct: float
    measurements: int
    compared: int
    stock_forward_ms: Spread


@dataclass(frozen=True)
class _Sample:
    """One measurement; `agrees` is None where full recompute did not run."""

    prediction: Prediction
    agrees: bool | None


def measure(
    model: PreparedModel,
    workload: Workload,
    settings: Settings,
    on_progress: OnProgress | None = None,
    strategies: Sequence[str] = BENCHED,
) -> tuple[Row, ...]:
    """Measure strategies on every case.

    Args:
        model: prepared.
        workload: contexts, edits, repeats.
        settings: of which the longest line and the chunks count.
        on_progress: told (stage, runs done, runs in all).
        strategies: names; full recompute, which all are compared with, comes first whether or not
            it is named.

    Returns:
        A row for each context length, edit, size and strategy, in this order.

    Raises:
        CacheCapacityError: a context beyond the model's window.
        InputError: more text asked for than there is, an edit too large for its context, or an
            unknown strategy.
    """
    names = _benched(strategies)
    limits = [_prompt_limit(model, workload, settings, n) for n in workload.context_tokens]
    settings = replace(settings, at="end", compare="full", context_tokens=None, debounce_ms=0)
    progress = _Progress(on_progress, runs_in(workload, names))
    rows: list[Row] = []
    for context, limit in zip(workload.context_tokens, limits, strict=True):
        rows += _Bench(model, workload, settings, names, context, limit, progress).run()
    return tuple(rows)


def runs_in(workload: Workload, strategies: Sequence[str] = BENCHED) -> int:
    """Count the runs of a workload, warm-up included, to show progress by."""
    exact_ones = sum(name in _EXACT for name in strategies)
    kinds, cells = len(workload.edits), len(workload.edits) * len(workload.edit_tokens)
    exact = len(range(0, workload.repeats, EXACT_EVERY))
    quick = len(strategies) - exact_ones
    warm_up = cells * quick + exact_ones + 1
    runs = warm_up + cells * (quick * workload.repeats + exact_ones * exact) + kinds * exact
    return runs * len(workload.context_tokens)


def stock_forward_ms(model: CausalModel, token_ids: Sequence[int]) -> float:
    """Time the model's own forward pass over a prompt, to the first token; no engine code runs."""
    extra = {}
    if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
        extra["logits_to_keep"] = 1
    with torch.inference_mode(), stock_attention(model):
        began = stamp(model.device)
        input_ids = torch.tensor([list(token_ids)], device=model.device)
        logits = model(input_ids=input_ids, use_cache=True, **extra).logits
        torch.argmax(logits[0, -1]).item()
        return elapsed_ms(began, stamp(model.device))


class _Progress:
    """Counts runs."""

    def __init__(self, report: OnProgress | None, total: int) -> None:
        self._report = report
        self._done, self._total = 0, total

    def step(self, stage: str) -> None:
        self._done += 1
        if self._report:
            self._report(stage, self._done, self._total)


class _Bench:
    """Measures one context length."""

    def __init__(
        self,
        model: PreparedModel,
        workload: Workload,
        settings: Settings,
        strategies: Sequence[str],
        context: int,
        limit: int,
        progress: _Progress,
    ) -> None:
        self._model = model
        self._workload = workload
        self._settings = settings
        self._strategies = strategies
        self._context = context
        self._progress = progress
        budget = model.loaded.window - settings.max_tokens
        self._prompts = PromptBuilder(model.tokenizer, model.loaded.bos_id, PATH, budget)
        room = limit - len(self._prompts.head)
        self._texts = passages(source_lines(), model.tokenizer.encode, room)
        self._samples: dict[tuple[str, int, str], list[_Sample]] = defaultdict(list)
        self._stock: list[float] = []
        self._turn = 0

    def run(self) -> list[Row]:
        """Measure all repeats."""
        text = next(self._texts)
        session = self._in_full_swing(text)
        for repeat in range(self._workload.repeats):
            exact = repeat % EXACT_EVERY == 0
            if exact and repeat:
                text = next(self._texts)
                session = self._in_full_swing(text)
            cases = list(self._cases(text, repeat))
            if repeat == 0:
                self._warm_up(session, cases)
            for case in cases:
                self._measure_case(session, case, exact=exact)
                if exact and case.edit_tokens == self._workload.edit_tokens[0]:
                    self._stock.append(self._stock_forward_ms(case))
        return list(self._rows())

    def _cases(self, text: str, repeat: int) -> Iterator[Case]:
        tokenizer, drop = self._model.tokenizer, 0
        for tokens in self._workload.edit_tokens:
            for kind in self._workload.edits:
                before = without_last_lines(text, drop)
                after = edit_text(tokenizer, before, kind, tokens, repeat)
                yield Case(self._context, kind, tokens, before, after)
                drop += 1

    def _in_full_swing(self, text: str) -> EditSession:
        """Return a session whose cache holds a text exactly, after an edit that moved all of it."""
        session = EditSession(self._model, PATH, self._settings)
        # Without some early lines, a tenth of all, the text is what a session may have begun with.
        lines = split_lines(text)
        session.prime("".join(lines[:1] + lines[1 + len(lines) // 10 :]))
        session.update(text)
        session.compare()
        return session

    def _warm_up(self, session: EditSession, cases: Sequence[Case]) -> None:
        """Run each shape once, to the first token; where it is the context's, on the first case."""
        for index, case in enumerate(cases):
            before = _shortened(session, case.before)
            for strategy in self._strategies:
                if index == 0 or strategy not in _EXACT:
                    self._update(before, case, strategy, "warm-up", decode=index == 0)
        self._stock_forward_ms(cases[0])

    def _measure_case(self, session: EditSession, case: Case, *, exact: bool) -> None:
        """Run the strategies in turn; compare their lines with full recompute's, if that runs."""
        chosen = [name for name in self._strategies if exact or name not in _EXACT]
        self._turn += 1
        first = self._turn % len(chosen)
        stage = f"{case.edit} {case.edit_tokens}"
        before = _shortened(session, case.before)
        predictions = {
            strategy: self._update(before, case, strategy, stage)
            for strategy in (*chosen[first:], *chosen[:first])
        }
        reference = predictions.get("full")
        for strategy, prediction in predictions.items():
            agrees = None if reference is None else prediction.text == reference.text
            key = (case.edit, case.edit_tokens, strategy)
            self._samples[key].append(_Sample(prediction, agrees))

    def _update(
        self, session: EditSession, case: Case, strategy: str, stage: str, *, decode: bool = True
    ) -> Prediction:
        """Run one update on a copy of the session in the state before the edit."""
        twin = session.fork(strategy)
        stamp(self._model.loaded.model.device)  # the copy is no part of what is timed
        prediction = twin.update(case.after, should_stop=lambda: not decode)
        self._progress.step(f"{self._context:,} tokens, {stage}")
        return prediction

    def _stock_forward_ms(self, case: Case) -> float:
        token_ids = self._prompts.build(case.after).token_ids
        duration_ms = stock_forward_ms(self._model.loaded.model, token_ids)
        self._progress.step(f"{self._context:,} tokens, stock forward pass")
        return duration_ms

    def _rows(self) -> Iterator[Row]:
        full = [
            sample
            for (*_, strategy), samples in self._samples.items()
            for sample in samples
            if strategy == "full"
        ]
        for tokens in self._workload.edit_tokens:
            for kind in self._workload.edits:
                for strategy in self._strategies:
                    yield self._row(kind, tokens, strategy, full)

    def _row(self, kind: str, tokens: int, strategy: str, full: Sequence[_Sample]) -> Row:
        samples = self._samples[kind, tokens, strategy]
        timed = full if strategy == "full" else samples
        times = {name: _spread_of(timed, name) for name in _PHASES}
        reduction = {
            name: _reduction(times[name].median, _spread_of(full, name).median)
            for name in ("first_token", "line")
        }
        counts = [sample.prediction.tokens for sample in samples]
        verdicts = [sample.agrees for sample in samples if sample.agrees is not None]
        return Row(
            strategy=strategy,
            context_tokens=self._context,
            edit=kind,
            edit_tokens=tokens,
            prompt_tokens=statistics.median_high(count.total for count in counts),
            encoded_tokens=statistics.median_high(count.encoded for count in counts),
            tokenize_ms=times["tokenize"],
            diff_ms=times["diff"],
            update_ms=times["update"],
            forward_ms=times["forward"],
            first_token_ms=times["first_token"],
            line_ms=times["line"],
            reduction_pct=Reduction(reduction["first_token"], reduction["line"]),
            agreement_pct=100.0 * sum(verdicts) / len(verdicts),
            measurements=len(timed),
            compared=len(verdicts),
            stock_forward_ms=spread(self._stock),
        )


def _benched(strategies: Sequence[str]) -> tuple[str, ...]:
    """Return the strategies by their canonical names, each once, full recompute first."""
    for strategy in strategies:
        check(strategy)
    return tuple(dict.fromkeys(["full", *(parse(strategy).name for strategy in strategies)]))


def _shortened(session: EditSession, text: str) -> EditSession:
    """Return a copy of an exact session, for the beginning of its text only; exact as well."""
    shortened = session.fork("prefix")
    shortened.update(text, should_stop=lambda: True)
    return shortened


def _spread_of(samples: Sequence[_Sample], phase: str) -> Spread:
    return spread([getattr(sample.prediction.timings_ms, phase) for sample in samples])


def _reduction(time_ms: float, full_ms: float) -> float:
    """Return the time saved, in per cent of full recompute's; negative where there is none."""
    return 100.0 * (1.0 - time_ms / full_ms)


def _prompt_limit(
    model: PreparedModel, workload: Workload, settings: Settings, context: int
) -> int:
    """Return the most tokens of the prompt before the edit.

    That is the context's length, but for what the window must have left for the edit and the line.
    """
    loaded = model.loaded
    if context > loaded.window:
        raise CacheCapacityError(
            f"a context of {context} tokens exceeds the window of {loaded.name}: {loaded.window}",
            f"give --context-tokens up to {loaded.window}",
        )
    limit = min(context, loaded.window - settings.max_tokens - workload.growth)
    if limit < context // 2:
        raise CacheCapacityError(
            f"the window of {loaded.name}, {loaded.window} tokens, has no room for a context of "
            f"{context}, the edit and a line of {settings.max_tokens}",
            "lower --max-tokens, --edit-tokens or --context-tokens",
        )
    check_fits(max(workload.edit_tokens), limit)
    return limit
