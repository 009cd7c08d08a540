"""Every case is one process's, whatever their number."""

import builtins

import pytest

from pie_cli.errors import PieError
from pie_cli.evaluation.runs.sharing import Team, join_team


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_cover_all_items_once_and_keep_their_numbers(size: int):
    items = [f"case {n}" for n in range(10)]
    shares = [Team(rank, size, rank).share(items) for rank in range(size)]
    assert sorted(pair for share in shares for pair in share) == list(enumerate(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_is_a_team_of_its_own(monkeypatch: pytest.MonkeyPatch):
    for started in (None, "1"):
        monkeypatch.setenv("WORLD_SIZE", started) if started else monkeypatch.delenv(
            "WORLD_SIZE", raising=False
        )
        team = join_team("auto")
        assert team.leads
        assert team.device("auto") == "auto"
        assert team.gather([1]) == [1]
        team.wait()
        team.close()


def test_each_process_has_its_gpu_and_keeps_a_device_that_was_named(
    monkeypatch: pytest.MonkeyPatch,
):
    team = Team(rank=3, size=4, local_rank=1)
    assert not team.leads
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert team.device("auto") == team.device("cuda") == "cuda:1"
    assert team.device("cpu") == "cpu"
    assert team.device("cuda:0") == "cuda:0"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert team.device("auto") == "auto"


def test_several_processes_without_accelerate_are_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
):
    real = builtins.__import__

    def without(name: str, *arguments, **keywords):
        if name.split(".", maxsplit=1)[0] == "accelerate":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PieError, match="needs accelerate") as caught:
        join_team("cpu")
    assert "pie-cli[eval]" in caught.value.remedy
