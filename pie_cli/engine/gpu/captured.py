"""Forward passes over few tokens, captured as CUDA graphs and replayed."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from pie_cli.engine.attention import attending
from pie_cli.engine.gpu import launches
from pie_cli.engine.gpu.fused import Fused
from pie_cli.engine.gpu.launches import Addresses
from pie_cli.engine.head import watching_head
from pie_cli.engine.layers import SlotLayer
from pie_cli.engine.model import CausalModel, layer_count
from pie_cli.engine.passes import ForwardPass
from pie_cli.engine.slots import SlotCache

ROWS = (1, 4, 16, 32, 64, 128)
"""Tokens of the captured passes; a pass of fewer repeats its last one."""

MAX_ROWS = 1_024
"""Tokens of the longest pass that is run with these kernels."""

# Tokens, far from position 0, where every rotation is the same, on which what is fused is tried.
_TRIED = 16


class _AddressedCache(Cache):
    """What a model writes to in such a pass: slots whose addresses stand in a table."""

    def __init__(self, addresses: Addresses, positions: Tensor, layers: int) -> None:
        super().__init__(layers=[SlotLayer() for _ in range(layers)])
        self._addresses = addresses
        self._positions = positions
        self._layer, self._kv_heads = 0, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one layer's states [1, G, S, D]; the layer's attention reads them there."""
        launches.write(self._addresses, layer_idx, self._positions, key_states, value_states)
        self._layer, self._kv_heads = layer_idx, key_states.shape[1]
        return key_states, value_states

    def attend(
        self, query: Tensor, scaling: float | None, window: int | None, softcap: float | None
    ) -> Tensor:
        """Attend from [1, H, S, D] to the slots of the layer written last; [1, S, H, D]."""
        return launches.attend(
            self._addresses,
            self._layer,
            self._positions,
            query,
            self._kv_heads,
            scaling,
            window,
            softcap,
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        """Return 0: positions are given."""
        return 0


class CapturedPasses:
    """Graphs of a model's passes over 1 to 128 tokens, for any of its caches.

    Args:
        model: on a CUDA device, with the engine's attention installed.
    """

    def __init__(self, model: CausalModel) -> None:
        self._model = model
        layers = layer_count(model)
        self._addresses = Addresses(layers, model.device)
        # Token ids, then positions.
        self._inputs = torch.zeros(2, ROWS[-1], dtype=torch.int64, device=model.device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._outputs: dict[int, tuple[Tensor, list[Tensor]]] = {}
        self._layers = layers
        self._fused = Fused(model)

    def run(
        self, cache: SlotCache, this: ForwardPass, token_ids: Sequence[int]
    ) -> tuple[Tensor, list[Tensor]] | None:
        """Run a pass, states into its slots; replayed where it is captured.

        Returns:
            Logits [rows, vocabulary] and final states [1, rows, hidden] (none for models in
            float32), of all tokens and perhaps more rows, valid until the next pass; None where the
            model has to run by itself.
        """
        if not self._suits(this) or not self._addresses.point_at(cache.slot_layers):
            return None
        size = next((rows for rows in ROWS if rows >= len(token_ids)), len(token_ids))
        missing = size - len(token_ids)
        ids = [*token_ids, *[token_ids[-1]] * missing]
        places = [*this.positions, *[this.stop - 1] * missing]
        numbers = torch.tensor([ids, places])
        if size not in self._graphs:
            return self._forward(numbers.to(self._inputs.device))
        self._inputs[:, :size].copy_(numbers)
        self._graphs[size].replay()
        return self._outputs[size]

    @staticmethod
    def _suits(this: ForwardPass) -> bool:
        """Whether these kernels are the quickest ones for a pass, if they can compute it."""
        if this.first_key or this.whole:
            return False
        return len(this) <= (ROWS[-1] if this.contiguous else MAX_ROWS)

    def capture(self, cache: SlotCache, token_ids: Sequence[int]) -> None:
        """Capture all passes, by writing the first slots of a cache again and again.

        Args:
            cache: of as many tokens as the longest captured pass, or more.
            token_ids: of these tokens, all kinds of them: what is fused is tried on them.
        """
        self._addresses.point_at(cache.slot_layers)
        self._inputs.copy_(torch.tensor([token_ids[: ROWS[-1]], range(ROWS[-1])]))
        pool = torch.cuda.graph_pool_handle()
        with self._fused.used():
            self._forward(self._inputs[:, -_TRIED:])
            for rows in reversed(ROWS):
                self._warm_up(rows)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                    self._outputs[rows] = self._forward(self._inputs[:, :rows])
                self._graphs[rows] = graph

    def _warm_up(self, rows: int) -> None:
        """Run a pass as it will be captured.

        Raises:
            RuntimeError: when the model waits for the device in between. A capture that is broken
                off by that would leave torch's random numbers unusable.
        """
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), _refusing_to_wait():
            self._forward(self._inputs[:, :rows])
        torch.cuda.current_stream().wait_stream(side)

    def _forward(self, inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Run the model on token ids and positions [2, rows]."""
        ids, positions = inputs
        cache = _AddressedCache(self._addresses, positions, self._layers)
        this = ForwardPass(range(len(ids)), kernels=cache)
        with attending(this), watching_head(self._model) as states:
            logits = self._model(
                input_ids=ids[None],
                position_ids=positions[None],
                past_key_values=cache,
                use_cache=True,
            ).logits
        return logits[0], states


@contextmanager
def _refusing_to_wait() -> Iterator[None]:
    """Let every wait for the device in the body be a RuntimeError."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode calls itself a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
