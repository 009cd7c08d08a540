"""The workload is real text, edited as said; the measurements count what they should."""

from itertools import islice

import pytest

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.errors import CacheCapacityError, InputError
from pie_cli.evaluation.cases.workload import (
    EDITS,
    Workload,
    edit_text,
    passages,
    source_lines,
    sweep,
    without_last_lines,
)
from pie_cli.evaluation.report.environment import describe
from pie_cli.evaluation.runs.latency import EXACT_EVERY, Row, measure, stock_forward_ms
from pie_cli.evaluation.runs.spread import Spread
from pie_cli.plan.plan import align, make_plan
from pie_cli.plan.repair import MAX_TOKENS
from pie_cli.plan.strategies import BENCHED
from pie_cli.session import EditSession

SETTINGS = Settings(max_tokens=4, chunk_tokens=128)
WORKLOAD = Workload((160, 320), EDITS, (1, 4), repeats=2)


@pytest.fixture(scope="module")
def text(tiny_model: PreparedModel) -> str:
    return next(passages(source_lines(), tiny_model.tokenizer.encode, 400))


@pytest.fixture(scope="module")
def rows(tiny_model: PreparedModel) -> tuple[Row, ...]:
    return measure(tiny_model, WORKLOAD, SETTINGS).rows


def test_the_text_is_pies_own_source_in_a_fixed_order():
    first = list(islice(source_lines(), 2_000))
    assert first == list(islice(source_lines(), 2_000))
    assert first[0] == "# pie_cli/__init__.py\n"
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in first)


def test_more_text_than_pie_has_comes_from_the_standard_library():
    names = [line for line in islice(source_lines(), 60_000) if line.startswith("# ")]
    assert "# argparse.py\n" in names


def test_texts_fill_their_limit_and_do_not_overlap(tiny_model: PreparedModel):
    encode = tiny_model.tokenizer.encode
    lines = [f"value_{n} = {n}\n" if n % 3 else f"    return {n}\n" for n in range(400)]
    texts = list(islice(passages(lines, encode, 100), 4))
    assert all(80 < len(encode(text)) <= 100 for text in texts)
    assert all(text.endswith("\n") and text.startswith("value") for text in texts)
    kept = [line for text in texts for line in text.splitlines(keepends=True)]
    assert kept == [line for line in lines if line in kept]


def test_text_that_runs_out_is_an_error():
    with pytest.raises(InputError, match="no further 100 tokens"):
        list(passages(["a = 1\n"] * 10, lambda line: line.split(), 100))


def test_a_text_loses_whole_lines_at_its_end_and_few_of_them():
    text = "".join(f"line {n}\n" for n in range(40))
    assert text == without_last_lines(text, 0)
    assert without_last_lines(text, 3) == text[: text.index("line 37")]
    assert without_last_lines(text, 40) == text[: text.index("line 35")]


