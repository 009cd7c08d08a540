"""Prompts: parts tokenized each on its own, within the budget, wherever the edges are."""

import random

import pytest

from pie_cli.errors import CacheCapacityError
from pie_cli.prompt.assembly import ContextFile, Prompt, PromptBuilder
from pie_cli.prompt.fim import PSM, SPM, FimFormat, find_format
from pie_cli.prompt.tokenizer import TextTokenizer
from pie_cli.prompt.window import Edges
from pie_cli.text.edit import Edit
from tests.prompt.kinds import original, sources, tokenizer_of

NANO = find_format(
    {"<|endoftext|>": 0, "<|fim_begin|>": 1, "<|fim_hole|>": 2, "<|fim_end|>": 3}.get
)
assert NANO is not None
TEXT = max(sources(), key=len)
LINES = TEXT.splitlines(keepends=True)


def builder(budget: int, fim: FimFormat | None = NANO, path: str = "a.py") -> PromptBuilder:
    return PromptBuilder(tokenizer_of("pie-nano"), 0, path, budget, fim)


def test_a_plain_prompt_is_head_and_text() -> None:
    encode = tokenizer_of("pie-nano").encode
    text = "import os\n\nx = 1"
    prompt = builder(512).build(text)
    assert prompt.token_ids == [0, *encode("# a.py\n"), *encode(text)]
    assert prompt.form == "plain"
    assert builder(512, None).build(text, "behind\n").token_ids == prompt.token_ids


@pytest.mark.parametrize("order", [PSM, SPM])
def test_the_parts_stand_as_the_model_was_trained(order: str) -> None:
    assert NANO is not None
    encode = tokenizer_of("pie-nano").encode
    before, behind = "import os\n", "print(os)\n"
    prompt = builder(512, NANO.only(order)).build(before, behind)
    head, prefix, suffix = [0, *encode("# a.py\n")], encode(before), encode(behind)
    expected = {
        PSM: [*head, 1, *prefix, 2, *suffix, 3],
        SPM: [*head, 1, 2, *suffix, 3, *prefix],
    }
    assert prompt.token_ids == expected[order]
    assert [prompt.token_ids[i] for i in prompt.sides.prefix] == prefix
    assert [prompt.token_ids[i] for i in prompt.sides.suffix] == suffix


def test_other_files_are_set_apart_as_the_model_was_trained() -> None:
    encode = tokenizer_of("pie-nano").encode
    context = [ContextFile("b.ts", "let b\n"), ContextFile("/elsewhere/c.py", "c = 1\n")]
    prompt = builder(512).build("a = 1\n", context=context)
    assert prompt.token_ids == [
        *(0, *encode("// b.ts\n"), *encode("let b\n")),
        *(0, *encode("# c.py\n"), *encode("c = 1\n")),
        *(0, *encode("# a.py\n"), *encode("a = 1\n")),
    ]


def test_a_window_smaller_than_the_head_is_refused() -> None:
    for budget in (1, 4, 8):
        with pytest.raises(CacheCapacityError, match="no room after the head"):
            builder(budget)


@pytest.mark.parametrize("budget", [40, 200, 1_000])
def test_every_prompt_holds_the_cursor_and_fits(budget: int) -> None:
    """Wherever the cursor jumps and whatever changes, with the last prompt's edges as they come."""
    rng = random.Random(budget)
    build, encode = builder(budget), tokenizer_of("pie-nano").encode
    lines, last = list(LINES), Prompt([])
    text, edges = TEXT, Edges()
    context = [ContextFile("b.py", TEXT)] if budget > 500 else []
    for _ in range(25):
        at = rng.randrange(len(lines) + 1)
        lines[at:at] = ["size = width * height\n"] * rng.choice([0, 1, 2, 30])
        del lines[at : at + rng.choice([0, 0, 1, 40])]
        new = "".join(lines)
        edges = edges.moved(Edit.between(text, new))
        at = min(at, len(lines))
        before, behind = "".join(lines[:at]), "".join(lines[at:])
        prompt = build.build(before, behind, edges, context, last)
        assert len(prompt.token_ids) <= budget
        prefix, suffix = prompt.parts["prefix"], prompt.parts["suffix"]
        assert before.endswith(prefix.text)
        assert behind.startswith(suffix.text)
        for part in prompt.parts.values():
            assert part.token_ids == encode(part.text)
        assert prompt.edges.top == before[: len(before) - len(prefix.text)].count("\n")
        left = behind[len(suffix.text) :]
        assert prompt.dropped_below == left.count("\n") + bool(left and not left.endswith("\n"))
        # Where something is left out, there is no room for much more.
        whole = len(prefix.text) == len(before) and len(suffix.text) == len(behind)
        assert whole or len(prompt.token_ids) > 0.25 * budget
        text, edges, last = new, prompt.edges, prompt


def test_what_fits_is_there_whole() -> None:
    encode = tokenizer_of("pie-nano").encode
    size = len(encode("".join(LINES[:60]))) + len(encode("# a.py\n")) + 1 + 3 + 1
    for at in (0, 10, 59, 60):
        prompt = builder(size).build("".join(LINES[:at]), "".join(LINES[at:60]))
        assert prompt.edges == Edges()
        assert prompt.dropped_below == 0


def test_a_text_behind_another_gets_no_blank() -> None:
    """SentencePiece tokenizers put one before a text; only the prompt's first one is such."""
    tokenizer = TextTokenizer(original("sentencepiece"))
    assert tokenizer.continuing is not tokenizer
    assert tokenizer.decode_continuation(tokenizer.encode("x = 1")) == " x = 1"
    prompt = PromptBuilder(tokenizer, 1, "a.py", 512).build("x = 1\n")
    assert tokenizer.decode(prompt.token_ids) == "# a.py\nx = 1\n"
    nano = tokenizer_of("pie-nano")
    assert nano.continuing is nano


@pytest.mark.parametrize("text", ["漢字" * 200, "x" * 3_000, "()[]{}!?\n" * 300, "\n" * 900])
@pytest.mark.parametrize("count", [1, 4, 30])
def test_dense_files_take_no_more_than_their_share(text: str, count: int) -> None:
    """Tokens are estimated from characters, but counted in the end."""
    context = [ContextFile(f"{n}.py", text) for n in range(count)]
    for budget in (64, 300, 1_000):
        prompt = builder(budget).build(TEXT[:20_000], TEXT[20_000:], context=context)
        assert 0.4 * budget < len(prompt.token_ids) <= budget
        assert len(prompt.sides.prefix) + len(prompt.sides.suffix) > 0.3 * budget
