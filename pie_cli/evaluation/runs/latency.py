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
say how many measurements they sum up. Agreement counts the cases where full recompute ran; the
cases of a repeat share a text but end at different lines of it, so each predicts another line.
"""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median_high
from typing import TypeAlias

import torch

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.engine.attention import stock_attention
from pie_cli.engine.device import stamp
from pie_cli.engine.model import CausalModel
from pie_cli.errors import CacheCapacityError
from pie_cli.evaluation.cases.workload import (
    Case,
    Workload,
    cases_of,
    check_fits,
    passages,
    source_lines,
)
from pie_cli.evaluation.runs.peer import Peer, PeerAnswer, PeerRow
from pie_cli.evaluation.runs.profile import Profile, Profiler, bandwidth_gbps
from pie_cli.evaluation.runs.spread import ByEnd, Spread
from pie_cli.plan.strategies import BENCHED, check, parse
from pie_cli.results import Prediction
from pie_cli.session import EditSession
from pie_cli.text.edit import split_lines
from pie_cli.timing import elapsed_ms

EXACT_EVERY = 5
"""Repeats of which one runs the strategies that re-encode most of the prompt."""

PATH = "source.py"
"""What the prompt's head calls the text."""

_EXACT = ("full", "prefix")
_PHASES = ("tokenize", "diff", "update", "forward", "first_token", "line")

