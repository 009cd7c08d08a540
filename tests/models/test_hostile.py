"""Folders that were made to hang, to crash or to fill the memory: one line says what is wrong."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pie_cli.errors import ModelError, PieError
from pie_cli.models import loading
from pie_cli.models.cache import look_up
from pie_cli.models.checkpoint import MAX_JSON_BYTES
from pie_cli.models.loading import load
from pie_cli.models.registry import EMBEDDED, resolve

LONGEST_S = 120
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """A test that hangs fails instead."""

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LONGEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(str(folder), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.remedy
    look_up(resolve(str(folder)))
    return message


def said(folder: Path) -> str:
    """Load what may be loadable; return the line that says why it is not, if so."""
    try:
        load(str(folder), device="cpu")
    except PieError as error:
        return str(error)
    return ""


def edit_json(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text())
    value.update(changes)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "name", [*FILES, "generation_config.json", "special_tokens_map.json", "adapter_config.json"]
)
@pytest.mark.parametrize("kind", ["pipe", "device", "endless"])
def test_a_pipe_or_device_in_the_place_of_a_file(checkpoint: Path, name: str, kind: str):
    path = checkpoint / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/full" if kind == "device" else "/dev/zero")
    message = refusal(checkpoint)
    assert "is not a regular file" in message or "holds an adapter" in message


def test_a_pipe_among_the_shards(checkpoint: Path):
    (checkpoint / "model.safetensors").unlink()
    os.mkfifo(checkpoint / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"x": "model-00001-of-00001.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "is not a regular file" in refusal(checkpoint)


def test_a_pipe_that_nothing_reads_does_not_matter(checkpoint: Path):
    os.mkfifo(checkpoint / "notes")
    os.mkfifo(checkpoint / "chat_template.jinja")
    load(str(checkpoint), device="cpu")


def test_a_config_larger_than_any_is_not_read(checkpoint: Path):
    with (checkpoint / "config.json").open("ab") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    assert "larger than" in refusal(checkpoint)


@pytest.mark.parametrize(
    "name", ["s" * 4_000 + ".safetensors", "\0.safetensors", "\ud800.safetensors"]
)
def test_a_shard_whose_name_no_file_can_have_is_missing(checkpoint: Path, name: str):
    (checkpoint / "model.safetensors").unlink()
    index = {"weight_map": {"x": name}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks" in refusal(checkpoint)


@pytest.mark.parametrize("name", [*FILES[:1], *FILES[2:], "generation_config.json"])
@pytest.mark.parametrize("opened", ["[", '{"a":'])
@pytest.mark.parametrize("depth", [80, 990, 100_000])
def test_json_that_is_nested_without_end(checkpoint: Path, name: str, opened: str, depth: int):
    closed = "]" if opened == "[" else "}"
    value = json.loads((checkpoint / name).read_text())
    text = json.dumps(value)[:-1] + ', "deep": ' + opened * depth + "1" + closed * depth + "}"
    (checkpoint / name).write_text(text)
    assert Path(name).stem.partition("_")[0] in refusal(checkpoint)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": ["llama"]},
        {"model_type": {"a": 1}},
        {"model_type": 7},
        {"model_type": ["llama"], "auto_map": {}},
        {"auto_map": ["x"], "model_type": {}},
        {"quantization_config": {"quant_method": ["gptq"]}},
        {"quantization_config": []},
        {"architectures": 5},
        {"dtype": ["float32"]},
        {"torch_dtype": {}},
        {"rope_parameters": {"rope_type": ["yarn"]}},
        {"rope_scaling": [1]},
        {"transformers_weights": ["x"]},
        {"vocab_size": None},
        {"hidden_size": 10**400},
        {"get_text_config": "x"},
        {"tie_word_embeddings": "x"},
    ],
)
def test_values_of_another_kind_end_in_one_line(checkpoint: Path, change: dict[str, object]):
    edit_json(checkpoint / "config.json", **change)
    assert "\n" not in said(checkpoint)


@pytest.mark.parametrize(
    "key",
    [
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "num_labels",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "head_dim",
    ],
)
@pytest.mark.parametrize("number", [10**6, 10**9, 10**18])
def test_sizes_that_the_weights_are_not_for(checkpoint: Path, key: str, number: int):
    edit_json(checkpoint / "config.json", **{key: number})
    message = refusal(checkpoint)
    assert "config.json" in message or "Storage size" in message


def test_tables_that_no_memory_holds(checkpoint: Path):
    from transformers import AutoModelForCausalLM, GPTJConfig

    config = GPTJConfig(
        vocab_size=288, n_embd=32, n_layer=1, n_head=2, n_positions=64, rotary_dim=8
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(checkpoint)
    load(str(checkpoint), device="cpu")
    edit_json(checkpoint / "config.json", n_positions=10**9)
    assert "numbers in tables" in refusal(checkpoint)


def edit_tokenizer(folder: Path, **changes: dict[str, object]) -> None:
    value = json.loads((folder / "tokenizer.json").read_text())
    for key, change in changes.items():
        value[key] = {**(value[key] or {}), **change}
    (folder / "tokenizer.json").write_text(json.dumps(value))


@pytest.mark.parametrize("prefix", ["x", "##", "é"])
def test_merges_without_their_prefix_would_abort_the_process(checkpoint: Path, prefix: str):
    edit_tokenizer(checkpoint, model={"continuing_subword_prefix": prefix})
    assert "do not continue with" in refusal(checkpoint)


def test_a_tokenizer_neither_cuts_nor_fills_up(checkpoint: Path):
    text = "def add(a, b):\n" * 9
    whole = load(str(checkpoint), device="cpu").tokenizer(text)["input_ids"]
    cut = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    filled = {
        "strategy": {"Fixed": 10**9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|end|>",
    }
    edit_tokenizer(checkpoint, truncation=cut, padding=filled)
    assert load(str(checkpoint), device="cpu").tokenizer(text)["input_ids"] == whole


def test_a_panic_of_the_tokenizer_is_one_line(checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    class PanicException(BaseException):
        """What Rust's panics become, which no `except Exception` takes."""

    def panic(_: object) -> None:
        raise PanicException("range end index out of range")

    monkeypatch.setattr("pie_cli.models.tokenizers._try_out", panic)
    assert "range end index" in refusal(checkpoint)


def test_a_python_without_docstrings_is_told_to_keep_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loading, "__doc__", None)
    with pytest.raises(PieError, match="docstrings") as caught:
        load(EMBEDDED)
    assert "PYTHONOPTIMIZE" in caught.value.remedy


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["llama", "sdpa", "evil/kernel", "float32", "yarn", "model.safetensors"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["", "rope_type", "factor", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [
    "model_type",
    "architectures",
    "auto_map",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "head_dim",
    "hidden_act",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "layer_types",
    "sliding_window",
    "max_position_embeddings",
    "quantization_config",
    "dtype",
    "tie_word_embeddings",
    "eos_token_id",
    "bos_token_id",
    "pad_token_id",
    "text_config",
    "num_labels",
    "id2label",
    "attn_implementation",
    "transformers_weights",
    "per_layer_config",
    "output_attentions",
    "return_dict",
    "use_cache",
    "to_dict",
]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3))
def test_any_config_loads_or_is_refused(checkpoint: Path, changes: dict[str, object]):
    path = checkpoint / "config.json"
    before = path.read_text()
    try:
        edit_json(path, **changes)
        assert "\n" not in said(checkpoint)
    finally:
        path.write_text(before)
