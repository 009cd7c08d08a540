"""Fill in the middle: every known family is recognised, with its own tokens in its own order."""

import pytest

from pie_cli.prompt.fim import FAMILIES, PSM, SPM, Family, find_format


def vocabulary(family: Family, *further: str) -> dict[str, int]:
    tokens = [*family.tokens, *family.also, *([family.file] if family.file else []), *further]
    return {token: 100 + place for place, token in enumerate(dict.fromkeys(tokens))}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_told_from_the_others(family: Family) -> None:
    ids = vocabulary(family, *family.stops)
    found = find_format(ids.get)
    assert found is not None
    assert found.family == family.name
    assert found.stop_ids == frozenset(ids.values())
    assert found.file_id == (ids[family.file] if family.file else None)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_middle_follows_the_last_part(family: Family) -> None:
    """Each control token and each part stands once; the prefix comes last where it may."""
    ids = vocabulary(family)
    found = find_format(ids.get)
    assert found is not None
    begin, hole, end = (ids[token] for token in family.tokens)
    for order, layout in found.layouts.items():
        assert sorted(map(str, layout)) == sorted(
            map(str, (begin, hole, end, "comment", "prefix", "suffix"))
        )
        assert layout.index("comment") < layout.index("prefix")
        assert (layout[-1] == "prefix") == (order == SPM)
        assert (layout.index("prefix") < layout.index("suffix")) == (order == PSM)
    assert [part for part in found.layouts[PSM] if isinstance(part, int)] == [begin, hole, end]


def test_pie_nano_is_asked_as_its_recipe_trained_it() -> None:
    ids = {"<|endoftext|>": 0, "<|fim_begin|>": 1, "<|fim_hole|>": 2, "<|fim_end|>": 3}
    found = find_format(ids.get)
    assert found is not None
    assert found.layouts == {
        PSM: ("comment", 1, "prefix", 2, "suffix", 3),
        SPM: ("comment", 1, 2, "suffix", 3, "prefix"),
    }
    assert (found.order, found.file_id) == (SPM, 0)


def test_an_order_that_a_model_may_not_know_is_not_used() -> None:
    for family in FAMILIES:
        found = find_format(vocabulary(family).get)
        assert found is not None
        assert found.order == (SPM if family.spm else PSM)


def test_other_tokenizers_have_no_format() -> None:
    assert find_format({}.get) is None
    assert find_format({"<|fim_prefix|>": 1, "<|fim_suffix|>": 2}.get) is None


DEEPSEEK = next(family for family in FAMILIES if family.name == "deepseek-coder")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_tokens_without_rows_in_the_model_fill_in_no_middle(family: Family) -> None:
    ids = vocabulary(family, *family.stops)
    three = [ids[token] for token in family.tokens]
    assert find_format(ids.get, rows=max(three)) is None
    # The first three rows are those of the control tokens; what ends a middle may lie beyond.
    if not family.also:
        found = find_format(ids.get, rows=max(three) + 1)
        assert found is not None
        assert found.file_id is None or found.file_id <= max(three)
        assert max(found.stop_ids) == max(three)


def test_a_family_is_known_by_the_ids_that_a_file_names() -> None:
    """Two families could be meant by their looks; the file's own word decides."""
    others = next(family for family in FAMILIES if family.name == "starcoder")
    ids = {**vocabulary(others), **{t: 500 + i for i, t in enumerate(DEEPSEEK.tokens)}}
    named = dict(zip(("prefix", "suffix", "middle"), (100, 101, 102), strict=True))
    found = find_format(ids.get, {**named, "pad": 7})
    assert found is not None
    assert found.family == "starcoder"
    assert found.stop_ids >= {100, 101, 102, 7}
    plain = find_format(ids.get)
    assert plain is not None
    assert plain.family == "deepseek-coder"


def test_tokens_that_only_their_file_knows_stand_in_the_usual_order() -> None:
    named = {"prefix": 5, "suffix": 6, "middle": 7, "file": 8, "pad": 9, "repository": 10}
    found = find_format({}.get, named)
    assert found is not None
    assert found.layouts == {PSM: (5, "comment", "prefix", 6, "suffix", 7)}
    assert found.file_id == 8
    assert found.stop_ids == {5, 6, 7, 8, 9, 10}
    assert find_format({}.get, named, rows=7) is None
    assert find_format({}.get, {"prefix": 5, "suffix": 6}) is None
