"""A look into an engine's cache, for measuring: logits, keys and values as they are."""

from collections.abc import Sequence

from torch import Tensor

from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.forward import encode
from pie_cli.engine.model import CausalModel
from pie_cli.engine.plain.threshold import ThresholdEngine


class Probe:
    """Reads from the cache of a prompt, which is the same afterwards.

    Args:
        model: that the engine runs.
        engine: holds the prompt.
        token_ids: of the whole prompt.
    """

    def __init__(
        self,
        model: CausalModel,
        engine: EditedEngine | ThresholdEngine,
        token_ids: Sequence[int],
    ) -> None:
        self._model = model
        self._slots = engine.slots
        self._token_ids = token_ids

    def next_logits(self) -> Tensor:
        """Return the logits after the prompt, float32 [vocabulary]."""
        return self.line_logits(())[0]

    def line_logits(self, token_ids: Sequence[int]) -> Tensor:
        """Return the logits after the prompt, then after each of these tokens.

        Args:
            token_ids: that follow the prompt.

        Returns:
            float32 [1 + len(token_ids), vocabulary].
        """
        length, slots = len(self._token_ids), self._slots
        ids = [self._token_ids[-1], *token_ids]
        positions = range(length - 1, length + len(token_ids))
        # The last token is fresh in every plan, so computing it again changes nothing.
        slots.extend(positions.stop)
        try:
            return encode(self._model, slots, ids, positions, range(len(ids)))
        finally:
            slots.truncate(length)

    def keys_values(self) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's keys and values [H, S, D] for the S tokens of the prompt: views."""
        length = len(self._token_ids)
        return [
            (layer.keys[0, :, :length], layer.values[0, :, :length])
            for layer in self._slots.slot_layers
            if layer.is_initialized
        ]
