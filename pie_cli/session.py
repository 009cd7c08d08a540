"""One editing session: new text in; prediction, plan and timings out.

model = prepare(load("pie-nano"))
session = EditSession(model, "src/foo.py")
session.open(text)                  # encodes everything, predicts
prediction = session.update(text2)  # splices the cache, encodes what changed, predicts
comparison = session.compare()      # full recompute: what it says, what it costs; exact afterwards
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from pie_cli.config import Settings
from pie_cli.engine.cache import EditedCache, PromptCache
from pie_cli.engine.decode import DecodeOptions, Line, Owed
from pie_cli.engine.gate.checks import GateReport, UnusableModel
from pie_cli.engine.gate.memory import judge
from pie_cli.engine.plain.cache import StockCache
from pie_cli.engine.plain.model import StockAbility
from pie_cli.engine.plain.threshold import ThresholdCache
from pie_cli.engine.prefix_cache import Stash
from pie_cli.engine.recompute import RefreshStep, chunk_tokens_for
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.errors import CacheCapacityError, InputError, ModelError
from pie_cli.models.loading import LoadedModel
from pie_cli.plan.alignment import Alignment, align
from pie_cli.plan.plan import Plan, make_plan, restoring
from pie_cli.plan.repair import refresh_positions
from pie_cli.plan.sides import settled
from pie_cli.plan.strategies import parse
from pie_cli.prompt.assembly import ContextFile, Prompt, PromptBuilder
from pie_cli.prompt.fim import FimFormat, find_format
from pie_cli.prompt.tokenizer import TextTokenizer
from pie_cli.prompt.window import Edges
from pie_cli.results import Comparison, Prediction, Speedup, Timings, TokenCounts
from pie_cli.text.applying import FilePatch, locate
from pie_cli.text.cursor import BOM, Place, Position, Spot, moved_edge
from pie_cli.text.edit import LineHunk, diff_lines, moved_line
from pie_cli.timing import elapsed_ms

__all__ = ["Comparison", "EditSession", "EditableModel", "Prediction", "prepare"]

MIN_STASH_BYTES = 64 << 20
"""Copies of exact tokens may take as much memory as the cache itself, or this if that is more."""

_NO_MEMORY = re.compile("(can't allocate|not enough|out of) memory", re.IGNORECASE)

OnProgress: TypeAlias = Callable[[int, int], None]
ShouldStop: TypeAlias = Callable[[], bool]


def never() -> bool:
    """Never ask to stop."""
    return False


@dataclass(frozen=True, eq=False)
class EditableModel:
    """A loaded model, and how its cache may be used.

    Attributes:
        loaded: the model, its tokenizer and facts.
        tokenizer: pie's view of the tokenizer.
        gate: what the gate found and measured, or None where it refused the model.
        refusal: why it did, in one line, or None.
        ability: what the cache of a refused model can do, or None.
        fim: how the model fills in a middle, or None where its tokenizer has no known tokens for
            that.
    """

    loaded: LoadedModel
    tokenizer: TextTokenizer
    gate: GateReport | None
    refusal: str | None = None
    ability: StockAbility | None = None
    fim: FimFormat | None = None

    @property
    def rotation(self) -> ModelRotation:
        """How the model rotates its keys.

        Raises:
            ModelError: when the gate refused the model.
        """
        if self.gate is None:
            raise ModelError(
                f"the cache of {self.loaded.name} is not edited: {self.refusal}",
                "give a model whose cache can be edited; pie doctor --model NAME tells",
            )
        return self.gate.rotation

    @property
    def notice(self) -> str | None:
        """Why this model's cache is not edited, or not always, and what runs then; one line."""
        if self.ability is not None:
            return f"the cache is not edited: {self.refusal}; runs {self.ability.summary}"
        if self.gate is not None and self.gate.limit is not None:
            return (
                f"the cache is edited up to {self.gate.limit:,} tokens; "
                "longer prompts run exact, by full recompute"
            )
        return None

    def new_cache(self, capacity: int) -> PromptCache:
        """Make an empty cache, `capacity` slots to begin with."""
        model = self.loaded.model
        if self.gate is None:
            assert self.ability is not None
            return StockCache(model, self.ability)
        limit = self.gate.limit
        slots = SlotCache.for_model(model, min(capacity, limit or capacity))
        edited = EditedCache(model, self.gate.rotation, slots)
        return edited if limit is None else ThresholdCache(model, edited, limit)


