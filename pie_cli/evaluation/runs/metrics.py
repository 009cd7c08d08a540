"""How close a prediction comes: to the line that is truly there, and to full recompute's."""

import re
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch
from rapidfuzz import fuzz
from torch import Tensor

KeysValues: TypeAlias = Sequence[tuple[Tensor, Tensor]]
"""Of each layer the keys and values [H, S, D], as a probe gives them."""


def first_line(text: str) -> str:
    """Return a prediction's line with content, without blanks around it."""
    return text.strip().split("\n", 1)[0].strip()


def exact_match(prediction: str, target: str) -> bool:
    """Tell whether a predicted line is the true one, whatever the blanks in and around it.

    Source:
        RepoBench (arXiv 2306.03091) compares the words of both lines.
    """
    return first_line(prediction).split() == target.split()


def edit_similarity(prediction: str, target: str) -> float:
    """Return how similar two lines are, 0 to 100: `fuzz.ratio`, as RepoBench has it."""
    return float(fuzz.ratio(first_line(prediction), target.strip()))


def next_token_kl(full: Tensor, other: Tensor) -> float:
    """Return the Kullback-Leibler divergence of a next-token distribution from full recompute's.

    Args:
        full: logits [vocabulary] by full recompute.
        other: logits [vocabulary] by another strategy.

    Returns:
        Sum of p (log p - log q) in nats, p full recompute's, formed in float64. Rounding does not
        take it below 0; what is no number stays none.
    """
    log_p = torch.log_softmax(full.double(), dim=-1)
    log_q = torch.log_softmax(other.double(), dim=-1)
    # A token that p rules out (-inf) adds nothing, not NaN.
    terms = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))
    total = float(terms.sum())
    return 0.0 if total < 0 else total


@torch.inference_mode()
def layer_cosines(
    full: KeysValues, other: KeysValues, positions: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Compare keys and values with full recompute's, layer by layer.

    Args:
        full: of the prompt by full recompute.
        other: of the same prompt by another strategy.
        positions: tokens to compare, at least one.

    Returns:
        By layer the mean over these tokens of the cosine between the keys of all heads, and the
        same for values.
    """
    keys, values = [], []
    for ours, theirs in zip(other, full, strict=True):
        index = torch.tensor(list(positions), device=ours[0].device)
        keys.append(_mean_cosine(ours[0], theirs[0], index))
        values.append(_mean_cosine(ours[1], theirs[1], index))
    return keys, values


def has_stale_echo(prediction: str, full: str, obsolete: Iterable[str]) -> bool:
    """Tell whether a prediction uses a name or value that the edit took out of the text.

    Only where full recompute's line does not: what a model says anyway is no echo of the cache.

    Args:
        prediction: line by a strategy.
        full: line by full recompute.
        obsolete: names and values that the new text no longer has.
    """
    return any(_uses(prediction, word) and not _uses(full, word) for word in obsolete)


def _uses(line: str, word: str) -> bool:
    """Tell whether a line has a word, not as part of a longer name or number."""
    before = r"(?<![\w.])" if word[:1].isdecimal() else r"(?<!\w)" if _is_word(word[:1]) else ""
    behind = r"(?!\w)" if _is_word(word[-1:]) else ""
    return bool(word) and bool(re.search(before + re.escape(word) + behind, line))


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _mean_cosine(ours: Tensor, theirs: Tensor, index: Tensor) -> float:
    """Return the mean cosine over tokens of states [H, S, D], the heads joined."""
    one, other = (
        states.index_select(1, index).transpose(0, 1).flatten(1).double()
        for states in (ours, theirs)
    )
    return float(torch.nn.functional.cosine_similarity(one, other, dim=-1).mean())
