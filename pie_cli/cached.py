"""What an engine holds for a session, and what was answered from it."""

from dataclasses import dataclass

from pie_cli.answers import predicted
from pie_cli.engine.protocol import Decoding, Engine, Line
from pie_cli.plan.plan import Plan
from pie_cli.prompt.assembly import Prompt
from pie_cli.results import Prediction, Timings
from pie_cli.text.cursor import Place
from pie_cli.text.edit import Edit


@dataclass(frozen=True)
class Begun:
    """A comparison between two chunks, or before its first one.

    Attributes:
        how: "full" or "prefix".
        reached: the token that it goes on with.
        compute_s: seconds that it took so far.
    """

    how: str
    reached: int
    compute_s: float = 0.0


@dataclass
class CachedPrompt:
    """A prompt in its cache.

    Attributes:
        engine: holds `prompt`.
        prompt: of the text around the cursor.
        stale_from: every token before it is as full recompute would have it.
        changed_from: first token that the last edit made fresh.
        last: the prediction made from it.
        place, decoding: where and how it was decoded.
        draft: token ids of that prediction, the next one's draft.
        last_draft: the draft that it had itself.
        broken_off: the comparison of this prompt to go on with; None where there is none.
    """

    engine: Engine
    prompt: Prompt
    place: Place
    decoding: Decoding
    stale_from: int = 0
    changed_from: int = 0
    last: Prediction | None = None
    draft: tuple[int, ...] = ()
    last_draft: tuple[int, ...] = ()
    broken_off: Begun | None = None

    def comparison(self, how: str) -> Begun:
        """Return where a comparison goes on, or begins, "full" or "prefix"."""
        if self.broken_off and self.broken_off.how == how:
            return self.broken_off
        # What keeps a common prefix only encodes all after the change: also what is exact already.
        return Begun(how, 0 if how == "full" else min(self.stale_from, self.changed_from))

    def answered(
        self,
        line: Line,
        draft: tuple[int, ...],
        plan: Plan,
        timings: Timings,
        edit: Edit,
        first: str | None = None,
        from_disk: int = 0,
    ) -> Prediction:
        """Remember a line as the next draft, and report it, with what it was at first."""
        self.last_draft, self.draft = draft, line.token_ids
        stale_from = self.stale_from
        self.last = predicted(
            line, self.place, self.prompt, plan, stale_from, timings, edit, first, from_disk
        )
        return self.last
