"""`pie eval` measures what ships: full recompute says what `pie complete` says there."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from pie_cli.cli.app import app
from pie_cli.config import Settings
from pie_cli.editable import PreparedModel, prepare
from pie_cli.evaluation.cases.case import Gap
from pie_cli.models.loading import load
from pie_cli.session import EditSession
from tests.prompt.kinds import original

PATH = "shop/area.py"
TEXT = "".join(
    f"class Area{n}:\n    def size(self, width, height):\n\n        if width > {n}:\n"
    f"            return width * height + {n}\n        return None\n\n"
    for n in range(14)
)


@pytest.fixture(scope="module")
def merging(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer merges newlines with the blanks after them."""
    folder = tmp_path_factory.mktemp("merging")
    tokenizer = original("gpt-2")
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1_024,
        initializer_range=0.3,
        eos_token_id=tokenizer.token_to_id("<|endoftext|>"),
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["pie-nano", "merging"])
def model(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return str(request.getfixturevalue(name)) if name == "merging" else name


@pytest.fixture(scope="module")
def prepared(model: str) -> PreparedModel:
    return prepare(load(model, "cpu"))


def records() -> list[dict]:
    """Edits near the line that is asked for, far above it, at both ends, and of many lines."""
    made = []
    lines = TEXT.split("\n")
    for number, (at, target) in enumerate([(8, 11), (30, 53), (60, 62), (2, 90), (90, 96)]):
        new = [*lines[:at], f"        width = {number}", *lines[at + number % 2 :]]
        line = target + 1 - number % 2
        made.append(
            {
                "id": f"case-{number}",
                "path": PATH,
                "before": TEXT,
                "after": "\n".join(new),
                "target_line_before": target,
                "target_line": line,
            }
        )
    removed = [f"        removed = {number}" for number in range(40)]
    before = "\n".join([*lines[:60], *removed, *lines[60:]])
    made.append({**made[0], "id": "long", "before": before, "after": TEXT})
    made[-1].update(target_line_before=62 + len(removed), target_line=62)
    return made


@pytest.mark.parametrize("context", [256, 1_000])
def test_full_recompute_is_what_complete_says(
    model: str,
    prepared: PreparedModel,
    context: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    cases = {record["id"]: record for record in records()}
    Path("cases.jsonl").write_text("".join(json.dumps(c) + "\n" for c in cases.values()))
    sizes = ["--model", model, "--device", "cpu", "--max-tokens", "12"]
    sizes += ["--context-tokens", str(context)]
    words = ["eval", "--cases", "cases.jsonl", "--task", "real", "--strategies", "full"]
    result = CliRunner().invoke(app, [*words, *sizes, "--out", "out"])
    assert result.exit_code == 0, result.output
    measured = healed = 0
    Path(PATH).parent.mkdir()
    for line in Path("out/results.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["outside"]:
            continue
        case, outcome = cases[record["case"]], record["outcomes"]["full"]
        gap = Gap.at(case["after"], case["target_line"])
        Path(PATH).write_text(gap.text)
        at = str(gap.line + 1)
        result = CliRunner().invoke(app, ["complete", PATH, "--at", at, "--json", *sizes])
        document = json.loads(result.stdout)
        assert outcome["line"] == document["prediction"]
        assert outcome["exact"] is document["exact"] is True
        assert record["prompt_tokens"] == document["tokens"]["total"]
        session = EditSession(
            prepared, PATH, Settings(at=at, max_tokens=12, context_tokens=context)
        )
        assert tuple(outcome["token_ids"]) == session.open(gap.text).token_ids
        assert session.prompt is not None
        measured += 1
        healed += bool(session.prompt.healed.token_ids)
    assert measured >= 3
    assert bool(healed) is (model != "pie-nano")
