"""Bootstrap intervals cover what they should, and are the same on each call."""

import numpy as np
import pytest

from pie_cli.evaluation.report.intervals import interval


def ones(values) -> list[int]:
    return [1] * len(values)


def test_an_interval_holds_the_mean_and_is_the_same_again():
    values = [0.0, 100.0] * 60
    low, high = interval(values, ones(values), seed=3)
    assert low < 50 < high
    assert (low, high) == interval(values, ones(values), seed=3)
    assert (low, high) != interval(values, ones(values), seed=4)


def test_intervals_cover_the_true_mean_in_about_95_of_100_samples():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        sample = generator.random(80).tolist()
        low, high = interval(sample, ones(sample), seed=0)
        covered += low <= 0.5 <= high
    assert 180 <= covered <= 200


def test_values_that_are_all_equal_leave_no_doubt():
    assert interval([100.0] * 20, ones([0] * 20), seed=0) == (100.0, 100.0)


def test_saves_of_one_session_count_as_one_draw():
    """Fifty equal values each of two clusters: far less certain than a hundred values."""
    low, high = interval([0.0, 50.0], [50, 50], seed=0)
    assert (low, high) == (0.0, 1.0)
    alone = interval([0.0] * 50 + [1.0] * 50, [1] * 100, seed=0)
    assert alone[1] - alone[0] < 0.25


def test_paired_differences_are_surer_than_what_they_are_differences_of():
    generator = np.random.default_rng(1)
    first = generator.normal(0, 10, 60)
    second = first + 1 + generator.normal(0, 0.1, 60)
    paired = interval((second - first).tolist(), [1] * 60, seed=0)
    alone = interval(second.tolist(), [1] * 60, seed=0)
    assert 0.9 < paired[0] < paired[1] < 1.1
    assert alone[1] - alone[0] > 20 * (paired[1] - paired[0])


def test_nothing_has_no_interval():
    with pytest.raises(ValueError, match="0 sums"):
        interval([], [], seed=0)
    with pytest.raises(ValueError, match="2 sums of 1"):
        interval([1.0, 2.0], [1], seed=0)
