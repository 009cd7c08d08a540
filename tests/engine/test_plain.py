"""Models that the gate refuses run exactly: after every edit, what the stock model says."""

import copy
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.gate.check import check_model
from pie_cli.engine.gate.verdicts import PlainAbility, UnusableModel, Verdict
from pie_cli.engine.plain.engine import PlainEngine
from pie_cli.engine.plain.model import PlainState, find_ability, whole_logits
from pie_cli.engine.plain.threshold import ThresholdEngine
from pie_cli.engine.protocol import Decoding, Line
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment
from pie_cli.text.matching import KeptRun
from tests.engine.families import FALLING_BACK, build, falling_back
from tests.engine.helpers import random_ids

PROMPT = random_ids(110)
SAVES: dict[str, list[int]] = {
    "opened": PROMPT,
    "appended": [*PROMPT, 5, 6, 7],
    "saved again": [*PROMPT, 5, 6, 7],
    "inserted": [*PROMPT[:60], 1, 2, *PROMPT[60:]],
    "deleted": [*PROMPT[:60], *PROMPT[75:]],
    "appended one": [*PROMPT[:60], *PROMPT[75:], 3],
    "end deleted": [*PROMPT[:60], *PROMPT[75:95]],
    "first token replaced": [8, *PROMPT[1:60], *PROMPT[75:95]],
    "appended many": [8, *PROMPT[1:60], *PROMPT[75:], *PROMPT[:30]],
}
STRATEGIES = {"gpt2": "prefix", "gpt_bigcode": "prefix", "bloom": "prefix", "mpt": "prefix"} | {
    "deepseek_v3": "prefix",
    "gpt_oss": "prefix",
    "mamba": "full",
    "jamba": "full",
    "qwen3_next": "full",
    "recurrent_gemma": "full",
}


def words(token_ids: Sequence[int]) -> str:
    return "".join(f"<{token_id}>" for token_id in token_ids)


OPTIONS = Decoding(words, max_tokens=4)


@cache
def refused(name: str) -> tuple[Any, Verdict]:
    model = falling_back(name)
    return model, check_model(model)


@pytest.fixture(params=FALLING_BACK)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def greedy(model: Any, token_ids: Sequence[int], count: int = 4) -> tuple[int, ...]:
    """Decode by the stock model without any cache."""
    found: list[int] = []
    for _ in range(count):
        found.append(int(whole_logits(model, [*token_ids, *found], 1)[-1].argmax()))
    return tuple(found)


def alignment_between(old: Sequence[int], new: Sequence[int]) -> Alignment:
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    return Alignment(len(old), len(new), (KeptRun(0, 0, same),) if same else ())


def saves(cache: Any, texts: Sequence[list[int]], draft: bool = True) -> Iterator[tuple[Any, Line]]:
    """Predict after each save, the line before as the draft."""
    old: list[int] = []
    drafted: tuple[int, ...] = ()
    for new in texts:
        plan = cache.plan("pie", alignment_between(old, new))
        line = cache.predict(plan, new, OPTIONS, drafted if draft else ())
        yield plan, line
        old, drafted = new, line.token_ids


def test_each_family_is_refused_and_has_its_strategy(name: str) -> None:
    _, verdict = refused(name)
    assert verdict.report is None
    assert verdict.refusal
    assert verdict.ability is not None
    assert verdict.ability.strategy == STRATEGIES[name]
    assert verdict.ability.summary.startswith("exact, by ")
    assert "\n" not in verdict.refusal


def test_after_every_save_the_line_is_the_stock_models(name: str) -> None:
    model, verdict = refused(name)
    assert verdict.ability is not None
    cache = PlainEngine(model, verdict.ability)
    for save, (_, line) in zip(SAVES, saves(cache, list(SAVES.values())), strict=True):
        assert line.token_ids == greedy(model, SAVES[save]), save
        assert line.stopped_by == "max_tokens"


def test_the_line_is_that_of_generate(name: str) -> None:
    model, verdict = refused(name)
    assert verdict.ability is not None
    cache = PlainEngine(model, verdict.ability)
    *_, (_, line) = saves(cache, [PROMPT, SAVES["inserted"]])
    inputs = torch.tensor([SAVES["inserted"]])
    found = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        do_sample=False,
        max_new_tokens=4,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert tuple(found[0, inputs.shape[1] :].tolist()) == line.token_ids


