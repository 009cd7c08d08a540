"""A cache that is cut down after an edit: attention sinks and recent tokens stay, as StreamingLLM.

What is asked is whether an edited cache stands being evicted as well as a recomputed one. So the
plan is executed over the whole prompt, whatever its strategy; then all but the first and the last
tokens are dropped, what stays closes up (positions are those in the cache, keys are re-rotated),
and the last token runs again over what is left. Compare `pie+evict` with `full+evict` for the
method's part of the difference, `full+evict` with `full` for the eviction's.

Source:
    Xiao et al., Efficient Streaming Language Models with Attention Sinks (arXiv 2309.17453).
"""

from collections.abc import Sequence

from pie_cli.editable import PreparedModel
from pie_cli.engine.edited import Executed, execute
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment, Plan, make_plan
from pie_cli.plan.strategies import Evict, Strategy
from pie_cli.text.matching import KeptRun


def run(
    model: PreparedModel,
    slots: SlotCache,
    strategy: Strategy,
    plan: Plan,
    new_ids: Sequence[int],
) -> Executed:
    """Execute a plan, evict, and predict the next token from what is left.

    Mutates the cache: afterwards it holds the short prompt only, and memory for no more.

    Args:
        model: prepared.
        slots: holds the sequence that the plan was made from.
        strategy: with what to keep; without, nothing is dropped.
        plan: for the whole new prompt.
        new_ids: of the whole new prompt.

    Returns:
        Logits [1, vocabulary] after the short prompt; the stamps are those of the edit's own
        splice, so that the time up to the logits holds both.
    """
    rotation = model.rotation
    executed = execute(model.loaded.model, slots, plan, new_ids, rotation)
    if strategy.evict is None:
        return executed
    short = kept_runs(strategy.evict, plan.length)
    ids = [token for run in short.runs for token in new_ids[run.old_start : run.old_stop]]
    last = execute(model.loaded.model, slots, make_plan("pie", short), ids, rotation)
    slots.fit()
    return Executed(last.logits, executed.began_at, executed.spliced_at)


def kept_runs(evict: Evict, length: int) -> Alignment:
    """Say which tokens of a prompt stay, and where they stand then."""
    recent = max(evict.sinks, length - evict.recent)
    sinks = min(evict.sinks, length)
    runs = (KeptRun(0, 0, sinks), KeptRun(recent, sinks, length - recent))
    kept = tuple(run for run in runs if run.length > 0)
    return Alignment(length, sum(run.length for run in kept), kept)
