"""Where the time of an edit goes, part by part, beside what reading memory alone would take."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median, median_high
from typing import Any, TypeVar

import torch
from torch import nn

from pie_cli.engine import attention, forward, layers, logits, rope
from pie_cli.engine.device import stamp
from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.gpu.replay import uncaptured
from pie_cli.engine.head import linear_head
from pie_cli.engine.model import CausalModel
from pie_cli.session import EditSession

T = TypeVar("T")

PARTS = ("rotate", "move", "write", "products", "attention", "head", "choose")
"""Parts of a pass that are timed; what is left is norms, activations and calls."""

_READ_BYTES = 1 << 28
_READS = 5


@dataclass(frozen=True)
class Part:
    """One part of what an update takes.

    Attributes:
        name: of the part.
        time_ms: median over the edits.
        limit_ms: what reading its weights or its keys and values once takes here; None where
            nothing is to be read.
    """

    name: str
    time_ms: float
    limit_ms: float | None


@dataclass(frozen=True)
class Profile:
    """Parts of the time from an edit to the first token, and of one further pass.

    Attributes:
        context_tokens, edit, edit_tokens: of the workload.
        strategy: that was profiled.
        encoded_tokens: in the first pass; the middle one.
        first: parts up to the first token.
        step: parts of one further pass, with the tokens drafted in it; empty where no line had a
            second pass.
    """

    context_tokens: int
    edit: str
    edit_tokens: int
    strategy: str
    encoded_tokens: int
    first: tuple[Part, ...]
    step: tuple[Part, ...]


class PartTimes:
    """Milliseconds spent in each part since the last `take`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spent: dict[str, float] = defaultdict(float)

    def timed(self, part: str, function: Callable[..., T]) -> Callable[..., T]:
        """Return the function with its time counted towards a part."""

        def wrapped(*arguments: Any, **named: Any) -> T:
            began = stamp(self._device)
            try:
                return function(*arguments, **named)
            finally:
                self._spent[part] += 1e3 * (stamp(self._device) - began)

        return wrapped

    def take(self) -> dict[str, float]:
        """Return what was spent, and begin again."""
        spent = {part: self._spent[part] for part in PARTS}
        self._spent.clear()
        # What moves includes what turns.
        spent["move"] -= spent["rotate"]
        return spent


@contextmanager
def profiled(model: CausalModel) -> Iterator[PartTimes]:
    """Time the parts of every pass in the body, which takes a little longer for it."""
    times = PartTimes(model.device)
    head = linear_head(model)
    with ExitStack() as stack:
        # What is captured runs as one.
        stack.enter_context(uncaptured(model))

        def replace(owner: Any, name: str, part: str) -> None:
            stack.enter_context(_swapped(owner, name, times.timed(part, getattr(owner, name))))

        for module in model.modules():
            if type(module) is nn.Linear:
                replace(module, "forward", "head" if module is head else "products")
        stack.enter_context(
            attention.attending_by(times.timed("attention", attention.pie_attention))
        )
        replace(rope, "_turn", "rotate")
        replace(layers.SlotLayer, "move", "move")
        replace(layers.SlotLayer, "write", "write")
        replace(logits, "_best_two", "choose")
        replace(forward, "rescored", "choose")
        yield times


@contextmanager
def _swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give a module, a class or an instance another attribute in the body."""
    missing = object()
    before = vars(owner).get(name, missing)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def bandwidth_gbps(device: torch.device) -> float:
    """Measure how fast a device's memory is read, with torch's threads: GB/s, the best of a few."""
    block = torch.zeros(_READ_BYTES // 4, device=device)
    block.sum()
    best = float("inf")
    for _ in range(_READS):
        began = stamp(device)
        block.sum()
        best = min(best, stamp(device) - began)
    return _READ_BYTES / best / 1e9


def limits_ms(model: CausalModel, cache_bytes: int, gbps: float) -> dict[str, float]:
    """Return what reading each part's bytes once takes, in milliseconds."""
    head = linear_head(model)
    products = sum(
        weight_bytes(module)
        for module in model.modules()
        if type(module) is nn.Linear and module is not head
    )
    read = {"products": products, "attention": cache_bytes}
    if head is not None:
        read["head"] = weight_bytes(head)
    return {part: size / gbps / 1e6 for part, size in read.items()}


def weight_bytes(layer: nn.Linear) -> int:
    """Return the bytes of a layer's weights as they are multiplied, packed or not."""
    product = vars(layer).get("forward")
    itemsize = getattr(product, "itemsize", layer.weight.element_size())
    return layer.in_features * layer.out_features * int(itemsize)


class Profiler:
    """Profiles one strategy on one kind and size of edit.

    Args:
        model: that runs.
        gbps: how fast memory is read.
    """

    def __init__(self, model: CausalModel, gbps: float) -> None:
        self._model = model
        self._gbps = gbps
        self._limits: dict[str, float] = {}
        self._first: list[dict[str, float]] = []
        self._step: list[dict[str, float]] = []
        self._first_ms: list[float] = []
        self._step_ms: list[float] = []
        self._encoded: list[int] = []

    def add(self, session: EditSession, strategy: str, text: str) -> None:
        """Profile the way to another text, twice: to the first token, and to the line.

        Args:
            session: in the state before the edit; copies are used.
            strategy: that is profiled.
            text: after the edit.
        """
        twin, whole = session.fork(strategy), session.fork(strategy)
        with profiled(self._model) as times:
            short = twin.update(text, should_stop=lambda: True)
            first = times.take()
            line = whole.update(text)
            every = times.take()
        timings = short.timings_ms
        self._first.append({"tokenize": timings.tokenize, "diff, plan": timings.diff, **first})
        self._first_ms.append(timings.first_token)
        self._encoded.append(short.tokens.encoded)
        steps = line.passes - 1
        if steps:
            self._step.append({part: (every[part] - first[part]) / steps for part in PARTS[2:]})
            self._step_ms.append(line.timings_ms.decode / steps)
        cache_bytes = short.tokens.total * cache_bytes_a_token(whole)
        self._limits = limits_ms(self._model, cache_bytes, self._gbps)

    def profile(self, context_tokens: int, edit: str, edit_tokens: int, strategy: str) -> Profile:
        """Sum up what was added."""
        return Profile(
            context_tokens,
            edit,
            edit_tokens,
            strategy,
            median_high(self._encoded),
            _parts(self._first, self._first_ms, self._limits),
            _parts(self._step, self._step_ms, self._limits),
        )


def cache_bytes_a_token(session: EditSession) -> int:
    """Return the bytes of a token's keys and values; 0 where the engine has no slots."""
    return session.engine.slots.token_bytes if isinstance(session.engine, EditedEngine) else 0


def _parts(
    samples: Sequence[dict[str, float]], totals_ms: Sequence[float], limits: dict[str, float]
) -> tuple[Part, ...]:
    """Sum up samples of part times, and what is left of their totals."""
    if not samples:
        return ()
    parts = [Part(n, median(s[n] for s in samples), limits.get(n)) for n in samples[0]]
    rest = [total - sum(s.values()) for total, s in zip(totals_ms, samples, strict=True)]
    return (
        *parts,
        Part("the rest", median(rest), None),
        Part("all", median(totals_ms), sum(limits.values())),
    )
