"""After every edit a session's ids, cache and claims are those of one built from scratch."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.engine.forward import encode
from pie_cli.errors import CacheCapacityError, InputError
from pie_cli.plan.plan import Alignment, make_plan
from pie_cli.plan.strategies import DEFAULT_STRATEGY
from pie_cli.prompt.assembly import ContextFile
from pie_cli.session import EditSession
from pie_cli.text.cursor import Cursor
from pie_cli.text.edit import Edit, LineHunk, diff_lines
from pie_cli.text.matching import KeptRun
from tests.conftest import SOURCE

LINES = SOURCE.splitlines(keepends=True)
MAX_TOKENS = 12


def make_session(model: PreparedModel, **settings: Any) -> EditSession:
    # Fixed, where the default takes what the machine has time for.
    settings = {"at": "end", "strategy": "pie+seam:8", **settings}
    return EditSession(model, "area.py", Settings(max_tokens=MAX_TOKENS, **settings))


def inserted(text: str, line: int, new: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:line], new, *lines[line:]])


def keys_and_values(session: EditSession) -> list[torch.Tensor]:
    assert session.engine is not None
    cache = session.engine.slots
    cache.check_integrity()
    length = cache.length
    return [t[:, :, :length] for layer in cache.layers for t in (layer.keys, layer.values)]


def difference(one: EditSession, other: EditSession) -> float:
    pairs = zip(keys_and_values(one), keys_and_values(other), strict=True)
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


def fresh(model: PreparedModel, text: str, **settings: Any) -> EditSession:
    session = make_session(model, **settings)
    session.open(text)
    return session


def primed(model: PreparedModel, text: str, at: Cursor) -> EditSession:
    session = make_session(model)
    session.prime(text, at=at)
    return session


def prompt_ids(session: EditSession) -> list[int]:
    assert session.prompt is not None
    return session.prompt.token_ids


def random_edit(text: str, rng: random.Random) -> str:
    """Insert, delete, replace, duplicate or move lines."""
    lines = text.splitlines(keepends=True)
    start = rng.randrange(len(lines))
    stop = min(len(lines), start + rng.randint(1, 4))
    kind = rng.choice(["insert", "delete", "replace", "move"])
    block = lines[start:stop]
    if kind == "insert":
        lines[start:start] = [f"value_{rng.randint(0, 99)} = {rng.randint(0, 999)}\n"]
    elif kind == "delete" and len(lines) > 12:
        del lines[start:stop]
    elif kind == "replace":
        lines[start:stop] = [line.replace("size", "total") for line in block]
    elif kind == "move":
        del lines[start:stop]
        place = rng.randrange(len(lines) + 1)
        lines[place:place] = block
    return "".join(lines)


def test_the_headers_in_a_prompt_are_those_that_end_an_answer(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model)
    context = [ContextFile("lib/b.js", "x = 1;\n" * 9), ContextFile("/shop/c.py", "y = 1\n" * 9)]
    session.open(SOURCE, context=context)
    prompt = session.prompt
    assert prompt is not None
    place = session.cursor.place(SOURCE)
    headers = session._decoder.decoding(prompt, SOURCE, place).extent.headers
    assert headers == {"# area.py", "// lib/b.js", "# c.py"}
    lines = tiny_model.tokenizer.decode(prompt.token_ids).splitlines()
    assert all(lines.count(line) == 1 for line in headers)


def test_random_edits_keep_ids_layer_0_and_claims_true(tiny_model: PreparedModel) -> None:
    rng = random.Random(3)
    text = SOURCE
    session = fresh(tiny_model, text)
    for save in range(12):
        text = random_edit(text, rng)
        prediction = session.update(text)
        reference = fresh(tiny_model, text)
        assert prompt_ids(session) == prompt_ids(reference)
        tokens = prediction.tokens
        assert tokens.reused + tokens.encoded == tokens.total == len(prompt_ids(reference))
        assert tokens.shifted <= tokens.reused
        # Layer 0 sees tokens and positions only, so its keys and values equal full recompute's.
        for mine, theirs in zip(
            keys_and_values(session)[:2], keys_and_values(reference)[:2], strict=True
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
        # And whatever is claimed to be exact is, in every layer.
        first = tokens.total - tokens.stale
        for mine, theirs in zip(keys_and_values(session), keys_and_values(reference), strict=True):
            torch.testing.assert_close(
                mine[:, :, :first], theirs[:, :, :first], rtol=1e-3, atol=1e-3
            )
        if save % 4 == 3:
            comparison = session.compare()
            assert comparison is not None
            assert difference(session, reference) < 1e-4
            assert comparison.text == reference.open(text).text


def test_stale_tokens_do_differ(tiny_model: PreparedModel) -> None:
    """The control of the test above: what is not claimed to be exact is not."""
    session = fresh(tiny_model, SOURCE)
    text = inserted(SOURCE, 4, "import sys\n")
    assert not session.update(text).exact
    assert difference(session, fresh(tiny_model, text)) > 1e-2


def test_appending_is_exact(tiny_model: PreparedModel) -> None:
    session = fresh(tiny_model, SOURCE)
    text = SOURCE + "def area_last(width):\n    size ="
    prediction = session.update(text)
    reference = make_session(tiny_model)
    assert prediction.exact
    assert prediction.tokens.stale == 0
    assert prediction.text == reference.open(text).text
    assert difference(session, reference) < 1e-4


@pytest.mark.parametrize("strategy", ["full", "prefix"])
def test_full_and_prefix_are_exact(tiny_model: PreparedModel, strategy: str) -> None:
    session = fresh(tiny_model, SOURCE, strategy=strategy)
    text = inserted(SOURCE, 4, "import sys\n")
    prediction = session.update(text)
    reference = make_session(tiny_model)
    assert prediction.exact
    assert prediction.text == reference.open(text).text
    assert difference(session, reference) < 1e-4


def test_cfe_leaves_shifted_keys_where_they_were(tiny_model: PreparedModel) -> None:
    """In layer 0, pie's keys are full recompute's; cfe's are off by their rotation."""
    text = inserted(SOURCE, 4, "import sys\n")
    reference = fresh(tiny_model, text)
    errors = {}
    for strategy in ("pie", "cfe"):
        session = fresh(tiny_model, SOURCE, strategy=strategy)
        session.update(text)
        mine, theirs = keys_and_values(session)[0], keys_and_values(reference)[0]
        errors[strategy] = float((mine - theirs).norm() / theirs.norm())
    assert errors["pie"] < 1e-5
    assert errors["cfe"] > 100 * errors["pie"]


