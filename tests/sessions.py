"""What every test of a session checks: ids, cache and claims against those built from scratch."""

import torch

from pie_cli.engine.forward import encode
from pie_cli.engine.slots import SlotCache
from pie_cli.results import Prediction
from pie_cli.session import EditSession

EXACT = 1e-3
"""Relative difference below which keys and values count as equal: rounding is some 1e-6."""


def slots(session: EditSession) -> SlotCache:
    assert session.engine is not None
    cache: SlotCache = session.engine.slots
    cache.check_integrity()
    return cache


def prompt_ids(session: EditSession) -> list[int]:
    assert session.prompt is not None
    return session.prompt.token_ids


def keys_and_values(cache: SlotCache) -> list[torch.Tensor]:
    length = cache.length
    return [t[0, :, :length] for layer in cache.layers for t in (layer.keys, layer.values)]


def from_scratch(session: EditSession) -> SlotCache:
    """Encode a session's prompt in one pass into a cache of its own."""
    model, ids = session.model.loaded.model, prompt_ids(session)
    cache = SlotCache.for_model(model)
    cache.splice((), len(ids), None)
    encode(model, cache, ids, range(len(ids)), ())
    return cache


def differences(session: EditSession) -> torch.Tensor:
    """Return each token's largest relative difference from full recompute, over all layers [S]."""
    pairs = zip(
        keys_and_values(slots(session)), keys_and_values(from_scratch(session)), strict=True
    )
    return torch.stack(
        [(a - b).norm(dim=(0, 2)) / b.norm(dim=(0, 2)).clamp_min(1e-6) for a, b in pairs]
    ).amax(0)


def check(session: EditSession, prediction: Prediction) -> None:
    """Check what must hold after every save.

    The prompt's parts are tokenized as from scratch; keys and values of layer 0, which sees tokens
    and positions only, are full recompute's; and so are all layers' wherever that is claimed.
    """
    prompt, tokens = session.prompt, prediction.tokens
    assert prompt is not None
    tokenizer = session.model.tokenizer
    for part in prompt.parts.values():
        assert part.token_ids == tokenizer.encode(part.text)
    assert tokens.reused + tokens.encoded == tokens.total == len(prompt.token_ids)
    assert tokens.shifted <= tokens.reused
    assert prediction.exact == (tokens.stale == 0)
    assert tokens.stale == tokens.total - session.stale_from
    assert tokens.total <= min(
        session.settings.context_tokens or session.model.loaded.window,
        session.model.loaded.window - session.settings.max_tokens,
    )
    ours, theirs = keys_and_values(slots(session)), keys_and_values(from_scratch(session))
    for mine, reference in zip(ours[:2], theirs[:2], strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-3)
    exact = differences(session)[: tokens.total - tokens.stale]
    assert not len(exact) or float(exact.max()) < EXACT
