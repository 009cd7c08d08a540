"""A model's folder makes nothing be fetched and nothing be run, whatever its configs name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.utils.import_utils import KERNELS_MIN_VERSION

from pie_cli.models.sealed import without_code

ROOT = Path(__file__).parents[2]
KERNEL = "evil/kernel"

CODE = {
    "AutoConfig": "evil--code.Config",
    "AutoModelForCausalLM": "code.Model",
    "AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"],
}
CASES: dict[str, dict[str, object]] = {
    **{
        f"config-{key}-{number}": {"config.json": {key: value}}
        for key in (
            "_attn_implementation",
            "attn_implementation",
            "_attn_implementation_internal",
            "_experts_implementation",
            "experts_implementation",
        )
        for number, value in enumerate(
            [
                KERNEL,
                f"paged|{KERNEL}",
                f"{KERNEL}:attention",
                f"{KERNEL}@main",
                "kernels-community/flash-attn2",
                "flash_attention_2",
                "paged|flash_attention_3",
                {"": KERNEL, "text_config": KERNEL},
                "sonicmoe",
                "deepgemm",
            ]
        )
    },
    "config-auto-map": {"config.json": {"auto_map": CODE}},
    "config-auto-map-of-an-unknown-type": {"config.json": {"auto_map": CODE, "model_type": "evil"}},
    "config-auto-map-list": {"config.json": {"auto_map": ["code.Config"]}},
    "config-name": {"config.json": {"_name_or_path": "evil/model", "name_or_path": "evil/model"}},
    "config-base": {"config.json": {"base_model_name_or_path": "evil/model"}},
    "config-weights": {"config.json": {"transformers_weights": "../evil.safetensors"}},
    "config-pipelines": {"config.json": {"custom_pipelines": {"x": {"impl": "code.P"}}}},
    "config-kernels": {"config.json": {"use_kernels": True, "kernel_config": {"RMSNorm": KERNEL}}},
    "config-fusion": {"config.json": {"fusion_config": {"patch": "code.F"}}},
    "config-backbone": {"config.json": {"backbone": "evil/model", "use_pretrained_backbone": True}},
    "config-part": {"config.json": {"text_config": {"_attn_implementation": KERNEL}}},
    "config-layers": {"config.json": {"per_layer_config": {"0": {"attn_implementation": KERNEL}}}},
    **{
        f"quantised-{method}": {"config.json": {"quantization_config": {"quant_method": method}}}
        for method in ("mxfp4", "eetq", "fbgemm_fp8", "fp8", "metal", "nvfp4", "evil", "torchao")
    },
    "adapter": {"adapter_config.json": {"base_model_name_or_path": "evil/model"}},
    "generation": {"generation_config.json": {"custom_generate": "evil/model"}},
    "generation-map": {
        "generation_config.json": {"auto_map": CODE, "cache_implementation": KERNEL}
    },
    "tokenizer-map": {
        "tokenizer_config.json": {"auto_map": {"AutoTokenizer": CODE["AutoTokenizer"]}}
    },
    "tokenizer-class": {"tokenizer_config.json": {"tokenizer_class": "EvilTokenizer"}},
    "tokenizer-elsewhere": {
        "tokenizer_config.json": {
            "name_or_path": "evil/model",
            "gguf_file": "evil.gguf",
            "tokenizer_file": None,
            "local_files_only": False,
        }
    },
    "tokens-elsewhere": {
        "special_tokens_map.json": {
            "name_or_path": "evil/model",
            "gguf_file": "evil.gguf",
            "tokenizer_file": None,
            "local_files_only": False,
            "is_local": False,
        },
        "tokenizer_config.json": {"added_tokens_decoder": ...},
    },
    "processor": {"processor_config.json": {"auto_map": {"AutoProcessor": "code.P"}}},
    "template": {"tokenizer_config.json": {"chat_template": "{{ ''.__class__.__mro__ }}"}},
}
"""By name: files and the entries that they get; an ellipsis takes one out."""


def poisoned(model: Path, changes: dict[str, object]) -> None:
    (model / "code.py").write_text("import evil\n")
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text("import evil\n")
    for name, entries in changes.items():
        path = model / name
        value = json.loads(path.read_text()) if path.exists() else {}
        value.update(entries)
        value = {key: entry for key, entry in value.items() if entry is not ...}
        path.write_text(json.dumps(value))


def stand_ins(folder: Path) -> Path:
    """Packages that transformers would hand code to, were it told to."""
    for name, version in (("kernels", KERNELS_MIN_VERSION), ("peft", "0.19.0"), ("evil", "1.0")):
        (folder / name).mkdir(parents=True)
        (folder / f"{name}-{version}.dist-info").mkdir()
        (folder / f"{name}-{version}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        (folder / name / "__init__.py").write_text("")
    (folder / "kernels" / "__init__.py").write_text(
        "import os\n"
        "from unittest.mock import MagicMock\n"
        "def get_kernel(name, *args, **kwargs):\n"
        "    with open(os.environ['KERNEL_LOG'], 'a') as log:\n"
        "        log.write(f'kernel:{name} ')\n"
        "    raise OSError('no such kernel')\n"
        "def use_kernel_forward_from_hub(name):\n"
        "    return lambda cls: cls\n"
        "def use_kernelized_func(*functions):\n"
        "    return lambda cls: cls\n"
        "def __getattr__(name):\n"
        "    if name.startswith('__'):\n"
        "        raise AttributeError(name)\n"
        "    return MagicMock()\n"
    )
    for name in ("layer", "layer/mode"):
        (folder / "kernels" / name).mkdir()
        (folder / "kernels" / name / "__init__.py").write_text("class Mode: pass\n")
    return folder


def probe(models: Path, packages: Path, *options: str) -> dict[str, dict[str, object]]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)]),
        "KERNEL_LOG": str(packages / "log"),
    }
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("seal_probe.py")), str(models), *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return {entry["model"]: entry for entry in map(json.loads, lines)}


@pytest.fixture(scope="module")
def folders(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    models = tmp_path_factory.mktemp("poisoned")
    for name, changes in CASES.items():
        shutil.copytree(saved, models / name)
        poisoned(models / name, changes)
    return models, stand_ins(tmp_path_factory.mktemp("packages"))


def test_nothing_is_fetched_imported_or_run(folders: tuple[Path, Path]):
    outcomes = probe(*folders)
    assert outcomes.keys() == CASES.keys()
    assert {name: entry for name, entry in outcomes.items() if entry["seen"]} == {}
    strange = {n: e["outcome"] for n, e in outcomes.items() if str(e["outcome"]).startswith("!")}
    assert strange == {}
    refused = {name for name, entry in outcomes.items() if entry["outcome"] != "loaded"}
    # What only names code is stripped, and the model loads all the same.
    assert refused <= {
        "adapter",
        "config-auto-map-of-an-unknown-type",
        "config-part",
        *(name for name in CASES if name.startswith("quantised")),
    }


def test_the_control_without_pie_fetches(folders: tuple[Path, Path]):
    names = ("config-_attn_implementation-0", "config-_attn_implementation-1")
    outcomes = probe(*folders, "--bare", *names)
    assert outcomes.keys() == set(names)
    assert all(entry["seen"] for entry in outcomes.values())


@pytest.mark.parametrize("key", ["_attn_implementation", "auto_map", "_name_or_path", "custom_x"])
def test_names_of_code_are_taken_out_at_any_depth(key: str):
    config = {"a": [{key: "x", "b": {key: {"c": 1}, "d": 2}}], key: None, "hidden_size": 32}
    assert without_code(config) == {"a": [{"b": {"d": 2}}], "hidden_size": 32}
