"""Stopwatch and statistics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli import timing
from pie_cli.timing import Stopwatch, median, p95, percentile, spread


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless a test moves it."""
    now = [100.0]
    monkeypatch.setattr(timing, "perf_counter", lambda: now[0])
    return now


def test_durations_add_up_by_name(clock: list[float]):
    watch = Stopwatch(started_at=100.0)
    for seconds in (0.5, 0.25):
        with watch.measure("forward"):
            clock[0] += seconds
    watch.add("diff", 3.0)
    assert watch.durations_ms == {"forward": 750.0, "diff": 3.0}
    assert watch.total_ms() == 750.0
    assert watch.total_ms(at=100.5) == 500.0


def test_a_body_that_raises_is_measured_too(clock: list[float]):
    watch = Stopwatch(started_at=100.0)

    def fail() -> None:
        with watch.measure("forward"):
            clock[0] += 1.0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert watch.durations_ms == {"forward": 1000.0}


def test_the_device_is_waited_for_before_each_reading(clock: list[float]):
    def finish() -> None:
        clock[0] += 0.125

    watch = Stopwatch(synchronise=finish, started_at=100.0)
    with watch.measure("forward"):
        pass
    assert watch.durations_ms == {"forward": 125.0}


def test_percentiles_interpolate():
    values = [4.0, 1.0, 3.0, 2.0]
    assert median(values) == 2.5
    assert percentile(values, 0) == 1.0
    assert percentile(values, 100) == 4.0
    assert percentile(values, 50) == 2.5
    assert p95(values) == pytest.approx(3.85)
    assert spread([7.0]) == timing.Spread(7.0, 7.0)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_lies_among_the_values(values: list[float], percent: float):
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= percentile(values, percent) <= max(values) + slack


@pytest.mark.parametrize("function", [median, p95, spread])
def test_no_values_are_an_error(function):
    with pytest.raises(ValueError, match="no values"):
        function([])


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_percentage_has_its_range(percent: float):
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile([1.0], percent)
