"""What may not work on a machine, tried: Triton needs a compiler, and drivers that it knows."""

import logging
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger(__name__)


def working(attempt: Callable[[], T]) -> T | None:
    """Return what an attempt with kernels gives, None where they cannot be had or fail."""
    try:
        return attempt()
    except Exception as failure:  # noqa: BLE001 - a compiler's errors have no class in common
        _log.debug("no kernels for this GPU: %s: %s", type(failure).__name__, failure)
        return None