def test_a_completed_comparison_leaves_the_cache_exact(tiny_model: PreparedModel) -> None:
    for compare in ("full", "prefix"):
        session = fresh(tiny_model, SOURCE, compare=compare, chunk_tokens=64)
        text = inserted(SOURCE, 4, "import sys\n")
        session.update(text)
        comparison = session.compare()
        assert comparison is not None
        assert comparison.strategy == compare
        assert difference(session, fresh(tiny_model, text)) < 1e-4
        assert session.update(text).exact


def test_a_comparison_given_up_keeps_its_chunks(tiny_model: PreparedModel) -> None:
    session = fresh(tiny_model, SOURCE, compare="prefix", chunk_tokens=64)
    text = inserted(SOURCE, 4, "import sys\n")
    before = session.update(text)
    answers = iter([False, False, True])
    assert session.compare(lambda: next(answers)) is None
    # Two chunks are exact now, from the first changed token on: an edit behind them finds them so.
    after = session.update(text)
    changed = before.tokens.encoded - 1
    assert before.tokens.stale - after.tokens.stale == 128 - changed
    assert session.compare() is not None
    assert difference(session, fresh(tiny_model, text)) < 1e-4


@pytest.mark.parametrize("compare", ["full", "prefix"])
def test_a_comparison_given_up_is_gone_on_with(
    tiny_model: PreparedModel, monkeypatch: pytest.MonkeyPatch, compare: str
) -> None:
    """The same as one that was left alone, and no chunk twice."""
    text = inserted(SOURCE, 4, "import sys\n")
    sessions = [fresh(tiny_model, SOURCE, compare=compare, chunk_tokens=64) for _ in range(2)]
    encoded: list[int] = []

    def counting(model: Any, slots: Any, ids: Any, positions: Any, wanted: Any) -> Any:
        encoded.extend(positions)
        return encode(model, slots, ids, positions, wanted)

    for session in sessions:
        session.update(text)
    monkeypatch.setattr("pie_cli.engine.edited.encode", counting)
    whole = sessions[0].compare()
    expected, encoded[:] = list(encoded), []
    for chunks in (2, 0, 1):
        answers = iter([*[False] * chunks, True])
        assert sessions[1].compare(lambda answers=answers: next(answers)) is None
    resumed = sessions[1].compare()
    assert encoded == expected
    assert whole is not None
    assert resumed is not None
    assert resumed.token_ids == whole.token_ids
    assert difference(*sessions) < 1e-5


