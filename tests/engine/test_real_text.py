"""A trained model on real text, where one is at hand."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pie_cli.engine.edited import EditedEngine, execute
from pie_cli.engine.gate.check import run_gate
from pie_cli.engine.protocol import Decoding
from pie_cli.engine.slots import SlotCache
from pie_cli.plan.plan import Alignment, make_plan
from pie_cli.text.matching import KeptRun

STAND_IN = Path(__file__).parents[3] / "shared" / "models" / "stand-in-6m"


@pytest.mark.shared
@pytest.mark.skipif(not STAND_IN.is_dir(), reason=f"no trained model at {STAND_IN}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pie_predicts_closer_to_full_recompute_than_cfe(dtype: torch.dtype) -> None:
    model = AutoModelForCausalLM.from_pretrained(STAND_IN, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(STAND_IN)
    rotation = run_gate(model).rotation
    ids = tokenizer.encode(Path(__file__).read_text())[:400]
    inserted = tokenizer.encode("import itertools\nfrom math import sqrt\n")
    new_ids = [*ids[:60], *inserted, *ids[60:]]
    runs = (KeptRun(0, 0, 60), KeptRun(60, 60 + len(inserted), len(ids) - 60))
    alignment = Alignment(len(ids), len(new_ids), runs)
    divergence, lines = {}, {}
    reference = torch.empty(0)
    for strategy in ("full", "pie", "cfe"):
        cache = SlotCache.for_model(model)
        execute(model, cache, make_plan("full", Alignment(0, len(ids), ())), ids, None)
        plan = make_plan(strategy, alignment)
        logits = execute(model, cache.clone(), plan, new_ids, rotation).logits.log_softmax(-1)
        reference = logits if strategy == "full" else reference
        divergence[strategy] = float((reference.exp() * (reference - logits)).sum())
        options = Decoding(lambda ids: str(tokenizer.decode(list(ids))), max_tokens=32)
        lines[strategy] = EditedEngine(model, rotation, cache).predict(plan, new_ids, options)
    assert divergence["pie"] < 0.1 * divergence["cfe"]
    assert lines["full"].text
