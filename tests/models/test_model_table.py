"""The table of docs/models.md is what the generator writes, for every type there is."""

from importlib.metadata import version
from pathlib import Path

import pytest

from pie_cli.models.quiet import hushed
from tests.models import model_table
from tests.models.model_table import (
    BEGIN,
    END,
    Row,
    insert,
    judge_type,
    main,
    parse_markdown,
    survey,
    to_markdown,
)
from tests.models.tiny import build_tiny, causal_types

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
ROWS = [
    Row("llama", "edited", "half-split", ""),
    Row("mamba", "full", "", "layer 0 keeps a running state, not keys"),
    Row("odd", "-", "", "not built: a | b\nc " + "x" * 200),
]


def published() -> dict[str, Row]:
    return parse_markdown(DOCUMENT.read_text(encoding="utf-8"))


def test_the_published_table_has_a_row_for_every_type() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    if f"transformers {version('transformers')}," not in text:
        pytest.skip("published for another version of transformers")
    assert set(published()) == set(causal_types())


@pytest.mark.parametrize(
    "model_type",
    ["llama", "gptj", "cohere2", "gemma3_text", "falcon", "gpt2", "bloom", "deepseek_v3", "jamba"],
)
def test_published_rows_are_what_a_fresh_run_says(model_type: str) -> None:
    with hushed():
        row = judge_type(model_type)
    old = published()[model_type]
    assert (row.model_type, row.runs, row.rotation) == (old.model_type, old.runs, old.rotation)
    # Errors in reasons differ in their digits from machine to machine.
    assert row.reason.split(":")[0] == old.reason.split(":")[0]


def test_each_row_has_its_reason_or_its_rotation() -> None:
    for row in published().values():
        assert row.runs in {"edited", "prefix", "full", "-"}
        assert bool(row.rotation) is (row.runs == "edited")
        assert bool(row.reason) is (row.runs != "edited")


def test_a_table_reads_back() -> None:
    table = to_markdown(ROWS)
    assert table.startswith("3 types: 1 edited, 0 exact by prefix, 1 exact by full recompute")
    rows = parse_markdown(table)
    assert rows["llama"] == ROWS[0]
    assert rows["mamba"] == ROWS[1]
    assert rows["odd"].reason.startswith("not built: a / b c xxx")
    assert rows["odd"].reason.endswith("…")


def test_a_table_replaces_the_one_between_the_markers() -> None:
    document = f"# Models\n\n{BEGIN}\nold\n{END}\nmore\n"
    once = insert(document, "new")
    assert once == f"# Models\n\n{BEGIN}\nnew\n{END}\nmore\n"
    assert insert(once, "new") == once
    with pytest.raises(ValueError, match="to put the table between"):
        insert("# Models\n", "new")


def test_the_command_rewrites_a_document(tmp_path: Path) -> None:
    """In a process beside this one, as for the published table."""
    document = tmp_path / "models.md"
    document.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    main([str(document), "--types", "llama,no_such_type"])
    rows = parse_markdown(document.read_text(encoding="utf-8"))
    assert rows["llama"] == Row("llama", "edited", "half-split", "")
    assert rows["no_such_type"].runs == "-"


def test_a_type_that_crashes_or_hangs_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    stopped: list[str] = []

    class Worker:
        def ask(self, model_type: str, timeout_s: float) -> Row | None:
            asked.append(model_type)
            return None if model_type == "bad" else Row(model_type, "edited", "half-split", "")

        def stop(self) -> None:
            stopped.append(asked[-1])

    monkeypatch.setattr(model_table, "_Worker", Worker)
    rows = list(survey(["one", "bad", "two"]))
    assert [row.runs for row in rows] == ["edited", "-", "edited"]
    assert rows[1].reason == "crashed, or took too long"
    assert stopped == ["bad", "two"]


def test_tiny_models_are_tiny_and_the_same_each_time() -> None:
    one, other = (build_tiny("llama") for _ in range(2))
    assert sum(p.numel() for p in one.parameters()) < 200_000
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(bool((a == b).all()) for a, b in pairs)
    assert 0.25 < float(one.model.layers[0].mlp.up_proj.weight.detach().std()) < 0.35
    with pytest.raises(ValueError, match="no_such_type"):
        build_tiny("no_such_type")
