"""What an edit keeps: alignments are true, disjoint, without confetti and bounded in cost."""

import gzip
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pie_cli.plan import plan as alignment
from pie_cli.plan.plan import Alignment, align
from pie_cli.text import edit, matching
from pie_cli.text.edit import LineHunk, diff_lines, split_lines
from pie_cli.text.matching import MIN_RUN, KeptRun

EDITS = Path(__file__).parents[3] / "shared" / "data" / "edits" / "cases_python.jsonl.gz"

ids = st.lists(st.integers(0, 8), max_size=120)
texts = st.text(alphabet="ab \t\r\n\f\x0b\u2028", max_size=80)


@st.composite
def edits(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Draw a long sequence and the same with cuts, insertions and moved blocks."""
    seed = draw(st.integers(0, 10**6))
    rng = random.Random(seed)
    old = [rng.randrange(200) for _ in range(draw(st.integers(0, 400)))]
    new = list(old)
    for _ in range(draw(st.integers(0, 6))):
        start = rng.randrange(len(new) + 1)
        block = new[start : start + rng.randrange(40)]
        kind = draw(st.sampled_from(["cut", "insert", "move", "repeat"]))
        if kind in ("cut", "move"):
            del new[start : start + len(block)]
        if kind == "insert":
            block = [rng.randrange(200, 300) for _ in block]
        if kind != "cut":
            at = rng.randrange(len(new) + 1)
            new[at:at] = block
    return old, new


def check(old: list[int], new: list[int], alignment: Alignment) -> None:
    """Apply the kept runs to the old ids, fill the rest with fresh ones and compare."""
    assert (alignment.old_length, alignment.new_length) == (len(old), len(new))
    rebuilt: list[int | None] = [None] * len(new)
    used = [0] * len(old)
    stop = 0
    for run in alignment.runs:
        assert run.length > 0
        assert run.new_start >= stop, "runs ascend and do not overlap in the new sequence"
        stop = run.new_stop
        assert stop <= len(new)
        assert run.old_stop <= len(old)
        rebuilt[run.new_start : run.new_stop] = old[run.old_start : run.old_stop]
        for place in range(run.old_start, run.old_stop):
            used[place] += 1
        is_end = run.old_start == run.new_start == 0 or (
            run.old_stop == len(old) and run.new_stop == len(new)
        )
        assert run.length >= MIN_RUN or is_end, "no confetti"
    assert max(used, default=0) <= 1, "an old token is used once"
    assert [a if a is not None else b for a, b in zip(rebuilt, new, strict=True)] == new
    for left, right in zip(alignment.runs, alignment.runs[1:], strict=False):
        assert left.new_stop < right.new_start or left.old_stop != right.old_start, "joined"


@given(ids, ids)
def test_runs_applied_to_old_ids_with_fresh_ids_give_the_new_ids(
    old: list[int], new: list[int]
) -> None:
    check(old, new, align(old, new))


@given(edits())
def test_the_same_for_real_edits_with_moved_and_repeated_blocks(
    edit: tuple[list[int], list[int]],
) -> None:
    old, new = edit
    check(old, new, align(old, new))


@given(ids)
def test_equal_sequences_are_one_run(old: list[int]) -> None:
    expected = (KeptRun(0, 0, len(old)),) if old else ()
    assert align(old, list(old)).runs == expected
    assert align(tuple(old), tuple(old)).runs == expected


@given(ids, st.lists(st.integers(100, 108), max_size=20), ids)
def test_prefix_and_suffix_are_kept_whole_however_short(
    before: list[int], put: list[int], behind: list[int]
) -> None:
    alignment = align(before + behind, before + put + behind)
    kept = sum(run.length for run in alignment.runs)
    assert kept == len(before) + len(behind)
    assert alignment.first_change >= len(before)


def test_one_replaced_token_is_the_only_fresh_one() -> None:
    old = list(range(8_000))
    new = list(old)
    new[2_345] = 9_999
    runs = align(old, new).runs
    assert runs == (KeptRun(0, 0, 2_345), KeptRun(2_346, 2_346, 8_000 - 2_346))


@pytest.mark.parametrize("place", [1_000, 4_000, 6_500])
def test_a_moved_block_is_found_again(place: int) -> None:
    old = list(range(8_000))
    block = old[2_000:2_300]
    rest = old[:2_000] + old[2_300:]
    new = rest[:place] + block + rest[place:]
    alignment = align(old, new)
    check(old, new, alignment)
    assert sum(run.length for run in alignment.runs) == len(old)
    assert any(run.old_start <= 2_000 and run.old_stop >= 2_300 for run in alignment.runs)


def test_two_blocks_that_change_places_are_both_kept() -> None:
    old = list(range(1_000))
    new = old[:100] + old[500:560] + old[150:500] + old[100:150] + old[560:]
    alignment = align(old, new)
    check(old, new, alignment)
    assert sum(run.length for run in alignment.runs) == len(old)


def test_many_hunks_all_over_a_file_leave_only_their_tokens_fresh() -> None:
    old = [number % 700 for number in range(8_000)]
    new: list[int] = []
    for start in range(0, 8_000, 800):
        new += [*old[start : start + 800], 9_001, 9_002]
    alignment = align(old, new)
    check(old, new, alignment)
    assert len(new) - sum(run.length for run in alignment.runs) <= 20


def test_short_matches_inside_a_rewrite_are_left_fresh() -> None:
    old = [1, 2, 3, 50, 51, 52, 4, 5, 6]
    new = [1, 2, 3, 60, 50, 61, 51, 62, 52, 63, 4, 5, 6]
    assert align(old, new).runs == (KeptRun(0, 0, 3), KeptRun(6, 10, 3))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (list(range(50_000)), list(range(100_000, 150_000))),
        ([number % 9 for number in range(50_000)], [number % 8 for number in range(50_000)]),
        ([0] * 50_000, [1, *[0] * 30_000, 2, *[0] * 30_000, 3]),
    ],
    ids=["all different", "two periods", "one token over and over"],
)
def test_long_sequences_that_defeat_the_index_stay_bounded(
    old: list[int], new: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: no gap beyond the bound reaches the quadratic matcher."""
    areas = []
    matcher = matching._common_subsequence

    def counted(old: list[int], new: list[int], span: matching._Span) -> list[KeptRun]:
        areas.append(span.area)
        return matcher(old, new, span)

    monkeypatch.setattr(matching, "_common_subsequence", counted)
    check(old, new, align(old, new))
    assert all(area <= alignment.MAX_GAP_AREA for area in areas)
    assert sum(areas) <= 100 * alignment.MAX_GAP_AREA


@given(texts)
def test_lines_joined_give_the_text_and_end_at_newlines_only(text: str) -> None:
    lines = split_lines(text)
    assert "".join(lines) == text
    assert all("\n" not in line[:-1] and line for line in lines)
    assert all(line.endswith("\n") for line in lines[:-1])


def check_lines(old: str, new: str, found: list[LineHunk]) -> None:
    old_lines, new_lines = split_lines(old), split_lines(new)
    rebuilt: list[str] = []
    at = new_at = 0
    for hunk in found:
        assert hunk.old_start > at or not rebuilt, "an unchanged line between hunks"
        assert hunk.new_start - new_at == hunk.old_start - at
        assert hunk.old_stop > hunk.old_start or hunk.new_stop > hunk.new_start
        rebuilt += old_lines[at : hunk.old_start] + new_lines[hunk.new_start : hunk.new_stop]
        at, new_at = hunk.old_stop, hunk.new_stop
    assert rebuilt + old_lines[at:] == new_lines


@given(texts, texts)
def test_line_hunks_applied_to_the_old_lines_give_the_new_ones(old: str, new: str) -> None:
    check_lines(old, new, diff_lines(old, new))


def test_line_hunks_of_texts_beyond_the_bound_are_still_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(edit, "MAX_LINE_AREA", 100)
    rng = random.Random(7)
    old = "".join(f"{rng.randrange(60)}\n" for _ in range(500))
    lines = split_lines(old)
    new = "".join([*lines[:50], "x\n", *lines[60:300], "y\n", *lines[300:450], *lines[100:150]])
    found = diff_lines(old, new)
    check_lines(old, new, found)
    assert len(found) >= 2


def test_equal_texts_have_no_hunks_and_a_lost_final_newline_is_one() -> None:
    assert diff_lines("a\nb\n", "a\nb\n") == []
    assert diff_lines("a\nb\n", "a\nb") == [LineHunk(1, 2, 1, 2)]
    assert diff_lines("", "a") == [LineHunk(0, 0, 0, 1)]


@pytest.mark.shared
@pytest.mark.skipif(not EDITS.exists(), reason="the real edits are not part of the repository")
def test_real_edits_keep_nearly_what_a_longest_common_subsequence_keeps() -> None:
    with gzip.open(EDITS, "rt", encoding="utf-8") as lines:
        cases = [json.loads(line) for line, _ in zip(lines, range(40), strict=False)]
    kept = best = 0
    for case in cases:
        old, new = case["before"], case["after"]
        check_lines(old, new, diff_lines(old, new))
        # Characters stand for tokens: longer sequences with more chance matches.
        old_ids, new_ids = list(map(ord, old)), list(map(ord, new))
        alignment = align(old_ids, new_ids)
        check(old_ids, new_ids, alignment)
        kept += sum(run.length for run in alignment.runs)
        runs = matching._common_subsequence(old_ids, new_ids, matching._trim(old_ids, new_ids))
        ends = matching._ends(matching._trim(old_ids, new_ids), len(old_ids))
        best += sum(run.length for run in [*runs, *ends] if run.length >= MIN_RUN)
    assert kept > 0.99 * best


@given(st.text(alphabet="ab\n", max_size=24), st.text(alphabet="ab\n", max_size=24))
def test_taking_equal_ends_off_first_changes_no_hunk(old: str, new: str) -> None:
    """They are compared as text, in C; the lines' own comparison is the reference."""
    expected = [] if old == new else edit._diff_lines(old, new)
    assert diff_lines(old, new) == expected