def test_what_is_reused_is_what_the_cache_can_give(name: str) -> None:
    model, verdict = refused(name)
    ability = verdict.ability
    assert ability is not None
    reused = {
        save: plan.reused
        for save, (plan, _) in zip(
            SAVES, saves(PlainEngine(model, ability), list(SAVES.values())), strict=True
        )
    }
    if ability.crops:
        assert reused["inserted"] == reused["deleted"] == 60
        assert reused["saved again"] == 112
        assert reused["end deleted"] == 79
    else:
        assert reused["inserted"] == reused["deleted"] == reused["saved again"] == 0
    if ability.copies:
        assert reused["appended"] == 110
        assert reused["appended one"] == 95
    # One by one costs more than all at once beyond some number.
    assert reused["appended many"] == (80 if ability.appends else 0)
    assert reused["opened"] == reused["first token replaced"] == 0


@pytest.mark.parametrize("chunk_tokens", [16, 1_000])
def test_a_recompute_beside_the_cache_gives_the_same_line(name: str, chunk_tokens: int) -> None:
    """Given up, it changes nothing; completed, the line behind it is the stock model's."""
    model, verdict = refused(name)
    assert verdict.ability is not None
    cache = PlainEngine(model, verdict.ability)
    (_, line), *_ = saves(cache, [PROMPT])
    assert list(cache.recompute(PROMPT, 0, chunk_tokens, lambda: True)) == []
    for start in (0, 40):
        steps = list(
            cache.recompute(PROMPT, start, chunk_tokens, lambda: False, line.token_ids[:3])
        )
        assert [step.reached for step in steps][-1] == len(PROMPT)
        again = cache.predict_after(PROMPT, OPTIONS, line.token_ids[:3])
        assert again.token_ids == line.token_ids
    new = SAVES["appended"]
    plan = cache.plan("pie", alignment_between(PROMPT, new))
    assert cache.predict(plan, new, OPTIONS, ()).token_ids == greedy(model, new)


def test_a_draft_saves_passes_where_the_cache_can_be_cropped() -> None:
    model, verdict = refused("gpt2")
    assert verdict.ability is not None
    cache = PlainEngine(model, verdict.ability)
    lines = [line for _, line in saves(cache, [PROMPT, PROMPT])]
    assert lines[0].token_ids == lines[1].token_ids
    assert (lines[0].passes, lines[1].passes) == (4, 1)
    assert lines[1].accepted == 3


def test_a_clone_goes_its_own_way(name: str) -> None:
    model, verdict = refused(name)
    assert verdict.ability is not None
    cache = PlainEngine(model, verdict.ability)
    list(saves(cache, [PROMPT]))
    twin = cache.clone()
    for one, text in ((twin, SAVES["appended"]), (cache, [*PROMPT, 9])):
        plan = one.plan("pie", alignment_between(PROMPT, text))
        assert one.predict(plan, text, OPTIONS, ()).token_ids == greedy(model, text)


def test_memory_is_reported(name: str) -> None:
    model, verdict = refused(name)
    assert verdict.ability is not None
    cache = PlainEngine(model, verdict.ability)
    assert cache.memory_bytes == 0
    list(saves(cache, [PROMPT]))
    assert (cache.memory_bytes > 0) is verdict.ability.copies
    cache.begin(10)
    assert cache.memory_bytes == 0


def test_a_failure_in_a_pass_costs_the_cache_but_no_prediction() -> None:
    model, verdict = refused("gpt2")
    assert verdict.ability is not None
    cache = PlainEngine(model, verdict.ability)
    list(saves(cache, [PROMPT]))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hook = model.transformer.h[1].register_forward_pre_hook(interrupt)
    plan = cache.plan("pie", alignment_between(PROMPT, SAVES["inserted"]))
    with pytest.raises(KeyboardInterrupt):
        cache.predict(plan, SAVES["inserted"], OPTIONS, ())
    hook.remove()
    plan = cache.plan("pie", alignment_between(SAVES["inserted"], SAVES["inserted"]))
    assert plan.strategy == "full"
    line = cache.predict(plan, SAVES["inserted"], OPTIONS, ())
    assert line.token_ids == greedy(model, SAVES["inserted"])


