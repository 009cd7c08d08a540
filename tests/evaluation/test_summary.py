"""Summaries count right, depend on no order, and are valid JSON whatever a model does."""

import json
import math
import random

import pytest

from pie_cli.evaluation.report.summary import GROUPINGS, summarise
from pie_cli.evaluation.report.tables import render_report
from pie_cli.evaluation.runs.outcomes import Record
from tests.evaluation.helpers import outcome, record


def wrong(**fields):
    return outcome(exact_match=False, agrees=False, kl=1.0, encoded=5, **fields)


def right(**fields):
    return outcome(encoded=5, **fields)


def made(count: int, wrong_ones: int, **fields) -> list[Record]:
    return [
        record(
            f"{fields.get('task', 'real')}-{n}",
            outcomes={"full": outcome(encoded=100), "pie": wrong() if n < wrong_ones else right()},
            **fields,
        )
        for n in range(count)
    ]


def row(document, task: str, strategy: str, every: int | None = None):
    (found,) = [
        r
        for r in document["rows"]
        if (r["task"], r["strategy"], r["refresh_every"]) == (task, strategy, every)
    ]
    return found


def test_a_row_holds_rates_in_per_cent_and_what_was_spent():
    document = summarise(made(10, 3), ["full", "pie"], seed=0)
    pie = row(document, "real", "pie")
    assert pie["cases"] == 10
    assert (pie["em"], pie["agreement"], pie["stale_echo"]) == (70, 70, None)
    assert pie["kl_mean"] == pytest.approx(0.3)
    assert pie["kl_max"] == 1
    assert (pie["encoded_tokens_mean"], pie["encoded_pct"]) == (5, 5)
    assert pie["key_cosine"] == 0.75
    low, high = pie["ci"]["agreement"]
    assert 30 < low < 70 < high < 100.1
    assert pie["ci"]["stale_echo"] is None
    full = row(document, "real", "full")
    assert (full["agreement"], full["reduction_pct"], full["ci"]["em"]) == (100, 0, [100, 100])


def test_the_reduction_sets_medians_side_by_side():
    records = [
        record(
            f"c{n}",
            outcomes={
                "full": outcome(first_token_ms=100 + n),
                "pie": outcome(first_token_ms=10 + n, line_ms=20 + n),
            },
        )
        for n in range(3)
    ]
    pie = row(summarise(records, ["pie"], 0), "real", "pie")
    assert (pie["first_token_ms_median"], pie["line_ms_median"]) == (11, 21)
    assert pie["reduction_pct"] == pytest.approx(100 * (1 - 11 / 101), abs=1e-3)


def test_tokens_a_pass_are_those_of_all_lines_together():
    records = [
        record("c1", outcomes={"full": outcome(token_ids=(1, 2, 3, 4), passes=1)}),
        record("c2", outcomes={"full": outcome(token_ids=(1, 2), passes=2)}),
    ]
    assert row(summarise(records, ["full"], 0), "real", "full")["tokens_per_pass"] == 2


def test_the_order_of_records_does_not_matter():
    records = [*made(20, 6), *made(9, 4, task="insertion"), *saves("s1"), *saves("s2")]
    expected = summarise(records, ["full", "pie"], seed=2)
    random.Random(0).shuffle(records)
    assert summarise(records, ["full", "pie"], seed=2) == expected
    assert [r["task"] for r in expected["rows"]] == [
        *["real"] * 2,
        *["insertion"] * 2,
        *["session"] * 3,
    ]


def test_cases_whose_edit_is_not_seen_are_counted_and_left_out():
    hidden = record("hidden", outside=True, truncated=True, outcomes={})
    document = summarise([*made(4, 0), hidden], ["full", "pie"], seed=0)
    assert document["counts"]["real"] == {"cases": 5, "truncated": 1, "outside": 1}
    assert row(document, "real", "pie")["cases"] == 4
    alone = summarise([hidden], ["pie"], seed=0)
    assert row(alone, "real", "pie")["cases"] == 0
    assert row(alone, "real", "pie")["em"] is None
    assert row(alone, "real", "pie")["ci"] == dict.fromkeys(
        ("em", "es", "agreement", "stale_echo", "kl_mean")
    )


def test_stale_echo_is_a_rate_of_the_cases_that_could_echo():
    records = [
        record(f"c{n}", outcomes={"full": outcome(), "pie": outcome(stale_echo=echo)})
        for n, echo in enumerate((True, False, None, None))
    ]
    assert row(summarise(records, ["pie"], 0), "real", "pie")["stale_echo"] == 50