def test_a_save_ends_what_a_comparison_had_begun(tiny_model: PreparedModel) -> None:
    session = fresh(tiny_model, SOURCE, compare="full", chunk_tokens=64)
    text = inserted(SOURCE, 4, "import sys\n")
    session.update(text)
    answers = iter([False, False, False, True])
    assert session.compare(lambda: next(answers)) is None
    session.update(SOURCE)
    assert session.compare() is not None
    assert session.exact
    assert difference(session, fresh(tiny_model, SOURCE)) < 1e-4


def test_a_prefix_comparison_encodes_what_changed(
    tiny_model: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that keeps the common prefix has to encode appended text as well."""
    encoded: list[int] = []

    def counting(model: Any, slots: Any, ids: Any, positions: Any, wanted: Any) -> Any:
        encoded.append(sum(position < len(prompt_ids(session)) for position in positions))
        return encode(model, slots, ids, positions, wanted)

    session = fresh(tiny_model, "".join(LINES[:12]), compare="prefix")
    prediction = session.update(SOURCE)
    monkeypatch.setattr("pie_cli.engine.edited.encode", counting)
    assert prediction.exact
    assert session.compare() is not None
    assert encoded[0] == prediction.tokens.encoded
    assert sum(encoded[1:]) == 0


def test_no_comparison_before_a_prediction(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model)
    assert session.compare() is None
    session.prime(SOURCE)
    assert session.compare() is None


def test_no_comparison_when_switched_off(tiny_model: PreparedModel) -> None:
    session = fresh(tiny_model, SOURCE, compare="none")
    session.update(inserted(SOURCE, 4, "import sys\n"))
    assert session.compare() is None


def test_a_line_cursor_moves_with_the_text(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model, at="9")
    assert session.open(SOURCE).at.line == 9
    text = inserted(SOURCE, 2, "    # one\n    # two\n")
    assert session.update(text).at.line == 11
    text = inserted(text, 30, "# below the cursor\n")
    assert session.update(text).at.line == 11
    assert session.update(SOURCE).at.line == 9
    assert prompt_ids(session) == prompt_ids(fresh(tiny_model, SOURCE, at="9"))


def test_a_cursor_clamps_where_its_line_went(tiny_model: PreparedModel) -> None:
    session = fresh(tiny_model, SOURCE, at="20")
    assert session.update("".join(LINES[:5])).at.line == 6
    assert session.update("").at.line == 1


def test_a_cursor_behind_the_final_newline_survives_its_removal(tiny_model: PreparedModel) -> None:
    session = fresh(tiny_model, SOURCE, at="49")
    assert session.update(SOURCE.rstrip("\n")).at.line == 47
    assert session.update(SOURCE).at.line <= 49


def test_a_cursor_outside_the_text_is_refused(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model, at="500")
    with pytest.raises(InputError, match="line 500 is outside the file, which has 48 lines"):
        session.open(SOURCE)
    session = fresh(tiny_model, SOURCE)
    with pytest.raises(InputError):
        session.update(SOURCE, at="99")
    assert session.text == SOURCE


def test_an_edit_behind_the_cursor_costs_one_token(tiny_model: PreparedModel) -> None:
    """Of a model that cannot fill in a middle, and so never sees it."""
    session = fresh(replace(tiny_model, fim=None), SOURCE, at="9")
    prediction = session.update(SOURCE + "# behind\n")
    assert prediction.exact
    assert prediction.tokens.encoded == 1
    assert prediction.lines_added == 1


def test_an_edit_updates_like_its_text(tiny_model: PreparedModel) -> None:
    """Whoever found it; hunks larger than need be are taken as they are."""
    text = inserted(SOURCE, 4, "import sys\n")
    session, other = fresh(tiny_model, SOURCE, at="edit"), fresh(tiny_model, SOURCE, at="edit")
    found = session.update(Edit(SOURCE, text, (LineHunk(2, 6, 2, 7),)))
    assert (found.lines_added, found.lines_removed) == (5, 4)
    assert session.text == text
    other.update(text)
    lines = text.split("\n")
    assert session.cursor == Cursor(6, len(lines[6]), follows_edits=True)
    assert other.cursor == Cursor(4, len(lines[4]), follows_edits=True)
    assert prompt_ids(session) == prompt_ids(primed(tiny_model, text, session.cursor))


def test_an_edit_of_another_text_counts_for_its_new_text(tiny_model: PreparedModel) -> None:
    text = inserted(SOURCE, 4, "import sys\n")
    session = fresh(tiny_model, SOURCE, at="edit")
    prediction = session.update(Edit("other\n", text, (LineHunk(0, 1, 0, text.count("\n")),)))
    assert (prediction.lines_added, session.cursor.line) == (1, 4)


def test_priming_predicts_nothing_but_makes_the_edit_cheap(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model)
    assert session.prime(SOURCE) > 0
    text = inserted(SOURCE, 4, "import sys\n")
    prediction = session.update(text)
    other = fresh(tiny_model, SOURCE)
    assert prediction.text == other.update(text).text
    assert prediction.tokens.encoded < 0.1 * prediction.tokens.total


def test_an_interrupted_line_leaves_the_cache_in_step(tiny_model: PreparedModel) -> None:
    session = fresh(tiny_model, SOURCE)
    text = inserted(SOURCE, 4, "import sys\n")
    stopped = session.update(text, should_stop=lambda: True)
    assert stopped.stopped_by in ("interrupted", "newline", "end")
    assert session.update(text).tokens.encoded == 1
    assert prompt_ids(session) == prompt_ids(fresh(tiny_model, text))


def test_a_failure_in_the_pass_costs_a_recompute_not_the_session(
    tiny_model: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = fresh(tiny_model, SOURCE)
    text = inserted(SOURCE, 4, "import sys\n")
    with monkeypatch.context() as patched:
        patched.setattr("pie_cli.engine.edited.decode_line", _out_of_memory)
        with pytest.raises(CacheCapacityError, match="no memory left"):
            session.update(text)
    assert session.update(text).tokens.encoded == len(prompt_ids(session))
    assert difference(session, fresh(tiny_model, text)) < 1e-4


@pytest.mark.parametrize("lost_by", ["update", "compare"])
def test_a_failure_loses_neither_text_nor_cursor(
    tiny_model: PreparedModel, monkeypatch: pytest.MonkeyPatch, lost_by: str
) -> None:
    session = fresh(tiny_model, SOURCE, at="9")
    text = inserted(SOURCE, 2, "    # one\n    # two\n")
    with monkeypatch.context() as patched:
        patched.setattr("pie_cli.engine.edited.decode_line", _out_of_memory)
        patched.setattr("pie_cli.engine.edited.encode", _out_of_memory)
        with pytest.raises(CacheCapacityError):
            session.update(text) if lost_by == "update" else session.compare()
    assert session.text == SOURCE
    assert session.update(Edit.between(SOURCE, text)).at.line == 11
    assert prompt_ids(session) == prompt_ids(fresh(tiny_model, text, at="11"))


def test_a_shrunk_file_can_be_predicted_in_after_a_failure(
    tiny_model: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = fresh(tiny_model, SOURCE, at="40")
    with monkeypatch.context() as patched:
        patched.setattr("pie_cli.engine.edited.decode_line", _out_of_memory)
        with pytest.raises(CacheCapacityError):
            session.update("x = 1\n")
    assert session.update("x = 1\n").at.line == 2


@pytest.mark.parametrize(
    "message",
    [
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes",
        "MPS backend out of memory (MPS allocated: 9 GB)",
    ],
)
def test_a_lack_of_memory_is_named_on_every_device(
    tiny_model: PreparedModel, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(message)

    session = fresh(tiny_model, SOURCE)
    monkeypatch.setattr("pie_cli.engine.edited.decode_line", fail)
    with pytest.raises(CacheCapacityError, match="no memory left"):
        session.update(SOURCE)


def test_a_fork_without_memory_leaves_the_session_its_cache(
    tiny_model: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = fresh(tiny_model, SOURCE)
    with monkeypatch.context() as patched:
        patched.setattr("pie_cli.engine.edited.SlotCache.clone", _out_of_memory)
        with pytest.raises(CacheCapacityError):
            session.fork("full")
    assert session.update(SOURCE).tokens.encoded == 1


def test_the_first_edit_finds_room_in_the_cache(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model)
    session.prime(SOURCE)
    before = session.cache_bytes
    session.update(inserted(SOURCE, 4, "import sys\n" * 4))
    assert session.cache_bytes == before


def _out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError


def test_a_long_file_is_cut_at_a_line_and_the_edge_stays(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model, context_tokens=256)
    first = session.open(SOURCE)
    assert first.window_dropped > 0
    assert first.tokens.total <= 256
    text = inserted(SOURCE, 46, "    size = 1\n")
    second = session.update(text)
    assert second.window_dropped == first.window_dropped
    assert second.tokens.encoded < 16
    # Lines that come above the window move its edge along, and cost nothing but the look.
    third = session.update("import os\n" + text)
    assert third.window_dropped == first.window_dropped + 1
    assert third.tokens.encoded == 1


def test_lines_inserted_at_the_top_are_in_the_prompt(tiny_model: PreparedModel) -> None:
    session = fresh(tiny_model, SOURCE)
    text = "import os\n" + SOURCE
    prediction = session.update(text)
    assert prediction.window_dropped == 0
    assert prompt_ids(session) == prompt_ids(fresh(tiny_model, text))


def test_the_edge_stays_inside_a_huge_line(tiny_model: PreparedModel) -> None:
    """So that appending to a minified file moves nothing, most of the time."""
    session = make_session(tiny_model, context_tokens=256)
    text = "size = width * height + 1;" * 400
    session.open(text)
    shifted = []
    for number in range(12):
        text += f"size = {number};"
        tokens = session.update(text).tokens
        assert 64 < tokens.total <= 256
        shifted.append(tokens.shifted)
    assert shifted.count(0) >= 9


def test_a_short_line_behind_a_huge_one_is_not_all_that_is_left(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model, context_tokens=256)
    text = SOURCE + "size = width * height + 1;" * 100 + "\nwidth = 2\n"
    assert session.open(text).tokens.total > 128


def test_a_growing_file_moves_the_edge_in_large_steps(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model, context_tokens=256)
    text = SOURCE
    session.open(text)
    edges = []
    for number in range(24):
        text += f"size_{number} = {number}\n"
        prediction = session.update(text)
        assert prediction.tokens.total <= 256
        edges.append(prediction.window_dropped)
    assert edges == sorted(edges)
    assert 2 <= len(set(edges)) <= 6


def test_a_context_smaller_than_the_head_is_refused(tiny_model: PreparedModel) -> None:
    with pytest.raises(CacheCapacityError, match="no room after the head"):
        EditSession(tiny_model, "a/very/long/path" * 10, Settings(context_tokens=16))


@pytest.mark.parametrize("max_tokens", [1021, 1024, 5000])
def test_a_line_as_long_as_the_window_is_refused(
    tiny_model: PreparedModel, max_tokens: int
) -> None:
    with pytest.raises(CacheCapacityError) as caught:
        EditSession(tiny_model, "area.py", Settings(max_tokens=max_tokens))
    assert "lower --max-tokens" in caught.value.remedy


@pytest.mark.parametrize(
    ("before", "runs", "length", "expected"),
    [
        (10, (KeptRun(0, 0, 10),), 14, 14),  # an append
        (10, (KeptRun(0, 0, 4), KeptRun(4, 6, 6)), 12, 6),  # an insertion
        (10, (KeptRun(0, 0, 4), KeptRun(6, 6, 4)), 10, 6),  # a replacement in place
        (2, (KeptRun(0, 0, 4), KeptRun(4, 6, 6)), 12, 2),  # stale before
        (6, (KeptRun(0, 0, 4),), 8, 8),  # the stale part was taken out
        (0, (), 5, 5),  # nothing kept
    ],
)
def test_stale_from_follows_the_plan(
    before: int, runs: tuple[KeptRun, ...], length: int, expected: int
) -> None:
    assert make_plan("pie", Alignment(10, length, runs)).stale_from(before) == expected


def test_repaired_tokens_are_stale_where_they_saw_stale_ones() -> None:
    """Right behind the only hunk they are exact; behind a gap, or another hunk, they are not."""
    one = Alignment(20, 22, (KeptRun(0, 0, 5), KeptRun(5, 7, 15)))
    assert make_plan("pie", one).stale_from(20) == 7
    assert make_plan("pie", one, (7, 8, 9)).stale_from(20) == 10
    assert make_plan("pie", one, (9, 10)).stale_from(20) == 7
    assert make_plan("pie", one, range(7, 22)).stale_from(20) == 22
    two = Alignment(20, 22, (KeptRun(0, 0, 5), KeptRun(5, 6, 5), KeptRun(10, 12, 10)))
    assert make_plan("pie", two, (12, 13, 14)).stale_from(20) == 6
    # Stale before the edit already, and mended.
    assert make_plan("pie", one, (7, 8)).stale_from(3) == 3
    assert make_plan("pie", one, (3, 4, 7, 8)).stale_from(3) == 9


def test_the_default_repairs_behind_the_hunk_and_says_so(tiny_model: PreparedModel) -> None:
    text = SOURCE.replace("size = width * height + 3", "size = height")
    counts = {}
    for strategy in ("pie", "pie+seam:4", DEFAULT_STRATEGY):
        settings = Settings(strategy=strategy, compare="none", at="end")
        session = EditSession(tiny_model, "area.py", settings)
        session.open(SOURCE)
        prediction = session.update(text)
        assert prediction.strategy == strategy
        assert prediction.tokens.reused + prediction.tokens.encoded == prediction.tokens.total
        counts[strategy] = prediction.tokens
    assert counts["pie+seam:4"].encoded == counts["pie"].encoded + 4
    assert counts["pie+seam:4"].stale == counts["pie"].stale - 4
    assert Settings().strategy == DEFAULT_STRATEGY
    assert counts[DEFAULT_STRATEGY].encoded > counts["pie+seam:4"].encoded


def test_lines_changed_are_those_of_the_diff(tiny_model: PreparedModel) -> None:
    session = fresh(tiny_model, SOURCE)
    text = SOURCE.replace("size = width * height + 3", "size = height")
    (hunk,) = diff_lines(SOURCE, text)
    prediction = session.update(text)
    assert (prediction.lines_added, prediction.lines_removed) == (1, 1)
    assert hunk.new_start == 13


def test_what_costs_more_than_the_limit_is_compared_more_cheaply_or_not_at_all(
    tiny_model: PreparedModel,
) -> None:
    """An edit near the end: what follows it is a small share of the whole."""
    session = fresh(tiny_model, SOURCE)
    assert session.comparison_within(None) == "full"
    session.update(inserted(SOURCE, 40, "import sys\n"))
    full = session.full_recompute_ms()
    assert full is not None
    assert full > 0
    assert session.comparison_within(2 * full) == "full"
    assert session.comparison_within(0.9 * full) == "prefix"
    assert session.comparison_within(0.0) == "none"
    done = []
    comparison = session.compare(on_progress=lambda *at: done.append(at), how="prefix")
    assert comparison is not None
    assert comparison.strategy == "prefix"
    assert session.exact
    assert done[-1] == (comparison_length := len(prompt_ids(session)), comparison_length)
    # What is exact already gains nothing from a cheaper comparison.
    assert session.comparison_within(0.9 * full) == "none"


def test_the_estimate_is_that_of_the_last_encoding(tiny_model: PreparedModel) -> None:
    session = make_session(tiny_model)
    assert session.full_recompute_ms() is None
    session.prime(SOURCE)
    prediction = session.update(SOURCE)
    comparison = session.compare()
    assert comparison is not None
    measured = comparison.timings_ms
    estimate = session.full_recompute_ms()
    assert estimate is not None
    encoding = measured.first_token - measured.tokenize
    assert estimate == pytest.approx(encoding + prediction.timings_ms.decode)
