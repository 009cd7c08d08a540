"""A tiny random model with a line-wise tokenizer, for everything above the engine."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from pie_cli.editable import PreparedModel, prepare
from pie_cli.models.loading import load
from pie_cli.models.nano.recipe.tokenizer import save_tokenizer, train_tokenizer

# Tiny matrices gain nothing from threads, and lose much on a machine that has other work.
torch.set_num_threads(1)

WINDOW = 1024
SOURCE = "".join(
    f"def area_{n}(width, height):\n    size = width * height + {n}\n    return size\n\n"
    for n in range(12)
)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what tests remember out of the user's cache, and what the user has out of tests."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.setenv("OLLAMA_MODELS", str(folder / "ollama"))
        patch.setenv("LLAMA_CACHE", str(folder / "llama.cpp"))
        yield folder


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that loads like any model; standard deviation 0.3, so that positions matter."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = train_tokenizer(iter([SOURCE] * 8), 320)
    save_tokenizer(tokenizer, folder, WINDOW)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        initializer_range=0.3,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint: Path) -> PreparedModel:
    """The checkpoint, loaded in float32 on the CPU, through the gate."""
    return prepare(load(str(tiny_checkpoint), "cpu", "float32"))


@pytest.fixture(scope="session")
def shared_texts() -> list[str]:
    """Real files that are not part of the repository; skips where they are absent."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "edits"
    paths = sorted(folder.glob("cases_*.jsonl.gz"))
    if not paths:
        pytest.skip(f"needs the real edits, which are not at {folder}")
    texts: list[str] = []
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            texts += [json.loads(line)["after"] for line in stream]
    return texts
