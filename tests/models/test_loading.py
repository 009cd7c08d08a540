"""Loading: what comes out, and what every fault says."""

import hashlib
import json
import logging
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPTJConfig

from pie_cli.errors import CacheCapacityError, DeviceError, ModelError
from pie_cli.models import devices, faults, loading
from pie_cli.models.known import Shape
from pie_cli.models.loading import LoadedModel, load, pick_device, pick_dtype
from pie_cli.models.registry import EMBEDDED

TINY_SHAPE = Shape(hidden=32, mlp=48, layers=2, heads=4, kv_heads=2, vocabulary=512, window=256)


def edit_json(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps(value))


@pytest.fixture
def embedded(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the folder of the embedded model."""
    sums = [
        f"{hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("model.safetensors", "tokenizer.json")
    ]
    (checkpoint / "SHA256SUMS").write_text("".join(sums))
    monkeypatch.setattr(loading, "EMBEDDED_FOLDER", checkpoint)
    return checkpoint


def test_a_folder_loads_with_its_facts(checkpoint: Path):
    loaded = load(str(checkpoint), device="cpu")
    assert loaded.name == str(checkpoint)
    assert (loaded.device, loaded.dtype) == ("cpu", "float32")
    assert loaded.eos_ids == {0}
    assert loaded.bos_id == 0
    assert loaded.window == 128
    assert loaded.n_params == sum(p.numel() for p in loaded.model.parameters())
    assert loaded.weights_bytes == 4 * loaded.n_params
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.model.config._attn_implementation == "sdpa"
    assert not loaded.random_weights


def test_the_weights_are_those_on_disk(checkpoint: Path):
    loaded = load(str(checkpoint), device="cpu")
    expected = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids = torch.arange(1, 20)[None]
    assert torch.equal(loaded.model(ids).logits, expected(ids).logits)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_dtype_is_taken_by_weights_but_not_by_frequencies(checkpoint: Path, dtype: str):
    loaded = load(str(checkpoint), device="cpu", dtype=dtype)
    assert loaded.dtype == dtype
    assert {p.dtype for p in loaded.model.parameters()} == {getattr(torch, dtype)}
    assert loaded.model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_tokens_are_those_of_the_tokenizer_file_whatever_class_the_config_names(checkpoint: Path):
    # Llama's own class would put Metaspace in the place of the byte-level pre-tokenizer.
    text = "def f(x):\n    return 'naïve'\n"
    before = load(str(checkpoint), device="cpu").tokenizer(text)["input_ids"]
    edit_json(checkpoint / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    tokenizer = load(str(checkpoint), device="cpu").tokenizer
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == before
    assert tokenizer.decode(before) == text


def test_end_tokens_come_from_all_files_and_from_no_class_default(checkpoint: Path):
    edit_json(checkpoint / "generation_config.json", eos_token_id=[5, 7, 9_999])
    config = json.loads((checkpoint / "config.json").read_text())
    config.pop("eos_token_id", None)
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert load(str(checkpoint), device="cpu").eos_ids == {0, 5, 7}


def test_a_tokenizer_without_a_first_token_has_none(checkpoint: Path):
    edit_json(checkpoint / "tokenizer_config.json", bos_token=None)
    assert load(str(checkpoint), device="cpu").bos_id is None


def test_a_model_without_sdpa_falls_back_to_eager(checkpoint: Path):
    config = GPTJConfig(
        vocab_size=288, n_embd=32, n_layer=1, n_head=2, n_positions=64, rotary_dim=8
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(checkpoint)
    loaded = load(str(checkpoint), device="cpu")
    assert loaded.model.config._attn_implementation == "eager"
    assert loaded.window == 64


def test_progress_reaches_the_callback_and_nothing_else_is_said(
    checkpoint: Path, capfd: pytest.CaptureFixture[str]
):
    heard: list[tuple[str, int, int]] = []
    level = logging.getLogger("transformers").level
    load(str(checkpoint), device="cpu", on_progress=lambda *call: heard.append(call))
    load(str(checkpoint), device="cpu")
    assert heard
    assert {stage for stage, _, _ in heard} == {"weights"}
    assert heard[-1][1] == heard[-1][2] > 0
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("transformers").level == level


def test_loading_leaves_the_warning_filters_alone(checkpoint: Path):
    load(str(checkpoint), device="cpu")
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", stacklevel=1)


# --- faults in a folder ---------------------------------------------------------------------------


def refusal(folder: Path, **options: bool) -> str:
    """Load what cannot be loaded; return the one line that says so."""
    with pytest.raises(ModelError) as caught:
        load(str(folder), device="cpu", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.remedy
    return message


def test_a_folder_without_a_config(checkpoint: Path):
    (checkpoint / "config.json").unlink()
    message = refusal(checkpoint)
    assert "has no config.json" in message
    assert EMBEDDED in message


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_config_that_is_no_json_object(checkpoint: Path, content: str):
    (checkpoint / "config.json").write_bytes(content.encode("latin-1"))
    assert "config.json" in refusal(checkpoint)


def test_a_config_of_an_unknown_architecture(checkpoint: Path):
    edit_json(checkpoint / "config.json", model_type="no-such-thing")
    message = refusal(checkpoint)
    assert "'no-such-thing'" in message
    assert "does not know" in message
    assert "update transformers" in message


def test_an_architecture_that_predicts_no_text(checkpoint: Path):
    edit_json(checkpoint / "config.json", model_type="t5")
    assert "'t5', which predicts no text" in refusal(checkpoint)


@pytest.mark.parametrize("config", [{}, {"hidden_size": 32}, {"model_type": None}])
def test_a_config_that_names_no_architecture(checkpoint: Path, config: dict[str, object]):
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert "config.json names no model_type" in refusal(checkpoint)


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}},
        {"rope_parameters": None, "rope_scaling": {"type": "spiral", "factor": 2.0}},
    ],
)
def test_a_rope_type_that_nobody_knows_is_named(checkpoint: Path, rope: dict[str, object]):
    edit_json(checkpoint / "config.json", **rope)
    message = refusal(checkpoint)
    assert "RoPE of the type 'spiral'" in message
    assert "update transformers" in message


def test_rope_parameters_that_are_not_whole(checkpoint: Path):
    rope = {"rope_type": "linear", "rope_theta": 1e4}
    edit_json(checkpoint / "config.json", rope_parameters=rope)
    assert "factor" in refusal(checkpoint)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "nope"}, "'nope'"),
        ({"hidden_size": "big"}, "hidden_size"),
        ({"num_attention_heads": 5}, "attention heads (5)"),
        ({"hidden_size": -32}, "-32"),
    ],
)
def test_a_config_that_makes_no_sense_is_one_line(
    checkpoint: Path, change: dict[str, object], named: str
):
    edit_json(checkpoint / "config.json", **change)
    assert named in refusal(checkpoint)


def test_a_folder_without_weights(checkpoint: Path):
    (checkpoint / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal(checkpoint)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickled_weights_are_refused(checkpoint: Path, name: str):
    (checkpoint / "model.safetensors").rename(checkpoint / name)
    message = refusal(checkpoint)
    assert "pickled" in message
    assert name in message


def test_a_config_cannot_point_to_pickled_weights(checkpoint: Path):
    edit_json(checkpoint / "config.json", transformers_weights="adapter_model.bin")
    assert "pickled" in refusal(checkpoint)


@pytest.mark.parametrize("keep", [0, 4, 1_000, -1])
def test_truncated_weights_are_named(checkpoint: Path, keep: int):
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    message = refusal(checkpoint)
    assert str(file) in message
    assert "truncated" in message


def shard(folder: Path) -> dict[str, str]:
    """Split the weights over two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2]}
    parts["model-00002-of-00002.safetensors"] = names[1::2]
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, folder / file, metadata={"format": "pt"})
    weight_map = {key: file for file, keys in parts.items() for key in keys}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return weight_map


