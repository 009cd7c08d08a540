"""A GGUF file gives the model that it was written from, or one line that says why not."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGMLQuantizationType as Kind
from safetensors.torch import load_file

from pie_cli.errors import ModelError
from pie_cli.models.gguf.architectures import ARCHITECTURES
from pie_cli.models.gguf.conversion import plan_conversion
from pie_cli.models.gguf.header import read_header
from pie_cli.models.gguf.model import open_gguf
from pie_cli.models.gguf.tokens import tokenizer_of
from pie_cli.models.loading import LoadedModel, load
from tests.models.gguf import writing
from tests.models.gguf.writing import MODELS, build, byte_level, write_model, write_vocabulary
from tests.prompt.kinds import original

VOCABULARY = 1_216
TOKENIZER = byte_level(original("gpt-2"), "gpt-2")


def logits(model: Any) -> torch.Tensor:
    # Longer than the windows, and than what Phi-3's long factors begin at.
    ids = torch.tensor([[(place * 37 + 11) % 1_000 + 5 for place in range(150)]])
    with torch.inference_mode():
        found: torch.Tensor = model(ids).logits[0]
    return found


def written(path: Path, name: str = "llama", **options: Any) -> Any:
    """Write a model under a name of `MODELS`; return it."""
    architecture, family, further = MODELS[name]
    model = build(family, further, VOCABULARY)
    write_model(path, architecture, model, vocabulary=TOKENIZER, **options)
    return model


def load_32(path: Path) -> LoadedModel:
    return load(str(path), "cpu", "float32")


@pytest.mark.parametrize("name", MODELS)
def test_a_file_gives_the_model_that_it_was_written_from(name: str, tmp_path: Path):
    model = written(tmp_path / "model.gguf", name)
    found = logits(load_32(tmp_path / "model.gguf").model)
    expected = logits(model)
    # gemma's norms went through an addition of 1 and back.
    assert torch.allclose(found, expected, rtol=0, atol=1e-3 if "gemma" in name else 1e-5)
    # Negative control: the model's outputs do depend on what is read.
    assert (expected - expected.mean()).abs().max() > 1


def test_each_architecture_is_tried():
    assert {architecture for architecture, *_ in MODELS.values()} == set(ARCHITECTURES)


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1, Kind.Q8_0, Kind.F16, Kind.BF16])
def test_packed_weights_are_what_gguf_unpacks(kind: Kind, tmp_path: Path):
    model = written(tmp_path / "model.gguf", kind=kind)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                packed = gguf.quantize(parameter.numpy(), kind)
                parameter.copy_(torch.from_numpy(gguf.dequantize(packed, kind)))
    found = load_32(tmp_path / "model.gguf").model
    for name, parameter in model.named_parameters():
        assert torch.equal(found.get_parameter(name), parameter), name


def test_fused_queries_keys_and_values_are_taken_apart(tmp_path: Path):
    def fuse(tensors: dict[str, np.ndarray]) -> None:
        for layer in range(4):
            for suffix in ("weight", "bias"):
                names = [f"blk.{layer}.attn_{part}.{suffix}" for part in "qkv"]
                fused = np.concatenate([tensors.pop(name) for name in names])
                tensors[f"blk.{layer}.attn_qkv.{suffix}"] = fused

    model = written(tmp_path / "model.gguf", "phi2", tensors=fuse)
    assert torch.allclose(logits(load_32(tmp_path / "model.gguf").model), logits(model), atol=1e-5)


def test_a_model_in_several_parts_is_one(tmp_path: Path):
    model = written(tmp_path / "model.gguf", split=7)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert len(parts) > 3
    for given in (parts[0], parts[2], tmp_path):
        assert torch.allclose(logits(load_32(given).model), logits(model), atol=1e-5)
    parts[1].unlink()
    with pytest.raises(ModelError, match=f"part 2 of {len(parts)}"):
        load_32(parts[0])


def test_parts_of_another_model_are_refused(tmp_path: Path):
    written(tmp_path / "one.gguf", split=7)
    written(tmp_path / "two.gguf", "qwen2", split=9)
    one = sorted(tmp_path.glob("one-*.gguf"))
    two = sorted(tmp_path.glob("two-*.gguf"))
    two[1].replace(one[1])
    with pytest.raises(ModelError, match=r"another part|do not belong together"):
        load_32(one[0])


def test_a_part_that_lost_its_name_is_refused(tmp_path: Path):
    written(tmp_path / "model.gguf", split=7)
    alone = min(tmp_path.glob("*.gguf")).rename(tmp_path / "alone.gguf")
    with pytest.raises(ModelError, match="is one of"):
        load_32(alone)


def test_a_folder_with_one_file_is_that_model(tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    written(folder / "a.gguf")
    (folder / "mmproj-a.gguf").write_bytes(b"GGUF")
    assert load_32(folder).name == str(folder)
    written(folder / "b.gguf")
    with pytest.raises(ModelError, match=r"2 GGUF models: a\.gguf, b\.gguf"):
        load_32(folder)
    assert load_32(folder / "b.gguf").n_params > 0


def test_an_architecture_that_is_not_read_is_named_with_those_that_are(tmp_path: Path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="architecture 'mamba'") as caught:
        load_32(path)
    assert all(name in caught.value.remedy for name in ARCHITECTURES)


def test_a_vocabulary_alone_is_no_model(tmp_path: Path):
    write_vocabulary(tmp_path / "vocabulary.gguf", TOKENIZER)
    with pytest.raises(ModelError, match="holds no weights"):
        load_32(tmp_path / "vocabulary.gguf")


def without(*names: str) -> Any:
    def remove(tensors: dict[str, np.ndarray]) -> None:
        for name in names:
            del tensors[name]

    return remove


def also(**tensors_: np.ndarray) -> Any:
    def add(tensors: dict[str, np.ndarray]) -> None:
        tensors |= {name.replace("__", "."): data for name, data in tensors_.items()}

    return add


def reshaped(name: str) -> Any:
    def reshape(tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = np.ascontiguousarray(tensors[name][:-2])

    return reshape


@pytest.mark.parametrize(
    ("tensors", "cause"),
    [
        (without("blk.1.ffn_up.weight"), "lacks blk.1.ffn_up"),
        (without("token_embd.weight"), "holds no weights"),
        (without("output_norm.weight"), "lacks output_norm"),
        (also(surplus__weight=np.zeros((2, 2), np.float32)), "more than it should: surplus.weight"),
        (also(blk__9__ffn_up__weight=np.zeros((2, 2), np.float32)), "tensors of 5 layers"),
        (reshaped("blk.0.ffn_down.weight"), "62 x 96, but its metadata ask for 64 x 96"),
        (reshaped("blk.2.attn_norm.weight"), "blk.2.attn_norm.weight of 62"),
    ],
)
def test_metadata_that_contradict_the_tensors_are_refused(
    tensors: Any, cause: str, tmp_path: Path, cache: Path
):
    written(tmp_path / "model.gguf", tensors=tensors)
    with pytest.raises(ModelError, match=cause):
        load_32(tmp_path / "model.gguf")
    assert [path.name for path in cache.iterdir()] in ([], ["hashes"])


@pytest.mark.parametrize(
    ("entry", "value", "cause"),
    [
        ("hidden_size", 128, "of width 64"),
        ("num_hidden_layers", 3, "tensors of 4 layers"),
        ("num_hidden_layers", 0, "block_count|tensors of 4 layers"),
        ("intermediate_size", 1 << 40, "feed_forward_length of|describes no model"),
        ("num_attention_heads", 0, "head_count of 0"),
        ("num_key_value_heads", 3, "4 heads on 3 heads"),
        ("max_position_embeddings", 0, "context_length of 0"),
        ("rms_norm_eps", float("nan"), "finite"),
        ("rope_parameters", {"rope_type": "default", "rope_theta": float("inf")}, "finite"),
    ],
)
def test_impossible_metadata_are_refused(
    entry: str, value: Any, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    real = writing.write_config

    def lying(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
        # 32 bits hold the writer's counts.
        real(
            writer,
            {**config, entry: min(value, (1 << 32) - 1) if isinstance(value, int) else value},
        )

    monkeypatch.setattr(writing, "write_config", lying)
    written(tmp_path / "model.gguf")
    with pytest.raises(ModelError, match=cause) as caught:
        load_32(tmp_path / "model.gguf")
    assert "\n" not in caught.value.cause


def scaled(key: str, value: float) -> Any:
    return lambda writer: writer.add_float32(f"llama.{key}", value)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (scaled("rope.scaling.yarn_log_multiplier", 0.1), "yarn_log_multiplier"),
        (lambda writer: writer.add_expert_count(8), "with experts"),
        (lambda writer: writer.add_causal_attention(False), "both directions"),
        (lambda writer: writer.add_string("llama.rope.scaling.type", "su"), "type 'su'"),
    ],
)
def test_settings_that_are_not_understood_are_refused(change: Any, cause: str, tmp_path: Path):
    written(tmp_path / "model.gguf", change=change)
    with pytest.raises(ModelError, match=cause):
        load_32(tmp_path / "model.gguf")


def test_other_factors_of_frequencies_than_llama_3s_are_refused(tmp_path: Path):
    def bend(tensors: dict[str, np.ndarray]) -> None:
        tensors["rope_freqs.weight"][3] *= 1.1

    written(tmp_path / "model.gguf", "llama 3", tensors=bend)
    with pytest.raises(ModelError, match="other factors"):
        load_32(tmp_path / "model.gguf")


def test_a_quantisation_that_cannot_be_unpacked_is_named(tmp_path: Path):
    written(tmp_path / "model.gguf", kind=Kind.Q8_0)
    data = bytearray((tmp_path / "model.gguf").read_bytes())
    at = data.index(b"blk.0.ffn_up.weight") + len("blk.0.ffn_up.weight") + 4 + 16
    assert data[at : at + 4] == int(Kind.Q8_0).to_bytes(4, "little")
    # As many bytes a block or fewer, and one that gguf-py does not unpack.
    data[at : at + 4] = int(Kind.I8).to_bytes(4, "little")
    (tmp_path / "model.gguf").write_bytes(data)
    with pytest.raises(ModelError, match="quantised as I8"):
        load_32(tmp_path / "model.gguf")


def test_plain_weights_are_kept_as_they_are_whatever_dtype_is_asked_for(
    tmp_path: Path, cache: Path
):
    written(tmp_path / "model.gguf", kind=Kind.F16)
    for dtype in ("float32", "bfloat16"):
        loaded = load(str(tmp_path / "model.gguf"), "cpu", dtype)
        assert loaded.dtype == dtype
        assert next(loaded.model.parameters()).dtype == getattr(torch, dtype)
    (stored,) = cache.glob("*/model.safetensors")
    assert load_file(stored)["model.layers.0.mlp.up_proj.weight"].dtype == torch.float16


@pytest.mark.parametrize("name", ["llama", "phi3"])
def test_no_mutation_of_metadata_does_more_than_be_refused(name: str, tmp_path: Path):
    """Beyond the header's form: what it says, of whatever kind and size, is read or refused."""
    path = tmp_path / "model.gguf"
    written(path, name)
    data = path.read_bytes()
    end = read_header(path).tensors[0].start
    rng = random.Random(4)
    outcomes: Counter[bool] = Counter()
    said: list[str] = []
    for _ in range(200):
        mutated = bytearray(data)
        # Where the entries are and where the tensors are described, rather than in the vocabulary.
        at = rng.choice([rng.randrange(24, 1_200), rng.randrange(end - 3_500, end)])
        number = rng.choice([0, 1, 2, 3, 7, 64, 1 << 16, 1 << 31, (1 << 32) - 1])
        mutated[at : at + 4] = number.to_bytes(4, "little")
        path.write_bytes(mutated)
        try:
            model = open_gguf(path)
            plan_conversion(model, "float32")
            tokenizer_of(model.facts)
            outcomes[True] += 1
        except ModelError as error:
            outcomes[False] += 1
            said.append(error.cause + error.remedy)
    assert outcomes[False] > outcomes[True] > 0
    assert not any("\n" in line for line in said)