def test_pairs_are_compared_case_by_case():
    (pair,) = summarise(made(10, 3), ["full", "pie"], seed=0)["paired"]
    assert (pair["strategy"], pair["against"]) == ("pie", "full")
    assert pair["em"] == pair["agreement"] == -30
    assert pair["em_ci"][0] < -30 < pair["em_ci"][1] <= 0
    assert pair["kl_mean"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("by", "field", "numbers", "groups"),
    [
        ("moved", "moved", (0, 1, 15, 16, 63, 64, 999), "0|1 to 15|16 to 63|64 and more"),
        ("distance", "distance", (1, 3, 4, 10, 40, 41, 101), None),
        ("changed", "changed", (1, 7, 8, 31, 32, 128), "1 to 7|8 to 31|32 to 127|128 and more"),
    ],
)
def test_groups_are_cut_where_they_say(by: str, field: str, numbers, groups):
    records = [record(f"c{n}", **{field: n}) for n in numbers]
    found = [g for g in summarise(records, ["pie"], 0)["groups"] if g["by"] == by]
    names = [group["group"] for group in found]
    if groups:
        assert names == groups.split("|")
    assert sum(group["cases"] for group in found) == len(numbers)
    for group in found:
        low, _, high = group["group"].partition(" to ")
        inside = [n for n in numbers if n >= int(low.split()[0])]
        if high:
            inside = [n for n in inside if n <= int(high)]
        elif "more" not in group["group"]:
            inside = [int(low)]
        assert group["cases"] == len(inside)


def saves(name: str) -> list[Record]:
    return [
        record(
            name,
            task="session",
            save=save,
            saves=3,
            outcomes={
                "full": outcome(first_token_ms=100.0),
                "pie": wrong(first_token_ms=10.0) if save == 3 else right(first_token_ms=10.0),
                "pie@1": right(first_token_ms=10.0, refresh_ms=100.0),
            },
        )
        for save in (1, 2, 3)
    ]


def test_sessions_have_rows_by_schedule_drift_by_save_and_totals():
    document = summarise([*saves("s1"), *saves("s2")], ["full", "pie"], seed=0)
    assert row(document, "session", "pie", 0)["agreement"] == pytest.approx(66.667)
    assert row(document, "session", "pie", 1)["agreement"] == 100
    drift = document["sessions"]["drift"]
    assert [step["save"] for step in drift] == [1, 2, 3]
    assert [step["agreement"]["pie"] for step in drift] == [100, 100, 0]
    totals = {total["policy"]: total for total in document["sessions"]["totals"]}
    assert totals["full"]["answers_total_ms"] == 600
    assert totals["pie"]["refreshes_total_ms"] == 0
    assert totals["pie@1"]["refreshes_total_ms"] == 600


def test_full_recompute_stands_in_the_totals_also_unasked():
    document = summarise(saves("s1"), ["pie"], seed=0)
    assert document["sessions"]["totals"][0]["policy"] == "full"
    assert {r["strategy"] for r in document["rows"]} == {"pie"}


def test_what_is_no_number_is_null():
    broken = outcome(kl=math.nan, key_cosine=(math.nan, 1.0))
    infinite = outcome(kl=math.inf)
    records = [
        record("c1", outcomes={"full": outcome(), "pie": broken}),
        record("c2", outcomes={"full": outcome(), "pie": infinite}),
    ]
    document = summarise(records, ["full", "pie"], seed=0)
    json.dumps(document, allow_nan=False)
    assert row(document, "real", "pie")["kl_mean"] is None
    assert row(document, "real", "pie")["ci"]["kl_mean"] is None


ENVIRONMENT = {
    "parameters": 8_000_000,
    "dtype": "float32",
    "device_name": "CPU",
    "threads": 2,
    "torch": "2",
    "transformers": "5",
    "python": "3",
    "pie": "0",
    "commit": None,
    "uncommitted_changes": None,
}


def report(records: list[Record], strategies: list[str], pictures=()) -> str:
    document = {
        "command": "pie eval",
        "model": "tiny",
        "seed": 0,
        "source": "made up",
        "environment": ENVIRONMENT,
        "settings": {"context_tokens": 2048},
        "skipped": [{"where": "a.jsonl:3", "reason": "no text"}],
        **summarise(records, strategies, 0),
    }
    return render_report(document, pictures)


def test_every_table_of_the_report_has_even_rows():
    kinds = [record(f"k{n}", kind="a|b" if n else "c", moved=n * 20) for n in range(4)]
    text = report([*kinds, *saves("s1")], ["full", "pie"], ["cost.png"])
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 7
    for table in tables:
        cells = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(cells) == 1, table
    assert "the time to the first token and to the line](cost.png)" in text
    assert "drift.png" not in text
    assert "- a.jsonl:3: no text" in text
    assert "pie, exact after each save" in text


def test_a_report_of_nothing_measured_is_still_one():
    text = report([record("hidden", outside=True, outcomes={})], ["full", "pie"])
    assert "| real | 1 | 0 | 1 |" in text


def test_groupings_are_all_in_the_report():
    records = [
        record(
            f"c{n}",
            distance=1 + 60 * n,
            moved=30 * n,
            changed=1 + 50 * n,
            shares_identifier=bool(n),
            kind=f"kind {n}",
            language=f"language {n}",
        )
        for n in range(2)
    ]
    text = report(records, ["full", "pie"])
    assert text.count("## Agreement by ") == len(GROUPINGS)
