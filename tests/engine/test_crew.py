"""Threads give way to other programs, and come back: on clocks that the test sets."""

import pytest
import torch
from torch import nn

from pie_cli.engine import crew
from pie_cli.engine.crew import Crew


class Machine:
    """Processors of which other programs take some; time passes when a test says so."""

    def __init__(self, threads: int) -> None:
        self.now = self.used = 0.0
        self.taken: list[int] = []
        self.crew = Crew(threads, self.taken.append, lambda: self.now, lambda: self.used)

    def compute(self, seconds: float, lacking: float = 0.0) -> None:
        """Let a layer take some time, in which `lacking` processors are somebody else's."""
        self.now += seconds
        self.used += seconds * (self.crew.size - lacking)
        self.crew.give_way()


def test_all_compute_while_nobody_else_does() -> None:
    machine = Machine(2)
    for _ in range(3):
        machine.crew.begin()
        for _ in range(30):
            machine.compute(0.004)
    assert machine.taken == []


def test_a_few_milliseconds_of_sleep_are_nobody_elses() -> None:
    machine = Machine(2)
    machine.crew.begin()
    machine.compute(0.007, lacking=1)
    machine.compute(0.004)
    assert machine.crew.size == 2


def test_in_a_long_pass_a_small_part_is_nobody_elses() -> None:
    machine = Machine(2)
    machine.crew.begin()
    for _ in range(10):
        machine.compute(1.0, lacking=0.2)
    assert machine.crew.size == 2


@pytest.mark.parametrize(
    ("threads", "lacking", "left"),
    [(2, 0.5, 1), (2, 1.0, 1), (8, 0.5, 7), (8, 2.5, 5), (2, 2.0, 1)],
)
def test_what_others_take_is_left_to_them(threads: int, lacking: float, left: int) -> None:
    machine = Machine(threads)
    machine.crew.begin()
    machine.compute(0.02, lacking)
    assert machine.taken == [left]
    assert machine.crew.size == left


def test_fewer_and_fewer_where_that_is_not_enough() -> None:
    machine = Machine(4)
    machine.crew.begin()
    for _ in range(5):
        machine.compute(0.02, lacking=0.5)
    assert machine.taken == [3, 2, 1]


def test_all_come_back_after_a_second() -> None:
    machine = Machine(2)
    machine.crew.begin()
    machine.compute(0.02, lacking=1)
    machine.now += 0.9
    machine.crew.begin()
    assert machine.crew.size == 1
    machine.now += 0.2
    machine.crew.begin()
    assert machine.taken == [1, 2]


def test_all_come_back_within_a_long_pass() -> None:
    machine = Machine(2)
    machine.crew.begin()
    machine.compute(0.02, lacking=1)
    machine.compute(1.1)
    assert machine.taken == [1, 2]


def test_what_took_long_to_notice_is_not_tried_often() -> None:
    machine = Machine(2)
    machine.crew.begin()
    machine.compute(0.5, lacking=1)
    machine.compute(4.0)
    assert machine.crew.size == 1
    machine.compute(1.1)
    assert machine.crew.size == 2


class Stack(nn.Module):
    """Two layers, on a processor."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity(), nn.Identity()])

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            states = layer(states)
        return states


@pytest.fixture
def engaged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a crew was told."""
    told: list[str] = []

    class Listening(Crew):
        def begin(self) -> None:
            told.append("begin")

        def give_way(self) -> None:
            told.append("give way")

    monkeypatch.setattr(crew, "_crew", Listening(2, lambda _: None))
    return told


def test_a_model_asks_before_each_layer(engaged: list[str]) -> None:
    model = Stack()
    crew.follow(model)  # type: ignore[arg-type]
    model(torch.zeros(1))
    assert engaged == ["begin", "give way", "give way"]


def test_all_are_engaged_where_nobody_has_done_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_crew", None)
    monkeypatch.setattr(crew, "threads_spin", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    crew.follow(Stack())  # type: ignore[arg-type]
    assert crew.threads() == 4


def test_without_a_crew_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_crew", None)
    model = Stack()
    crew.follow(model)  # type: ignore[arg-type]
    assert not model._forward_pre_hooks
    crew.begin()
    crew.give_way()


@pytest.mark.parametrize(
    ("spins", "asked", "size"), [(True, 3, 3), (False, 3, 3), (False, None, 1)]
)
def test_as_many_threads_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, spins: bool, asked: int | None, size: int
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(crew, "_crew", None)
    monkeypatch.setattr(crew, "threads_spin", lambda: spins)
    monkeypatch.setattr(crew, "threads_for", lambda cores, asked: asked or 1)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: taken[-1] if taken else 4)
    crew.engage(asked)
    assert taken == [size] == [crew.threads()]
    assert (crew._crew is not None) is spins


def test_how_many_compute_does_not_depend_on_others_for_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(2)
    monkeypatch.setattr(crew, "_crew", machine.crew)
    machine.compute(0.02, lacking=1)
    assert (crew.threads(), machine.crew.size) == (2, 1)
    monkeypatch.setattr(crew, "threads_spin", lambda: True)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    crew.engage(None)
    assert crew.threads() == 2
