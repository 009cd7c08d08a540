"""On real edits with the embedded model, pie is close to full recompute and cfe is not."""

import gzip
import json
from pathlib import Path
from statistics import mean

import pytest
import torch

from pie_cli.editable import PreparedModel, prepare
from pie_cli.engine.edited import execute
from pie_cli.engine.forward import encode
from pie_cli.engine.slots import SlotCache
from pie_cli.models.loading import load
from pie_cli.plan.plan import align, make_plan
from pie_cli.prompt.assembly import PromptBuilder

CASES = Path(__file__).parents[2] / "shared" / "data" / "edits" / "cases_python.jsonl.gz"
CONTEXT_TOKENS = 512
N_CASES = 16

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def model() -> PreparedModel:
    return prepare(load(device="cpu"))


def read_cases(count: int) -> list[dict]:
    if not CASES.is_file():
        pytest.skip(f"needs the real edits, which are not at {CASES}")
    with gzip.open(CASES, "rt", encoding="utf-8") as stream:
        cases = [json.loads(line) for line in stream]
    return cases[:: max(1, len(cases) // count)][:count]


def next_token_logits(model: PreparedModel, case: dict, context: int) -> dict[str, torch.Tensor]:
    """Return each strategy's logits [vocabulary] at the case's target line."""
    loaded = model.loaded
    before = "".join(case["before"].splitlines(keepends=True)[: case["target_line_before"]])
    after = "".join(case["after"].splitlines(keepends=True)[: case["target_line"]])
    prompts = PromptBuilder(model.tokenizer, loaded.bos_id, case["path"], context)
    old, new = prompts.build(before).token_ids, prompts.build(after).token_ids
    cache = SlotCache.for_model(loaded.model)
    cache.splice((), len(old), None)
    encode(loaded.model, cache, old, range(len(old)), ())
    logits = {}
    for strategy in ("full", "prefix", "pie", "cfe"):
        plan = make_plan(strategy, align(old, new))
        result = execute(loaded.model, cache.clone(), plan, new, model.gate.rotation)
        logits[strategy] = result.logits[0]
    return logits


def kl(full: torch.Tensor, other: torch.Tensor) -> float:
    """Kullback-Leibler divergence from full recompute's distribution, nats."""
    p, q = full.log_softmax(-1), other.log_softmax(-1)
    return float((p.exp() * (p - q)).sum())


def test_pie_is_closer_to_full_recompute_than_cfe(model: PreparedModel) -> None:
    rows = [next_token_logits(model, case, CONTEXT_TOKENS) for case in read_cases(N_CASES)]
    divergence = {s: mean(kl(row["full"], row[s]) for row in rows) for s in rows[0]}
    assert divergence["pie"] < divergence["cfe"] / 10
    assert divergence["prefix"] < 1e-5


def test_the_embedded_model_fits_its_limits(model: PreparedModel) -> None:
    folder = Path(__file__).parents[1] / "pie_cli" / "models" / "nano"
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".py")
    assert size <= 40_000_000
    assert model.loaded.n_params <= 19_000_000
    assert model.loaded.window >= 4096