class TestAbility:
    """A cache that gets something wrong is not trusted with it."""

    def test_a_cache_whose_crop_forgets_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = falling_back("gpt2")
        assert find_ability(model).crops

        def forget(state: PlainState, length: int) -> None:
            del state._token_ids[length:]

        monkeypatch.setattr(PlainState, "crop", forget)
        ability = find_ability(model)
        assert not ability.crops
        assert ability.appends

    def test_a_copy_that_shares(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = falling_back("qwen3_next")
        assert find_ability(model).copies

        def share(state: PlainState) -> PlainState:
            twin = PlainState(model, state._ability)
            vars(twin).update(vars(state), _token_ids=list(state._token_ids))
            return twin

        monkeypatch.setattr(PlainState, "copy", share)
        assert not find_ability(model).copies

    def test_a_cache_that_raises(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = falling_back("gpt2")
        stock = model.forward

        def forward(input_ids: Any, use_cache: bool = False, **inputs: Any) -> Any:
            if use_cache:
                raise NotImplementedError("no cache")
            return stock(input_ids=input_ids, use_cache=False)

        monkeypatch.setattr(model, "forward", forward)
        ability = find_ability(model)
        assert ability == PlainAbility(False, False, False, False)
        assert ability.summary == "exact, by full recompute for each token"
        cache = PlainEngine(model, ability)
        for text, (_, line) in zip(SAVES.values(), saves(cache, list(SAVES.values())), strict=True):
            assert line.token_ids == greedy(model, text)

    def test_windows_too_long_to_be_tried_are_not_cropped(self) -> None:
        kind, config = FALLING_BACK["gpt_oss"]
        assert find_ability(build(kind, config)).crops
        assert not find_ability(build(kind, {**config, "sliding_window": 2_000})).crops

    def test_a_model_that_does_not_run_at_all(self) -> None:
        model = falling_back("gpt2")

        def fail(*_: object) -> None:
            raise RuntimeError("some kernel is missing\nsee above")

        model.transformer.h[1].register_forward_pre_hook(fail)
        with pytest.raises(UnusableModel, match=r"forward pass fails: some kernel is missing$"):
            check_model(model)


LIMIT = 128
_SIZES = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "initializer_range": 0.3}
_HEADS = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
_IDS = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 0}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0 + 0.1 * k for k in range(8)],
    "long_factor": [4.0 + k for k in range(8)],
    "original_max_position_embeddings": LIMIT,
}
FOLLOWING = {
    "dynamic": (
        "llama",
        {
            **_SIZES,
            **_HEADS,
            **_IDS,
            "max_position_embeddings": LIMIT,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
        },
    ),
    "longrope": (
        "llama",
        {
            **_SIZES,
            **_HEADS,
            **_IDS,
            "max_position_embeddings": 4 * LIMIT,
            "rope_parameters": {**_LONGROPE, "factor": 4.0},
        },
    ),
    "phi3 longrope": (
        "phi3",
        {
            **_SIZES,
            **_HEADS,
            **_IDS,
            "max_position_embeddings": 4 * LIMIT,
            "original_max_position_embeddings": LIMIT,
            "rope_parameters": _LONGROPE,
        },
    ),
}


@pytest.fixture(params=FOLLOWING)
def following(request: pytest.FixtureRequest) -> tuple[Any, ThresholdEngine, int]:
    """A model whose frequencies follow the length, its cache, and the limit."""
    model = build(*FOLLOWING[request.param])
    report = check_model(model).report
    assert report is not None
    assert report.limit is not None
    edited = EditedEngine(model, report.rotation, SlotCache.for_model(model))
    return model, ThresholdEngine(model, edited, report.limit), report.limit


def generated(model: Any, token_ids: Sequence[int], count: int = 4) -> tuple[int, ...]:
    """Generate by a model fresh from its config: some keep frequencies from longer prompts."""
    torch.manual_seed(0)
    config = copy.deepcopy(model.config)
    fresh = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    inputs = torch.tensor([list(token_ids)])
    found = fresh.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        do_sample=False,
        max_new_tokens=count,
        pad_token_id=0,
    )
    return tuple(found[0, inputs.shape[1] :].tolist())


