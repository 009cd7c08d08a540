"""SentencePiece vocabularies: the merges that their scores stand for, and a check of them.

Such a vocabulary has a score for each token and no merges: of all neighbours that together are a
token, those of the highest score are joined first, the leftmost of several. Written as ranked pairs
for the `tokenizers` library this is nearly the same, but where several pairs make one token: of
these the library takes the better ranked one, not the leftmost. So the outcome is compared with the
rule itself on texts made for it, and a vocabulary on which they differ is refused.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

BLANK: Final = "\u2581"
"""How tokens spell a blank."""

_RUNS: Final = f"{BLANK}\t\n-=*#/_.~+"
_LONGEST_RUN: Final = 40
_SAMPLED: Final = 8_000
_PIECES_A_TEXT: Final = 40
_TRIED: Final = 1_200
_LEAST: Final = 20


def merges_of(ids: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Return the pairs of tokens that make a token, best first.

    Args:
        ids: of the tokens.
        scores: by id.
    """
    ranked = []
    for token, token_id in ids.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                ranked.append((-scores[token_id], token_id, -cut, left, right))
    ranked.sort()
    return [(left, right) for *_, left, right in ranked]


def tokens_of(text: str, ids: Mapping[str, int], scores: Sequence[float]) -> list[int | str]:
    """Tokenize by the rule itself, slowly.

    Args:
        text: blanks spelled as in tokens.
        ids: of the tokens.
        scores: by id.

    Returns:
        Ids, and characters that are no tokens as they are.
    """
    pieces: list[str] = list(text)
    following = [*range(1, len(pieces)), -1]
    before = list(range(-1, len(pieces) - 1))
    queue: list[tuple[float, int, int, str]] = []

    def offer(left: int, right: int) -> None:
        if left >= 0 and right >= 0:
            joined = pieces[left] + pieces[right]
            if joined in ids:
                heapq.heappush(queue, (-scores[ids[joined]], left, right, joined))

    for index in range(1, len(pieces)):
        offer(index - 1, index)
    while queue:
        _, left, right, joined = heapq.heappop(queue)
        # One of the two may have been joined with another meanwhile.
        if not pieces[left] or not pieces[right] or pieces[left] + pieces[right] != joined:
            continue
        pieces[left], pieces[right] = joined, ""
        following[left] = following[right]
        if following[right] >= 0:
            before[following[right]] = left
        offer(before[left], left)
        offer(left, following[left])
    return [ids.get(piece, piece) for piece in pieces if piece]


def sample_texts(ids: Mapping[str, int], scores: Sequence[float]) -> Iterator[str]:
    """Yield texts on which ranked pairs and the rule would differ first.

    Runs of one character, all tokens in turn, and at random those that have their score in common:
    of these the leftmost goes first, which ranks cannot say.

    Args:
        ids: of the tokens.
        scores: by id.
    """
    for char in _RUNS:
        yield "a".join(char * length for length in range(1, _LONGEST_RUN))
    tokens = list(ids)
    chosen = tokens[:: max(1, len(tokens) // _SAMPLED)]
    for start in range(0, len(chosen), _PIECES_A_TEXT):
        yield "".join(chosen[start : start + _PIECES_A_TEXT])
    rng = random.Random(0)
    tied = _tied(ids, scores)
    for group in tied:
        halves = [half for token in group for half in (token, token[:1], token[1:], token[:-1])]
        for _ in range(max(_LEAST, _TRIED // len(tied))):
            yield "".join(rng.choices(halves, k=_PIECES_A_TEXT))


def _tied(ids: Mapping[str, int], scores: Sequence[float]) -> list[list[str]]:
    """Return the tokens that are joined from others, in groups of one score."""
    groups: dict[float, list[str]] = defaultdict(list)
    for token, token_id in ids.items():
        if any(token[:cut] in ids and token[cut:] in ids for cut in range(1, len(token))):
            groups[scores[token_id]].append(token)
    return [group for group in groups.values() if len(group) > 1]
