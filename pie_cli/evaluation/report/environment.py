"""What a published measurement must name: versions, hardware, commit."""

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

import pie_cli
from pie_cli.engine import crew
from pie_cli.models.loading import LoadedModel
from pie_cli.models.machine import cpu_name

_ROOT = Path(pie_cli.__file__).resolve().parents[1]


@dataclass(frozen=True)
class Environment:
    """Where something was measured.

    Attributes:
        pie, torch, transformers, python: versions.
        platform: operating system and machine.
        cpu: model of the processor.
        threads: that compute where no other program is at work.
        device: "cpu", "cuda", "cuda:N" or "mps".
        device_name: of the GPU, or the processor's model.
        dtype: of weights and cache.
        weights: "full", or "int8" where they are rounded to eight bits.
        parameters: of the model.
        random_weights: whether they are random: fit for latency, not for predictions.
        commit: of pie, where it runs from its own git checkout.
        uncommitted_changes: whether that checkout differs from its commit; None without a commit.
    """

    pie: str
    torch: str
    transformers: str
    python: str
    platform: str
    cpu: str
    threads: int
    device: str
    device_name: str
    dtype: str
    weights: str
    parameters: int
    random_weights: bool
    commit: str | None
    uncommitted_changes: bool | None


def describe(loaded: LoadedModel) -> Environment:
    """Describe this process with a model on its device."""
    cpu = cpu_name()
    on_gpu = loaded.device.startswith("cuda")
    commit = _git("rev-parse", "HEAD") if _is_checkout() else None
    return Environment(
        pie=pie_cli.__version__,
        torch=torch.__version__,
        transformers=version("transformers"),
        python=platform.python_version(),
        platform=platform.platform(),
        cpu=cpu,
        threads=crew.threads(),
        device=loaded.device,
        device_name=torch.cuda.get_device_name(torch.device(loaded.device)) if on_gpu else cpu,
        dtype=loaded.dtype,
        weights=loaded.weights,
        parameters=loaded.n_params,
        random_weights=loaded.random_weights,
        commit=commit or None,
        uncommitted_changes=bool(_git("status", "--porcelain")) if commit else None,
    )


def _is_checkout() -> bool:
    """Tell whether pie runs from its own repository, not from one that it is installed in."""
    top = _git("rev-parse", "--show-toplevel")
    return bool(top) and Path(top) == _ROOT


def _git(*arguments: str) -> str:
    """Return what git prints about the folder that pie lies in; empty where it cannot say."""
    try:
        result = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError, UnicodeDecodeError):
        return ""
    return result.stdout.strip()
