"""A second look: in doubt a line is decided again, from more exact tokens, and says what it was."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pie_cli.cli.documents import prediction_document
from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.plan.pace import Pace
from pie_cli.plan.plan import align
from pie_cli.plan.repair import AGAIN_TOKENS
from pie_cli.planner import Planner
from pie_cli.results import Prediction
from pie_cli.session import EditSession
from tests.conftest import SOURCE
from tests.sessions import EXACT, check, differences
from tests.test_session import inserted, random_edit

ALL = "pie+again:4096"
EDITED = inserted(SOURCE, 4, "import sys\n")


@pytest.fixture
def doubting(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the margin below which a token is in doubt."""
    return lambda margin: monkeypatch.setattr("pie_cli.planner.DOUBT", margin)


def opened(model: PreparedModel, strategy: str, **settings: Any) -> EditSession:
    options = {"at": "end", "max_tokens": 12, **settings}
    session = EditSession(model, "area.py", Settings(strategy=strategy, **options))
    session.open(SOURCE)
    return session


def predicts(session: EditSession) -> list[int]:
    """Count, from now on, the tokens that each plan of a session encodes."""
    counts: list[int] = []
    engine = session.engine
    assert engine is not None
    predict = engine.predict

    def counting(plan: Any, *args: Any) -> Any:
        counts.append(plan.encoded)
        return predict(plan, *args)

    engine.predict = counting  # type: ignore[method-assign]
    return counts


def saves(count: int) -> list[str]:
    rng, text, texts = random.Random(7), SOURCE, []
    for _ in range(count):
        text = random_edit(text, rng)
        texts.append(text)
    return texts


def test_with_all_stale_tokens_repaired_it_is_full_recomputes_line(
    tiny_model: PreparedModel, doubting: Callable[[float], None]
) -> None:
    """The control: without a second look some of these lines are others."""
    doubting(math.inf)
    looking, plain = opened(tiny_model, ALL), opened(tiny_model, "pie")
    differ = corrected = 0
    for text in saves(10):
        found, blind = looking.update(text), plain.update(text)
        full = opened(tiny_model, "full").update(text)
        assert (found.token_ids, found.stopped_by) == (full.token_ids, full.stopped_by)
        assert found.exact
        assert found.margins == pytest.approx(full.margins, abs=1e-3)
        check(looking, found)
        assert float(differences(looking).max()) < EXACT
        differ += blind.token_ids != full.token_ids
        corrected += found.first is not None
    assert differ
    assert corrected


@pytest.mark.parametrize("at", ["end", "edit", "20"])
def test_random_saves_keep_every_claim(
    tiny_model: PreparedModel, doubting: Callable[[float], None], at: str
) -> None:
    doubting(math.inf)
    session = opened(tiny_model, "pie+seam:4+tail:8+again:24", at=at, chunk_tokens=64, max_tokens=4)
    for save, text in enumerate(saves(12)):
        prediction = session.update(text)
        check(session, prediction)
        assert prediction.tokens.repaired <= prediction.tokens.encoded
        if save % 3 == 2:
            chunks = iter([False] * (save % 4))
            session.compare(lambda chunks=chunks: next(chunks, True))
            assert float(differences(session)[: session.stale_from].max()) < EXACT


def test_a_clear_line_costs_nothing_more(
    tiny_model: PreparedModel, doubting: Callable[[float], None]
) -> None:
    doubting(-math.inf)
    looking, plain = opened(tiny_model, ALL), opened(tiny_model, "pie")
    counts = predicts(looking)
    found, expected = looking.update(EDITED), plain.update(EDITED)
    assert counts == [expected.tokens.encoded]
    assert (found.token_ids, found.margins, found.tokens) == (
        expected.token_ids,
        expected.margins,
        expected.tokens,
    )
    assert found.first is None


def test_nothing_stale_is_worth_no_second_look(
    tiny_model: PreparedModel, doubting: Callable[[float], None]
) -> None:
    doubting(math.inf)
    session = opened(tiny_model, ALL)
    counts = predicts(session)
    assert session.update(SOURCE + "size = 1\n").exact
    assert len(counts) == 1


def test_a_second_look_takes_its_budget(
    tiny_model: PreparedModel, doubting: Callable[[float], None]
) -> None:
    """Little of what is stale: before the cursor; most of it: after the edit, exact then."""
    doubting(math.inf)
    plain = opened(tiny_model, "pie").update(EDITED)
    most = math.ceil(0.8 * plain.tokens.stale)
    for budget, exact in ((24, 0), (most, most)):
        looking = opened(tiny_model, f"pie+again:{budget}")
        counts = predicts(looking)
        found = looking.update(EDITED)
        check(looking, found)
        assert counts == [plain.tokens.encoded, budget + 1]
        assert found.tokens.repaired == budget
        assert found.tokens.encoded == plain.tokens.encoded + budget
        assert found.tokens.reused == plain.tokens.reused - budget
        assert found.tokens.stale == plain.tokens.stale - exact