def prepare(loaded: LoadedModel, *, remember: bool = True) -> EditableModel:
    """Run the gate, which installs the engine's attention, or take over its verdict.

    A model that it refuses is ready as well: its own cache is used, exactly.

    Args:
        loaded: from `load`.
        remember: whether an earlier verdict is taken over, and this one kept.

    Raises:
        ModelError: when the model gives no predictions by any strategy.
        CacheCapacityError: when the device's memory does not suffice.
    """
    name = loaded.model.name_or_path if remember else ""
    try:
        with _memory_sufficing():
            verdict = judge(loaded.model, Path(name) if name else None)
    except UnusableModel as error:
        raise ModelError(f"{loaded.name} cannot be used: {error.reason}", error.remedy) from error
    tokenizer = TextTokenizer(loaded.tokenizer)
    return EditableModel(
        loaded,
        tokenizer,
        verdict.report,
        verdict.refusal,
        verdict.ability,
        find_format(tokenizer.token_id),
    )


@dataclass
class _State:
    """What the cache stands for.

    Attributes:
        cache: holds `prompt`.
        prompt: of the text before the spot.
        stale_from: every token before it is as full recompute would have it.
        changed_from: first token that the last edit made fresh.
        last: the prediction made from it.
        draft: token ids of that prediction, the next one's draft.
        last_draft: the draft that it had itself.
    """

    cache: PromptCache
    prompt: Prompt
    stale_from: int = 0
    changed_from: int = 0
    last: Prediction | None = None
    draft: tuple[int, ...] = ()
    last_draft: tuple[int, ...] = ()


