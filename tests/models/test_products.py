"""Tests for measuring what bfloat16 brings on a CPU."""

import pytest

from pie_cli.models import products
from pie_cli.models.products import ROWS, bfloat16_gains


def test_there_is_a_gain_for_each_number_of_rows():
    gains = bfloat16_gains()
    assert len(gains) == len(ROWS)
    assert min(gains) > 0


def test_one_thread_measures_and_all_are_there_afterwards(monkeypatch: pytest.MonkeyPatch):
    taken: list[int] = []
    monkeypatch.setattr(products.torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(products.torch, "set_num_threads", taken.append)
    bfloat16_gains()
    assert taken == [1, 4]


def test_a_gain_is_the_time_of_float32_over_that_of_bfloat16(monkeypatch: pytest.MonkeyPatch):
    times = iter([[3.0, 1.0], [1.0, 2.0], [1.0, 1.0]])
    monkeypatch.setattr(products, "_times", lambda *_products: next(times))
    assert bfloat16_gains() == (3.0, 0.5, 1.0)


def test_times_are_the_smallest_of_each_after_the_first_round(monkeypatch: pytest.MonkeyPatch):
    spent = [0.1, 0.1, 5.0, 4.0, 3.0, 6.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]
    clock = iter([time for one in spent for time in (0.0, one)])
    monkeypatch.setattr(products, "perf_counter", lambda: next(clock))
    assert products._times(lambda: None, lambda: None) == [3.0, 4.0]
