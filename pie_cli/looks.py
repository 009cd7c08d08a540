"""A line by one look at a prompt, or by two: where a token was in doubt, it is decided again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pie_cli.engine.protocol import Decoding, Engine, Line
from pie_cli.plan.plan import Plan, looked_again
from pie_cli.planner import Planner
from pie_cli.prompt.assembly import Prompt


@dataclass(frozen=True)
class Look:
    """What was seen.

    Attributes:
        line: predicted, with the passes and times of both looks.
        plan: that they add up to.
        stale_from: every token of the prompt before it is as full recompute would have it.
        first: the line as far as the first look had come; the whole of it where that was all.
    """

    line: Line
    plan: Plan
    stale_from: int
    first: Line

    @property
    def corrected(self) -> str | None:
        """What the first look had said, where the second one disagrees."""
        said = self.first.token_ids
        return None if self.line.token_ids[: len(said)] == said else self.first.text


def look(
    engine: Engine,
    planner: Planner,
    plan: Plan,
    prompt: Prompt,
    stale_from: int,
    decoding: Decoding,
    draft: Sequence[int],
) -> Look:
    """Execute a plan and predict, with a second look if a token was chosen by a small margin.

    The second look is one more plan, in place of the line's next step: further tokens are computed
    again, the last one and the line so far ride along, and what differs is gone on from. A line
    whose tokens are all clear costs nothing more, nor does a finished one that leaves no time: as
    a rule one that was drafted whole.

    Args:
        engine: holds the old prompt.
        planner: tells when a second look is worth its time, and plans it.
        plan: of the way to the new prompt.
        prompt: the new one.
        stale_from: every token of the old one before it is as full recompute would have it.
        decoding: what ends the line.
        draft: token ids that may follow, verified in the first pass.
    """
    ids, stale_from = prompt.token_ids, plan.stale_from(stale_from)
    doubt = planner.doubt(plan, stale_from)
    first = engine.predict(plan, ids, replace(decoding, doubt=doubt), draft)
    if not first.in_doubt:
        return Look(first, plan, stale_from, first)
    if decoding.should_stop():
        return Look(_broken_off(first), plan, stale_from, first)
    again = planner.second_look(engine, plan, stale_from, len(draft), first, prompt.anchor)
    if again is None:
        return Look(first, plan, stale_from, first)
    said = first.token_ids
    line = engine.predict(again, ids, decoding, (*said, *_guess(first, decoding)))
    stands = line.token_ids[:1] == said[:1]
    line = replace(
        line,
        passes=first.passes + line.passes,
        accepted=first.accepted + max(0, line.accepted - len(said)),
        began_at=first.began_at,
        spliced_at=first.spliced_at,
        first_token_at=first.first_token_at if stands else line.first_token_at,
    )
    return Look(line, looked_again(plan, again), again.stale_from(stale_from), first)


def _broken_off(first: Line) -> Line:
    """Return a first look's line as it is where a newer save waits."""
    return replace(first, stopped_by="interrupted") if first.stopped_by == "doubt" else first


def _guess(first: Line, decoding: Decoding) -> tuple[int, ...]:
    """Return what may follow an unfinished line, as in any other step."""
    if first.stopped_by != "doubt" or decoding.look_up is None:
        return ()
    return decoding.look_up.propose(first.token_ids)
