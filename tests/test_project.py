"""The project's own promises: what imports what, and files that must not drift apart."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pie_cli"

HOMES = {
    "rich": ["cli/blocks.py", "cli/folding.py", "cli/render.py", "models/nano/recipe/*"],
    "watchdog": ["watching/system.py"],
    "unidiff": ["text/patches.py"],
    "pathspec": ["watching/ignoring.py"],
    "rapidfuzz": [
        "models/stores/lookup.py",
        "text/matching.py",
        "evaluation/runs/metrics.py",
        "models/nano/recipe/*",
    ],
    "accelerate": ["evaluation/runs/sharing.py"],
    "gguf": ["models/gguf/*"],
    "safetensors": [
        "engine/kept.py",
        "keeping.py",
        "models/checkpoint.py",
        "models/gguf/conversion.py",
    ],
    "platformdirs": ["folders.py"],
    "typer": ["cli/*"],
    "huggingface_hub": ["evaluation/cases/records.py", "models/*"],
    "transformers": [
        "engine/attention.py",
        "engine/gpu/captured.py",
        "engine/layers.py",
        "engine/slots.py",
        "engine/stock.py",
        "engine/plain/model.py",
        "models/*",
        "models/gguf/*",
        "models/nano/recipe/*",
    ],
    "triton": ["engine/gpu/kernels.py", "engine/gpu/launches.py"],
    "matplotlib": ["evaluation/report/figures.py"],
    "pyarrow": ["evaluation/cases/records.py"],
    "pygls": ["serving/lsp.py", "serving/rpc.py"],
    "lsprotocol": ["serving/lsp.py", "serving/rpc.py"],
    "starlette": ["serving/http.py"],
    "uvicorn": ["serving/http.py"],
    "tomllib": ["settings/sources.py"],
    "tomli": ["settings/sources.py"],
}
"""Third-party packages and the only modules that import them."""


def sources(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from sorted(folder.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Collect the top-level names of all packages that a module imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_difflib_is_nowhere():
    users = [path for path in sources(PACKAGE, ROOT / "tests") if "difflib" in imported(path)]
    assert users == []


@pytest.mark.parametrize("package", sorted(HOMES))
def test_a_third_party_package_has_its_modules(package: str):
    homes = HOMES[package]
    strays = [
        path.relative_to(PACKAGE).as_posix()
        for path in sources(PACKAGE)
        if package in imported(path)
        and not any(path.relative_to(PACKAGE).match(home) for home in homes)
    ]
    assert strays == []


def loaded_by(statement: str) -> set[str]:
    """Run a statement in a fresh interpreter; return the top-level packages that it loads."""
    program = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(result.stdout.split())


@pytest.mark.parametrize("statement", ["import pie_cli", "import pie_cli.cli.app"])
def test_importing_the_command_line_loads_nothing_heavy(statement: str):
    heavy = {"torch", "transformers", "huggingface_hub", "tokenizers", "numpy", "matplotlib"}
    assert loaded_by(statement) & heavy == set()


def test_names_of_models_are_checked_without_torch():
    assert "torch" not in loaded_by("import pie_cli.models.registry, pie_cli.config")


def test_the_workspace_knows_no_model_code_no_files_and_no_terminal():
    loaded = loaded_by("import pie_cli.workspace.workspace")
    assert loaded & {"torch", "transformers", "watchdog", "typer", "click", "rich"} == set()


def readme_lines() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("python3 -m venv ")]


def test_the_quick_start_is_two_lines_one_runs_and_one_tests():
    run, test = readme_lines()
    for line in (run, test):
        assert "pip install -c constraints.txt -e " in line
    assert run.endswith("pie demo")
    assert test.endswith("python -m pytest")


def test_ci_takes_the_readme_line_and_runs_what_pre_commit_runs():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert not any(line in ci for line in readme_lines())
    assert "README.md" in ci
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    entries = re.findall(r"entry: (.+)", hooks)
    steps = re.findall(r"^step (\.venv/.+)$", ci, re.MULTILINE)
    assert entries == steps
    assert steps


def test_every_dependency_is_pinned_and_torch_as_tested():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(need for extra in extras for need in extra)]
    pins = dict(
        re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    )
    pinned = {name.lower() for name in pins}
    missing = [need for need in wanted if re.split(r"[<>=~ ;]", need)[0].lower() not in pinned]
    assert missing == []
    assert pins["torch"] == "2.13.0"


def test_the_changelog_keeps_its_form():
    lines = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Changelog"
    releases = [line for line in lines if line.startswith("## ")]
    assert releases[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", r) for r in releases[1:])
    kinds = {line[4:] for line in lines if line.startswith("### ")}
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_no_module_below_the_command_line_prints():
    def prints(path: Path) -> bool:
        tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        return any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "print"
            for node in tree
        )

    above = (PACKAGE / "cli", PACKAGE / "models" / "nano")
    noisy = [
        path
        for path in sources(PACKAGE)
        if prints(path) and not path.is_relative_to(above[0]) and not path.is_relative_to(above[1])
    ]
    assert noisy == []
