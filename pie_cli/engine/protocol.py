"""What a session asks of an engine: plans and token ids in, lines out.

Nothing here, nor in what a session imports, is about tensors: an engine may run on transformers,
as pie's own does, or on anything else that can move, drop and compute the tokens of a cache.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from pie_cli.plan.drafts import LookUp
from pie_cli.plan.plan import Alignment, Plan
from pie_cli.text.answer import Extent
from pie_cli.text.indent import Indent

StoppedBy: TypeAlias = Literal["newline", "end", "max_tokens", "interrupted", "doubt"]
ShouldStop: TypeAlias = Callable[[], bool]


def never() -> bool:
    """Never ask to stop."""
    return False


@dataclass(frozen=True)
class Capability:
    """What the cache of a model can do.

    Attributes:
        edits: whether kept runs may be moved, and single tokens computed again; else every
            prediction is exact, by `prefix` or `full`.
        limit: longest prompt in tokens whose cache is edited; None without such a limit.
        instead: what runs where the cache is not edited, in a few words.
        chunk_tokens: tokens a pass of a recompute that suit the device.
    """

    edits: bool
    limit: int | None = None
    instead: str = "exact, by full recompute"
    chunk_tokens: int = 768


@dataclass(frozen=True, eq=False)
class ForcedPrefix:
    """Text that the line has to spell before it goes on: what healing took from the prompt's end.

    Attributes:
        text: as decoded tokens give it.
        allowed: the token ids that begin with some bytes, or that these begin with; no control
            tokens among them.
        spell: the bytes that a token id adds to a text.
    """

    text: str
    allowed: Callable[[bytes], Sequence[int]]
    spell: Callable[[int], bytes]


@dataclass(frozen=True, eq=False)
class LineEnd:
    """Whether the line before the cursor is done is for the model to say, by its first token.

    Where it has no clear opinion the line is done: most lines that were saved are.

    Attributes:
        token_ids: those that end a line before they add anything to it.
        margin: by how much the logit of a token that goes on with the line must be above that of
            the best one that does not.
        word_margin: the same of a token that goes on with the line's last word.
    """

    token_ids: Sequence[int]
    margin: float
    word_margin: float


@dataclass(frozen=True, eq=False)
class LineStart:
    """Between which columns a new line may begin.

    Attributes:
        indent: the columns.
        allowed: the token ids whose beginning, blanks and then a dot for more, fits.
        spell: the bytes that a token id adds to a text.
    """

    indent: Indent
    allowed: Callable[[Callable[[bytes], bool]], Sequence[int]]
    spell: Callable[[int], bytes]


@dataclass(frozen=True)
class Decoding:
    """How a line, or several, are decoded.

    Attributes:
        detokenize: turns generated token ids into their exact text.
        eos_ids: tokens that end the text.
        max_tokens: generated tokens at most, at least 1, those that spell a forced prefix included.
        line_tokens: those without a line end at most; None for as many as there may be.
        should_stop: asked before each pass but the first; a newer save ends the line early.
        extent: where the prediction ends.
        forced: what the line must spell first; no part of its text.
        line_end: how it is decided whether a line that was begun is done.
        line_start: where the first new line may begin.
        look_up: proposes what may follow, to be verified several tokens a pass; changes no output.
        doubt: a token chosen by a smaller margin ends the decoding after the pass that gave it, for
            a second look; None for never.
    """

    detokenize: Callable[[Sequence[int]], str]
    eos_ids: frozenset[int] = frozenset()
    max_tokens: int = 64
    line_tokens: int | None = None
    should_stop: ShouldStop = never
    extent: Extent = Extent()  # noqa: RUF009 (frozen)
    forced: ForcedPrefix | None = None
    line_end: LineEnd | None = None
    line_start: LineStart | None = None
    look_up: LookUp | None = None
    doubt: float | None = None


@dataclass(frozen=True)
class Line:
    """A predicted line.

    Attributes:
        token_ids: as generated, the token that ended the line last: the draft for the next
            prediction.
        text: blank lines before the content kept, cut at the newline that ends it (which may be
            inside a token), a carriage return before it cut as well.
        completes_line: whether it goes on with the line of the cursor.
        stopped_by: what ended it; "doubt" where it is to be gone on with after a second look.
        in_doubt: whether one of the last pass's tokens was chosen by too small a margin; what ended
            the line may have ended it all the same.
        margins: of each token, by how much its logit was above that of the next best one; below 0
            where another one was the best, but not by the margin that it needed.
        passes: forward passes, the first one included.
        accepted: draft tokens that the model agreed with.
        began_at, spliced_at, first_token_at, ended_at: `perf_counter` seconds, taken when the
            device was done. After a recompute the first three are one stamp.
    """

    token_ids: tuple[int, ...]
    text: str
    stopped_by: StoppedBy
    margins: tuple[float, ...]
    passes: int
    accepted: int
    began_at: float
    spliced_at: float
    first_token_at: float
    ended_at: float
    completes_line: bool = False
    in_doubt: bool = False


@dataclass(frozen=True)
class RecomputeStep:
    """One chunk of a recompute, done.

    Attributes:
        reached: every token from the start up to this position is exact now, provided those before
            the start are.
        compute_s: seconds of this chunk, pauses before it excluded.
    """

    reached: int
    compute_s: float


@dataclass(frozen=True, eq=False)
class FromDisk:
    """What a file that an earlier run wrote is good for.

    Attributes:
        tokens: first tokens of the prompt that were filled in from it, exactly; perhaps none.
        token_ids: of the whole prompt that it holds.
        facts: what its writer noted.
    """

    tokens: int
    token_ids: Sequence[int]
    facts: Mapping[str, str]


class Engine(Protocol):
    """The cache of one prompt, and the model that fills it.

    Between two calls it holds exactly one complete prompt, or nothing. Only one session uses it.

    Raises:
        CacheCapacityError: from each method that computes or copies, when the device's memory does
            not suffice.
    """

    @property
    def capability(self) -> Capability:
        """What the cache can do."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes allocated for the cache, and for snapshots."""
        ...

    @property
    def parked(self) -> Sequence[int]:
        """Token ids of text that left a prompt's end and may be kept as if it followed the prompt.

        Old positions of a plan's runs count on from the cached prompt into it.
        """
        return ()

    def plan(self, strategy: str, alignment: Alignment, repair: Sequence[int] = ()) -> Plan:
        """Return the plan of a strategy, or of the nearest one that this cache can execute.

        Args:
            strategy: its name.
            alignment: between the cached and the new sequence.
            repair: positions that the strategy computes again; a plan without stale tokens needs
                none.
        """
        ...

    def find_snapshots(self, token_ids: Sequence[int], start: int) -> tuple[range, ...]:
        """Find the tokens of a prompt that exact keys and values are kept of.

        Args:
            token_ids: of the whole prompt.
            start: position before which nothing is wanted.

        Returns:
            Spans of positions from `start` on, ascending; never the last token.
        """
        ...

    def keep_snapshots(
        self, token_ids: Sequence[int], exact_until: int, should_stop: ShouldStop
    ) -> None:
        """Keep the prompt's exact tokens for when its text comes back; for idle time.

        Args:
            token_ids: of the whole prompt, which the cache holds.
            exact_until: every token before it is as full recompute has it.
            should_stop: asked now and then; what is kept by then stays.
        """
        ...

    def predict(
        self, plan: Plan, token_ids: Sequence[int], decoding: Decoding, draft: Sequence[int] = ()
    ) -> Line:
        """Execute a plan and predict the line that follows; the cache then holds the new prompt.

        Args:
            plan: from the prompt that the cache holds to the new one.
            token_ids: of the whole new prompt.
            decoding: what ends the line.
            draft: token ids that may follow, verified in the same pass; they change no output.
        """
        ...

    def recompute(
        self,
        token_ids: Sequence[int],
        start: int,
        chunk_tokens: int,
        should_stop: ShouldStop = never,
        draft: Sequence[int] = (),
    ) -> Iterator[RecomputeStep]:
        """Encode the prompt from token `start` on, in ascending chunks, in place.

        Also the first encoding of a prompt, after `begin`. Stopping between two chunks loses
        nothing: what is done stays exact.

        Args:
            token_ids: of the whole prompt.
            start: first token to encode.
            chunk_tokens: tokens a pass.
            should_stop: asked before each chunk.
            draft: rides in the last chunk, for `predict_after` to verify.

        Yields:
            A step after each chunk.
        """
        ...

    def predict_after(
        self, token_ids: Sequence[int], decoding: Decoding, draft: Sequence[int] = ()
    ) -> Line:
        """Predict the line after a prompt that was recomputed to its end just now.

        Args:
            token_ids: of the whole prompt.
            decoding: what ends the line.
            draft: the one that the recompute was given.
        """
        ...

    def begin(self, length: int) -> None:
        """Make room for a prompt of `length` tokens, of which nothing is encoded yet."""
        ...

    def read_states(
        self,
        path: Path,  # noqa: ARG002
        token_ids: Sequence[int],  # noqa: ARG002
        model: str,  # noqa: ARG002
    ) -> FromDisk | None:
        """Fill the first tokens of a prompt, after `begin`, from what `write_states` wrote.

        Args:
            path: of a regular file.
            token_ids: of the whole prompt; the last one is never filled in.
            model: who must have written it.

        Returns:
            None where the file cannot be used, whatever is wrong with it, or by an engine that
            keeps nothing: then nothing is encoded yet, as before.
        """
        return None

    def write_states(
        self,
        path: Path,  # noqa: ARG002
        token_ids: Sequence[int],  # noqa: ARG002
        model: str,  # noqa: ARG002
        facts: Mapping[str, str],  # noqa: ARG002
        most_bytes: int,  # noqa: ARG002
    ) -> int:
        """Write the prompt's keys and values to a file, all of which must be exact.

        Args:
            path: of the file, written over.
            token_ids: of the whole prompt, which the cache holds.
            model: who writes it.
            facts: noted with it.
            most_bytes: a larger file is not begun.

        Returns:
            Bytes of the file; 0 where it would be larger, or by an engine that keeps nothing.

        Raises:
            OSError: it cannot be written.
        """
        return 0

    def clone(self) -> "Engine":
        """Copy the cache; the model is shared."""
        ...
