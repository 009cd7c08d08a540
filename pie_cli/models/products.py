"""How much faster a CPU multiplies bfloat16 than float32, by measurement, never by its name."""

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Final

import torch
import torch.nn.functional as F

ROWS: Final = (1, 16, 256)
"""Of a pass: a step's, an edit's and a full recompute's, about."""

_SIDE: Final = 2_048
_ROUNDS: Final = 5


@torch.inference_mode()
def bfloat16_gains() -> tuple[float, ...]:
    """Return float32's time over bfloat16's, for each number of `ROWS`, in one thread.

    Several would wait for each other beside a busy program, which says nothing of the types.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return tuple(_gains())
    finally:
        torch.set_num_threads(threads)


def _gains() -> Iterator[float]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(_SIDE, _SIDE, generator=generator)
    rounded = weight.bfloat16()
    for count in ROWS:
        rows = torch.randn(count, _SIDE, generator=generator)
        float32, bfloat16 = _times(
            partial(F.linear, rows, weight), partial(F.linear, rows.bfloat16(), rounded)
        )
        yield float32 / bfloat16


def _times(*products: Callable[[], object]) -> list[float]:
    """Return the smallest time of each, in seconds: other programs only ever add some."""
    times = []
    for _ in range(1 + _ROUNDS):
        for product in products:
            began = perf_counter()
            product()
            times.append(perf_counter() - began)
    # The first round is for warming up.
    return [min(times[len(products) + i :: len(products)]) for i in range(len(products))]
