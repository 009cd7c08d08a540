"""What a session asks of the engine: plans, and what comes back."""

from collections.abc import Callable

import pytest
from transformers import LlamaForCausalLM

from pie_cli.engine.decode import DecodeOptions
from pie_cli.engine.prompt_cache import EditedCache
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.stash import Stash
from pie_cli.session import never, stale_from
from pie_cli.spans import Alignment, KeptRun
from tests.engine.helpers import EDITS, N_TOKENS, alignment_of, full_cache, random_ids

OLD = random_ids(N_TOKENS)
THERE, NEW = alignment_of(OLD, EDITS["replace"])
BACK = Alignment(
    len(NEW), N_TOKENS, tuple(KeptRun(r.new_start, r.old_start, r.length) for r in THERE.runs)
)
OPTIONS = DecodeOptions(lambda ids: " ".join(map(str, ids)), max_tokens=3)
MakeCache = Callable[[Stash | None], EditedCache]


@pytest.fixture
def opened(model: LlamaForCausalLM, rotation: ModelRotation) -> MakeCache:
    """Make a cache that holds the old prompt, remembered."""

    def make(stash: Stash | None) -> EditedCache:
        cache = EditedCache(model, rotation, full_cache(model, OLD), stash)
        cache.remember(OLD, N_TOKENS, never)
        return cache

    return make


def there_and_back(cache: EditedCache, *, exact_between: bool) -> tuple[int, int]:
    """Edit, undo; return the tokens that the undo encodes, and the first one that is stale then."""
    stale = N_TOKENS
    for alignment, ids in ((THERE, NEW), (BACK, OLD)):
        plan = cache.restore(cache.plan("pie", alignment), ids, stale)
        cache.decode_line(plan, ids, OPTIONS, ())
        stale = stale_from(stale, plan)
        if exact_between and ids is NEW:
            assert list(cache.refresh(ids, stale, 64, never))[-1].reached == len(ids)
            stale = len(ids)
        cache.slots.check_integrity()
    return plan.encoded, stale


@pytest.mark.parametrize("exact_between", [True, False])
def test_after_undo_nothing_is_stale(opened: MakeCache, exact_between: bool) -> None:
    """The control, without a stash, encodes what was deleted, and the rest is stale."""
    assert there_and_back(opened(Stash()), exact_between=exact_between) == (1, N_TOKENS)
    encoded, stale = there_and_back(opened(None), exact_between=exact_between)
    assert encoded > 1
    assert stale < N_TOKENS - 100


@pytest.mark.parametrize("strategy", ["full", "cfe"])
def test_what_others_are_compared_with_takes_nothing_from_the_stash(
    opened: MakeCache, strategy: str
) -> None:
    cache = opened(Stash())
    plan = cache.plan(strategy, Alignment(0, N_TOKENS, ()))
    assert cache.restore(plan, OLD, 0) is plan
    assert cache.restore(cache.plan("prefix", Alignment(0, N_TOKENS, ())), OLD, 0).encoded == 1


def test_a_copy_shares_the_stash(opened: MakeCache) -> None:
    twin = opened(Stash()).clone()
    plan = twin.plan("prefix", Alignment(N_TOKENS, N_TOKENS, ()))
    assert twin.restore(plan, OLD, 0).restored == N_TOKENS - 1


def test_only_what_the_cache_has_not_exactly_is_restored(opened: MakeCache) -> None:
    cache = opened(Stash())
    same = Alignment(N_TOKENS, N_TOKENS, (KeptRun(0, 0, N_TOKENS),))
    assert cache.restore(cache.plan("pie", same), OLD, N_TOKENS).stored == ()
    (run,) = cache.restore(cache.plan("pie", same), OLD, 100).stored
    assert (run.start, run.stop) == (100, N_TOKENS - 1)
