"""Small functions of a model as one kernel each, while its passes are captured.

Norms and rotary embeddings are made of some ten kernels each that do next to nothing. What takes
their place is only used where it gave the same as they did, on what they were first given.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pie_cli.engine.gpu import launches
from pie_cli.engine.model import CausalModel

_ROTARY = "apply_rotary_pos_emb"
"""How transformers names the function in a family's module that rotates queries and keys."""

# Roundings of the type apart.
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}


class Fused:
    """The functions of one model that have a quicker one.

    Args:
        model: whose norms and rotary function are looked for.
    """

    def __init__(self, model: CausalModel) -> None:
        self._norms = [
            (module, _Quicker(module.forward, _norm_of(module)))
            for module in model.modules()
            if type(module).__name__.endswith("RMSNorm") and "forward" not in vars(module)
        ]
        self._family = sys.modules[type(model).__module__]
        own = getattr(self._family, _ROTARY, None)
        self._rotary = None if own is None else _Quicker(own, _rotate)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Let the model call the quicker functions in the body; the first time they are tried."""
        with ExitStack() as stack:
            for module, quicker in self._norms:
                vars(module)["forward"] = quicker
                stack.callback(vars(module).pop, "forward")
            if self._rotary is not None:
                setattr(self._family, _ROTARY, self._rotary)
                stack.callback(setattr, self._family, _ROTARY, self._rotary.own)
            yield


class _Quicker:
    """A function that another one may take the place of, if its first result is about the same.

    Attributes:
        own: the function as it was.
    """

    def __init__(self, own: Callable[..., Any], quick: Callable[..., Any]) -> None:
        self.own = own
        self._quick = quick
        self._chosen: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the chosen function; the first time both."""
        if self._chosen is not None:
            return self._chosen(*arguments, **named)
        expected = self.own(*arguments, **named)
        self._chosen = self.own
        if _fits(self._quick, arguments, named, expected):
            self._chosen = self._quick
        return expected


def _fits(quick: Callable[..., Any], arguments: Any, named: Any, expected: Any) -> bool:
    """Tell whether a function takes the arguments and gives about what is expected."""
    try:
        found = quick(*arguments, **named)
    except (AttributeError, TypeError, ValueError):
        return False
    pairs = (
        [(found, expected)]
        if isinstance(expected, Tensor)
        else list(zip(found, expected, strict=True))
    )
    return all(
        ours.shape == theirs.shape
        and ours.dtype == theirs.dtype
        and float((ours.float() - theirs.float()).norm())
        <= _TOLERANCE.get(ours.dtype, 0.0) * float(theirs.float().norm())
        for ours, theirs in pairs
    )


def _norm_of(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a norm's function as one kernel."""
    named: Any = module

    def norm(states: Tensor) -> Tensor:
        eps = named.variance_epsilon if hasattr(named, "variance_epsilon") else named.eps
        return launches.normed(states, named.weight, eps)

    return norm


def _rotate(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys [1, H, S, D] by the angles of [1, S, D], halves against halves."""
    if cos.shape[-1] != query.shape[-1] or cos.ndim != 3 or len(cos) != 1:
        raise ValueError(f"angles {list(cos.shape)} for queries {list(query.shape)}")
    return launches.turned(query, cos, sin), launches.turned(key, cos, sin)
