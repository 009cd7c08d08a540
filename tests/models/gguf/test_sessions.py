"""A session predicts from a GGUF file what it predicts from the same weights as safetensors."""

from pathlib import Path

import gguf
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Kind
from transformers import PreTrainedTokenizerFast

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel, prepare
from pie_cli.models.loading import load
from pie_cli.session import EditSession
from tests.models.gguf.writing import MODELS, build, byte_level, write_model
from tests.prompt.kinds import original

TEXT = "def area(width, height):\n    size = width * height\n    return size\n\n" * 6
EDITS = (
    TEXT.replace("size", "total", 3),
    TEXT[:150] + "# a comment between\n" + TEXT[150:],
    TEXT[:90] + TEXT[170:],
)


def saved(folder: Path, kind: Kind) -> tuple[Path, Path]:
    """Save the same weights twice; return the GGUF file and the folder."""
    tokenizer = original("gpt-2")
    model = build("llama", MODELS["llama"][2], tokenizer.get_vocab_size())
    write_model(
        folder / "model.gguf", "llama", model, vocabulary=byte_level(tokenizer, "gpt-2"), kind=kind
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                packed = gguf.quantize(parameter.numpy(), kind)
                parameter.copy_(torch.from_numpy(gguf.dequantize(packed, kind)))
    model.save_pretrained(folder / "folder")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(
        folder / "folder"
    )
    return folder / "model.gguf", folder / "folder"


def lines(model: PreparedModel) -> list[tuple[str, bool | None]]:
    session = EditSession(model, "area.py", Settings(at="end", max_tokens=12))
    found = []
    for text in (TEXT, *EDITS):
        prediction = session.open(text) if not found else session.update(text)
        comparison = session.compare()
        found.append((prediction.text, comparison.agrees if comparison else None))
    return found


@pytest.mark.parametrize("kind", [Kind.F32, Kind.Q4_1, Kind.Q8_0])
def test_lines_are_those_of_the_same_weights_in_safetensors(kind: Kind, tmp_path: Path):
    file, folder = saved(tmp_path, kind)
    from_file, from_folder = (
        lines(prepare(load(str(path), "cpu", "float32"))) for path in (file, folder)
    )
    assert from_file == from_folder
    assert len({line for line, _ in from_file}) > 1


def test_no_middle_is_filled_in_by_tokens_that_the_model_has_no_rows_for(tmp_path: Path):
    """As with the tokenizer of CodeLlama-34b: it says so, and predicts at the end as ever."""
    tokenizer = original("gpt-2")
    rows = tokenizer.get_vocab_size()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>")
    fast.add_special_tokens({"additional_special_tokens": ["▁<PRE>", "▁<SUF>", "▁<MID>"]})
    build("llama", MODELS["llama"][2], rows).save_pretrained(tmp_path / "beyond")
    build("llama", MODELS["llama"][2], rows + 3).save_pretrained(tmp_path / "within")
    for name in ("beyond", "within"):
        fast.save_pretrained(tmp_path / name)
    beyond, within = (
        prepare(load(str(tmp_path / name), "cpu", "float32")) for name in ("beyond", "within")
    )
    assert beyond.fim is None
    assert beyond.notice == beyond.no_fim
    assert beyond.no_fim is not None
    assert f"beyond the model's {rows:,} rows" in beyond.no_fim
    prediction = EditSession(beyond, "area.py").open(TEXT)
    last_line = TEXT.rstrip().count("\n") + 1
    assert prediction.form == "plain"
    assert prediction.at.line == last_line + (not prediction.completes_line)
    assert within.fim is not None
    assert within.no_fim is None
