"""Every default in one place, and the choices an option has."""

import re
from dataclasses import dataclass
from typing import Final

from pie_cli.errors import DeviceError, InputError
from pie_cli.plan import strategies

DEFAULT_MODEL: Final = "auto"
"""The best model at hand: what every command uses without `--model`."""

COMPARE_PAUSE_MS: Final = 1_000
"""How long no save may come before an answer is compared."""

COMPARE_LIMIT_S: Final = 20
"""Work beyond which an answer is not compared with full recompute."""

MOST_THREADS: Final = 1_024
"""Threads that may be asked for: far more than that cannot be started."""

COMPARISONS: Final = ("full", "prefix", "none")
DTYPES: Final = ("auto", "float32", "bfloat16", "float16")
WEIGHTS: Final = ("full", "int8")
DEVICES: Final = ("auto", "cpu", "cuda", "mps", "map")

_DEVICE = re.compile(r"auto|cpu|mps|map|cuda(:\d+)?")
_CURSOR = re.compile(r"end|edit|[1-9]\d{0,8}(:\d{1,9})?")


@dataclass(frozen=True)
class Settings:
    """What a session needs to know besides the text; validated on construction.

    Attributes:
        model: alias, local folder, GGUF file or hub name; "auto" for the best at hand.
        device: "auto", "cpu", "cuda", "cuda:N", "mps", or "map" for all there are.
        dtype: "auto", "float32", "bfloat16" or "float16".
        strategy: how an edit becomes a plan: a name that `strategies.parse` reads.
        compare: what the comparison run recomputes: all, what follows the first change, nothing.
        at: where the prediction begins: "edit", "end", "LINE" or "LINE:COL", from 1 (column 0
            is the first one, too).
        max_tokens: most tokens for each predicted line.
        context_tokens: longest prompt in tokens; None for the model's window.
        debounce_ms: quiet time after which a burst of file events counts as one save.
        chunk_tokens: tokens a chunk of the comparison run encodes between two looks for a new save;
            None for what suits the device.
        trust_remote_code: whether code from a model's repository may run.
        latency: milliseconds to the first token, which repair may fill where a strategy sets no
            budget.
        lines: most lines of a prediction; it ends earlier where their block does.
        line_margin: by how much the logit of a token that goes on with the line at the end of an
            edit must be above that of the best one that ends it; else the line is done. A multiple
            of it where the line looks done.
        threads: most that compute on a CPU; None for all cores.
        weights: "full" as `dtype` has them, or "int8": rounded to eight bits, on a CPU.

    Raises:
        InputError: a value that an option cannot take.
        DeviceError: a device or dtype that pie does not know.
    """

    model: str = DEFAULT_MODEL
    device: str = "auto"
    dtype: str = "auto"
    strategy: str = strategies.DEFAULT_STRATEGY
    compare: str = "full"
    at: str = "edit"
    max_tokens: int = 64
    context_tokens: int | None = None
    debounce_ms: int = 30
    chunk_tokens: int | None = None
    trust_remote_code: bool = False
    latency: int = 100
    lines: int = 1
    line_margin: float = 2.5
    threads: int | None = None
    weights: str = "full"

    def __post_init__(self) -> None:
        """Refuse values that could only fail later."""
        check_device(self.device)
        check_dtype(self.dtype)
        _check_choice("weights", self.weights, WEIGHTS)
        strategies.check(self.strategy)
        _check_choice("comparison", self.compare, COMPARISONS)
        if not _CURSOR.fullmatch(self.at):
            raise InputError(
                f"{self.at!r} is not a place in a file",
                'use "edit", "end", LINE or LINE:COL, from 1 on',
            )
        _check_minimum("--lines", self.lines, 1)
        _check_minimum("--max-tokens", self.max_tokens, 1)
        _check_minimum("--latency", self.latency, 0)
        _check_minimum("debounce_ms", self.debounce_ms, 0)
        if self.threads is not None:
            _check_minimum("--threads", self.threads, 1)
            if self.threads > MOST_THREADS:
                raise InputError(
                    f"--threads is {self.threads}", f"it must be at most {MOST_THREADS}"
                )
        if self.chunk_tokens is not None:
            _check_minimum("chunk_tokens", self.chunk_tokens, 1)
        if self.context_tokens is not None:
            # Below this a prompt is hardly more than its fixed head.
            _check_minimum("--context-tokens", self.context_tokens, 16)


def check_device(device: str) -> None:
    """Refuse a device that pie does not know; whether it is there is the loader's question.

    Raises:
        DeviceError: not one of `DEVICES`, nor "cuda:N".
    """
    if not _DEVICE.fullmatch(device):
        raise DeviceError(f"unknown device {device!r}", f"use one of {', '.join(DEVICES)}")


def check_dtype(dtype: str) -> None:
    """Refuse a dtype that pie does not know.

    Raises:
        DeviceError: not one of `DTYPES`.
    """
    if dtype not in DTYPES:
        raise DeviceError(f"unknown dtype {dtype!r}", f"use one of {', '.join(DTYPES)}")


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"unknown {what} {value!r}", f"use one of {', '.join(choices)}")


def _check_minimum(what: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise InputError(f"{what} is {value}", f"it must be at least {minimum}")
