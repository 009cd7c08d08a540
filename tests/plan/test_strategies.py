"""Strategies by name: what is read, how it is spelled, what is refused."""

import subprocess
import sys

import pytest

from pie_cli.errors import InputError
from pie_cli.plan.strategies import (
    BASES,
    BENCHED,
    DEFAULT_STRATEGY,
    REPAIRS,
    Budget,
    Evict,
    Repair,
    check,
    parse,
)


@pytest.mark.parametrize(
    "name", [*BENCHED, "pie+seam:4", "pie+tail+names:7%", "pie+random:2.5%", "pie+seam+again:64"]
)
def test_a_canonical_name_is_read_back(name: str):
    assert parse(name).name == name
    check(name)


def test_budgets_are_tokens_or_a_share_of_the_prompt():
    strategy = parse("pie+seam:4+names:5%")
    assert strategy.repairs == (Repair("seam", Budget(4)), Repair("names", Budget(5, percent=True)))
    assert [repair.budget.of(1_999) for repair in strategy.repairs] == [4, 99]


def test_a_budget_that_is_the_default_is_not_spelled():
    for kind in REPAIRS:
        assert parse(f"pie+{kind}").name == f"pie+{kind}"
    assert parse("pie+deviation:15%").name == "pie+deviation"
    assert parse("pie+deviation:10%").name == "pie+deviation:10%"


@pytest.mark.parametrize("base", BASES)
def test_every_base_can_be_evicted_but_then_not_predict(base: str):
    strategy = parse(f"{base}+evict:4+1024")
    assert strategy.evict == Evict(4, 1_024)
    assert strategy.name == f"{base}+evict:4+1024"
    with pytest.raises(InputError, match="pie eval"):
        check(strategy.name)


def test_deviation_is_for_evaluation_only():
    assert parse("pie+deviation").repairs == (Repair("deviation", Budget(15, percent=True)),)
    with pytest.raises(InputError, match="pie eval"):
        check("pie+deviation")


@pytest.mark.parametrize(
    "name", ["", "pir", "pie+", "pie+seams", "pie+seam:", "pie+seam:-1", "+seam"]
)
def test_an_unknown_name_is_refused_with_what_there_is(name: str):
    with pytest.raises(InputError) as caught:
        parse(name)
    assert caught.value.cause == f"unknown strategy {name!r}"
    assert all(known in caught.value.remedy for known in (*BASES, *REPAIRS))


@pytest.mark.parametrize(
    "name",
    [
        "pie+seam:0",
        "pie+seam:0%",
        "pie+seam:101%",
        "pie+seam:1.5",
        "pie+seam+seam:4",
        "cfe+seam",
        "full+tail",
        "prefix+again",
        "pie+evict:4",
        "pie+evict:4+0",
        "pie+evict:a+8",
        "pie+evict:4+8+seam",
    ],
)
def test_what_makes_no_sense_is_refused_with_a_remedy(name: str):
    with pytest.raises(InputError) as caught:
        parse(name)
    assert name in caught.value.cause
    assert caught.value.remedy


def test_the_default_is_pie_with_a_repair():
    assert parse(DEFAULT_STRATEGY).base == "pie"
    assert parse(DEFAULT_STRATEGY).repairs


def test_a_second_look_is_no_repair_of_the_first():
    strategy = parse("pie+again+seam")
    assert (strategy.repairs, strategy.again) == (
        (Repair("seam", Budget(16)),),
        Repair("again", None),
    )
    assert strategy.name == "pie+seam+again"
    assert strategy.takes_time
    assert strategy.serves
    assert not parse("pie+seam+again:64").takes_time


def test_names_are_read_without_torch():
    program = "import sys, pie_cli.plan.strategies; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"False"