@pytest.mark.parametrize("tokens", [1, 16])
@pytest.mark.parametrize("kind", EDITS)
def test_an_edit_changes_so_many_tokens_of_the_first_half(
    tiny_model: PreparedModel, text: str, kind: str, tokens: int
):
    tokenizer = tiny_model.tokenizer
    old = tokenizer.encode(text)
    for repeat in range(6):
        after = edit_text(tokenizer, text, kind, tokens, repeat)
        assert after != text
        assert after == edit_text(tokenizer, text, kind, tokens, repeat)
        assert after.endswith(text[len(text) // 2 + 100 :])
        new = tokenizer.encode(after)
        # At each seam, tokens may merge otherwise than before.
        seams = 3 if kind == "multi" else 1
        grown = {"insert": tokens, "delete": -tokens}.get(kind, 0)
        assert abs(len(new) - len(old) - grown) <= 4 * seams
        added = 0 if kind == "delete" else tokens * (2 if kind == "multi" else 1)
        # Runs shorter than four tokens are not kept.
        assert make_plan("pie", align(old, new)).encoded <= added + 10 * seams


def test_edits_of_different_repeats_stand_at_different_places(tiny_model: PreparedModel, text: str):
    edited = {edit_text(tiny_model.tokenizer, text, "delete", 4, repeat) for repeat in range(8)}
    assert len(edited) == 8


def test_texts_with_characters_of_several_tokens_are_cut_between_characters(
    tiny_model: PreparedModel,
):
    text = "name = 'äöü€語'\n" * 40
    for kind in EDITS:
        for repeat in range(5):
            after = edit_text(tiny_model.tokenizer, text, kind, 5, repeat)
            assert set(after) <= set(text)


def test_there_is_a_row_for_each_case_and_strategy_in_order(rows: tuple[Row, ...]):
    expected = [
        (context, tokens, kind, strategy)
        for context in WORKLOAD.context_tokens
        for tokens in WORKLOAD.edit_tokens
        for kind in WORKLOAD.edits
        for strategy in BENCHED
    ]
    found = [(row.context_tokens, row.edit_tokens, row.edit, row.strategy) for row in rows]
    assert found == expected


def test_exact_strategies_agree_always_and_save_what_they_save(rows: tuple[Row, ...]):
    for row in rows:
        assert 0 <= row.agreement_pct <= 100
        if row.strategy in {"full", "prefix"}:
            assert row.agreement_pct == 100
        if row.strategy == "full":
            assert row.reduction_pct.first_token == row.reduction_pct.line == 0


def test_full_recompute_takes_the_same_time_for_all_edits_of_a_context(rows: tuple[Row, ...]):
    for context in WORKLOAD.context_tokens:
        full = [row for row in rows if (row.context_tokens, row.strategy) == (context, "full")]
        assert len({(row.first_token_ms, row.line_ms) for row in full}) == 1


def test_full_encodes_everything_prefix_what_follows_and_pie_the_edit(rows: tuple[Row, ...]):
    for full, prefix, cfe, pie, repaired in zip(*[iter(rows)] * len(BENCHED), strict=True):
        assert full.encoded_tokens == full.prompt_tokens
        assert full.prompt_tokens / 2 <= prefix.encoded_tokens < full.prompt_tokens
        assert pie.encoded_tokens == cfe.encoded_tokens <= 3 * pie.edit_tokens + 20
        # How many depends on the machine's pace.
        assert pie.encoded_tokens < repaired.encoded_tokens <= pie.encoded_tokens + MAX_TOKENS


def test_rows_say_how_much_stands_behind_them(rows: tuple[Row, ...]):
    for row in rows:
        expected = {"full": 8, "prefix": 1}.get(row.strategy, WORKLOAD.repeats)
        assert row.measurements == expected
        assert row.compared == 1
        assert row.prompt_tokens <= row.context_tokens + WORKLOAD.growth


def test_times_add_up(rows: tuple[Row, ...]):
    for row in rows:
        assert 0 < row.forward_ms.median <= row.first_token_ms.median <= row.line_ms.median
        assert row.update_ms.median <= row.first_token_ms.median
        p95 = row.first_token_ms.p95
        assert (p95 is None) == (row.measurements < 5)
        assert p95 is None or row.first_token_ms.median <= p95
        assert row.stock_forward_ms.median > 0


def test_progress_is_counted_to_the_end(tiny_model: PreparedModel):
    repeats = EXACT_EVERY + 1
    workload = Workload((96,), ("insert", "multi"), (1, 2), repeats)
    seen: list[tuple[int, int]] = []
    measure(tiny_model, workload, SETTINGS, lambda stage, done, total: seen.append((done, total)))
    total = 4 * (repeats + 1)
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_a_spread_is_the_median_and_the_95th_percentile():
    assert Spread.of([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, pytest.approx(4.8))


@pytest.mark.parametrize("count", [1, 4])
def test_few_values_have_no_95th_percentile(count: int):
    assert Spread.of([7.0] * count) == Spread(7.0, None)


def test_a_context_that_fills_the_window_leaves_room_for_edit_and_line(tiny_model: PreparedModel):
    window = tiny_model.loaded.window
    workload = Workload((window,), ("insert",), (4,), 1)
    rows = measure(tiny_model, workload, SETTINGS).rows
    assert window - 120 < rows[0].prompt_tokens <= window - SETTINGS.max_tokens


def test_a_context_beyond_the_window_is_refused(tiny_model: PreparedModel):
    with pytest.raises(CacheCapacityError, match="exceeds the window"):
        measure(tiny_model, Workload((2_048,), ("insert",), (1,), 1), SETTINGS)


def test_a_line_that_leaves_no_room_is_refused(tiny_model: PreparedModel):
    settings = Settings(max_tokens=1_000)
    with pytest.raises(CacheCapacityError, match="has no room"):
        measure(tiny_model, Workload((1_024,), ("insert",), (1,), 1), settings)


@pytest.mark.parametrize(
    ("contexts", "edits", "sizes", "repeats", "message"),
    [
        ((1024,), ("swap",), (1,), 1, "unknown edit 'swap'"),
        ((0,), ("insert",), (1,), 1, "--context-tokens is 0"),
        ((1024,), ("insert",), (0,), 1, "--edit-tokens is 0"),
        ((1024,), ("insert",), (1,), 0, "--repeats is 0"),
        ((1024,), (), (1,), 1, "no edits"),
        ((), ("insert",), (1,), 1, "no --context-tokens"),
        ((1024, 64), ("insert",), (1, 16), 1, "too large for a context of 64"),
    ],
)
def test_a_workload_that_cannot_be_measured_is_refused(contexts, edits, sizes, repeats, message):
    with pytest.raises(InputError, match=message):
        Workload(contexts, edits, sizes, repeats)


def test_a_fork_starts_from_the_same_state_and_leaves_it_alone(
    tiny_model: PreparedModel, text: str
):
    session = EditSession(tiny_model, "a.py", SETTINGS)
    session.open(text)
    after = edit_text(tiny_model.tokenizer, text, "insert", 4, 0)
    first = session.fork("pie").update(after)
    second = session.fork("pie").update(after)
    assert (first.text, first.tokens) == (second.text, second.tokens)
    assert session.text == text
    assert session.fork("full").update(after).tokens.reused == 0
    assert session.fork("prefix").update(text).exact


def test_the_stock_forward_pass_leaves_the_engines_attention_in_place(tiny_model: PreparedModel):
    model = tiny_model.loaded.model
    before = model.config._attn_implementation
    assert stock_forward_ms(model, [0, 1, 2, 3]) > 0
    assert model.config._attn_implementation == before


def test_the_environment_names_versions_and_hardware(tiny_model: PreparedModel):
    environment = describe(tiny_model.loaded)
    assert environment.dtype == "float32"
    assert environment.device_name == environment.cpu
    assert environment.threads >= 1
    assert environment.commit is None or len(environment.commit) == 40
    assert (environment.commit is None) == (environment.uncommitted_changes is None)


def test_an_edit_in_many_places_changes_as_many(tiny_model: PreparedModel, text: str):
    before = tiny_model.tokenizer.encode(text)
    after = tiny_model.tokenizer.encode(edit_text(tiny_model.tokenizer, text, "multi:12", 1, 0))
    changes = len(align(before, after).runs) - 1
    assert 10 <= changes <= 13


@pytest.mark.parametrize("kind", ["multi:0", "multi:1", "multi:x", "multi:1000", "insert:2"])
def test_no_such_number_of_places(kind: str):
    with pytest.raises(InputError, match="unknown edit"):
        Workload((1_024,), (kind,), (1,), 1)


def test_a_sweep_goes_as_far_as_the_window_and_an_eighth_of_each_prompt():
    workloads = list(sweep(4_096, 1))
    assert {context for work in workloads for context in work.context_tokens} == {
        1_024,
        2_048,
        4_096,
    }
    sizes = {(work.context_tokens[0], work.edits[0]): work.edit_tokens for work in workloads}
    assert sizes[1_024, "insert"] == (1, 4, 16, 64)
    assert sizes[4_096, "insert"] == (1, 4, 16, 64, 256)
    assert sizes[4_096, "multi:64"] == (1, 4)