def test_shards_load_like_one_file(checkpoint: Path):
    whole = load(str(checkpoint), device="cpu").model.state_dict()
    shard(checkpoint)
    parts = load(str(checkpoint), device="cpu").model.state_dict()
    assert all(torch.equal(parts[key], value) for key, value in whole.items())


def test_a_missing_shard_is_named(checkpoint: Path):
    shard(checkpoint)
    (checkpoint / "model-00002-of-00002.safetensors").unlink()
    assert "lacks model-00002-of-00002.safetensors of 2 weight files" in refusal(checkpoint)


@pytest.mark.parametrize("name", ["../model.safetensors", "model.bin", "/etc/passwd"])
def test_an_index_cannot_point_out_of_the_folder(checkpoint: Path, name: str):
    weight_map = shard(checkpoint)
    first = next(iter(weight_map))
    index = {"weight_map": {**weight_map, first: name}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert name in refusal(checkpoint)


def test_an_index_without_weights(checkpoint: Path):
    shard(checkpoint)
    (checkpoint / "model.safetensors.index.json").write_text("{}")
    assert "names no weights" in refusal(checkpoint)


def rewrite_weights(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    """Add a tensor to the weights, or drop one."""
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_the_checkpoint_lacks_are_not_made_up(checkpoint: Path):
    rewrite_weights(checkpoint, "model.norm.weight", None)
    message = refusal(checkpoint)
    assert "lacks" in message
    assert "norm.weight" in message


def test_weights_that_the_model_has_no_place_for(checkpoint: Path):
    rewrite_weights(checkpoint, "model.layers.0.extra.weight", torch.zeros(2))
    assert "extra.weight" in refusal(checkpoint)


def test_buffers_that_old_versions_stored_do_no_harm(checkpoint: Path):
    rewrite_weights(checkpoint, "model.layers.0.self_attn.rotary_emb.inv_freq", torch.zeros(4))
    assert load(str(checkpoint), device="cpu").window == 128


def test_weights_of_another_shape(checkpoint: Path):
    edit_json(checkpoint / "config.json", intermediate_size=64)
    message = refusal(checkpoint)
    assert "layers.0.mlp.down_proj.weight is 32 x 48" in message
    assert "32 x 64 by config.json" in message


@pytest.mark.parametrize(
    ("layers", "said"), [(1, "has more than its config asks for"), (3, "lacks model.layers.2")]
)
def test_more_or_fewer_layers_than_the_weights_have(checkpoint: Path, layers: int, said: str):
    edit_json(checkpoint / "config.json", num_hidden_layers=layers)
    assert said in refusal(checkpoint)


def test_an_adapter_is_not_a_model(checkpoint: Path):
    (checkpoint / "adapter_config.json").write_text("{}")
    assert "adapter" in refusal(checkpoint)


def test_a_distributed_checkpoint_is_refused(checkpoint: Path):
    weights = checkpoint / "model.safetensors"
    weights.rename(checkpoint / "shard-00000-model-00001-of-00001.safetensors")
    assert "distributed" in refusal(checkpoint)


def test_a_folder_without_a_tokenizer(checkpoint: Path):
    (checkpoint / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in refusal(checkpoint)


def test_a_broken_tokenizer(checkpoint: Path):
    (checkpoint / "tokenizer.json").write_text("{}")
    assert "tokenizer" in refusal(checkpoint)


def test_a_tokenizer_with_ids_beyond_the_vocabulary(checkpoint: Path):
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zzz"] = 5_000
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    message = refusal(checkpoint)
    assert "5000" in message
    assert "288" in message


def test_special_tokens_beyond_the_vocabulary_do_no_harm(checkpoint: Path):
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    extra = dict(tokenizer["added_tokens"][0], id=5_000, content="<image>")
    tokenizer["added_tokens"].append(extra)
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert load(str(checkpoint), device="cpu").eos_ids == {0}


def test_code_of_the_model_is_not_run_unasked(checkpoint: Path, tmp_path: Path):
    ran = tmp_path / "ran"
    (checkpoint / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    config = {
        "model_type": "own-kind",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert "--trust-remote-code" in refusal(checkpoint)
    assert not ran.exists()


# --- quantised weights, several devices -----------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "package"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptqmodel optimum"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "torchao"}, "torchao"),
        ({"quant_method": "compressed-tensors"}, "compressed-tensors"),
    ],
)
def test_quantised_weights_name_the_packages_that_they_need(
    checkpoint: Path,
    method: dict[str, object],
    package: str,
    monkeypatch: pytest.MonkeyPatch,
):
    there = {"accelerate"}
    monkeypatch.setattr(faults, "_is_installed", lambda module: module in there)
    edit_json(checkpoint / "config.json", quantization_config=method)
    message = refusal(checkpoint)
    assert f"needs the package{'s' * (' ' in package)} {package}" in message
    assert f"pip install {package}" in message


@pytest.mark.parametrize("method", [{}, {"quant_method": "mystery"}, "int4"])
def test_a_quantisation_that_nobody_knows_is_not_taken_for_plain_weights(
    checkpoint: Path, method: object
):
    edit_json(checkpoint / "config.json", quantization_config=method)
    assert "quantised by" in refusal(checkpoint)


def test_what_a_quantiser_says_becomes_one_line(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(faults, "_is_installed", lambda _module: True)
    edit_json(checkpoint / "config.json", quantization_config={"quant_method": "hqq"})
    assert "quantised by hqq, cannot be loaded here" in refusal(checkpoint)


def quantise(folder: Path) -> dict[str, torch.Tensor]:
    """Turn a checkpoint's projections into FP8 with one scale a matrix; return what they stand for.

    FP8 is what transformers unpacks on a CPU without a further package.
    """
    plain = load_file(folder / "model.safetensors")
    stored: dict[str, torch.Tensor] = {}
    meant: dict[str, torch.Tensor] = {}
    for name, weight in plain.items():
        stored[name] = meant[name] = weight
        if "_proj" in name:
            scale = weight.float().abs().max() / 448
            stored[name] = (weight.float() / scale).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = scale.reshape(1, 1)
            meant[name] = (stored[name].float() * scale).to(weight.dtype)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    settings = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    settings["weight_block_size"] = [128, 128]
    edit_json(folder / "config.json", quantization_config=settings)
    return meant


def test_quantised_weights_load_as_what_they_stand_for_in_the_type_that_they_were_made_for(
    checkpoint: Path,
):
    pytest.importorskip("accelerate", reason="FP8 needs an extra")
    reference = load(str(checkpoint), device="cpu", dtype="bfloat16").model
    reference.load_state_dict(quantise(checkpoint), strict=False)
    loaded = load(str(checkpoint), device="cpu")
    assert loaded.dtype == "bfloat16"
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    ids = torch.arange(1, 20)[None]
    expected = reference(ids).logits.float()
    assert (loaded.model(ids).logits.float() - expected).norm() < 0.03 * expected.norm()


def test_several_devices_need_a_package(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "can_map", lambda: False)
    with pytest.raises(DeviceError, match="package accelerate") as caught:
        load(str(checkpoint), device="map")
    assert "pie-cli[map]" in caught.value.remedy


def test_a_model_spread_over_devices_is_the_same_model(checkpoint: Path):
    pytest.importorskip("accelerate", reason="spreading is an extra")
    spread = load(str(checkpoint), device="map", dtype="float32")
    assert spread.device == "map"
    ids = torch.arange(1, 20)[None]
    expected = load(str(checkpoint), device="cpu").model(ids).logits
    found = spread.model(ids.to(spread.model.device)).logits.cpu()
    assert torch.allclose(found, expected, atol=1e-4)


# --- the embedded model ---------------------------------------------------------------------------


def test_the_embedded_model_is_the_default(embedded: Path):
    assert load(device="cpu").name == EMBEDDED


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_changed_file_of_the_embedded_model_is_noticed(embedded: Path, name: str):
    content = bytearray((embedded / name).read_bytes())
    content[-2] ^= 1
    (embedded / name).write_bytes(content)
    with pytest.raises(ModelError, match="checksum does not match") as caught:
        load(device="cpu")
    assert name in caught.value.cause
    assert "install pie again" in caught.value.remedy


@pytest.mark.parametrize(
    "sums", [None, "", "abc  model.safetensors\n", f"{'0' * 64}  other.json\n"]
)
def test_a_damaged_list_of_checksums_is_noticed(embedded: Path, sums: str | None):
    (embedded / "SHA256SUMS").unlink()
    if sums is not None:
        (embedded / "SHA256SUMS").write_text(sums)
    with pytest.raises(ModelError, match="SHA256SUMS"):
        load(device="cpu")


def test_an_installation_without_the_embedded_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "EMBEDDED_FOLDER", tmp_path)
    with pytest.raises(ModelError, match="missing from this installation"):
        load(device="cpu")


# --- random weights -------------------------------------------------------------------------------


def build(monkeypatch: pytest.MonkeyPatch, **options: str) -> LoadedModel:
    monkeypatch.setattr("pie_cli.models.registry.SHAPES", {"deepseek-coder-1.3b": TINY_SHAPE})
    return load("deepseek-coder-1.3b", device="cpu", random_weights=True, **options)


def test_a_shape_is_built_without_its_checkpoint(embedded: Path, monkeypatch: pytest.MonkeyPatch):
    loaded = build(monkeypatch, dtype="bfloat16")
    assert loaded.random_weights
    assert loaded.n_params == TINY_SHAPE.n_params
    assert loaded.weights_bytes == 2 * TINY_SHAPE.n_params
    assert {p.dtype for p in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.model.model.rotary_emb.inv_freq.dtype == torch.float32
    assert loaded.window == 256
    assert loaded.eos_ids == {0}


def test_a_shape_scales_its_positions_linearly(embedded: Path, monkeypatch: pytest.MonkeyPatch):
    rotary = build(monkeypatch).model.model.rotary_emb
    head = TINY_SHAPE.hidden // TINY_SHAPE.heads
    expected = 100_000.0 ** -(torch.arange(0, head, 2) / head) / 4
    assert torch.allclose(rotary.inv_freq, expected)


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
):
    state = torch.get_rng_state()
    first, second = build(monkeypatch).model, build(monkeypatch).model
    assert torch.equal(torch.get_rng_state(), state)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert first.lm_head.weight.std() > 0


def test_large_matrices_are_normal_without_equal_rows(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
):
    # Larger than the block of random numbers that is repeated.
    monkeypatch.setattr("pie_cli.models.random_weights._BLOCK", 1_009)
    loaded = build(monkeypatch)
    weight = loaded.model.model.layers[0].mlp.up_proj.weight
    assert weight.numel() > 1_009
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert weight.mean().item() == pytest.approx(0, abs=0.003)
    assert len({tuple(row.tolist()) for row in weight}) == len(weight)
    assert all(p.isfinite().all() for p in loaded.model.parameters())


def test_a_shape_only_predicts_tokens_that_its_tokenizer_has(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
):
    loaded = build(monkeypatch)
    logits = loaded.model(torch.arange(1, 100)[None]).logits
    assert int(logits.argmax(-1).max()) < len(loaded.tokenizer)


def test_only_known_shapes_can_be_built(embedded: Path):
    with pytest.raises(ModelError, match="no shape is known"):
        load(EMBEDDED, device="cpu", random_weights=True)


def test_what_cannot_fit_is_refused_before_it_is_built(
    embedded: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "available_bytes", lambda device: 1_000)
    with pytest.raises(CacheCapacityError, match=r"deepseek-coder-33b needs 133\.4 GB"):
        load("deepseek-coder-33b", device="cpu", random_weights=True)
    with pytest.raises(CacheCapacityError, match="GB free"):
        load(device="cpu")


# --- devices --------------------------------------------------------------------------------------


def having(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(1, True, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_the_fastest_device(
    monkeypatch: pytest.MonkeyPatch, cuda: int, mps: bool, expected: str
):
    having(monkeypatch, cuda=cuda, mps=mps)
    assert pick_device() == expected
    assert pick_device("cpu") == "cpu"


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:0"])
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, device: str):
    having(monkeypatch)
    with pytest.raises(DeviceError, match=f"there is no device {device}"):
        load(device=device)


def test_a_gpu_is_counted(monkeypatch: pytest.MonkeyPatch):
    having(monkeypatch, cuda=2)
    assert pick_device("cuda:1") == "cuda:1"
    with pytest.raises(DeviceError, match="cuda:2"):
        pick_device("cuda:2")


def test_dtype_auto_depends_on_the_device(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert pick_dtype("auto", "cpu", "bfloat16") == "float32"
    assert pick_dtype("auto", "mps", "float16") == "float16"
    assert pick_dtype("auto", "cuda", "bfloat16") == "bfloat16"
    assert pick_dtype("auto", "cuda", None) == "float32"
    assert pick_dtype("float16", "cpu", "bfloat16") == "float16"


def test_a_gpu_without_bfloat16(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert pick_dtype("auto", "cuda", "bfloat16") == "float16"
    with pytest.raises(DeviceError, match="no bfloat16"):
        pick_dtype("bfloat16", "cuda", "bfloat16")


def test_an_unknown_dtype_is_refused(checkpoint: Path):
    with pytest.raises(DeviceError, match="float8"):
        load(str(checkpoint), dtype="float8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_checkpoint_keeps_its_dtype_on_a_gpu(checkpoint: Path):
    loaded = load(str(checkpoint), device="cuda")
    assert loaded.dtype == "bfloat16"
    assert {p.device.type for p in loaded.model.parameters()} == {"cuda"}
    assert loaded.model.model.rotary_emb.inv_freq.dtype == torch.float32
