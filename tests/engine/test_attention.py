"""The attention function equals attention written out, for any ascending positions."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pie_cli.engine.attention import (
    UnsupportedAttention,
    _behind,
    attending,
    pie_attention,
)
from pie_cli.engine.passes import ForwardPass

N_KEYS = 700
POSITIONS = {
    "one": [699],
    "first": [0],
    "pair": [350, 699],
    "hunks": [*range(40, 52), *range(300, 303), 500, 501, 640, 699],
    "long tail": list(range(100, 700)),
    "whole": list(range(700)),
    "every other": list(range(0, 700, 2)),
    "short whole": list(range(20)),
}


def written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    positions: list[int],
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Attend row by row, in float64; returns [1, S, H, D]."""
    groups = query.shape[1] // key.shape[1]
    key, value = (
        key.repeat_interleave(groups, 1).double(),
        value.repeat_interleave(groups, 1).double(),
    )
    rows = []
    for row, position in enumerate(positions):
        first = 0 if window is None else max(0, position - window + 1)
        span = slice(first, position + 1)
        scores = (query[0, :, row, None].double() * key[0, :, span]).sum(-1) * query.shape[
            -1
        ] ** -0.5
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        rows.append((scores.softmax(-1)[..., None] * value[0, :, span]).sum(1))
    return torch.stack(rows)[None]


def attend(
    query: Tensor, key: Tensor, value: Tensor, positions: list[int], **options: float | None
) -> Tensor:
    this = ForwardPass(positions)
    with attending(this):
        output, weights = pie_attention(
            None,
            query,
            key[:, :, : this.stop],
            value[:, :, : this.stop],
            None,
            scaling=query.shape[-1] ** -0.5,
            **options,  # type: ignore[arg-type]
        )
    assert weights is None
    return output


def states(count: int, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count + heads)
    shape = {"generator": generator}
    query = 2 * torch.randn(1, heads, count, 16, **shape)  # type: ignore[call-overload]
    key = 2 * torch.randn(1, kv_heads, N_KEYS, 16, **shape)  # type: ignore[call-overload]
    return query, key, torch.randn(1, kv_heads, N_KEYS, 16, **shape)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
def test_any_positions_and_grouping(name: str, heads: tuple[int, int]) -> None:
    positions = POSITIONS[name]
    query, key, value = states(len(positions), *heads)
    found = attend(query, key, value, positions)
    assert found.shape == (1, len(positions), heads[0], 16)
    assert torch.allclose(found.double(), written_out(query, key, value, positions), atol=1e-5)


@pytest.mark.parametrize("name", POSITIONS)
def test_a_sliding_window_hides_what_lies_before_it(name: str) -> None:
    """Its control, no window, fails by 100 times wherever the window hides anything."""
    positions = POSITIONS[name]
    query, key, value = states(len(positions), 4, 2)
    found = attend(query, key, value, positions, sliding_window=48)
    expected = written_out(query, key, value, positions, window=48)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    if positions[-1] >= 48:
        no_window = attend(query, key, value, positions)
        assert float((no_window - expected).abs().max()) > 100 * 1e-5


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("window", [None, 48])
def test_scores_are_capped(name: str, window: int | None) -> None:
    positions = POSITIONS[name]
    query, key, value = states(len(positions), 4, 2)
    found = attend(query, key, value, positions, softcap=3.0, sliding_window=window)
    expected = written_out(query, key, value, positions, window, softcap=3.0)
    assert torch.allclose(found.double(), expected, atol=1e-5)


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2)])
def test_bfloat16(name: str, heads: tuple[int, int]) -> None:
    positions = POSITIONS[name]
    query, key, value = (x.to(torch.bfloat16) for x in states(len(positions), *heads))
    found = attend(query, key, value, positions)
    expected = written_out(query, key, value, positions)
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.double(), expected, atol=0.04)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_long_tail_needs_no_mask(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two parts or in blocks under a mask, the tail's output is the same."""
    positions = POSITIONS["long tail"]
    query, key, value = (x.to(dtype) for x in states(len(positions), 4, 2))
    found = attend(query, key, value, positions)
    monkeypatch.setattr("pie_cli.engine.attention._flash", None)
    atol = 1e-6 if dtype == torch.float32 else 0.02
    assert torch.allclose(found, attend(query, key, value, positions), atol=atol)


@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_gpu_is_told_instead_of_a_mask(dtype: torch.dtype, heads: tuple[int, int]) -> None:
    positions = POSITIONS["long tail"]
    query, key, value = (x.to(dtype) for x in states(len(positions), *heads))
    expected = written_out(query, key, value, positions)
    found = _behind(query, key, value, None).transpose(1, 2)
    assert torch.allclose(found.double(), expected, atol=1e-5 if dtype == torch.float32 else 0.04)


def test_masks_beyond_the_memory_bound_are_built_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    positions = POSITIONS["long tail"]
    query, key, value = states(len(positions), 4, 2)
    monkeypatch.setattr("pie_cli.engine.attention._flash", None)
    expected = attend(query, key, value, positions)
    monkeypatch.setattr("pie_cli.engine.passes.MAX_MASK_BYTES", 300_000)
    assert torch.equal(attend(query, key, value, positions), expected)


def test_rows_split_where_a_gap_costs_more_than_a_call() -> None:
    this = ForwardPass([*range(1_000, 1_012), 4_107])
    assert [(b.start, b.stop) for b in this.blocks(4_096)] == [(0, 12), (12, 13)]
    assert len(this.blocks(2_000_000)) == 1
    assert [(b.start, b.stop) for b in ForwardPass(range(5, 605)).blocks(1)] == [
        (0, 256),
        (256, 512),
        (512, 600),
    ]


@pytest.mark.parametrize("name", ["s_aux", "position_bias", "alibi"])
def test_unknown_attention_is_refused_not_ignored(name: str) -> None:
    query, key, value = states(4, 4, 2)
    argument: dict[str, Any] = {name: torch.zeros(1)}
    with pytest.raises(UnsupportedAttention, match=name):
        pie_attention(None, query, key, value, None, **argument)
    with pytest.raises(UnsupportedAttention, match="mask"):
        pie_attention(None, query, key, value, torch.zeros(1, 1, 4, N_KEYS))


def test_a_kernel_that_cannot_share_heads_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In torch before 2.9 it would read beyond the KV heads there are."""
    calls: list[int] = []

    def flash(query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        calls.append(query.shape[1])
        return query, query[..., 0]

    monkeypatch.setattr("pie_cli.engine.attention._flash", flash)
    for shares in (True, False):
        monkeypatch.setattr("pie_cli.engine.attention._FLASH_SHARES_HEADS", shares)
        for kv_heads in (2, 4):
            query, keys = torch.randn(1, 4, 300, 16), torch.randn(1, kv_heads, 700, 16)
            attend(query, keys, keys, list(range(400, 700)))
    assert len(calls) == 2 + 2 + 0 + 2
