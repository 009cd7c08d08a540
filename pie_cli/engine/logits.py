"""Choices from logits as tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pie_cli.engine.choosing import Choice


class LogitRows:
    """Rows of logits that tokens are chosen from.

    Args:
        logits: float32 [rows, vocabulary].

    Attributes:
        logits: as given.
    """

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __len__(self) -> int:
        return len(self.logits)

    def best(self, first: int, stop: int | None = None) -> list[Choice]:
        """Choose from all tokens, in each of the rows [first, stop); waits for the device."""
        return _best_two(self.logits[first:stop])

    def best_among(self, row: int, allowed: Sequence[int]) -> Choice:
        """Choose from some tokens, in one row."""
        index = torch.tensor(allowed, device=self.logits.device)
        best = _best_two(self.logits[row : row + 1, index])[0]
        return Choice(allowed[best.token_id], best.margin)


def _best_two(logits: Tensor) -> list[Choice]:
    """Choose the first highest logit of each row, as argmax does; top-k leaves ties open."""
    best = torch.argmax(logits, dim=-1, keepdim=True)
    top = logits.gather(-1, best)
    rest = logits.scatter(-1, best, float("-inf")).amax(-1, keepdim=True)
    ids: list[int] = best[:, 0].tolist()
    margins: list[float] = (top - rest)[:, 0].tolist()
    return [Choice(i, m) for i, m in zip(ids, margins, strict=True)]
