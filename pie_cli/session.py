"""One document's state: an edit in, a prediction out.

model = prepare(load("pie-nano"))
session = EditSession(model, "src/foo.py")
session.open(text)                  # encodes everything, predicts
prediction = session.update(text2)  # edits the cache, encodes what changed, predicts
comparison = session.compare()      # full recompute: what it says, what it costs; exact afterwards
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import TypeAlias

from pie_cli.answers import compared
from pie_cli.cached import Begun, CachedPrompt
from pie_cli.config import Settings
from pie_cli.decoder import LineDecoder
from pie_cli.editable import EditableModel
from pie_cli.effort import Effort
from pie_cli.engine.protocol import (
    Engine,
    RecomputeStep,
    ShouldStop,
    never,
)
from pie_cli.errors import CacheCapacityError
from pie_cli.keeping import KeptCache
from pie_cli.looks import look
from pie_cli.plan.plan import Alignment, make_plan
from pie_cli.planner import Planner
from pie_cli.prompt.assembly import ContextFile, Prompt, PromptBuilder
from pie_cli.prompt.window import Edges
from pie_cli.results import Comparison, Prediction, Timings
from pie_cli.text.cursor import BOM, Cursor, Place
from pie_cli.text.edit import Edit
from pie_cli.text.matching import KeptRun
from pie_cli.timing import elapsed_ms

OnProgress: TypeAlias = Callable[[int, int], None]


class EditSession:
    """Keeps one document's KV cache in step with its text.

    Not thread-safe: one caller at a time. A call that raises leaves the session usable, with the
    text and the cursor that it had; what the cache can no longer vouch for is encoded again by the
    next call.

    Args:
        model: prepared.
        path: of the file, as the model sees it in the prompt's head; nothing is read from it.
        settings: cursor, strategy, comparison, limits.
        kept: where its cache is kept between runs; None for nowhere.

    Attributes:
        from_disk: tokens of the last prompt encoded from scratch that were kept by an earlier run.

    Raises:
        CacheCapacityError: when the predicted line or the context leaves no room for text.
        InputError: when `settings.at` is no position.
    """

    def __init__(
        self,
        model: EditableModel,
        path: str,
        settings: Settings | None = None,
        kept: KeptCache | None = None,
    ) -> None:
        self.model = model
        self.path = path
        self.from_disk = 0
        self._kept = kept
        self.settings = settings or Settings()
        # The predicted line has to fit after the prompt.
        self._decoder = LineDecoder(model, path, self.settings)
        max_tokens = self._decoder.max_tokens
        budget = model.window - max_tokens
        if budget < 1:
            raise CacheCapacityError(
                f"a prediction of {max_tokens} tokens leaves no room for text in the window"
                f" of {model.name}: {model.window}",
                "lower --max-tokens" + " or --lines" * (self.settings.lines > 1),
            )
        if self.settings.context_tokens is not None:
            budget = min(budget, self.settings.context_tokens)
        self._prompts = PromptBuilder(model.tokenizer, model.bos_id, path, budget, model.fim)
        # Text and cursor outlive a failure, which costs the cache: they move with the next edit.
        self._cursor = Cursor.parse(self.settings.at)
        self._planner = Planner(model, self.settings)
        self._text: str | None = None
        self._context: tuple[ContextFile, ...] = ()
        self._state: CachedPrompt | None = None
        self._effort = Effort()

    @property
    def text(self) -> str | None:
        """The text of the last call that went well, or None before the first one."""
        return self._text

    @property
    def cursor(self) -> Cursor:
        """Where the prediction begins."""
        return self._cursor

    @property
    def cache_bytes(self) -> int:
        """Memory of the KV cache, and of the snapshots kept for when a text comes back."""
        return self._state.engine.memory_bytes if self._state else 0

    @property
    def prompt(self) -> Prompt | None:
        """What the cache holds; None before the first text, and after a failure."""
        return self._state.prompt if self._state else None

    @property
    def engine(self) -> Engine | None:
        """What holds the cache, for probes; None before the first text, and after a failure."""
        return self._state.engine if self._state else None

    @property
    def exact(self) -> bool:
        """Whether all that the cache holds is as full recompute would have it."""
        return self._state is not None and self.stale_from >= len(self._state.prompt.token_ids)

    @property
    def stale_from(self) -> int:
        """Every token of the prompt before this position is as full recompute would have it."""
        return self._state.stale_from if self._state else 0

    def preview(self, text: str, at: Cursor) -> Prompt:
        """Return the prompt that a session would begin with at a text; nothing is encoded.

        Raises:
            InputError: when the cursor lies outside the text.
        """
        return self._prompt(text, at, at.place(text), ())

    def open(
        self,
        text: str,
        on_progress: OnProgress | None = None,
        context: Sequence[ContextFile] = (),
        at: Cursor | None = None,
    ) -> Prediction:
        """Encode a text from scratch and predict.

        A cursor that follows edits is at the end of the last line with content until there is one.

        Args:
            text: the file's whole text.
            on_progress: told (tokens done, tokens in all) after each chunk.
            context: other files, in the order in which they come before the text.
            at: where to predict; by default where the settings say.

        Raises:
            InputError: when the cursor lies outside the text.
            CacheCapacityError: when the device's memory does not suffice.
        """
        opened = self._encode_all(text, at or self._cursor, context, on_progress)
        self._keep_snapshots(never)
        return opened

    def prime(
        self,
        text: str,
        on_progress: OnProgress | None = None,
        context: Sequence[ContextFile] = (),
        at: Cursor | None = None,
    ) -> float:
        """Encode a text from scratch without predicting a line: the state before an edit.

        Args:
            text: the file's whole text.
            on_progress: told (tokens done, tokens in all) after each chunk.
            context: other files, in the order in which they come before the text.
            at: where the cursor is before the edit; by default that of the settings.

        Returns:
            Milliseconds that it took.
        """
        primed = self._encode_all(text, at or self._cursor, context, on_progress, predicts=False)
        if self._state:
            self._state.draft, self._state.last = (), None
        return primed.timings_ms.line

    def update(
        self,
        to: str | Edit,
        should_stop: ShouldStop = never,
        at: str | Cursor | None = None,
        context: Sequence[ContextFile] | None = None,
    ) -> Prediction:
        """Bring the cache in step with an edit by the session's strategy, and predict.

        Args:
            to: the file's whole new text, or the edit that leads to it where that is known. One
                that starts from another text than the session's counts for its new text only.
            should_stop: asked between decoding passes; true ends the line early (`interrupted`).
            at: where to predict in the new text; by default the cursor moves with the text.
            context: other files before the text; None for those of the last call.

        Raises:
            InputError: when the cursor lies outside the text; the session stays as it was.
            CacheCapacityError: when the device's memory does not suffice.
        """
        began = perf_counter()
        edit = self._edit(to)
        diffed = perf_counter()
        cursor = self._cursor_after(edit, at)
        context = self._context if context is None else tuple(context)
        state, text = self._state, edit.after
        if state is None:
            return self._encode_all(text, cursor, context, None)
        place = cursor.place(text)
        prompt = self._prompt(text, cursor, place, context, state.prompt, edit)
        tokenized = perf_counter()
        decoding = self._decoder.decoding(prompt, text, place)
        draft = self._decoder.draft(state.draft, prompt, decoding)
        before_ms = 0.0
        if state.last is not None:
            last = state.last.timings_ms
            before_ms = last.tokenize + last.diff + last.update
        plan = self._planner.plan(
            state.engine,
            state.prompt,
            prompt,
            state.stale_from,
            len(draft),
            before_ms,
            is_drafted=bool(state.draft) and draft == state.draft,
        )
        planned = perf_counter()
        with self._guarded():
            stopping = replace(decoding, should_stop=should_stop)
            seen = look(
                state.engine, self._planner, plan, prompt, state.stale_from, stopping, draft
            )
            # Guarded as well: an interrupt in between must not leave this cache with the old text.
            state.prompt, state.place, state.decoding = prompt, place, decoding
            state.changed_from, state.stale_from = plan.changed_from, seen.stale_from
            state.broken_off = None
            self._text, self._cursor, self._context = text, cursor, context
        line, first = seen.line, seen.first
        forward = elapsed_ms(line.spliced_at, first.first_token_at)
        self.model.pace.observe(plan.encoded + len(draft), forward)
        timings = Timings(
            tokenize=elapsed_ms(diffed, tokenized),
            diff=elapsed_ms(began, diffed) + elapsed_ms(tokenized, planned),
            update=elapsed_ms(planned, line.spliced_at),
            forward=forward,
            decode=elapsed_ms(first.first_token_at, line.ended_at),
            first_token=elapsed_ms(began, line.first_token_at),
            line=elapsed_ms(began, line.ended_at),
        )
        return state.answered(line, draft, seen.plan, timings, edit, seen.corrected)

    def full_recompute_ms(self) -> float | None:
        """Estimate what full recompute takes to the line, from the last encoding of this text."""
        return self._recompute_ms(0)

    def comparison_within(self, limit_ms: float | None) -> str:
        """Return what the settings compare with, or what of it takes no longer than a limit.

        Args:
            limit_ms: of work; None for any.

        Returns:
            "full", "prefix" or "none".
        """
        state, wanted = self._state, self.settings.compare
        if limit_ms is None or state is None or wanted == "none":
            return wanted
        start = state.comparison(wanted).reached
        if (self._recompute_ms(start) or 0.0) <= limit_ms:
            return wanted
        # What is exact already gains nothing from a cheaper comparison.
        if wanted == "full" and not self.exact:
            start = state.comparison("prefix").reached
            if (self._recompute_ms(start) or 0.0) <= limit_ms:
                return "prefix"
        return "none"

    def compare(
        self,
        should_stop: ShouldStop = never,
        on_progress: OnProgress | None = None,
        how: str | None = None,
    ) -> Comparison | None:
        """Recompute the last prompt in place, in ascending chunks, and predict again.

        Stops between chunks when asked to; the chunks that are done stay done, and the next call
        goes on behind them. When it completes, the cache is exact. It has the draft that the
        prediction had.

        Args:
            should_stop: asked before each chunk.
            on_progress: told (tokens done, tokens in all) after each chunk.
            how: "full", "prefix" or "none"; by default what the settings say.

        Returns:
            The comparison, or None when stopped, switched off, or nothing was predicted yet.
        """
        state, how = self._state, how or self.settings.compare
        if how == "none" or state is None or state.last is None:
            return None
        begun = state.comparison(how)
        length = len(state.prompt.token_ids)
        decoding = state.decoding
        draft = state.last_draft[: decoding.max_tokens - 1]
        reached, compute_s = begun.reached, begun.compute_s
        with self._guarded():
            for step in self._recompute(state, reached, should_stop, draft):
                compute_s += step.compute_s
                reached = step.reached
                if on_progress:
                    on_progress(reached, length)
            if reached < length:
                state.broken_off = Begun(how, reached, compute_s)
                return None
            state.broken_off = None
            line = state.engine.predict_after(state.prompt.token_ids, decoding, draft)
        forward = 1e3 * compute_s + elapsed_ms(line.began_at, line.first_token_at)
        if how == "full":
            self._effort.note(length, forward)
        self._keep_snapshots(should_stop)
        return compared(how, line, state.place, state.last, forward)

    def resumed(self, text: str) -> Cursor | None:
        """Return where the last run's cursor was in a text; None where that is not known.

        Only one that follows edits goes on from there, and only before the first text.
        """
        fresh = self._kept is not None and self._cursor == Cursor(follows_edits=True)
        return self._kept.cursor(text) if fresh and self._kept else None

    def keep(self) -> int:
        """Keep the cache on disk for the next run, if all of it is exact; for the end.

        Returns:
            Bytes of the file; 0 where nothing is kept.

        Raises:
            PieError: it cannot be written.
        """
        state = self._state
        if self._kept is None or state is None or self._text is None or not self.exact:
            return 0
        ids = state.prompt.token_ids
        return self._kept.keep(state.engine, ids, self._effort, self._text, self._cursor)

    def fork(self, strategy: str) -> "EditSession":
        """Return a session in the same state with another strategy and a copy of the cache.

        So several strategies, or several edits, can start from one state. It drafts nothing.

        Raises:
            CacheCapacityError: when the device's memory does not suffice.
        """
        twin = EditSession(self.model, self.path, replace(self.settings, strategy=strategy))
        twin._cursor, twin._text, twin._context = self._cursor, self._text, self._context
        if self._state is not None:
            engine = self._state.engine.clone()
            twin._state = replace(self._state, engine=engine, last=None, draft=(), last_draft=())
        return twin

    def _recompute_ms(self, start: int) -> float | None:
        """Estimate what recomputing from a token on takes, and the line after it."""
        state = self._state
        if state is None or state.last is None:
            return None
        encoding = self._effort.of(len(state.prompt.token_ids) - start)
        return None if encoding is None else encoding + state.last.timings_ms.decode

    def _edit(self, to: str | Edit) -> Edit:
        """Return the edit that leads from the session's text to a new one."""
        after = to if isinstance(to, str) else to.after
        if self._text is None:
            return Edit(after, after, ())
        if isinstance(to, Edit) and to.before == self._text:
            return to
        return Edit.between(self._text, after)

    def _cursor_after(self, edit: Edit, at: str | Cursor | None) -> Cursor:
        """Return the cursor in a new text: the one asked for, or the last one, moved along."""
        cursor = Cursor.parse(at) if isinstance(at, str) else at
        if cursor is None or cursor == Cursor(follows_edits=True):
            last = self._cursor if cursor is None or self._cursor.follows_edits else cursor
            cursor = last if self._text is None else last.moved(edit).within(edit.after)
        return cursor

    def _prompt(
        self,
        text: str,
        cursor: Cursor,
        place: Place,
        context: Sequence[ContextFile],
        last: Prompt | None = None,
        edit: Edit | None = None,
    ) -> Prompt:
        """Build the prompt for a cursor: with the text below it, but at the end of the file.

        A byte order mark is no text to a model: after one it writes anything but code.
        """
        below = None if cursor == Cursor() else text[place.resumes :]
        above = text[: place.offset].removeprefix(BOM)
        edges = last.edges.moved(edit) if last and edit else Edges()
        return self._prompts.build(above, below, edges, context, last, healing=True)

    def _encode_all(
        self,
        text: str,
        cursor: Cursor,
        context: Sequence[ContextFile],
        on_progress: OnProgress | None,
        *,
        predicts: bool = True,
    ) -> Prediction:
        """Encode a text from scratch, chunk by chunk, and decode.

        What an earlier run has kept of it is read instead.
        """
        began = perf_counter()
        place = cursor.place(text)
        prompt = self._prompt(text, cursor, place, context)
        tokenized = perf_counter()
        decoding = self._decoder.decoding(prompt, text, place)
        if not predicts:
            decoding = replace(decoding, max_tokens=1)
        length = len(prompt.token_ids)
        with self._guarded():
            engine = self._state.engine if self._state else self._new_engine(length)
            state = self._state = CachedPrompt(engine, prompt, place, decoding)
            engine.begin(length)
            kept = self._kept.fill(engine, prompt.token_ids) if self._kept else 0
            read, state.stale_from = perf_counter(), kept
            for step in self._recompute(state, kept, never, ()):
                if on_progress:
                    on_progress(step.reached, length)
            line = engine.predict_after(prompt.token_ids, decoding, ())
            self._planner.learn_pace(engine, prompt.token_ids, decoding)
            self._text, self._cursor, self._context = text, cursor, tuple(context)
        self.from_disk = kept
        tokenize, update = elapsed_ms(began, tokenized), elapsed_ms(tokenized, read)
        forward = elapsed_ms(read, line.first_token_at)
        if kept and self._kept:
            # What full recompute takes, this time does not tell.
            self._effort = self._kept.effort()
            plan = make_plan("prefix", Alignment(kept, length, (KeptRun(0, 0, kept),)))
        else:
            forward, update = forward + update, 0.0
            self._effort.note(length, forward)
            plan = make_plan("full", Alignment(0, length, ()))
        decode = elapsed_ms(line.first_token_at, line.ended_at)
        first_token = tokenize + update + forward
        timings = Timings(tokenize, 0.0, update, forward, decode, first_token, first_token + decode)
        edit = Edit(text, text, ())
        return state.answered(line, (), plan, timings, edit, from_disk=kept)

    def _new_engine(self, length: int) -> Engine:
        """Make an engine with room for the line, and for some edits before it has to grow."""
        capacity = length + length // 8 + self._decoder.max_tokens
        return self.model.new_engine(min(capacity, self.model.window))

    def _keep_snapshots(self, should_stop: ShouldStop) -> None:
        """Keep what is exact by now, for when the text comes back; for idle time."""
        if self._state is not None:
            ids = self._state.prompt.token_ids
            self._state.engine.keep_snapshots(ids, self._state.stale_from, should_stop)

    def _recompute(
        self, state: CachedPrompt, start: int, should_stop: ShouldStop, draft: Sequence[int]
    ) -> Iterator[RecomputeStep]:
        """Encode again from a token on that has only exact ones before it."""
        chunk = self.settings.chunk_tokens or self.model.capability.chunk_tokens
        ids = state.prompt.token_ids
        for step in state.engine.recompute(ids, start, chunk, should_stop, draft):
            state.stale_from = max(state.stale_from, step.reached)
            yield step

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Drop a cache that a failure left half written."""
        try:
            yield
        except BaseException:
            self._state = None
            raise
