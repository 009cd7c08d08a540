"""What is proposed followed the same tokens before, and its length follows what was right."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pie_cli.plan.drafts import MOST, LookUp

IDS = st.lists(st.integers(0, 5), max_size=60)


def slow(prompt: Sequence[int], text: Sequence[int], length: int) -> tuple[int, ...]:
    """The same, by trying every place."""
    for size in range(min(4, len(text)), 1, -1):
        needle = list(text[-size:])
        for start in range(len(prompt) - size - 1, -1, -1):
            if list(prompt[start : start + size]) == needle:
                return tuple(prompt[start + size : start + size + length])
    return ()


@given(IDS, IDS, IDS)
def test_the_longest_match_that_is_last_decides(
    prompt: list[int], tail: list[int], generated: list[int]
) -> None:
    found = LookUp(prompt, tail).propose(generated)
    assert found == slow(prompt, [*tail[-4:], *generated], 4)


def test_bytes_that_match_across_two_tokens_are_no_match() -> None:
    """The control of the search in bytes: 256 twice holds the bytes of 1 at an odd place."""
    assert LookUp([1 << 8, 1 << 8, 7, 1 << 16, 5], [1, 1]).propose(()) == ()


def test_the_length_follows_what_is_accepted() -> None:
    look_up = LookUp(list(range(100)), [10, 11])
    assert look_up.propose(()) == (12, 13, 14, 15)
    look_up.learn(4, 4)
    assert len(look_up.propose(())) == 8
    for _ in range(5):
        look_up.learn(16, 16)
    assert len(look_up.propose(())) == MOST
    look_up.learn(16, 8)
    assert len(look_up.propose(())) == MOST
    for _ in range(5):
        look_up.learn(16, 0)
    assert len(look_up.propose(())) == 2


def test_what_was_generated_leads_on() -> None:
    assert LookUp([1, 2, 3, 4, 5, 6], [9]).propose([2, 3]) == (4, 5, 6)
    assert LookUp([1, 2, 3], [2, 3]).propose(()) == ()
