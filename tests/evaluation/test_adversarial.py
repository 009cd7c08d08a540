"""Adversarial edits change what the next line has to say; the new text no longer has the old."""

import re
from random import Random

import pytest

from pie_cli.evaluation.cases.adversarial import CLASSES, MAX_USES, adversarial_cases
from pie_cli.evaluation.cases.case import EvalCase
from pie_cli.evaluation.cases.documents import Document

SOURCE = '''"""A basket that is filled with things and emptied again.

Things have a weight, of which the basket knows the smallest. It has an owner, who may put in what
fits; whatever does not fit is refused. What is taken out is written down as text, with all that was
in the basket before, however long it has been there.
"""

import json as codec
from collections import Counter
from pathlib import Path

LIMIT_SECONDS = 1440
MODE = "careful"


class Basket:
    def __init__(self, owner, capacity=250):
        self.owner = owner
        self.capacity = capacity
        self.entries = []

    def put(self, entry, priority=3):
        if len(self.entries) >= self.capacity:
            raise ValueError("full")
        weight = min(entry.weight, 3)
        self.entries.append((weight, entry, priority))


def fill(basket, things):
    if not things:
        raise ValueError("nothing to put in")
    longest = LIMIT_SECONDS
    for thing in things:
        basket.put(thing, priority=2)
        basket.entries.append(thing)
    heavy = min(thing.weight for thing in things)
    if heavy > longest:
        basket.owner = None
    else:
        basket.owner = heavy
    counts = Counter(things)
    counts.update(basket.entries)
    mode = "careful"
    text = codec.dumps(counts)
    path = Path(text)
    return mode, text, LIMIT_SECONDS, path


def empty(basket):
    taken = Basket(basket.owner, 250)
    taken.entries.append(basket)
    return codec.dumps(taken)
'''


def cases_of(text: str = SOURCE, seeds: int = 40, context_tokens: int = 2_048) -> list[EvalCase]:
    """Return the cases that many seeds make."""
    document = Document("d", "basket.py", "python", text)
    return [
        case
        for seed in range(seeds)
        for case in adversarial_cases(document, Random(seed), context_tokens)
    ]


@pytest.fixture(scope="module")
def cases() -> list[EvalCase]:
    return cases_of()


def of_class(cases: list[EvalCase], kind: str) -> list[EvalCase]:
    return [case for case in cases if case.kind == kind]


@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_has_cases_once_a_document(cases: list[EvalCase], kind: str):
    assert of_class(cases, kind)
    document = Document("d", "basket.py", "python", SOURCE)
    kinds = [case.kind for case in adversarial_cases(document, Random(1), 2_048)]
    assert len(kinds) == len(set(kinds))


def stands(word: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def test_what_is_obsolete_stood_before_and_stands_no_more(cases: list[EvalCase]):
    obsolete = [case for case in cases if case.obsolete]
    assert {case.kind for case in obsolete} == set(CLASSES)
    for case in obsolete:
        lines = SOURCE.split("\n")
        cursor = case.before.line
        assert any(
            stands(word, case.before.text) or stands(word, lines[cursor]) for word in case.obsolete
        )
        assert not any(stands(word, case.after.text + case.target) for word in case.obsolete)
        # The line to predict has to change along.
        assert case.target != lines[cursor]
        assert any(stands(word, lines[cursor]) for word in case.obsolete)


def test_the_text_before_the_edit_is_the_documents_own(cases: list[EvalCase]):
    for case in cases:
        lines = SOURCE.splitlines(keepends=True)
        del lines[case.before.line]
        assert case.before.text == "".join(lines)
        assert case.after.above != case.before.above


def test_edits_of_substitutions_are_few_and_above_the_spot(cases: list[EvalCase]):
    for case in cases:
        if case.obsolete:
            old, new = case.before.above.split("\n"), case.after.above.split("\n")
            changed = [i for i, pair in enumerate(zip(old, new, strict=True)) if len(set(pair)) > 1]
            assert 1 <= len(changed) <= MAX_USES
            assert changed[0] <= len(old) - 3


def test_names_follow_their_style_and_new_ones_stand_nowhere_yet(cases: list[EvalCase]):
    renamed = of_class(cases, "names")
    assert {"LIMIT_SECONDS", "Counter", "codec", "heavy"} <= {
        w for c in renamed for w in c.obsolete
    }
    for case in renamed:
        (old,) = case.obsolete or ("",)
        new = set(re.findall(r"\w+", case.target)) - set(re.findall(r"\w+", SOURCE))
        if old:
            (name,) = new
            assert name.isupper() == old.isupper()
            assert name[0].isupper() == old[0].isupper()


def test_values_are_literals_of_an_assignment_or_a_default(cases: list[EvalCase]):
    assert {case.obsolete for case in of_class(cases, "values")} == {("250",), ("careful",)}


def test_signatures_change_a_parameter_that_the_spot_passes_by_name(cases: list[EvalCase]):
    for case in of_class(cases, "signatures"):
        assert case.obsolete == ("priority",)
        assert re.search(r"put\(thing, \w+=2\)", case.target)


def test_an_import_can_be_taken_for_the_whole_module(cases: list[EvalCase]):
    """Its name stands in the new text, qualified, so none is obsolete."""
    texts = {
        (case.after.text, case.target) for case in of_class(cases, "names") if not case.obsolete
    }
    assert any(
        "import collections\n" in after and "from collections" not in after for after, _ in texts
    )
    assert any("collections.Counter(things)" in target for _, target in texts)


def test_branches_are_exchanged_under_the_negated_condition(cases: list[EvalCase]):
    exchanged = [case for case in of_class(cases, "control flow") if not case.obsolete]
    assert exchanged
    for case in exchanged:
        assert case.after.above.endswith(
            "    if not (heavy > longest):\n        basket.owner = heavy\n    else:\n"
        )
        assert case.target == "        basket.owner = None"


def test_a_list_becomes_a_set_with_its_methods(cases: list[EvalCase]):
    for case in of_class(cases, "data structure"):
        assert "self.entries = set()" in case.after.text
        assert ".add(" in case.target


def test_operations_take_their_counterparts_and_statements_are_swapped(cases: list[EvalCase]):
    found = of_class(cases, "algorithm")
    assert any(case.obsolete == ("min",) and "max(" in case.target for case in found)
    swapped = [case for case in found if not case.obsolete]
    assert swapped
    for case in swapped:
        first, second = (gap.above.split("\n")[-2] for gap in (case.before, case.after))
        assert f"{first}\n{second}\n" in SOURCE
        assert case.target == first


def test_the_definition_lies_within_the_context():
    assert not [case for case in cases_of(context_tokens=4) if case.obsolete]


def test_targets_are_never_inside_strings():
    text = SOURCE.replace(
        "    heavy = ", '    """\n    longest = LIMIT_SECONDS\n    """\n    heavy = '
    )
    assert all("longest = " not in case.target for case in cases_of(text) if case.kind == "names")


@pytest.mark.parametrize("text", ["def broken(:\n", "\0", "x = 1\n"])
def test_texts_that_do_not_parse_or_have_nothing_give_nothing(text: str):
    assert cases_of(text, seeds=2) == []
    java = Document("d", "A.java", "java", SOURCE)
    assert adversarial_cases(java, Random(0), 2_048) == []
