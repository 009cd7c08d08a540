"""Decoding a line: the same with and without a draft, through the first line with content."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from transformers import LlamaForCausalLM

from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.protocol import Decoding, ForcedPrefix, Line, LineEnd, LineStart
from pie_cli.engine.rope import ModelRotation
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.drafts import LookUp
from pie_cli.plan.plan import Alignment, make_plan
from pie_cli.text.answer import Extent
from pie_cli.text.indent import Indent
from pie_cli.text.matching import KeptRun
from tests.engine.helpers import (
    EDITS,
    N_TOKENS,
    VOCABULARY,
    alignment_of,
    full_cache,
    random_ids,
    stock_logits,
    valid,
)

OLD = random_ids(N_TOKENS)


def words(token_ids: Sequence[int]) -> str:
    """Spell tokens so that none of them ends a line."""
    return "".join(f"<{token_id}>" for token_id in token_ids)


def spelled(texts: dict[int, str]) -> Callable[[Sequence[int]], str]:
    """Spell some tokens differently."""
    return lambda token_ids: "".join(texts.get(token_id, f"<{token_id}>") for token_id in token_ids)


def predict(
    model: LlamaForCausalLM,
    rotation: ModelRotation,
    draft: Sequence[int] = (),
    edit: str = "insert",
    strategy: str = "pie",
    **options: object,
) -> tuple[Line, SlotCache]:
    alignment, new_ids = alignment_of(OLD, EDITS[edit])
    cache = full_cache(model, OLD)
    chosen: dict[str, Any] = {"detokenize": words, "max_tokens": 12, **options}
    settings = Decoding(**chosen)
    engine = EditedEngine(model, rotation, cache)
    line = engine.predict(make_plan(strategy, alignment), new_ids, settings, draft)
    return line, cache


@pytest.fixture(scope="module")
def plain(model: LlamaForCausalLM, rotation: ModelRotation) -> Line:
    """The line without a draft."""
    return predict(model, rotation)[0]


def test_greedy_output_equals_the_stock_models(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    line, _ = predict(model, rotation, strategy="full")
    token_ids = alignment_of(OLD, EDITS["insert"])[1]
    for token_id in line.token_ids:
        assert token_id == int(stock_logits(model, token_ids)[-1].argmax())
        token_ids = [*token_ids, token_id]
    assert line.stopped_by == "max_tokens"
    assert line.passes == 12


def test_no_line_of_several_takes_more_than_its_tokens(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
) -> None:
    """One endless line does not use up what is there for all of them."""
    ends = spelled({plain.token_ids[2]: "x\n"})
    several = {"detokenize": ends, "extent": Extent(lines=3)}
    line, _ = predict(model, rotation, line_tokens=4, **several)
    assert line.token_ids == plain.token_ids[:7]
    assert line.stopped_by == "max_tokens"
    assert len(predict(model, rotation, **several)[0].token_ids) == 12


@pytest.mark.parametrize("agreed", [0, 1, 5, 11])
def test_a_draft_changes_passes_but_not_the_line(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line, agreed: int
) -> None:
    """Oracle 7; its control, another edit, gives another line."""
    draft = list(plain.token_ids[:agreed])
    if agreed < 11:
        draft += [(plain.token_ids[agreed] + 1) % VOCABULARY] * 3
    line, cache = predict(model, rotation, draft)
    assert line.token_ids == plain.token_ids
    assert line.text == plain.text
    assert line.accepted == agreed
    assert line.passes == 12 - agreed
    assert cache.length == N_TOKENS + 3
    assert predict(model, rotation, edit="at token 0")[0].token_ids != plain.token_ids


def test_an_unchanged_prediction_costs_one_pass(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
) -> None:
    last = max(plain.token_ids.index(token_id) for token_id in plain.token_ids)
    detokenize = spelled({plain.token_ids[last]: ")\n"})
    first, _ = predict(model, rotation, detokenize=detokenize)
    again, _ = predict(model, rotation, first.token_ids, detokenize=detokenize)
    assert first.stopped_by == again.stopped_by == "newline"
    assert again.token_ids == first.token_ids
    assert again.text == first.text
    assert first.passes > 1
    assert again.passes == 1


@pytest.mark.parametrize("draft", [False, True])
def test_the_cache_holds_exactly_the_prompt_again(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line, draft: bool
) -> None:
    _, cache = predict(model, rotation, plain.token_ids if draft else ())
    cache.check_integrity()
    _, short = predict(model, rotation, max_tokens=1)
    assert cache.length == short.length == N_TOKENS + 3
    for layer in range(3):
        for found, wanted in zip(valid(cache, layer), valid(short, layer), strict=True):
            assert torch.allclose(found, wanted, atol=1e-5)


def test_doubt_ends_a_line_that_a_second_plan_goes_on_with(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
) -> None:
    """After the first small margin; where nothing was repaired, it is the same line in the end."""
    doubt = sorted(plain.margins)[3]
    at = next(i for i, margin in enumerate(plain.margins) if margin < doubt)
    alignment, new_ids = alignment_of(OLD, EDITS["insert"])
    engine = EditedEngine(model, rotation, full_cache(model, OLD))
    settings = Decoding(words, max_tokens=12, doubt=doubt)
    begun = engine.predict(make_plan("pie", alignment), new_ids, settings)
    assert (begun.stopped_by, begun.in_doubt) == ("doubt", True)
    assert begun.token_ids == plain.token_ids[: at + 1]
    length = len(new_ids)
    whole = make_plan("pie", Alignment(length, length, (KeptRun(0, 0, length),)))
    line = engine.predict(whole, new_ids, replace(settings, doubt=None), begun.token_ids)
    assert line.token_ids == plain.token_ids
    assert line.passes + begun.passes == plain.passes
    engine.slots.check_integrity()


def test_a_pass_in_doubt_says_all_that_its_draft_got_right(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
) -> None:
    """Though the first of its tokens is in doubt: a second plan has the more to verify at once."""
    line, _ = predict(model, rotation, plain.token_ids[:5], doubt=float("inf"))
    assert (line.stopped_by, line.in_doubt, line.passes) == ("doubt", True, 1)
    assert line.token_ids == plain.token_ids[:6]
    clear, _ = predict(model, rotation, plain.token_ids[:5], doubt=-float("inf"))
    assert (clear.token_ids, clear.in_doubt) == (plain.token_ids, False)


def test_a_line_that_ends_in_doubt_tells_what_ended_it(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
) -> None:
    eos = plain.token_ids[0]
    line, _ = predict(model, rotation, eos_ids=frozenset({eos}), doubt=float("inf"))
    assert (line.text, line.stopped_by, line.token_ids) == ("", "end", (eos,))
    assert line.in_doubt


class TestEnds:
    """What ends a line, and what of it is text."""

    def test_newline_inside_a_token(
        self, model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
    ) -> None:
        token_id = plain.token_ids[0]
        line, _ = predict(model, rotation, detokenize=spelled({token_id: "):\n    next"}))
        assert (line.text, line.stopped_by, line.token_ids) == ("):", "newline", (token_id,))

    def test_carriage_return(
        self, model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
    ) -> None:
        line, _ = predict(model, rotation, detokenize=spelled({plain.token_ids[0]: "x\r\n"}))
        assert line.text == "x"

    def test_blank_lines_before_the_content_are_kept(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        texts = iter(["\n", "\n  \n", "\n  \n    a", "\n  \n    ab\n"])
        seen: dict[int, str] = {}

        def detokenize(token_ids: Sequence[int]) -> str:
            if len(token_ids) not in seen:
                seen[len(token_ids)] = next(texts)
            return seen[len(token_ids)]

        line, _ = predict(model, rotation, detokenize=detokenize)
        assert (line.text, line.stopped_by) == ("\n  \n    ab", "newline")
        assert len(line.token_ids) == 4

    @pytest.mark.parametrize("draft", [False, True])
    def test_end_of_text(
        self, model: LlamaForCausalLM, rotation: ModelRotation, plain: Line, draft: bool
    ) -> None:
        eos = plain.token_ids[3]
        kept = plain.token_ids[: plain.token_ids.index(eos)]
        line, cache = predict(
            model, rotation, plain.token_ids if draft else (), eos_ids=frozenset({eos})
        )
        assert (line.text, line.stopped_by) == (words(kept), "end")
        assert line.token_ids == (*kept, eos)
        cache.check_integrity()

    def test_an_immediate_end_is_an_answer(
        self, model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
    ) -> None:
        line, _ = predict(model, rotation, eos_ids=frozenset({plain.token_ids[0]}))
        assert (line.text, line.stopped_by, line.passes) == ("", "end", 1)

    @pytest.mark.parametrize("max_tokens", [1, 2, 5])
    def test_max_tokens_holds_with_a_draft_too(
        self, model: LlamaForCausalLM, rotation: ModelRotation, plain: Line, max_tokens: int
    ) -> None:
        line, _ = predict(model, rotation, plain.token_ids, max_tokens=max_tokens)
        assert line.token_ids == plain.token_ids[:max_tokens]
        assert line.stopped_by == "max_tokens"
        assert line.passes == 1

    def test_interruption_keeps_the_prompt(
        self, model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
    ) -> None:
        line, cache = predict(model, rotation, should_stop=lambda: True)
        assert line.stopped_by == "interrupted"
        assert line.token_ids == plain.token_ids[:1]
        cache.check_integrity()


def test_an_exception_in_a_pass_leaves_a_cache_that_says_so(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    alignment, new_ids = alignment_of(OLD, EDITS["insert"])
    cache = full_cache(model, OLD)
    engine = EditedEngine(model, rotation, cache)
    plan = make_plan("pie", alignment)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    hook = model.model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        engine.predict(plan, new_ids, Decoding(words))
    hook.remove()
    assert cache.length == plan.length
    assert cache.pending == plan.fresh
    line = engine.predict(make_plan("full", alignment), new_ids, Decoding(words))
    cache.check_integrity()
    assert line.passes


def test_stamps_ascend(plain: Line) -> None:
    assert plain.began_at <= plain.spliced_at <= plain.first_token_at <= plain.ended_at


def test_a_line_follows_a_recompute_with_the_same_draft(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    engine = EditedEngine(model, rotation, full_cache(model, OLD))
    with pytest.raises(ValueError, match="no logits of a recompute with a draft of 0"):
        engine.predict_after(OLD, Decoding(words))
    list(engine.recompute(OLD, 0, 100))
    with pytest.raises(ValueError, match="no logits of a recompute with a draft of 2"):
        engine.predict_after(OLD, Decoding(words), (1, 2))


def test_margins_are_those_of_the_stock_models_logits(
    model: LlamaForCausalLM, rotation: ModelRotation
) -> None:
    line, _ = predict(model, rotation, strategy="full")
    token_ids = alignment_of(OLD, EDITS["insert"])[1]
    for token_id, margin in zip(line.token_ids, line.margins, strict=True):
        first, second = stock_logits(model, token_ids)[-1].topk(2).values.tolist()
        assert margin == pytest.approx(first - second, abs=1e-4)
        token_ids = [*token_ids, token_id]


class TestForcedPrefix:
    """Text taken back from the prompt's end is spelled first, once, and is no part of the line."""

    # Token 10 * i + j spells a letter and up to two more of its like, so that several spell a text.
    TEXTS: ClassVar[dict[int, str]] = {
        token_id: "abcdefghij"[token_id % 10] * (1 + token_id // 10 % 3)
        for token_id in range(VOCABULARY)
    }

    def forced(self, text: str) -> ForcedPrefix:
        def allowed(left: bytes) -> list[int]:
            return [
                token_id
                for token_id, piece in self.TEXTS.items()
                if piece.encode().startswith(left) or left.startswith(piece.encode())
            ]

        return ForcedPrefix(text, allowed, lambda token_id: self.TEXTS[token_id].encode())

    def options(self, text: str, **further: object) -> dict[str, object]:
        return {"detokenize": spelled(self.TEXTS), "forced": self.forced(text), **further}

    def test_it_is_spelled_first_and_left_out_of_the_text(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        line, cache = predict(model, rotation, **self.options("ghg"))
        whole = "".join(self.TEXTS[token_id] for token_id in line.token_ids)
        assert whole == "ghg" + line.text
        assert line.text
        assert len(line.token_ids) == 12
        cache.check_integrity()

    def test_each_token_is_the_best_of_those_that_spell_it(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        """Full recompute by the stock model, one token at a time, is the reference."""
        line, _ = predict(model, rotation, strategy="full", **self.options("gghh", max_tokens=4))
        token_ids, left = alignment_of(OLD, EDITS["insert"])[1], b"gghh"
        for token_id in line.token_ids:
            logits = stock_logits(model, token_ids)[-1]
            allowed = self.forced("").allowed(left) if left else list(range(VOCABULARY))
            assert token_id == max(allowed, key=lambda candidate: float(logits[candidate]))
            left = left[len(self.TEXTS[token_id]) :]
            token_ids = [*token_ids, token_id]

    @pytest.mark.parametrize("agreed", [0, 1, 2, 5])
    def test_a_draft_changes_passes_but_not_the_line(
        self, model: LlamaForCausalLM, rotation: ModelRotation, agreed: int
    ) -> None:
        options = self.options("ghgh")
        plain, _ = predict(model, rotation, **options)
        wrong = next(i for i in range(VOCABULARY) if i % 10 == 0 and i != plain.token_ids[agreed])
        draft = [*plain.token_ids[:agreed], wrong, wrong]
        line, cache = predict(model, rotation, draft, **options)
        assert (line.token_ids, line.text) == (plain.token_ids, plain.text)
        assert line.passes == plain.passes - agreed
        cache.check_integrity()

    def test_the_text_does_not_end_before_it_is_spelled(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        line, _ = predict(model, rotation, **self.options("ghgh", eos_ids=frozenset(range(90, 96))))
        assert "".join(self.TEXTS[i] for i in line.token_ids).startswith("ghgh")

    def test_half_spelled_it_is_no_text(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        line, _ = predict(model, rotation, **self.options("ghghghgh", max_tokens=1))
        assert (line.text, line.stopped_by) == ("", "max_tokens")


def test_the_rest_of_a_line_ends_at_the_first_newline(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
) -> None:
    """The control: at a line's beginning a blank line comes before the content."""
    detokenize = spelled({plain.token_ids[0]: "\n"})
    rest, _ = predict(model, rotation, detokenize=detokenize, extent=Extent("rest"))
    assert (rest.text, rest.stopped_by, rest.passes) == ("", "newline", 1)
    assert predict(model, rotation, detokenize=detokenize)[0].text.startswith("\n<")


class TestLineEnd:
    """Whether the line before the cursor is done is for the model to say, where it is sure."""

    def said(
        self,
        model: LlamaForCausalLM,
        rotation: ModelRotation,
        end: int,
        margin: float,
        word_margin: float = 1e9,
        **more: Any,
    ) -> Line:
        options: dict[str, Any] = {
            "detokenize": spelled({end: "\n"}),
            "line_end": LineEnd((end,), margin, word_margin),
            "extent": Extent("either", typed="x"),
            "strategy": "full",
            **more,
        }
        return predict(model, rotation, **options)[0]

    def rank(self, model: LlamaForCausalLM) -> tuple[list[int], list[float]]:
        logits = stock_logits(model, alignment_of(OLD, EDITS["insert"])[1])[-1]
        values, ids = logits.sort(descending=True)
        return ids.tolist(), values.tolist()

    def test_a_clear_word_completes_the_line(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        ids, values = self.rank(model)
        gap = values[0] - values[3]
        line = self.said(model, rotation, ids[3], gap - 0.01)
        assert line.completes_line
        assert line.token_ids[0] == ids[0]
        assert line.text.startswith(f"<{ids[0]}>")

    def test_without_a_clear_word_the_line_is_done(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        ids, values = self.rank(model)
        gap = values[0] - values[3]
        line = self.said(model, rotation, ids[3], gap + 0.01)
        assert not line.completes_line
        assert line.token_ids[0] == ids[3]
        assert line.margins[0] == pytest.approx(-gap, abs=1e-3)
        assert not line.text.startswith("\n")
        assert len(line.text) > 1

    def test_the_newline_itself_says_that_the_line_is_done(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        ids, values = self.rank(model)
        line = self.said(model, rotation, ids[0], 1.0)
        assert (line.completes_line, line.token_ids[0]) == (False, ids[0])
        assert line.margins[0] == pytest.approx(values[0] - values[1], abs=1e-3)

    def test_a_draft_changes_passes_but_not_the_line(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        ids, _ = self.rank(model)
        plain = self.said(model, rotation, ids[3], 1e9)
        for agreed in range(len(plain.token_ids)):
            draft = (*plain.token_ids[:agreed], (plain.token_ids[agreed] + 1) % VOCABULARY)
            drafted = self.said(model, rotation, ids[3], 1e9, draft=draft)
            assert drafted.token_ids == plain.token_ids
            assert drafted.passes == plain.passes - agreed

    def test_going_on_with_a_healed_word_needs_a_clear_word_as_well(
        self, model: LlamaForCausalLM, rotation: ModelRotation
    ) -> None:
        """Tokens that spell more than what was healed compete with one that spells just that."""
        texts = {i: "g" if i == 7 else f"g{i}" for i in range(VOCABULARY - 1)} | {
            VOCABULARY - 1: "\n"
        }
        forced = ForcedPrefix(
            "g", lambda _: list(range(VOCABULARY - 1)), lambda i: texts[i].encode()
        )
        options: dict[str, Any] = {"detokenize": spelled(texts), "forced": forced}
        sure = self.said(model, rotation, VOCABULARY - 1, 1e9, 0.0, **options)
        ids, _ = self.rank(model)
        best = next(i for i in ids if i != VOCABULARY - 1)
        assert sure.token_ids[0] == best != 7
        assert sure.text.startswith(texts[best][1:])
        unsure = self.said(model, rotation, VOCABULARY - 1, 0.0, 1e9, **options)
        assert unsure.token_ids[:2] == (7, VOCABULARY - 1)


def test_a_new_line_begins_between_its_columns(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
) -> None:
    """What the model would rather say is passed over, until the line has content."""
    first = plain.token_ids[0]
    texts = {i: "    " * (i % 4) + "x" for i in range(VOCABULARY)} | {first: " " * 12 + "y"}

    def allowed(fits: Callable[[bytes], bool]) -> list[int]:
        return [i for i, text in texts.items() if fits(text.replace("x", ".").encode())]

    for lowest, deepest in ((0, 4), (8, 8), (1, 4), (0, 12)):
        start = LineStart(Indent(lowest, deepest), allowed, lambda i: texts[i].encode())
        line, _ = predict(model, rotation, detokenize=spelled(texts), line_start=start)
        indent = len(line.text) - len(line.text.lstrip())
        assert lowest <= indent <= deepest
        assert (line.token_ids[0] == first) == (deepest == 12)


def test_what_is_looked_up_saves_passes_and_changes_no_token(
    model: LlamaForCausalLM, rotation: ModelRotation, plain: Line
) -> None:
    """A prompt that holds the line already; the control, one that holds another, is slower."""
    tail = [1, 2]
    knows = LookUp([*tail, *plain.token_ids, 5], tail)
    known, cache = predict(model, rotation, look_up=knows)
    misled = LookUp([*tail, plain.token_ids[0], 3, 3, 3, 3, 3], tail)
    wrong, _ = predict(model, rotation, look_up=misled)
    assert known.token_ids == wrong.token_ids == plain.token_ids
    assert known.passes <= 4 < wrong.passes <= plain.passes
    assert known.accepted >= 8
    cache.check_integrity()
