"""Predictions in the middle: holes that move, windows, other files; every claim checked."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pie_cli.cli.words import what_it_took
from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.errors import CacheCapacityError
from pie_cli.plan.repair import FRESH_BETWEEN_HOLES
from pie_cli.prompt.assembly import CONTEXT_SHARE, ContextFile
from pie_cli.prompt.fim import PSM, SPM
from pie_cli.results import Prediction
from pie_cli.session import EditSession
from pie_cli.text.cursor import Cursor, Position
from tests.conftest import SOURCE, WINDOW
from tests.sessions import check, differences, prompt_ids

LINES = SOURCE.splitlines(keepends=True)
MAX_TOKENS = 8
OTHER = "".join(f"WIDTH_{n} = {n}\nHEIGHT_{n} = {n} * 2\n" for n in range(12))


def make_session(model: PreparedModel, **options: Any) -> EditSession:
    # Fixed, where the default takes what the machine has time for.
    options = {"strategy": "pie+seam:4", **options}
    return EditSession(model, "area.py", Settings(max_tokens=MAX_TOKENS, **options))


@pytest.fixture(scope="module", params=[PSM, SPM])
def model(request: pytest.FixtureRequest, tiny_model: PreparedModel) -> PreparedModel:
    """The tiny model, made to use one order of the parts."""
    assert tiny_model.fim is not None
    return replace(tiny_model, fim=tiny_model.fim.only(request.param))


def inserted(text: str, line: int, new: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join([*lines[:line], new, *lines[line:]])


# --- cursors --------------------------------------------------------------------------------------


def begins_at(session: EditSession, prediction: Prediction) -> Position:
    """Return the cursor; the prediction goes on with its line, or is the next one."""
    assert session.cursor.line is not None or session.text is not None
    place = session.cursor.place(session.text or "")
    cursor = place.position
    below = Position(cursor.line + 1, 1)
    assert prediction.at == (cursor if prediction.completes_line else below)
    return cursor


def test_the_prediction_follows_the_edits(model: PreparedModel) -> None:
    session = make_session(model)
    assert begins_at(session, session.open(SOURCE)) == Position(47, 16)
    text = SOURCE
    for line in (4, 30, 9, 47):
        text = inserted(text, line, "value = 1\n")
        prediction = session.update(text)
        assert begins_at(session, prediction) == Position(line + 1, 10)
        check(session, prediction)
    again = session.update(text)
    assert begins_at(session, again) == Position(48, 10)
    assert again.tokens.encoded == 1


def test_of_several_hunks_the_lowest_counts(model: PreparedModel) -> None:
    session = make_session(model)
    session.open(SOURCE)
    text = inserted(inserted(SOURCE, 30, "low = 1\n"), 4, "high = 1\n")
    assert begins_at(session, session.update(text)) == Position(32, 8)


def test_a_deletion_is_predicted_above_its_gap(model: PreparedModel) -> None:
    session = make_session(model)
    session.open(SOURCE)
    prediction = session.update("".join([*LINES[:8], *LINES[12:]]))
    assert begins_at(session, prediction) == Position(7, 16)
    check(session, prediction)


def test_the_prompt_has_what_stands_on_both_sides(model: PreparedModel) -> None:
    session = make_session(model)
    session.open(SOURCE)
    session.update(inserted(SOURCE, 4, "value = 1\n"))
    assert session.prompt is not None
    prompt, encode = session.prompt, model.tokenizer.encode
    ids = prompt.token_ids
    above = encode("".join([*LINES[:4], "value = 1"]))
    assert [ids[i] for i in prompt.sides.prefix] == above
    assert [ids[i] for i in prompt.sides.suffix] == encode("".join(LINES[4:]))
    assert ids[prompt.anchor] == above[-1]


def test_a_last_line_without_a_newline_is_a_line_like_any_other(model: PreparedModel) -> None:
    session = make_session(model)
    session.open("a = 1\nb = 2")
    prediction = session.update("a = 1\nb = 3")
    assert begins_at(session, prediction) == Position(2, 6)
    check(session, prediction)
    assert session.update("a = 1\nb = 3\n").tokens.encoded == 1


@pytest.mark.parametrize("at", ["9", "9:1", "10:11", "end", "edit"])
def test_every_cursor_equals_that_of_a_new_session(model: PreparedModel, at: str) -> None:
    """Ids after an edit are those of opening the new text there; so is what is predicted."""
    session = make_session(model, at=at)
    session.open(SOURCE)
    text = inserted(SOURCE, 2, "# one\n# two\n")
    prediction = session.update(text)
    check(session, prediction)
    comparison = session.compare()
    assert comparison is not None
    if at == "edit":
        other = make_session(model)
        other.prime(text, at=Cursor(3, 5, follows_edits=True))
        reference = other.update(text)
    else:
        place = at if at == "end" else str(prediction.at.line)
        if ":" in at:
            place += f":{prediction.at.column}"
        other = make_session(model, at=place)
        reference = other.open(text)
    assert prompt_ids(session) == prompt_ids(other)
    assert comparison.text == reference.text


def test_a_column_moves_with_what_is_typed_in_its_line(model: PreparedModel) -> None:
    session = make_session(model, at="2:12")
    session.open(SOURCE)
    typed = SOURCE.replace("    size = width", "    size = abs(width", 1)
    prediction = session.update(typed)
    assert (prediction.at.line, prediction.at.column) == (2, 16)
    check(session, prediction)
    assert session.update("x\n" + typed).at.line == 3


def test_an_immediate_end_is_nothing_to_add(model: PreparedModel) -> None:
    session = make_session(model)
    everything = frozenset(range(model.tokenizer.vocab_size))
    session._decoder._decoding = replace(session._decoder._decoding, eos_ids=everything)
    prediction = session.open(SOURCE)
    assert (prediction.text, prediction.stopped_by) == ("", "end")


def test_control_tokens_end_a_prediction(model: PreparedModel) -> None:
    fim = model.fim
    assert fim is not None
    assert fim.stop_ids >= {
        part for layout in fim.layouts.values() for part in layout if isinstance(part, int)
    }
    assert make_session(model)._decoder._decoding.eos_ids >= fim.stop_ids


# --- the hole ------------------------------------------------------------------------------------


def test_with_the_suffix_first_edits_above_the_hole_are_appends(tiny_model: PreparedModel) -> None:
    """The control: with the prefix first, all of the suffix is moved and stale."""
    session = make_session(tiny_model)
    session.open(SOURCE)
    text = SOURCE
    session.update(text := inserted(text, 20, "value = 0\n"))
    session.compare()
    for line in (21, 22, 23):
        prediction = session.update(text := inserted(text, line, f"value = {line}\n"))
        assert prediction.exact
        assert prediction.tokens.shifted == 0
        assert prediction.tokens.encoded < 16


def test_a_short_way_between_two_holes_is_encoded_anew(model: PreparedModel) -> None:
    session = make_session(model)
    session.open(SOURCE)
    text = inserted(SOURCE, 20, "value = 0\n")
    session.update(text)
    session.compare()
    near = session.update(inserted(text, 22, "value = 1\n"))
    between = len(model.tokenizer.encode("".join(LINES[20:21])))
    assert between < near.tokens.encoded <= FRESH_BETWEEN_HOLES + 20
    check(session, near)


def test_a_long_way_between_two_holes_is_kept_and_stale(model: PreparedModel) -> None:
    session = make_session(model)
    session.open(SOURCE)
    text = inserted(SOURCE, 4, "value = 0\n")
    session.update(text)
    session.compare()
    far = session.update(inserted(text, 40, "value = 1\n"))
    assert far.tokens.encoded < 32
    assert far.tokens.stale > 200
    check(session, far)
    assert session.compare() is not None
    assert float(differences(session).max()) < 1e-4


# --- other files ---------------------------------------------------------------------------------


def test_other_files_stand_before_and_are_edited_as_well(model: PreparedModel) -> None:
    session = make_session(model)
    context = [ContextFile("lib/sizes.py", OTHER), ContextFile("b.py", "B = 1\n")]
    opened = session.open(SOURCE, context=context)
    assert opened.context == ("lib/sizes.py", "b.py")
    check(session, opened)
    cursor = session.cursor
    changed = [ContextFile("lib/sizes.py", inserted(OTHER, 3, "DEPTH = 9\n")), context[1]]
    prediction = session.update(SOURCE, context=changed)
    check(session, prediction)
    assert prediction.tokens.encoded < 24
    assert session.cursor == cursor
    assert prediction.lines_added == 0
    other = make_session(model)
    other.open(SOURCE, context=changed)
    assert prompt_ids(session) == prompt_ids(other)
    # What is not named again stays; what is named no more goes.
    assert session.update(SOURCE).context == ("lib/sizes.py", "b.py")
    assert session.update(SOURCE, context=[]).context == ()
    assert prompt_ids(session) == prompt_ids(_opened(model, SOURCE))


def _opened(model: PreparedModel, text: str) -> EditSession:
    session = make_session(model)
    session.open(text)
    return session


def test_a_long_other_file_is_cut_at_its_end(model: PreparedModel) -> None:
    session = make_session(model)
    context = [ContextFile("long.py", OTHER * 40), ContextFile("short.py", "B = 1\n")]
    prediction = session.open(SOURCE, context=context)
    check(session, prediction)
    kept = session.prompt.parts["context:long.py"].text
    assert (OTHER * 40).startswith(kept)
    assert kept.endswith("\n")
    assert 0.1 < len(model.tokenizer.encode(kept)) / WINDOW < CONTEXT_SHARE
    assert prediction.context == ("long.py", "short.py")


def test_of_many_files_the_first_ones_are_taken(model: PreparedModel) -> None:
    context = [ContextFile(f"{n}.py", OTHER) for n in range(100)]
    prediction = make_session(model).open(SOURCE, context=context)
    assert prediction.context == tuple(f"{n}.py" for n in range(len(prediction.context)))
    assert 2 <= len(prediction.context) < 10


def test_a_failure_keeps_the_context_of_the_last_call(
    model: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session(model)
    session.open(SOURCE, context=[ContextFile("b.py", "B = 1\n")])

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr("pie_cli.engine.edited.decode_line", fail)
        with pytest.raises(CacheCapacityError):
            session.update(SOURCE, context=[])
    assert session.update(SOURCE).context == ("b.py",)


# --- the window ----------------------------------------------------------------------------------


def test_a_long_file_is_cut_on_both_sides(model: PreparedModel) -> None:
    session = make_session(model, context_tokens=256)
    session.open(SOURCE)
    text = inserted(SOURCE, 24, "value = 0\n")
    prediction = session.update(text)
    check(session, prediction)
    assert prediction.window_dropped > 0
    assert prediction.window_dropped_below > 0
    edges = session.prompt.edges
    assert edges.bottom is not None
    # The line end at the cursor is in neither part.
    assert prediction.window_dropped_below == text.count("\n") - 1 - edges.bottom
    above = "".join(text.splitlines(keepends=True)[edges.top : 25]).removesuffix("\n")
    assert session.prompt.parts["prefix"].text == above


def test_without_a_middle_all_below_the_cursor_is_left_out(tiny_model: PreparedModel) -> None:
    session = make_session(replace(tiny_model, fim=None), at="9")
    prediction = session.open(SOURCE)
    assert (prediction.form, prediction.window_dropped) == ("plain", 0)
    assert prediction.window_dropped_below == SOURCE.count("\n") - 8
    assert "that do not fit" not in what_it_took(prediction)
    within = session.update(SOURCE + "x", at=Cursor(1, 4))
    assert within.window_dropped_below == SOURCE.count("\n") - 1
    at_end = session.update(SOURCE + "xy", at=Cursor(None))
    assert at_end.window_dropped_below == 0


def test_the_edges_stay_while_one_types(model: PreparedModel) -> None:
    session = make_session(model, context_tokens=256)
    session.open(SOURCE)
    text = inserted(SOURCE, 24, "value = 0\n")
    session.update(text)
    moved = 0
    for number, line in enumerate(range(25, 41)):
        assert session.prompt is not None
        edges = session.prompt.edges
        prediction = session.update(text := inserted(text, line, f"value = {number}\n"))
        check(session, prediction)
        now = session.prompt.edges
        assert now.bottom is not None
        assert edges.bottom is not None
        moved += (now.top, now.bottom) != (edges.top, edges.bottom + 1)
    assert moved <= 4


def test_a_moved_edge_costs_no_encoding(model: PreparedModel) -> None:
    session = make_session(model, context_tokens=256, at="end")
    session.open(SOURCE)
    text = SOURCE
    costs = []
    for number in range(24):
        before = session.prompt and session.prompt.edges.top
        prediction = session.update(text := text + f"size_{number} = {number}\n")
        if prediction.window_dropped != before:
            costs.append(prediction.tokens.encoded)
            assert prediction.tokens.shifted > 64
        check(session, prediction)
    assert costs
    assert max(costs) < 24


def test_one_side_gets_the_room_that_the_other_does_not_need(model: PreparedModel) -> None:
    for line in (1, 46):
        session = make_session(model, context_tokens=300)
        session.open(SOURCE)
        prediction = session.update(inserted(SOURCE, line, "value = 0\n"))
        assert prediction.tokens.total > 200
        check(session, prediction)


@pytest.mark.parametrize(
    "text",
    [
        "size = width * height + 1;" * 400,
        "a = 1\r\nb = 2\r\n" * 30,
        "a = 1\r\nb = 2\nc = 3\rd = 4\n" * 20,
        "\ufeffa = 1\nb = 2\n" * 20,
        "\tif a:\n\t\tb\n" * 20,
        "a = 1\n\f\nb = 2\v\n" * 20,
        "",
        "\n",
        "\ufeff",
        "a",
    ],
    ids=[
        "one line",
        "crlf",
        "mixed",
        "bom",
        "tabs",
        "form feeds",
        "empty",
        "blank",
        "bom only",
        "a",
    ],
)
@pytest.mark.parametrize("at", ["edit", "end", "1", "1:1"])
def test_odd_files_are_edited_like_any_other(model: PreparedModel, text: str, at: str) -> None:
    session = make_session(model, context_tokens=128, at=at)
    prediction = session.open(text)
    check(session, prediction)
    states = [text, text + "x = 1", "y = 2\n" + text, text[: len(text) // 2], text, "", text]
    for before, after in pairwise(states):
        prediction = session.update(after)
        check(session, prediction)
        begun = at == "edit" and not prediction.completes_line
        assert prediction.at.line <= after.count("\n") + 1 + begun
        if at == "edit" and after == text + "x = 1":
            assert begins_at(session, prediction).line == len((before + "x").split("\n"))


def test_a_file_that_shrinks_under_the_cursor(model: PreparedModel) -> None:
    for at in ("40", "42:3", "edit"):
        session = make_session(model, at=at, context_tokens=200)
        session.open(SOURCE)
        session.update(inserted(SOURCE, 39, "value = 0\n"))
        for text in ("".join(LINES[:5]), "", "a", SOURCE):
            prediction = session.update(text)
            check(session, prediction)
            assert prediction.at.line <= text.count("\n") + 2


# --- all together --------------------------------------------------------------------------------

EDITS = st.tuples(
    st.sampled_from(["insert", "delete", "replace", "move", "undo", "same"]),
    st.integers(0, 60),
    st.integers(1, 6),
)
STEPS = st.lists(
    st.tuples(
        EDITS,
        st.sampled_from([None] * 6 + ["end", "edit", "7", "9:6"]),
        st.sampled_from([None] * 4 + [0, 1, 2]),
        st.sampled_from(["no", "no", "whole", "half"]),
    ),
    min_size=2,
    max_size=7,
)


def edited(texts: list[str], edit: tuple[str, int, int]) -> str:
    kind, place, size = edit
    lines = texts[-1].splitlines(keepends=True)
    start = place % (len(lines) + 1)
    block = lines[start : start + size]
    if kind == "undo":
        return texts[-min(size, len(texts))]
    if kind == "insert":
        lines[start:start] = [f"value_{place} = {n}\n" for n in range(size)]
    elif kind in ("delete", "move") and len(lines) > 20:
        del lines[start : start + size]
        if kind == "move":
            lines[(place * 7) % len(lines) :][:0] = block
            lines = [*lines[:5], *block, *lines[5:]]
    elif kind == "replace":
        lines[start : start + size] = [line.replace("size", "total") for line in block]
    return "".join(lines)


def there(at: str | None, text: str) -> bool:
    lines = text.split("\n")
    return at != "9:6" or (len(lines) > 8 and len(lines[8]) >= 5)


CONTEXTS = ([], [ContextFile("o.py", OTHER)], [ContextFile("o.py", OTHER + "X = 1\n")])


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS, window=st.sampled_from([None, None, 200]), data=st.data())
def test_whatever_happens_every_claim_is_true(
    model: PreparedModel, steps: list[Any], window: int | None, data: st.DataObject
) -> None:
    """Edits, cursors, other files, windows, comparisons done and given up, in any order."""
    compare = data.draw(st.sampled_from(["full", "prefix"]))
    session = make_session(model, context_tokens=window, compare=compare, chunk_tokens=48)
    check(session, session.open(SOURCE))
    texts = [SOURCE]
    for edit, at, context, comparison in steps:
        texts.append(edited(texts, edit))
        others = None if context is None else CONTEXTS[context]
        prediction = session.update(
            texts[-1], at=at if there(at, texts[-1]) else None, context=others
        )
        check(session, prediction)
        if comparison == "whole":
            found = session.compare()
            assert found is not None
            assert float(differences(session).max()) < 1e-4
        elif comparison == "half":
            looks = iter([False] * data.draw(st.integers(1, 5)) + [True] * 99)
            session.compare(lambda looks=looks: next(looks))
            check_claim(session)


def check_claim(session: EditSession) -> None:
    exact = differences(session)[: session.stale_from]
    assert not len(exact) or float(exact.max()) < 1e-3


# --- what comes back -----------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["end", "20", "edit"])
def test_a_text_that_comes_back_is_restored_exactly(model: PreparedModel, at: str) -> None:
    session = make_session(model, at=at)
    session.open(SOURCE)
    text = inserted(SOURCE, 4, "import sys\n" * 4)
    for _ in range(2):
        for state in (text, SOURCE):
            prediction = session.update(state)
            check(session, prediction)
            session.compare()
    # By now both were seen twice, with the hole where each of the two edits puts it.
    for state in (text, SOURCE):
        prediction = session.update(state)
        check(session, prediction)
        assert prediction.exact
        assert prediction.tokens.restored <= prediction.tokens.reused
        assert prediction.tokens.encoded < 16
        assert at != "end" or prediction.tokens.restored > 200


def test_what_is_not_the_same_left_context_is_not_restored(model: PreparedModel) -> None:
    """The control: the text behind another beginning is not the text that came back."""
    session = make_session(model, at="end")
    session.open(SOURCE)
    session.update(inserted(SOURCE, 4, "import sys\n"))
    session.compare()
    prediction = session.update(inserted(SOURCE, 4, "import re\n"))
    check(session, prediction)
    assert prediction.tokens.restored < 64
    assert not prediction.exact


def test_copies_are_bounded_and_counted(
    model: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pie_cli.engine.edited.MIN_SNAPSHOT_BYTES", 0)
    session = make_session(model)
    session.open(SOURCE)
    assert session.engine is not None
    cache_bytes = session.engine.slots.memory_bytes
    assert cache_bytes < session.cache_bytes
    for number in range(12):
        check(session, session.update(inserted(SOURCE, 4, f"import a{number}\n" * number)))
        session.compare()
        slots, parked = session.engine.slots, len(session.engine.parked)
        assert parked <= slots.capacity
        held = session.cache_bytes - parked * slots.token_bytes
        assert held <= slots.memory_bytes + cache_bytes


def test_the_other_strategies_restore_nothing(model: PreparedModel) -> None:
    for strategy in ("full", "prefix", "cfe"):
        session = make_session(model, at="end", strategy=strategy)
        session.open(SOURCE)
        session.update(inserted(SOURCE, 4, "import sys\n"))
        session.compare()
        assert session.update(SOURCE).tokens.restored == 0


def test_without_memory_for_copies_nothing_is_lost(
    model: PreparedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("pie_cli.engine.slots.SlotCache.take", fail)
    session = make_session(model)
    session.open(SOURCE)
    check(session, session.update(inserted(SOURCE, 4, "import sys\n")))
    assert session.compare() is not None