class EditSession:
    """Keeps one file's KV cache in step with its text.

    Not thread-safe: one caller at a time. A call that raises leaves the session usable, with the
    text and the spot that it had; what the cache can no longer vouch for is encoded again by the
    next call.

    Args:
        model: prepared.
        path: of the file, as the model shall see it in the prompt's head; nothing is read from it.
        settings: spot, strategy, comparison, limits.

    Raises:
        CacheCapacityError: when the predicted line or the context leaves no room for text.
        InputError: when `settings.at` is no spot.
    """

    def __init__(self, model: EditableModel, path: str, settings: Settings | None = None) -> None:
        self.model = model
        self.path = path
        self.settings = settings or Settings()
        loaded = model.loaded
        # The predicted line has to fit behind the prompt.
        budget = loaded.window - self.settings.max_tokens
        if budget < 1:
            raise CacheCapacityError(
                f"a line of {self.settings.max_tokens} tokens leaves no room for text in the window"
                f" of {loaded.name}: {loaded.window}",
                "lower --max-tokens",
            )
        if self.settings.context_tokens is not None:
            budget = min(budget, self.settings.context_tokens)
        fim = model.fim
        self._prompts = PromptBuilder(model.tokenizer, loaded.bos_id, path, budget, fim)
        self._decoding = DecodeOptions(
            model.tokenizer.decode_continuation,
            loaded.eos_ids | (fim.stop_ids if fim else frozenset()),
            self.settings.max_tokens,
        )
        # Text and spot outlive a failure, which costs the cache: the spot moves with the next edit.
        self._spot = Spot.parse(self.settings.at or ("edit" if fim else "end"))
        self._strategy = parse(self.settings.strategy)
        self._text: str | None = None
        self._context: tuple[ContextFile, ...] = ()
        self._state: _State | None = None
        self._stash: Stash | None = None

    @property
    def text(self) -> str | None:
        """The text of the last call that went well, or None before the first one."""
        return self._text

    @property
    def spot(self) -> Spot:
        """Where the prediction stands."""
        return self._spot

    @property
    def cache_bytes(self) -> int:
        """Memory of the KV cache, and of the copies kept for when a text comes back."""
        stashed = self._stash.memory_bytes if self._stash else 0
        return stashed + (self._state.cache.memory_bytes if self._state else 0)

    def open(
        self,
        text: str,
        on_progress: OnProgress | None = None,
        context: Sequence[ContextFile] = (),
    ) -> Prediction:
        """Encode a text from scratch and predict.

        A spot that follows edits stands at the end of the text until there is one.

        Args:
            text: the file's whole text.
            on_progress: told (tokens done, tokens in all) after each chunk.
            context: other files, in the order in which they stand before the text.

        Raises:
            InputError: when the spot lies outside the text.
            CacheCapacityError: when the device's memory does not suffice.
        """
        opened = self._encode_all(text, self._spot, context, on_progress)
        self._keep_exact(never)
        return opened

    def prime(
        self,
        text: str,
        on_progress: OnProgress | None = None,
        context: Sequence[ContextFile] = (),
        at: Spot | None = None,
    ) -> float:
        """Encode a text from scratch without predicting a line: the state before an edit.

        Args:
            text: the file's whole text.
            on_progress: told (tokens done, tokens in all) after each chunk.
            context: other files, in the order in which they stand before the text.
            at: where the spot stands before the edit; by default that of the settings.

        Returns:
            Milliseconds that it took.
        """
        primed = self._encode_all(text, at or self._spot, context, on_progress, max_tokens=1)
        if self._state:
            self._state.draft, self._state.last = (), None
        return primed.timings_ms.line

    def apply(self, patch: FilePatch, should_stop: ShouldStop = never) -> Prediction:
        """Apply a patch to the session's text, update and predict.

        Raises:
            PatchError: when it does not apply; the session stays as it was.
            InputError: before the first text.
        """
        if self._text is None:
            raise InputError("no text to patch yet", "open a text first")
        applied = locate(self._text, patch)
        at = None
        if self._spot.follows_edits and applied.hunks:
            at = replace(self._spot, line=applied.hunks[-1].new_stop)
        return self.update(applied.text, should_stop, at)

    def update(
        self,
        text: str,
        should_stop: ShouldStop = never,
        at: str | Spot | None = None,
        context: Sequence[ContextFile] | None = None,
    ) -> Prediction:
        """Bring the cache in step with a new text by the session's strategy, and predict.

        Args:
            text: the file's whole new text.
            should_stop: asked between decoding passes; true ends the line early (`interrupted`).
            at: where to predict in the new text; by default the spot moves with the text.
            context: other files before the text; None for those of the last call.

        Raises:
            InputError: when the spot lies outside the text; the session stays as it was.
            CacheCapacityError: when the device's memory does not suffice.
        """
        began = time.perf_counter()
        hunks = [] if self._text is None else diff_lines(self._text, text)
        diffed = time.perf_counter()
        spot = self._spot_in(text, hunks, at)
        context = self._context if context is None else tuple(context)
        state = self._state
        if state is None:
            return self._encode_all(text, spot, context, None)
        old, place = state.prompt, spot.place(text)
        prompt = self._prompt(text, spot, place, context, _moved(old.edges, hunks), old)
        tokenized = time.perf_counter()
        alignment = align(old.token_ids, prompt.token_ids)
        if old.form == prompt.form:
            alignment = settled(alignment, old.sides, prompt.sides)
        refresh = refresh_positions(
            self._strategy,
            alignment,
            old.token_ids,
            prompt.token_ids,
            self.model.tokenizer.pieces,
            anchor=prompt.anchor,
            exact=state.stale_from,
        )
        plan = state.cache.plan(self._strategy.name, alignment, refresh)
        plan = self._recalled(plan, prompt, min(state.stale_from, alignment.first_change))
        planned = time.perf_counter()
        draft = self._draft(state.draft, prompt)
        decoding = replace(self._decoding_of(prompt, spot), should_stop=should_stop)
        with self._guarded():
            line = state.cache.decode_line(plan, prompt.token_ids, decoding, draft)
            # Guarded as well: an interrupt in between must not leave this cache with the old text.
            state.prompt = prompt
            state.changed_from = min([plan.fresh[0], *(run.start for run in plan.stored)])
            state.stale_from = stale_from(state.stale_from, plan)
            self._text, self._spot, self._context = text, spot, context
        timings = Timings(
            tokenize=elapsed_ms(diffed, tokenized),
            diff=elapsed_ms(began, diffed) + elapsed_ms(tokenized, planned),
            update=elapsed_ms(planned, line.spliced_at),
            forward=elapsed_ms(line.spliced_at, line.first_token_at),
            decode=elapsed_ms(line.first_token_at, line.ended_at),
            first_token=elapsed_ms(began, line.first_token_at),
            line=elapsed_ms(began, line.ended_at),
        )
        return _predicted(state, line, draft, plan, place.position, timings, hunks)

    def compare(self, should_stop: ShouldStop = never) -> Comparison | None:
        """Recompute the last prompt in place, in ascending chunks, and predict again.

        Gives up between chunks when asked to; the chunks that are done stay done. When it
        completes, the cache is exact. It has the draft that the prediction had.

        Args:
            should_stop: asked before each chunk.

        Returns:
            The comparison, or None when given up, switched off, or nothing was predicted yet.
        """
        state = self._state
        if self.settings.compare == "none" or state is None or state.last is None:
            return None
        # What keeps a common prefix only encodes all behind the change: also what is exact already.
        start = 0 if self.settings.compare == "full" else min(state.stale_from, state.changed_from)
        decoding = self._decoding_of(state.prompt, self._spot)
        draft = state.last_draft[: decoding.limit - 1]
        compute_ms = 0.0
        with self._guarded():
            logits: Tensor | None = None
            for step in self._refresh(state, start, should_stop, draft):
                compute_ms += 1e3 * step.compute_s
                logits = step.logits
            if logits is None:
                return None
            line = state.cache.decode_after(state.prompt.token_ids, logits, decoding, draft)
        forward = compute_ms + elapsed_ms(line.began_at, line.first_token_at)
        self._keep_exact(should_stop)
        return _compared(self.settings.compare, line, state.last, forward)

    def fork(self, strategy: str) -> "EditSession":
        """Return a session in the same state with another strategy and a copy of the cache.

        So several strategies, or several edits, can start from one state. It drafts nothing.

        Raises:
            CacheCapacityError: when the device's memory does not suffice.
        """
        twin = EditSession(self.model, self.path, replace(self.settings, strategy=strategy))
        twin._spot, twin._text, twin._context = self._spot, self._text, self._context
        if self._state is not None:
            with _memory_sufficing():
                cache = self._state.cache.clone()
            twin._state = replace(self._state, cache=cache, last=None, draft=(), last_draft=())
        return twin

    def _spot_in(self, text: str, hunks: Sequence[LineHunk], at: str | Spot | None) -> Spot:
        """Return the spot in a new text: the one asked for, or the last one, moved along."""
        spot = Spot.parse(at) if isinstance(at, str) else at
        if spot is None or spot == Spot(follows_edits=True):
            last = self._spot if spot is None or self._spot.follows_edits else spot
            spot = last if self._text is None else last.moved(hunks, self._text, text).within(text)
        return spot

    def _prompt(
        self,
        text: str,
        spot: Spot,
        place: Place,
        context: Sequence[ContextFile],
        edges: Edges,
        last: Prompt | None,
    ) -> Prompt:
        """Build the prompt for a spot: with the text behind it, but at the end of the file.

        A byte order mark is no text to a model: behind one it writes anything but code.
        """
        behind = None if spot == Spot() else text[place.offset :]
        before = text[: place.offset].removeprefix(BOM) + place.opening
        return self._prompts.build(before, behind, edges, context, last, heal=True)

    def _decoding_of(self, prompt: Prompt, spot: Spot) -> DecodeOptions:
        """Return how the line behind a prompt is decoded."""
        tokenizer, taken = self.model.tokenizer, prompt.taken
        owed = None
        if taken.token_ids:
            owed = Owed(
                taken.text,
                len(taken.token_ids),
                tokenizer.tokens_starting_with,
                lambda token_id: tokenizer.pieces((token_id,))[0],
            )
        return replace(self._decoding, owed=owed, rest_of_line=spot.completes_line)

    def _draft(self, draft: tuple[int, ...], prompt: Prompt) -> tuple[int, ...]:
        """Return a draft that spells what healing took back: the last line, or just that."""
        taken = prompt.taken
        if not taken.token_ids:
            return draft
        spelled = b"".join(self.model.tokenizer.pieces(draft))
        return draft if spelled.startswith(taken.text.encode()) else taken.token_ids

    def _encode_all(
        self,
        text: str,
        spot: Spot,
        context: Sequence[ContextFile],
        on_progress: OnProgress | None,
        max_tokens: int | None = None,
    ) -> Prediction:
        """Encode a text from scratch, chunk by chunk, and decode."""
        began = time.perf_counter()
        place = spot.place(text)
        prompt = self._prompt(text, spot, place, context, Edges(), None)
        tokenized = time.perf_counter()
        decoding = self._decoding_of(prompt, spot)
        decoding = replace(decoding, max_tokens=max_tokens or decoding.max_tokens)
        length = len(prompt.token_ids)
        plan = make_plan("full", Alignment(0, length, ()))
        with self._guarded():
            # Room for the line, and for some edits before the cache has to grow.
            capacity = length + length // 8 + self.settings.max_tokens
            cache = self.model.new_cache(min(capacity, self.model.loaded.window))
            state = self._state = _State(cache, prompt)
            cache.begin(length)
            logits = torch.empty(0)
            for step in self._refresh(state, 0, never, ()):
                logits = logits if step.logits is None else step.logits
                if on_progress:
                    on_progress(step.reached, length)
            line = cache.decode_after(prompt.token_ids, logits, decoding, ())
            self._text, self._spot, self._context = text, spot, tuple(context)
        tokenize, forward = elapsed_ms(began, tokenized), elapsed_ms(tokenized, line.first_token_at)
        decode = elapsed_ms(line.first_token_at, line.ended_at)
        first_token = tokenize + forward
        timings = Timings(tokenize, 0.0, 0.0, forward, decode, first_token, first_token + decode)
        return _predicted(state, line, (), plan, place.position, timings, ())

    def _recalled(self, plan: Plan, prompt: Prompt, start: int) -> Plan:
        """Take exact copies, if there are any, instead of stale tokens and fresh ones."""
        # The other strategies are baselines: they have what their namesakes have.
        if self._stash is None or not plan.rotate:
            return plan
        return restoring(plan, self._stash.find(prompt.token_ids, start))

    def _keep_exact(self, should_stop: ShouldStop) -> None:
        """Copy what is exact by now, for when the text comes back; for idle time."""
        state = self._state
        if state is None:
            return
        if self._stash is None:
            self._stash = Stash(max(MIN_STASH_BYTES, state.cache.memory_bytes))
        try:
            with _memory_sufficing():
                ids = state.prompt.token_ids
                state.cache.keep_in(self._stash, ids, state.stale_from, should_stop)
        except CacheCapacityError:
            # Copies are a convenience.
            self._stash.clear()

    def _refresh(
        self, state: _State, start: int, should_stop: ShouldStop, draft: Sequence[int]
    ) -> Iterator[RefreshStep]:
        """Encode again from a token on that has only exact ones before it."""
        chunk = self.settings.chunk_tokens or chunk_tokens_for(self.model.loaded.model.device)
        ids = state.prompt.token_ids
        for step in state.cache.refresh(ids, start, chunk, should_stop, draft):
            state.stale_from = max(state.stale_from, step.reached)
            yield step

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Drop a cache that a failure left half written.

        Raises:
            CacheCapacityError: when the device's memory does not suffice.
        """
        try:
            with _memory_sufficing():
                yield
        except BaseException:
            self._state = None
            raise


@contextmanager
def _memory_sufficing() -> Iterator[None]:
    """Name a lack of memory as such.

    Raises:
        CacheCapacityError: when the device's memory does not suffice.
    """
    try:
        yield
    except RuntimeError as error:
        # CUDA has a class for it; a CPU's allocator and MPS only say so.
        said = isinstance(error, torch.OutOfMemoryError) or _NO_MEMORY.search(str(error))
        if not said:
            raise
        raise CacheCapacityError(
            "the device has no memory left for the cache", "lower --context-tokens"
        ) from error


def stale_from(before: int, plan: Plan) -> int:
    """Return the first token that may not be as full recompute would have it.

    A kept token is exact where nothing before it changed and it was exact itself; a fresh one where
    everything that it saw is. So this is the old value inside the common prefix, else the first
    token kept behind a change.

    Args:
        before: the same for the sequence that the plan was made from.
        plan: executed.
    """
    prefix = [run.length for run in plan.kept if run.old_start == run.new_start == 0]
    if prefix and before < prefix[0]:
        return before
    behind = [run.new_start for run in plan.kept if run.new_start or run.delta]
    return min(behind, default=plan.length)


def _moved(edges: Edges, hunks: Sequence[LineHunk]) -> Edges:
    """Return where the window's edges stand after an edit."""
    bottom = None if edges.bottom is None else moved_line(edges.bottom, hunks)
    return Edges(moved_edge(edges.top, hunks), bottom)


