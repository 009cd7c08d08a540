"""A cursor that jumps: what was below it comes back at the cost of an edit, stale and said so."""

import random
from dataclasses import replace
from typing import Any

import pytest

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.session import EditSession
from tests.conftest import SOURCE
from tests.sessions import EXACT, check, differences
from tests.test_session import inserted, random_edit

LINES = SOURCE.count("\n")


@pytest.fixture(scope="module")
def plain_model(tiny_model: PreparedModel) -> PreparedModel:
    """One that fills in no middle: its prompts end at the cursor."""
    return replace(tiny_model, fim=None)


def opened(model: PreparedModel, at: str, **settings: Any) -> EditSession:
    options = {"strategy": "pie+seam:4", "max_tokens": 4, **settings}
    session = EditSession(model, "area.py", Settings(at=at, **options))
    session.open(SOURCE)
    return session


def test_a_jump_up_an_edit_and_a_jump_down_encode_what_changed(plain_model: PreparedModel) -> None:
    """The control: without the parked text the jump down encodes all that is below the edit."""
    text = inserted(SOURCE, 8, "    # a word about the next one\n")
    encoded = []
    for parks in (True, False):
        session = opened(plain_model, f"{LINES - 3}")
        check(session, session.update(SOURCE, at="6"))
        check(session, session.update(text, at="10"))
        if not parks:
            assert session.engine is not None
            session.engine._parked = None  # type: ignore[attr-defined]
        down = session.update(text, at=f"{LINES - 3}")
        check(session, down)
        encoded.append(down.tokens.encoded)
        assert not parks or down.tokens.stale > 0.5 * down.tokens.total
    assert encoded[0] < 0.1 * encoded[1]


def test_a_line_that_is_parked_too_is_no_reason_to_leave_anything_stale(
    plain_model: PreparedModel,
) -> None:
    """New text has one line of the parked: too little to give up an exact answer for."""
    session = opened(plain_model, f"{LINES - 3}")
    session.update(SOURCE, at="6")
    above = "".join(SOURCE.splitlines(keepends=True)[:5])
    new = "".join(f"total_{n} = {n} * {n + 1}\n" for n in range(30))
    text = above + new + "def area_11(width, height):\n" + new
    assert session.engine is not None
    assert session.engine.parked
    prediction = session.update(text, at=f"{text.count(chr(10)) + 1}")
    check(session, prediction)
    assert prediction.exact


def test_a_jump_down_is_exact_after_a_comparison(plain_model: PreparedModel) -> None:
    session = opened(plain_model, f"{LINES - 3}")
    session.update(SOURCE, at="6")
    text = inserted(SOURCE, 4, "import sys\n")
    session.update(text, at="8")
    down = session.update(text, at=f"{LINES - 3}")
    assert not down.exact
    comparison = session.compare()
    assert comparison is not None
    assert session.exact
    assert float(differences(session).max()) < EXACT
    assert (
        comparison.token_ids == opened(plain_model, "1").update(text, at=session.cursor).token_ids
    )


@pytest.mark.parametrize("strategy", ["pie+seam:4", "pie+seam:4+tail:8+again:24"])
@pytest.mark.parametrize("context_tokens", [None, 320])
def test_random_saves_with_jumps_and_breaks_keep_every_claim(
    plain_model: PreparedModel,
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    context_tokens: int | None,
) -> None:
    monkeypatch.setattr("pie_cli.planner.DOUBT", float("inf"))
    rng, text = random.Random(11), SOURCE
    session = opened(
        plain_model, "20", strategy=strategy, context_tokens=context_tokens, chunk_tokens=64
    )
    came_back = 0
    for _ in range(30):
        text = random_edit(text, rng)
        parked = len(session.engine.parked) if session.engine else 0
        at = f"{rng.randint(1, text.count(chr(10)))}" if rng.random() < 0.5 else None
        check(session, session.update(text, at=at))
        came_back += bool(session.engine and len(session.engine.parked) < parked)
        if rng.random() < 0.5:
            chunks = iter([False] * rng.randint(0, 3))
            session.compare(lambda chunks=chunks: next(chunks, True))
            exact = differences(session)[: session.stale_from]
            assert not len(exact) or float(exact.max()) < EXACT
    assert came_back