def test_what_was_corrected_is_told(
    tiny_model: PreparedModel, doubting: Callable[[float], None]
) -> None:
    doubting(math.inf)
    told = 0
    for text in saves(10):
        session, plain = opened(tiny_model, ALL), opened(tiny_model, "pie")
        found, blind = session.update(text), plain.update(text)
        document = prediction_document("area.py", tiny_model, found)
        assert document["final"] == found.text
        if found.token_ids[0] == blind.token_ids[0]:
            # Of the first look no more was said than this token.
            assert document["first"] == found.text
        else:
            # A character of which the first token has only the first byte is none yet.
            assert blind.text.startswith(document["first"].rstrip("\ufffd"))
            told += document["first"] != found.text
    assert told


def test_a_newer_save_is_not_kept_waiting(
    tiny_model: PreparedModel, doubting: Callable[[float], None]
) -> None:
    doubting(math.inf)
    session = opened(tiny_model, ALL)
    counts = predicts(session)
    stopped = session.update(EDITED, should_stop=lambda: True)
    assert (stopped.stopped_by, len(counts)) == ("interrupted", 1)
    check(session, stopped)
    assert session.update(EDITED).exact


def test_what_there_is_time_for_follows_the_pace(
    tiny_model: PreparedModel, doubting: Callable[[float], None]
) -> None:
    """A machine on which tokens are dear repairs few; one on which they are cheap, all."""
    doubting(math.inf)
    found: list[Prediction] = []
    for token_ms in (100.0, 0.01, None):
        model = replace(tiny_model, pace=Pace())
        session = opened(model, "pie+again:1" if token_ms is None else "pie+again")
        if token_ms is None:
            # Where nothing is known of the machine, a fixed number.
            session = session.fork("pie+again")
        else:
            model.pace.learn((1, 64), (10 + token_ms, 10 + 64 * token_ms))
        found.append(session.update(EDITED))
    dear, cheap, unknown = (prediction.tokens.repaired for prediction in found)
    assert 0 < dear < unknown == AGAIN_TOKENS < cheap
    assert found[1].exact


def paced(model: PreparedModel, token_ms: float, base_ms: float = 10.0) -> PreparedModel:
    """Return a model on a machine of this pace."""
    pace = Pace()
    pace.learn((1, 64), (base_ms + token_ms, base_ms + 64 * token_ms))
    return replace(model, pace=pace)


def test_a_line_that_its_draft_says_whole_is_left_as_it_is(
    tiny_model: PreparedModel, doubting: Callable[[float], None]
) -> None:
    """A pass more would double its time; only one that is asked for by number is taken."""
    for strategy, left in (("pie+again", True), ("pie+again:24", False)):
        doubting(-math.inf)
        session = opened(paced(tiny_model, 0.01), strategy)
        said = session.update(EDITED)
        doubting(math.inf)
        found = session.update(EDITED)
        assert ((found.token_ids, found.passes) == (said.token_ids, 1)) == left
        assert (found.tokens.repaired == 0) == left
        assert found.tokens.stale > 0


def test_a_draft_that_is_wrong_in_the_end_leaves_the_line_in_doubt(
    tiny_model: PreparedModel, doubting: Callable[[float], None]
) -> None:
    doubting(-math.inf)
    session = opened(paced(tiny_model, 0.01), "pie+again")
    said = session.update(EDITED)
    state = session._state
    assert state is not None
    state.draft = (*said.token_ids[:-2], (said.token_ids[-2] + 1) % 300, said.token_ids[-1])
    doubting(math.inf)
    assert session.update(EDITED).exact


def test_a_finished_line_is_decided_again_where_there_is_time_for_some_tokens(
    tiny_model: PreparedModel,
) -> None:
    """An unfinished one in any case: the second look takes the place of a pass."""
    settings = Settings(strategy="pie+again")
    for token_ms, looks in ((100.0, False), (0.1, True)):
        model = paced(tiny_model, token_ms)
        session = opened(model, "pie+again")
        engine, prompt, state = session.engine, session.prompt, session._state
        assert engine is not None
        assert prompt is not None
        assert state is not None
        plan = engine.plan("pie", align(prompt.token_ids, prompt.token_ids))
        line = engine.predict(plan, prompt.token_ids, state.decoding)
        assert line.passes > 1
        planner = Planner(model, settings)
        finished = planner.second_look(engine, plan, 10, 0, line)
        assert (finished is not None) == looks
        unfinished = replace(line, stopped_by="doubt")
        assert planner.second_look(engine, plan, 10, 0, unfinished) is not None


def test_beside_the_last_line_less_is_repaired(tiny_model: PreparedModel) -> None:
    """For that line may come out of the pass whole, and the pass is then all that it takes."""
    model = paced(tiny_model, 10.0, 1000.0)
    drafted, fresh = opened(model, "pie+tail"), opened(model, "pie+tail")
    model.pace.observe = lambda *_: None  # type: ignore[method-assign]
    fresh.prime(SOURCE, at=fresh.cursor)
    few, many = drafted.update(EDITED).tokens, fresh.update(EDITED).tokens
    assert few.encoded - few.repaired == many.encoded - many.repaired
    assert 0 < few.repaired < many.repaired
