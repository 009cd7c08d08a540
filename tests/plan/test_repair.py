"""Repairs pick kept tokens that are not exact, where their names say, within their budgets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.plan.plan import Alignment, align, make_plan
from pie_cli.plan.repair import again_positions, repair_positions
from pie_cli.plan.strategies import parse
from pie_cli.text.matching import KeptRun

OLD = list(range(100))
INSERTED = [*OLD[:40], 200, 201, *OLD[40:]]


def no_pieces(ids):
    raise AssertionError("asked for text")


def picked(strategy: str, old=OLD, new=INSERTED, **options) -> tuple[int, ...]:
    return repair_positions(parse(strategy), align(old, new), old, new, no_pieces, **options)


class Source:
    """Texts tokenized into short pieces, so that names reach over several tokens."""

    def __init__(self, size: int = 3) -> None:
        self._size = size
        self._pieces: list[str] = []

    def encode(self, text: str) -> list[int]:
        cut = [
            line[i : i + self._size]
            for line in text.splitlines(keepends=True)
            for i in range(0, len(line), self._size)
        ]
        self._pieces += [piece for piece in dict.fromkeys(cut) if piece not in self._pieces]
        return [self._pieces.index(piece) for piece in cut]

    def pieces(self, ids) -> list[bytes]:
        return [self._pieces[token_id].encode() for token_id in ids]

    def names(self, strategy: str, before: str, after: str, **options) -> list[str]:
        """Return the text of each stretch that is picked, in order."""
        old, new = self.encode(before), self.encode(after)
        positions = repair_positions(
            parse(strategy), align(old, new), old, new, self.pieces, **options
        )
        stretches: list[list[int]] = []
        for position in positions:
            if not stretches or position != stretches[-1][-1] + 1:
                stretches.append([])
            stretches[-1].append(position)
        return [b"".join(self.pieces([new[p] for p in s])).decode() for s in stretches]


def test_plain_strategies_pick_nothing():
    for strategy in ("full", "prefix", "cfe", "pie"):
        assert picked(strategy) == ()


def test_seam_picks_the_first_tokens_behind_a_hunk():
    assert picked("pie+seam:4") == (42, 43, 44, 45)
    assert picked("pie+seam:4", new=[*OLD[:40], *OLD[47:]]) == (40, 41, 42, 43)


def test_seam_picks_behind_each_hunk_of_several():
    new = [*OLD[:20], 200, *OLD[20:50], *OLD[60:90], 201, *OLD[90:]]
    assert picked("pie+seam:2", new=new) == (21, 22, 51, 52, 82, 83)


def test_seam_picks_behind_both_ends_of_a_moved_block():
    new = [*OLD[:20], *OLD[60:90], *OLD[20:60], *OLD[90:]]
    assert picked("pie+seam:2", new=new) == (20, 21, 50, 51, 90, 91)


def test_a_run_that_only_continues_the_one_before_has_no_seam():
    runs = (KeptRun(0, 0, 30), KeptRun(30, 30, 10), KeptRun(40, 42, 60))
    for strategy, expected in (("pie+seam:2", (42, 43)), ("pie+seam:1%", (42,))):
        found = repair_positions(
            parse(strategy), Alignment(100, 102, runs), OLD, INSERTED, no_pieces
        )
        assert found == expected


def test_a_share_for_seams_is_divided_among_them_the_last_ones_first():
    new = [*OLD[:20], 200, *OLD[20:60], 201, *OLD[60:]]
    assert picked("pie+seam:4%", new=new) == (21, 22, 62, 63)
    assert picked("pie+seam:1%", new=new) == (62,)


def test_tail_picks_the_last_tokens_before_the_cursor():
    assert picked("pie+tail:3") == (98, 99, 100)
    assert picked("pie+tail:3", anchor=60) == (58, 59, 60)
    assert picked("pie+tail:3", anchor=43) == (42, 43)


def test_what_is_exact_is_not_picked():
    """Nothing before the first change is, unless it is stale from an earlier edit."""
    assert picked("pie+tail:5", anchor=41) == ()
    assert picked("pie+tail:5", anchor=41, exact=38) == (38, 39)
    assert picked("pie+random:100%") == tuple(range(42, 101))
    assert picked("pie+seam:4+tail+random", new=[*OLD, 200, 201]) == ()
    assert picked("pie+seam+tail+random", new=OLD) == ()


def test_mixtures_add_up_and_pick_nothing_twice():
    assert picked("pie+seam:2+tail:2") == (42, 43, 99, 100)
    new = [*OLD[:95], 200, *OLD[95:]]
    assert picked("pie+seam:3+tail:2", new=new) == (96, 97, 98, 99)


def test_without_a_budget_a_repair_takes_what_there_is_room_for():
    assert picked("pie+tail", room=5) == tuple(range(96, 101))
    assert picked("pie+tail", room=0) == ()
    assert picked("pie+tail", room=10_000) == tuple(range(42, 101))
    assert len(picked("pie+tail", [*range(2_000)], [5_000, *range(2_000)], room=10_000)) == 512


def test_where_nothing_is_known_of_the_machine_it_takes_what_costs_next_to_nothing():
    assert picked("pie+tail") == tuple(range(93, 101))
    new = [*OLD[:40], *range(200, 232), *OLD[40:]]
    assert picked("pie+tail", new=new) == tuple(range(119, 131))  # an eighth of 32 more


def test_repairs_with_a_budget_come_first_and_those_without_share_the_rest():
    assert picked("pie+seam") == tuple(range(42, 58))
    assert picked("pie+seam+tail", room=20) == (*range(42, 58), *range(97, 101))
    assert picked("pie+seam+tail", room=10) == tuple(range(42, 58))
    assert picked("pie+seam:4+tail", room=20) == (*range(42, 46), *range(85, 101))
    source = picked("pie+tail+random", room=20, seed=1)
    assert len(source) == 20
    assert set(range(91, 101)) <= set(source)


def test_random_has_the_budget_and_depends_on_the_seed():
    first, again, other = (picked("pie+random:10%", seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == len(other) == 10


BEFORE = (
    "def load_file(path):\n    return path\n\n\nx = 1\ny = load_file(x)\nz = 2\nprint(load_file)\n"
)


def test_names_picks_lines_that_use_a_name_of_a_changed_line():
    """Whatever the pieces that names are cut into, and whichever side has the name."""
    after = BEFORE.replace("def load_file", "def load_text", 1)
    for size in (1, 2, 3, 5):
        found = Source(size).names("pie+names:100%", BEFORE, after)
        assert "".join(found).count("load_file") == 2
        assert not any("x = 1" in text or "z = 2" in text for text in found)


def test_names_picks_the_lines_nearest_to_the_cursor_first():
    source = Source(4)
    after = BEFORE.replace("(path)", "(path, mode)", 1)
    cost = len(source.encode("print(load_file)"))
    assert source.names(f"pie+names:{cost}", BEFORE, after) == ["print(load_file)"]
    cursor = len(source.encode(after[: after.index("z = 2")])) - 1
    found = source.names(f"pie+names:{cost}", BEFORE, after, anchor=cursor)
    assert all("print" not in text for text in found)


def test_names_follows_a_name_that_was_taken_out():
    before = BEFORE.replace("x = 1\n", "load_file.cache = {}\nx = 1\n")
    found = Source(4).names("pie+names:100%", before, BEFORE)
    assert any("print(load_file)" in text for text in found)


def test_names_in_other_scripts_are_names():
    before = "größe = 1\nx = 2\ny = größe\nend\n"
    found = Source(2).names("pie+names:100%", before, before.replace("= 1", "= 7"))
    assert [text.strip() for text in found] == ["y = größe"]


def test_deviation_is_left_to_the_evaluation():
    assert picked("pie+deviation") == ()
    assert picked("pie+deviation+tail:1") == (100,)


ids = st.lists(st.integers(0, 6), min_size=1, max_size=60)


@pytest.mark.parametrize(
    "strategy", ["pie+seam:3", "pie+tail:10%", "pie+random:50%", "pie+seam+tail:4"]
)
@given(old=ids, new=ids)
def test_only_kept_tokens_behind_the_first_change_are_picked(strategy: str, old, new):
    alignment = align(old, new)
    positions = repair_positions(parse(strategy), alignment, old, new, no_pieces)
    kept = {p for run in alignment.runs for p in range(run.new_start, run.new_stop)}
    assert list(positions) == sorted(set(positions))
    assert set(positions) <= kept - set(range(alignment.first_change)) - {len(new) - 1}


def test_a_second_look_goes_on_from_the_first_stale_token_where_most_has_room():
    """Positions 4 to 18 are stale; 10 and 11 were computed, but from stale states."""
    plan = make_plan("pie", align([*range(20)], [0, 1, 2, 77, *range(4, 20)]), (10, 11))
    assert again_positions(plan, 4, 15) == tuple(range(4, 19))
    assert again_positions(plan, 4, 12) == tuple(range(4, 16))
    assert again_positions(plan, 4, 11) == (*range(6, 10), *range(12, 19))
    assert again_positions(plan, 4, 3) == (16, 17, 18)


def test_a_second_look_takes_what_is_before_the_cursor_before_what_is_behind_it():
    plan = make_plan("pie", align([*range(20)], [0, 1, 2, 77, *range(4, 20)]))
    assert again_positions(plan, 4, 3, anchor=8) == (6, 7, 8)
    assert again_positions(plan, 4, 7, anchor=8) == (4, 5, 6, 7, 8, 9, 10)
    assert again_positions(plan, 4, 3, anchor=2) == (4, 5, 6)