OnProgress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Row:
    """One strategy on one kind and size of edit at one context length.

    Attributes:
        strategy: of the plan.
        context_tokens, edit, edit_tokens: of the workload.
        prompt_tokens: of the prompt after the edit; the middle one.
        encoded_tokens: that ran through the model; the middle one.
        tokenize_ms, diff_ms, update_ms, forward_ms: phases up to the first token, as in `Timings`.
        first_token_ms, line_ms: from having the new text.
        reduction_pct: against full recompute at this context length.
        agreement_pct: cases in which the line is that of full recompute.
        measurements: timings in each of the spreads; for `full`, all of this context length.
        compared: cases in the agreement.
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
    reduction_pct: ByEnd
    agreement_pct: float
    measurements: int
    compared: int
    stock_forward_ms: Spread


@dataclass(frozen=True)
class Measured:
    """What a benchmark found.

    Attributes:
        rows: of strategies.
        peers: of a server, where one was named.
        profiles: of the last strategy, where asked for.
        bandwidth_gbps: at which this process reads memory; None without a profile.
        broken_off: whether Ctrl-C ended it: there may be fewer rows, or fewer measurements in them.
    """

    rows: tuple[Row, ...]
    peers: tuple[PeerRow, ...] = ()
    profiles: tuple[Profile, ...] = ()
    bandwidth_gbps: float | None = None
    broken_off: bool = False

    @classmethod
    def joined(cls, parts: Iterable["Measured"]) -> "Measured":
        """Join what several workloads gave, one at least, up to one that was broken off."""
        every: list[Measured] = []
        for part in parts:
            every.append(part)
            if part.broken_off:
                break
        return cls(
            tuple(row for part in every for row in part.rows),
            tuple(row for part in every for row in part.peers),
            tuple(profile for part in every for profile in part.profiles),
            every[0].bandwidth_gbps,
            every[-1].broken_off,
        )


def measure(
    model: PreparedModel,
    workload: Workload,
    settings: Settings,
    on_progress: OnProgress | None = None,
    strategies: Sequence[str] = BENCHED,
    *,
    peer: Peer | None = None,
    profile: bool = False,
) -> Measured:
    """Measure strategies on every case; Ctrl-C ends it with what was measured by then.

    Args:
        model: prepared.
        workload: contexts, edits, repeats.
        settings: of which the longest line and the chunks count.
        on_progress: told (stage, cases done, cases in all).
        strategies: names; full recompute, which all are compared with, comes first whether or not
            it is named.
        peer: a server that is given the same edits.
        profile: whether the last strategy is profiled.

    Returns:
        A row for each context length, edit, size and strategy, in this order.

    Raises:
        CacheCapacityError: a context beyond the model's window.
        InputError: more text asked for than there is, an edit too large for its context, or an
            unknown strategy; a server that does not answer.
    """
    for strategy in strategies:
        check(strategy)
    names = tuple(dict.fromkeys(["full", *(parse(strategy).name for strategy in strategies)]))
    limits = [_prompt_limit(model, workload, settings, n) for n in workload.context_tokens]
    settings = replace(settings, at="end", compare="full", context_tokens=None, debounce_ms=0)
    cells = len(workload.edits) * len(workload.edit_tokens)
    total = len(limits) * cells * (1 + workload.repeats)
    done = 0

    def step(stage: str) -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(stage, done, total)

    rows: list[Row] = []
    peers: list[PeerRow] = []
    profiles: list[Profile] = []
    gbps, broken_off = None, False
    try:
        gbps = bandwidth_gbps(model.loaded.model.device) if profile else None
        for context, limit in zip(workload.context_tokens, limits, strict=True):
            bench = _Bench(model, workload, settings, names, context, limit, step, peer, gbps)
            try:
                bench.run()
            finally:
                rows += bench.rows()
                peers += bench.peer_rows(rows)
                profiles += bench.profiles()
    except KeyboardInterrupt:
        broken_off = True
    return Measured(tuple(rows), tuple(peers), tuple(profiles), gbps, broken_off)


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
        step: Callable[[str], None],
        peer: Peer | None = None,
        gbps: float | None = None,
    ) -> None:
        self._model = model
        self._causal = model.loaded.model
        self._workload = workload
        self._settings = settings
        self._strategies = strategies
        self._context = context
        self._step = step
        empty = EditSession(model, PATH, settings)
        empty.prime("")
        room = limit - len(_ids(empty))
        self._texts = passages(source_lines(), model.tokenizer.encode, room)
        self._samples: dict[tuple[str, int, str], list[Prediction]] = defaultdict(list)
        self._verdicts: dict[tuple[str, int, str], list[bool]] = defaultdict(list)
        self._stock: list[float] = []
        self._turn = 0
        self._peer = peer
        self._answers: dict[tuple[str, int], list[PeerAnswer]] = defaultdict(list)
        self._gbps = gbps
        self._profilers: dict[tuple[str, int], Profiler] = {}

    def run(self) -> None:
        """Measure all repeats."""
        for repeat in range(self._workload.repeats):
            exact = repeat % EXACT_EVERY == 0
            if exact:
                text = next(self._texts)
                session = self._in_full_swing(text)
            cases = list(cases_of(self._workload, self._model.tokenizer, text, repeat))
            if repeat == 0:
                self._warm_up(session, cases)
            for case in cases:
                self._measure_case(session, case, exact=exact)
                self._step(f"{self._context:,} tokens, {case.edit} {case.edit_tokens}")

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
                    twin, _ = self._update(before, case, strategy, decode=index == 0)
                    if index == 0 and strategy == "full":
                        stock_forward_ms(self._causal, _ids(twin))
            self._step(f"{self._context:,} tokens, warm-up")

    def _measure_case(self, session: EditSession, case: Case, *, exact: bool) -> None:
        """Run the strategies in turn; compare their lines with full recompute's, if that runs."""
        chosen = [name for name in self._strategies if exact or name not in _EXACT]
        self._turn += 1
        first = self._turn % len(chosen)
        before = _shortened(session, case.before)
        predictions: dict[str, Prediction] = {}
        for strategy in (*chosen[first:], *chosen[:first]):
            twin, predictions[strategy] = self._update(before, case, strategy)
            if strategy == "full" and case.edit_tokens == self._workload.edit_tokens[0]:
                self._stock.append(stock_forward_ms(self._causal, _ids(twin)))
        kind = (case.edit, case.edit_tokens)
        if exact and self._peer is not None:
            tokens = max(1, len(predictions["full"].token_ids))
            self._peer.hold(_prompt_text(before))
            self._answers[kind].append(self._peer.complete(_prompt_text(twin), tokens))
        if self._gbps is not None:
            profiler = self._profilers.setdefault(kind, Profiler(self._causal, self._gbps))
            profiler.add(before, self._strategies[-1], case.after)
        for strategy, prediction in predictions.items():
            key = (case.edit, case.edit_tokens, strategy)
            self._samples[key].append(prediction)
            if exact:
                self._verdicts[key].append(prediction.text == predictions["full"].text)

    def _update(
        self, session: EditSession, case: Case, strategy: str, *, decode: bool = True
    ) -> tuple[EditSession, Prediction]:
        """Run one update on a copy of the session in the state before the edit."""
        twin = session.fork(strategy)
        stamp(self._causal.device)  # the copy is no part of what is timed
        return twin, twin.update(case.after, should_stop=lambda: not decode)

    def peer_rows(self, rows: Sequence[Row]) -> Iterator[PeerRow]:
        """Sum up the server's answers beside the rows of this context length."""
        for (kind, tokens), answers in self._answers.items():
            beside = (self._context, kind, tokens)
            times = {
                row.strategy: (row.first_token_ms.median, row.line_ms.median)
                for row in rows
                if (row.context_tokens, row.edit, row.edit_tokens) == beside
            }
            yield PeerRow.of(*beside, answers, times)

    def profiles(self) -> Iterator[Profile]:
        """Sum up what was profiled."""
        for (kind, tokens), profiler in self._profilers.items():
            if not self._verdicts[kind, tokens, self._strategies[-1]]:
                continue
            yield profiler.profile(self._context, kind, tokens, self._strategies[-1])

    def rows(self) -> Iterator[Row]:
        """Sum up each strategy on each kind and size of edit that there are measurements of."""
        full = [
            prediction
            for (*_, strategy), predictions in self._samples.items()
            for prediction in predictions
            if strategy == "full"
        ]
        for tokens in self._workload.edit_tokens:
            for kind in self._workload.edits:
                for strategy in self._strategies:
                    key = (kind, tokens, strategy)
                    if self._verdicts[key] and self._stock:
                        yield self._row(key, full)

    def _row(self, key: tuple[str, int, str], full: Sequence[Prediction]) -> Row:
        kind, tokens, strategy = key
        samples, verdicts = self._samples[key], self._verdicts[key]
        timed = full if strategy == "full" else samples
        times = {phase: _spread(timed, phase) for phase in _PHASES}
        saved = {
            phase: 100.0 * (1.0 - times[phase].median / _spread(full, phase).median)
            for phase in ("first_token", "line")
        }
        return Row(
            strategy=strategy,
            context_tokens=self._context,
            edit=kind,
            edit_tokens=tokens,
            prompt_tokens=median_high(sample.tokens.total for sample in samples),
            encoded_tokens=median_high(sample.tokens.encoded for sample in samples),
            tokenize_ms=times["tokenize"],
            diff_ms=times["diff"],
            update_ms=times["update"],
            forward_ms=times["forward"],
            first_token_ms=times["first_token"],
            line_ms=times["line"],
            reduction_pct=ByEnd(**saved),
            agreement_pct=100.0 * sum(verdicts) / len(verdicts),
            measurements=len(timed),
            compared=len(verdicts),
            stock_forward_ms=Spread.of(self._stock),
        )