def _predicted(
    state: _State,
    line: Line,
    draft: tuple[int, ...],
    plan: Plan,
    at: Position,
    timings: Timings,
    hunks: Sequence[LineHunk],
) -> Prediction:
    """Remember the line as the next draft, and report it."""
    stale = plan.length - state.stale_from
    state.last = Prediction(
        text=line.text,
        at=at,
        strategy=plan.strategy,
        exact=stale == 0,
        tokens=TokenCounts(
            plan.length, plan.reused, plan.shifted, plan.encoded, stale, plan.restored
        ),
        timings_ms=timings,
        lines_added=sum(hunk.new_stop - hunk.new_start for hunk in hunks),
        lines_removed=sum(hunk.old_stop - hunk.old_start for hunk in hunks),
        window_dropped=state.prompt.edges.top,
        stopped_by=line.stopped_by,
        window_dropped_below=state.prompt.dropped_below,
        form=state.prompt.form,
        context=state.prompt.context,
    )
    state.last_draft, state.draft = draft, line.token_ids
    return state.last


def _compared(strategy: str, line: Line, prediction: Prediction, forward: float) -> Comparison:
    """Set the recompute's times beside the prediction's; both had to tokenize the text."""
    pie = prediction.timings_ms
    decode = elapsed_ms(line.first_token_at, line.ended_at)
    first_token = pie.tokenize + forward
    timings = Timings(pie.tokenize, 0.0, 0.0, forward, decode, first_token, first_token + decode)
    return Comparison(
        strategy=strategy,
        text=line.text,
        agrees=line.text == prediction.text,
        timings_ms=timings,
        speedup=Speedup(timings.first_token / pie.first_token, timings.line / pie.line),
    )
