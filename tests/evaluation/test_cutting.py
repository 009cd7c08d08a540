"""Both prompts of a case begin at the same line and fit the budget."""

from dataclasses import replace

import pytest

from pie_cli.editable import PreparedModel
from pie_cli.errors import CacheCapacityError
from pie_cli.evaluation.cutting import cut, prompt_budget, window

LINES = [f"value_{n} = width_{n} * {n}\n" for n in range(60)]
TEXT = "".join(LINES)


def edited(at: int, removed: int = 0, added: int = 0) -> str:
    new = [f"added_{n} = {n}\n" for n in range(added)]
    return "".join([*LINES[:at], *new, *LINES[at + removed :]])


def test_texts_that_fit_are_whole(tiny_model: PreparedModel):
    after = edited(50, added=2)
    pair = cut(tiny_model, "a.py", TEXT, after, 1_024)
    encode = tiny_model.tokenizer.encode
    head = len(pair.after) - len(encode(after))
    assert pair.before[:head] == pair.after[:head]
    assert pair.before[head:] == encode(TEXT)
    assert not pair.truncated
    assert not pair.outside


@pytest.mark.parametrize("budget", [80, 120, 300])
@pytest.mark.parametrize(("removed", "added"), [(0, 3), (3, 0), (2, 5)])
def test_longer_texts_lose_whole_lines_at_the_same_place(
    tiny_model: PreparedModel, budget: int, removed: int, added: int
):
    after = edited(57, removed, added)
    pair = cut(tiny_model, "a.py", TEXT, after, budget)
    assert max(len(pair.before), len(pair.after)) <= budget
    assert pair.truncated
    head = tiny_model.tokenizer.decode(pair.after).split("\n")[0] + "\n"
    old, new = (
        tiny_model.tokenizer.decode(ids).removeprefix(head) for ids in (pair.before, pair.after)
    )
    assert TEXT.endswith("\n" + old)
    assert after.endswith("\n" + new)
    if budget > 100:
        # Not a line less than there is room for, and both begin with the same one.
        assert max(len(pair.before), len(pair.after)) > budget - 25
        assert old.split("\n")[0] == new.split("\n")[0]


def test_an_edit_above_the_window_is_outside(tiny_model: PreparedModel):
    assert cut(tiny_model, "a.py", TEXT, edited(3, added=2), 120).outside
    assert not cut(tiny_model, "a.py", TEXT, edited(3, added=2), 1_024).outside
    assert not cut(tiny_model, "a.py", TEXT, edited(58, added=2), 120).outside


def test_a_line_longer_than_the_window_is_cut_within(tiny_model: PreparedModel):
    line = "x = " + " + ".join(f"name_{n}" for n in range(200)) + "\n"
    pair = cut(tiny_model, "a.py", line, line.replace("name_198", "name"), 64)
    assert len(pair.before) == len(pair.after) == 64
    assert pair.truncated


def test_no_text_before_the_spot_leaves_the_head(tiny_model: PreparedModel):
    pair = cut(tiny_model, "a.py", "a = 1\n", "", 64)
    assert 0 < len(pair.after) < len(pair.before)


def test_a_budget_keeps_room_for_the_line(tiny_model: PreparedModel):
    loaded = tiny_model.loaded
    assert prompt_budget(loaded, 256, 64) == 256
    assert prompt_budget(loaded, loaded.window, 64) == loaded.window - 64
    with pytest.raises(CacheCapacityError, match="exceeds the window"):
        prompt_budget(loaded, loaded.window + 1, 64)
    with pytest.raises(CacheCapacityError, match="no room for text"):
        prompt_budget(replace(loaded, window=64), 32, 64)


def test_a_window_stays_while_the_text_fits_and_then_moves_far(tiny_model: PreparedModel):
    encode = tiny_model.tokenizer.encode
    ids, edge = window(encode, LINES[:10], 0, 400)
    assert (ids, edge) == (encode("".join(LINES[:10])), 0)
    edges = []
    for stop in range(10, 60):
        ids, edge = window(encode, LINES[:stop], edge, 400)
        assert len(ids) <= 400
        assert ids == encode("".join(LINES[edge:stop]))
        edges.append(edge)
    assert edges == sorted(edges)
    assert 2 <= len(set(edges)) <= 8


def test_a_window_reaches_back_when_little_text_is_left_before_the_spot(
    tiny_model: PreparedModel,
):
    encode = tiny_model.tokenizer.encode
    ids, edge = window(encode, LINES[:40], 38, 400)
    assert edge < 30
    assert 0.5 * 400 < len(ids) <= 0.75 * 400
    assert window(encode, LINES[:40], 0, 4)[0] == encode(LINES[39])[-4:]
