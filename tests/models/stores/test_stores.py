"""What lies on this disk is found by its usual name; what cannot be used says why."""

import json
from pathlib import Path
from typing import Any

import pytest

from pie_cli.errors import ExitCode, ModelError
from pie_cli.models.loading import load
from pie_cli.models.registry import ALIASES, Origin, all_names, resolve
from pie_cli.models.stores import lookup
from pie_cli.models.stores.entries import list_stored
from pie_cli.models.stores.lookup import all_models, find
from tests.models.stores.making import MODEL, Ollama, gguf, library

HASH = "sha256:" + "0" * 64


@pytest.fixture
def ollama(home: Path) -> Ollama:
    return Ollama(home / ".ollama" / "models")


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    return gguf(tmp_path / "source.gguf").read_bytes()


def test_a_model_of_ollama_loads_by_its_name(ollama: Ollama, model: bytes):
    ollama.add(library("tiny/1b"), ollama.manifest(ollama.blob(model)))
    source = resolve("tiny:1b")
    assert (source.name, source.origin) == ("tiny:1b", Origin.GGUF)
    assert load("tiny:1b", "cpu", "float32").n_params > 0


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        (library("tiny/latest"), ("tiny", "tiny:latest", "Tiny:Latest")),
        ("registry.ollama.ai/someone/tiny/q4", ("someone/tiny:q4",)),
        ("hf.co/owner/Tiny-GGUF/Q4_K_M", ("hf.co/owner/Tiny-GGUF:Q4_K_M",)),
    ],
)
def test_names_are_spelled_as_ollama_spells_them(
    stored: str, names: tuple[str, ...], ollama: Ollama, model: bytes
):
    ollama.add(stored, ollama.manifest(ollama.blob(model)))
    for name in names:
        assert resolve(name).origin is Origin.GGUF
    assert find("tiny:other") is None


def test_the_newer_manifests_go_before_the_older_ones(ollama: Ollama, model: bytes, tmp_path: Path):
    other = gguf(tmp_path / "other.gguf", "qwen2").read_bytes()
    new, old = ollama.blob(model), ollama.blob(other)
    ollama.add(library("tiny/1b"), ollama.manifest(old))
    ollama.add(library("tiny/1b"), ollama.manifest(new), root="manifests-v2")
    assert [one.path.name for one in all_models()] == [new.replace(":", "-")]


def test_of_a_list_of_manifests_the_one_in_gguf_is_taken(ollama: Ollama, model: bytes):
    listing = "application/vnd.ollama.manifest.list.v2+json"
    child = ollama.manifest(ollama.blob(model), runner="llamacpp", format="gguf")
    mlx = {"runner": "mlx", "format": "safetensors", "layers": [{"mediaType": "x"}]}
    ollama.add(
        library("inline/1b"), {"mediaType": listing, "manifests": [mlx, child]}, root="manifests-v2"
    )
    reference = {"digest": ollama.blob(json.dumps(child).encode()), "format": "gguf"}
    ollama.add(
        library("linked/1b"),
        {"mediaType": listing, "manifests": [mlx, reference]},
        root="manifests-v2",
    )
    for name in ("inline:1b", "linked:1b"):
        assert resolve(name).origin is Origin.GGUF


def test_another_folder_can_be_ollamas(
    tmp_path: Path, model: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "elsewhere"))
    ollama = Ollama(tmp_path / "elsewhere")
    ollama.add(library("tiny/1b"), ollama.manifest(ollama.blob(model)))
    assert resolve("tiny:1b").origin is Origin.GGUF