def _ids(session: EditSession) -> list[int]:
    assert session.prompt is not None
    return session.prompt.token_ids


def _prompt_text(session: EditSession) -> str:
    """Return a prompt as text, without the tokens that a server puts before it by itself."""
    assert session.prompt is not None
    return session.model.tokenizer.decode(session.prompt.token_ids) + session.prompt.healed.text


def _shortened(session: EditSession, text: str) -> EditSession:
    """Return a copy of an exact session, for the beginning of its text only; exact as well."""
    shortened = session.fork("prefix")
    shortened.update(text, should_stop=lambda: True)
    return shortened


def _spread(predictions: Sequence[Prediction], phase: str) -> Spread:
    return Spread.of([getattr(prediction.timings_ms, phase) for prediction in predictions])


def _prompt_limit(
    model: PreparedModel, workload: Workload, settings: Settings, context: int
) -> int:
    """Return the most tokens of the prompt before the edit.

    That is the context's length, but for what the window must have left for the edit and the line.
    """
    if context > model.window:
        raise CacheCapacityError(
            f"a context of {context} tokens exceeds the window of {model.name}: {model.window}",
            f"give --context-tokens up to {model.window}",
        )
    limit = min(context, model.window - settings.max_tokens - workload.growth)
    if limit < context // 2:
        raise CacheCapacityError(
            f"the window of {model.name}, {model.window} tokens, has no room for a context of "
            f"{context}, the edit and a line of {settings.max_tokens}",
            "lower --max-tokens, --edit-tokens or --context-tokens",
        )
    check_fits(max(workload.edit_tokens), limit)
    return limit
