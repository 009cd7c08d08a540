"""The exact run: encode a cached prompt again, in place, chunk by chunk."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pie_cli.engine.clock import stamp
from pie_cli.engine.forward import encode, segments
from pie_cli.engine.model import CausalModel
from pie_cli.engine.slots import SlotCache

# Large enough that chunking costs under 5 % of one pass, small enough to be given up quickly
# (docs/log.md). An accelerator needs far larger chunks to be filled; this value is not measured.
CHUNK_TOKENS = 768
_CHUNK_TOKENS_ACCELERATOR = 4_096


def chunk_tokens_for(device: torch.device) -> int:
    """Return the tokens of a chunk that suit a device."""
    return CHUNK_TOKENS if device.type == "cpu" else _CHUNK_TOKENS_ACCELERATOR


@dataclass(frozen=True, eq=False)
class RefreshStep:
    """One chunk done.

    Attributes:
        reached: every token from the run's start up to this position is exact now, provided those
            before the start are.
        compute_s: seconds of this chunk, pauses before it excluded.
        logits: float32 [1 + len(draft), vocabulary] after the last chunk (the last token's, then
            the draft's); None before.
    """

    reached: int
    compute_s: float
    logits: Tensor | None


def refresh(
    model: CausalModel,
    cache: SlotCache,
    token_ids: Sequence[int],
    start: int = 0,
    chunk_tokens: int = CHUNK_TOKENS,
    should_stop: Callable[[], bool] = lambda: False,
    draft: Sequence[int] = (),
) -> Iterator[RefreshStep]:
    """Encode the tokens from `start` to the prompt's end again, ascending, in place.

    Also the first encoding of a prompt: splice with no kept run, then refresh from 0. Between two
    chunks the cache holds a complete prompt whose tokens before `reached` are exact, so that
    stopping loses nothing.

    Args:
        model: with the engine's attention installed.
        cache: holds the prompt.
        token_ids: of the whole prompt.
        start: first token to encode again.
        chunk_tokens: tokens a pass.
        should_stop: asked before each chunk.
        draft: rides in the last chunk; `decode_after` verifies it and truncates the cache to the
            prompt again. Without a draft the cache is never lengthened.

    Yields:
        A step after each chunk.

    Raises:
        ValueError: when the prompt and the cache differ in length, or `start` leaves no token to
            encode.
    """
    length = len(token_ids)
    if length != cache.length:
        raise ValueError(f"a prompt of {length} tokens, but {cache.length} in the cache")
    if not 0 <= start < length:
        raise ValueError(f"cannot start at token {start} of {length}")
    for chunk in segments(start, length, chunk_tokens):
        if should_stop():
            return
        began = stamp(model.device)
        logits = None
        if chunk.stop < length:
            encode(model, cache, token_ids[chunk.start : chunk.stop], chunk, ())
        else:
            cache.extend(length + len(draft))
            rows = range(chunk.start, length + len(draft))
            last = len(chunk) - 1
            logits = encode(
                model,
                cache,
                [*token_ids[chunk.start :], *draft],
                rows,
                range(last, last + 1 + len(draft)),
            )
        yield RefreshStep(chunk.stop, stamp(model.device) - began, logits)