BAD: dict[str, tuple[Any, str]] = {
    "a missing file": ({"layers": [{"mediaType": MODEL, "digest": HASH}]}, "is missing"),
    "a path for a hash": (
        {"layers": [{"mediaType": MODEL, "digest": "sha256:../../../../etc/passwd"}]},
        "something else than a hash",
    ),
    "a path after a hash": (
        {"layers": [{"mediaType": MODEL, "digest": f"{HASH}/../x"}]},
        "something else than a hash",
    ),
    "no hash": ({"layers": [{"mediaType": MODEL, "digest": 7}]}, "something else than a hash"),
    "no JSON": (b"\x00\x01", "is damaged"),
    "a list": (b"[]", "is damaged"),
    "deep JSON": (b"[" * 100_000, "is damaged"),
    "megabytes": (b'{"x": "' + b"a" * (2 << 20) + b'"}', "is damaged"),
    "layers that are none": ({"layers": "many"}, "not as GGUF"),
    "tensors": (
        {"format": "safetensors", "layers": [{"mediaType": "application/vnd.ollama.image.tensor"}]},
        "Ollama's safetensors",
    ),
    "an adapter": (
        {"layers": [{"mediaType": "application/vnd.ollama.image.adapter"}, {"mediaType": MODEL}]},
        "adapter",
    ),
    "an empty list of manifests": (
        {"mediaType": "application/vnd.ollama.manifest.list.v2+json", "manifests": []},
        "lists nothing",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_ollama_holds_damaged_says_so_in_one_line(name: str, ollama: Ollama):
    manifest, cause = BAD[name]
    ollama.add(library("tiny/1b"), manifest)
    with pytest.raises(ModelError, match=cause) as caught:
        resolve("tiny:1b")
    assert "tiny:1b of Ollama" in caught.value.cause
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.MODEL
    # And it is listed as such, beside what is whole.
    (entry,) = list_stored(1_000, None)
    assert entry.found.problem is not None


def test_a_manifest_that_leads_nowhere_is_named(ollama: Ollama):
    path = ollama.add(library("tiny/1b"), {})
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(ModelError, match="cannot be read"):
        resolve("tiny:1b")


def test_models_of_lm_studio_are_called_by_publisher_and_folder(home: Path):
    root = home / ".lmstudio" / "models"
    gguf(root / "owner" / "One-GGUF" / "One-Q4_K_M.gguf")
    for quantisation in ("Q4_K_M", "Q8_0"):
        gguf(root / "owner" / "Two-GGUF" / f"Two-{quantisation}.gguf")
    (root / "owner" / "Two-GGUF" / "mmproj-Two.gguf").write_bytes(b"GGUF")
    for name in (
        "owner/One-GGUF",
        "owner/One-GGUF/One-Q4_K_M.gguf",
        "owner/One-GGUF:q4_k_m",
        "owner/Two-GGUF/Two-Q8_0.gguf",
        "owner/Two-GGUF:Q8_0",
    ):
        assert resolve(name).origin is Origin.GGUF
    assert resolve("owner/Two-GGUF:Q8_0").location.endswith("Two-Q8_0.gguf")
    assert {one.name for one in all_models()} == {
        "owner/One-GGUF",
        "owner/Two-GGUF/Two-Q4_K_M.gguf",
        "owner/Two-GGUF/Two-Q8_0.gguf",
    }
    assert load("owner/One-GGUF", "cpu", "float32").name == "owner/One-GGUF"


def test_a_model_that_is_there_in_another_format_says_so(home: Path):
    folder = home / ".lmstudio" / "models" / "mlx-community" / "Tiny-4bit"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    with pytest.raises(ModelError, match="LM Studio cannot be used: it is in MLX's format"):
        resolve("mlx-community/Tiny-4bit")


def test_llama_cpps_cache_is_looked_through_in_both_of_its_forms(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    gguf(home / ".cache" / "llama.cpp" / "owner_repo_tiny-q8_0.gguf")
    assert resolve("owner_repo_tiny-q8_0").origin is Origin.GGUF
    monkeypatch.setenv("LLAMA_CACHE", str(tmp_path / "llama"))
    snapshot = tmp_path / "llama" / "models--owner--Tiny-GGUF" / "snapshots" / ("a" * 40)
    gguf(snapshot / "Tiny-Q8_0.gguf")
    assert resolve("owner/Tiny-GGUF:Q8_0").origin is Origin.GGUF


def hub_snapshot(home: Path, name: str, commit: str = "b" * 40) -> Path:
    folder = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    return snapshot


def test_gguf_in_the_hubs_cache_is_found_and_safetensors_go_before_it(home: Path):
    gguf(hub_snapshot(home, "owner/Only-GGUF") / "Tiny-Q8_0.gguf")
    assert resolve("owner/Only-GGUF").origin is Origin.GGUF
    both = hub_snapshot(home, "owner/both")
    gguf(both / "Tiny-Q8_0.gguf")
    (both / "config.json").write_text("{}")
    (both / "model.safetensors").touch()
    assert resolve("owner/both").origin is Origin.HUB
    assert resolve("owner/both:Q8_0").origin is Origin.GGUF


def test_the_snapshot_is_that_of_main(home: Path):
    old = hub_snapshot(home, "owner/Tiny-GGUF", "c" * 40)
    gguf(old / "old.gguf")
    gguf(hub_snapshot(home, "owner/Tiny-GGUF", "a" * 40) / "new.gguf")
    assert resolve("owner/Tiny-GGUF").location.endswith("new.gguf")


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("deepseek-coder-1.3", "deepseek-coder-1.3b"),
        ("starcoder-3b", "starcoder2-3b"),
        ("pienano", "pie-nano"),
        ("smolm2-135m", "smollm2-135m"),
        ("tiny:2b", "tiny:1b"),
        ("tiny:instruct-q8", "tiny:1b"),
        ("tiny", "tiny:1b"),
        ("someone/other:q8", "someone/other:1b"),
        ("qwen2.5-coder:1.5b", "qwen2.5-coder-1.5b"),
    ],
)
def test_a_mistyped_name_gets_the_one_that_was_meant(
    mistyped: str, meant: str, ollama: Ollama, model: bytes
):
    ollama.add(library("tiny/1b"), ollama.manifest(ollama.blob(model)))
    ollama.add("registry.ollama.ai/someone/other/1b", ollama.manifest(ollama.blob(model)))
    with pytest.raises(ModelError, match="there is no model") as caught:
        resolve(mistyped)
    assert caught.value.remedy.startswith("did you mean ")
    assert meant in caught.value.remedy


def test_a_name_that_is_like_none_is_left_to_the_hub():
    for name in ("gpt2", "distilgpt2", "bigscience/bloom-560m", "bigcode/starcoder2-3c"):
        assert resolve(name).origin is Origin.HUB


def test_completion_offers_what_can_be_used(ollama: Ollama, model: bytes):
    ollama.add(library("tiny/1b"), ollama.manifest(ollama.blob(model)))
    ollama.add(library("broken/1b"), ollama.manifest(HASH))
    names = list(all_names())
    assert len(names) == len(set(names))
    assert {"pie-nano", "smollm2-135m", "tiny:1b", *ALIASES} <= set(names)
    assert "broken:1b" not in names


def test_what_is_stored_is_listed_with_family_and_needs(home: Path):
    root = home / ".lmstudio" / "models" / "owner"
    gguf(root / "Tiny" / "tiny.gguf", "qwen3")
    (home / ".lmstudio" / "models" / "owner" / "Cut").mkdir()
    (root / "Cut" / "cut.gguf").write_bytes(b"GGUF\x03\0\0\0")
    cut, tiny = list_stored(100, 1_000_000_000)
    assert (tiny.found.name, tiny.found.store, tiny.found.format) == (
        "owner/Tiny",
        "LM Studio",
        "gguf",
    )
    assert tiny.family == "qwen3"
    assert tiny.needs is not None
    assert tiny.parameters is not None
    assert tiny.needs["float32"].weights_bytes == 4 * tiny.parameters
    # 4 layers of 2 heads of 32, keys and values, in 4 bytes.
    assert tiny.needs["float32"].cache_bytes == 2 * 100 * 4 * 2 * 32 * 4
    assert tiny.fits == ("float32", "bfloat16")
    assert cut.found.problem is not None
    assert "truncated" in cut.found.problem
    (_, large) = list_stored(100, 1_000)
    assert large.fits == ()


def test_stores_that_may_not_be_read_are_named(ollama: Ollama, monkeypatch: pytest.MonkeyPatch):
    assert list(lookup.unreadable()) == []
    monkeypatch.setattr(lookup.os, "access", lambda *_: False)
    assert list(lookup.unreadable()) == [("Ollama", ollama.folder)]


def test_nothing_is_written_into_a_store(ollama: Ollama, model: bytes, home: Path):
    ollama.add(library("tiny/1b"), ollama.manifest(ollama.blob(model)))
    gguf(home / ".lmstudio" / "models" / "owner" / "Tiny" / "tiny.gguf")

    def state() -> dict[str, tuple[int, int]]:
        stores = (home / ".ollama", home / ".lmstudio")
        paths = [path for store in stores for path in store.rglob("*")]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in paths}

    before = state()
    load("tiny:1b", "cpu", "float32")
    load("owner/Tiny", "cpu", "float32")
    list(list_stored(100, None))
    assert state() == before
