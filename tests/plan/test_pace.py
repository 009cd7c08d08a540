"""A pace tells what passes cost here, and how many tokens fit into a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.plan.pace import PROBES, Pace


def learned(base_ms: float, token_ms: float) -> Pace:
    pace = Pace()
    pace.learn(PROBES, [base_ms + tokens * token_ms for tokens in PROBES])
    return pace


@given(st.floats(0.1, 1e3), st.floats(1e-3, 50), st.integers(1, 5_000))
def test_passes_are_read_off_the_line(base_ms: float, token_ms: float, tokens: int) -> None:
    found = learned(base_ms, token_ms).pass_ms(tokens)
    assert found == pytest.approx(base_ms + tokens * token_ms, rel=1e-6, abs=0.01)


@given(st.integers(0, 500), st.integers(1, 400))
def test_what_there_is_room_for_takes_the_time_asked_for(latency_ms: int, needed: int) -> None:
    """Or twice what must run takes, where that is longer."""
    pace = learned(20.0, 0.5)
    limit = max(latency_ms, 2 * pace.pass_ms(needed))
    room = pace.room(latency_ms, needed)
    assert pace.pass_ms(needed + room) <= limit + 1e-6 < pace.pass_ms(needed + room + 1) + 1e-3


def test_a_busy_machine_has_less_room_until_it_is_quiet_again() -> None:
    pace = learned(20.0, 0.5)
    quiet = pace.room(100, 10)
    for _ in range(20):
        pace.observe(10, 3 * 25.0)
    assert pace.pass_ms(10) == pytest.approx(75, rel=0.02)
    assert pace.room(100, 10) < quiet / 2
    for _ in range(30):
        pace.observe(10, 25.0)
    assert pace.room(100, 10) == pytest.approx(quiet, rel=0.05)


def test_passes_over_many_tokens_take_the_time_asked_for_in_the_end() -> None:
    """Though a token costs twice as much there as in the passes that were measured first."""
    pace = learned(10.0, 0.15)

    def take(tokens: int) -> float:
        return 10 + 0.15 * min(tokens, 64) + 0.3 * max(0, tokens - 64)

    assert take(10 + pace.room(100, 10)) > 150
    for _ in range(12):
        for tokens in (10 + pace.room(100, 10), 10):
            pace.observe(tokens, take(tokens))
    assert take(10 + pace.room(100, 10)) == pytest.approx(100, rel=0.1)
    assert pace.pass_ms(10) == pytest.approx(take(10), rel=0.2)


def test_one_stalled_pass_is_no_reason_to_repair_nothing() -> None:
    pace = learned(20.0, 0.5)
    pace.observe(10, 60_000.0)
    assert pace.pass_ms(10) < 3 * 25.0


def test_before_anything_was_measured_nothing_is_known() -> None:
    pace = Pace()
    pace.observe(10, 25.0)
    assert not pace.known


def test_where_tokens_cost_nothing_there_is_room_for_all() -> None:
    pace = Pace()
    pace.learn(PROBES, [5.0, 4.9])
    assert pace.room(100, 10) > 100_000


def test_a_pass_that_may_be_the_whole_line_has_less_room() -> None:
    """Half as much as it takes itself where that is long, else what was asked for."""
    pace = learned(20.0, 0.5)
    assert pace.room(100, 10, is_drafted=True) == pace.room(100, 10)
    needed = 400
    room = pace.room(100, needed, is_drafted=True)
    assert 0 < room < pace.room(100, needed)
    assert pace.pass_ms(needed + room) == pytest.approx(1.5 * pace.pass_ms(needed), abs=0.5)


@given(st.integers(1, 500), st.integers(0, 100), st.floats(0.01, 5), st.integers(1, 12))
def test_all_repair_of_a_line_takes_as_long_as_the_line_without(
    needed: int, repaired: int, token_ms: float, passes: int
) -> None:
    """One of its passes is over what must run; one more, of a second look, counts as repair."""
    pace = learned(20.0, token_ms)
    line = pace.pass_ms(needed) + (passes - 1) * pace.pass_ms(1)
    for more in (0, 1):
        room = pace.room_again(needed, repaired, passes, more)
        extra = more * pace.pass_ms(0) + pace.pass_ms(repaired + room) - pace.pass_ms(0)
        assert extra <= max(line, more * pace.pass_ms(0) + repaired * token_ms) + 1e-3
        assert extra + token_ms + 1e-3 >= line