def test_beyond_the_limit_each_line_is_that_of_generate(
    following: tuple[Any, ThresholdEngine, int],
) -> None:
    """There, back again, and a line that crosses it."""
    model, cache, limit = following
    ids = random_ids(300)
    lengths = [limit - 40, limit + 60, limit + 30, limit - 30, limit + 1, limit, limit - 2, 60]
    old: list[int] = []
    for length in lengths:
        new = [*ids[:20], length % 97, *ids[21:length]]
        plan = cache.plan("prefix", alignment_between(old, new))
        line = cache.predict(plan, new, OPTIONS, (1, 2, 3))
        assert line.token_ids == generated(model, new), length
        assert line.stopped_by == "max_tokens"
        assert plan.strategy == ("full" if max(len(old), length) > limit else "prefix")
        old = new


def test_what_is_computed_beyond_the_limit_differs_from_an_edited_cache(
    following: tuple[Any, ThresholdEngine, int],
) -> None:
    """The control: keys that were rotated by the frequencies below the limit are the wrong ones."""
    model, cache, limit = following
    ids = random_ids(limit + 60)
    edited = cache._edited
    edited.begin(limit)
    list(edited.recompute(ids[:limit], 0, 1_000, lambda: False))
    plan = edited.plan("prefix", Alignment(limit, len(ids), (KeptRun(0, 0, limit),)))
    line = edited.predict(plan, ids, OPTIONS, ())
    assert line.token_ids != generated(model, ids)


@pytest.mark.parametrize("length", ["below", "crossing", "beyond"])
def test_a_recompute_at_the_limit(following: tuple[Any, ThresholdEngine, int], length: str) -> None:
    model, cache, limit = following
    ids = random_ids({"below": limit - 20, "crossing": limit - 2, "beyond": limit + 20}[length])
    cache.begin(len(ids))
    list(cache.recompute(ids, 0, 50, lambda: False, (1, 2, 3)))
    line = cache.predict_after(ids, OPTIONS, (1, 2, 3))
    assert line.token_ids == generated(model, ids)
    twin = cache.clone()
    for one in (cache, twin):
        new = [*ids, 5]
        plan = one.plan("pie", alignment_between(ids, new))
        assert one.predict(plan, new, OPTIONS, ()).token_ids == generated(model, new)
    # Beyond the limit nothing is of use to the next prompt.
    assert (cache.memory_bytes > 0) is (length != "beyond")


def test_a_line_across_the_limit_ends_where_lines_end() -> None:
    model = build(*FOLLOWING["phi3 longrope"])
    report = check_model(model).report
    assert report is not None
    edited = EditedEngine(model, report.rotation, SlotCache.for_model(model))
    cache = ThresholdEngine(model, edited, LIMIT)
    ids = random_ids(LIMIT - 1)
    expected = generated(model, ids)
    last = max(expected.index(token_id) for token_id in expected)
    options = Decoding(
        lambda tokens: "".join(
            ")\n" if token == expected[last] else f"<{token}>" for token in tokens
        ),
        max_tokens=30,
    )
    plan = cache.plan("full", Alignment(0, len(ids), ()))
    line = cache.predict(plan, ids, options, ())
    assert line.token_ids == expected[: last + 1]
    assert line.stopped_by == "newline"
    assert line.text.endswith(")")


@pytest.mark.parametrize("over", [False, True])
def test_only_what_is_edited_is_kept_on_disk(
    following: tuple[Any, ThresholdEngine, int], tmp_path: Path, over: bool
) -> None:
    _, cache, limit = following
    ids = random_ids(limit + 9 if over else limit - 9)
    cache.begin(len(ids))
    list(cache.recompute(ids, 0, 64))
    path = tmp_path / "kept"
    size = cache.write_states(path, ids, "this", {}, 1 << 30)
    assert (size > 0) is (not over)
    cache.begin(limit + 9)
    assert cache.read_states(path, [*ids, *random_ids(99)][: limit + 9], "this") is None
    cache.begin(len(ids))
    found = cache.read_states(path, ids, "this")
    assert (found is None) is over
    assert found is None or found.tokens == len(ids) - 1
