"""Files of exact keys and values: a prompt's cache, as a later run can begin with it.

Layout, in safetensors: `token_ids` int64 [S], `L.keys` and `L.values` [1, H, S, D] of each layer L
that has storage, then `checksums` int64, a CRC-32 of each tensor before it, in this order, and of
the metadata, which name the format, the model, and what the writer noted.
"""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pie_cli.engine.layers import LayerStates
from pie_cli.engine.slots import SlotCache
from pie_cli.storing import system_errors
from pie_cli.text.matching import common_prefix

FORMAT: Final = "1"
"""Raised with any change of what is stored."""

MIN_SHARED: Final = 64
"""Tokens in common from which on a file is read: fewer are encoded in no time."""

_IDS: Final = "token_ids"
_CHECKSUMS: Final = "checksums"

# Relative difference between the first token's states as kept and as computed: more than rounding
# makes, less than there is to another model's.
_SAME: Final = 0.05


class UnfitFile(Exception):
    """A file that is damaged, or about something else."""


def write(
    path: Path,
    slots: SlotCache,
    token_ids: Sequence[int],
    model: str,
    facts: Mapping[str, str],
    most_bytes: int,
) -> int:
    """Write what slots hold.

    Args:
        path: written over.
        slots: hold the tokens; not changed.
        token_ids: of all of them.
        model: who computed them.
        facts: noted with them.
        most_bytes: a larger file is not begun.

    Returns:
        Bytes of the file; 0 where it would be larger, or too small to be read again.

    Raises:
        CacheIntegrityError: when one of the tokens was never written, or was moved.
        OSError: the file cannot be written.
    """
    if len(token_ids) <= MIN_SHARED or len(token_ids) * slots.token_bytes > most_bytes:
        return 0
    tensors = {_IDS: torch.tensor(list(token_ids))}
    for index, states in enumerate(slots.take(0, len(token_ids))):
        tensors.update(zip(_names(index), states or (), strict=False))
    metadata = {**facts, "format": FORMAT, "model": model}
    sums = [zlib.crc32(_bytes_of(tensor)) for tensor in tensors.values()]
    sums.append(_sum_of(metadata))
    try:
        with system_errors():
            save_file({**tensors, _CHECKSUMS: torch.tensor(sums)}, path, metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    return path.stat().st_size


class KeptFile:
    """A file as it was when it was opened, whatever becomes of its name.

    Args:
        path: of a regular file.
        model: who must have written it.

    Attributes:
        token_ids: of the prompt that it holds.
        facts: what its writer noted.

    Raises:
        UnfitFile: it is damaged, or of another format or model.
    """

    def __init__(self, path: Path, model: str) -> None:
        with _readable():
            self._file = cast("Any", safe_open(path, framework="pt"))
            self.facts: Mapping[str, str] = self._file.metadata() or {}
            self._names = set(self._file.keys())
        if (self.facts.get("format"), self.facts.get("model")) != (FORMAT, model):
            raise UnfitFile("it is of another format or model")
        self._sums = self._tensor(_CHECKSUMS).tolist()
        ids = self._tensor(_IDS)
        if ids.dtype != torch.int64 or ids.dim() != 1:
            raise UnfitFile("its token ids are none")
        if not self._sums or self._sums.pop() != _sum_of(self.facts):
            raise UnfitFile("its metadata are damaged")
        self._check(_IDS, ids, self._sums[0] if self._sums else None)
        self.token_ids: list[int] = ids.tolist()

    def shared(self, token_ids: Sequence[int]) -> int:
        """Return how many tokens to take from here for a prompt; 0 where it is not worth it.

        Never the last one: its logits are wanted, so it must run through the model.
        """
        shared = min(common_prefix(self.token_ids, token_ids), len(token_ids) - 1)
        return shared if shared >= MIN_SHARED else 0

    def layers(self, slots: SlotCache, count: int) -> Iterator[LayerStates]:
        """Read the states of the first `count` tokens, one layer after the other.

        Args:
            slots: to be filled; the first token has been computed there by the model.
            count: tokens.

        Yields:
            Keys and values [1, H, count, D] on the layer's device, None for one without storage.

        Raises:
            UnfitFile: it is damaged, of other layers, shapes or dtype, or by another model.
        """
        stored = dict(_stored(slots))
        if self._names != {*stored, _IDS, _CHECKSUMS} or len(self._sums) != len(stored) + 1:
            raise UnfitFile("it has other layers")
        sums = dict(zip(stored, self._sums[1:], strict=True))
        for index, layer in enumerate(slots.slot_layers):
            if not layer.is_initialized:
                yield None
                continue
            keys, values = (
                self._states(name, stored[name], sums[name])[:, :, :count].to(layer.keys.device)
                for name in _names(index)
            )
            yield keys, values

    def _states(self, name: str, slots: Tensor, checksum: int) -> Tensor:
        states = self._tensor(name)
        shape = (1, slots.shape[1], len(self.token_ids), slots.shape[3])
        if tuple(states.shape) != shape or states.dtype != slots.dtype:
            raise UnfitFile(f"{name} is {list(states.shape)} in {states.dtype}")
        self._check(name, states, checksum)
        first, computed = states[:, :, 0].float(), slots[:, :, 0].cpu().float()
        if not float((first - computed).norm()) <= _SAME * float(computed.norm()):
            raise UnfitFile(f"{name} is not what this model computes")
        return states

    def _tensor(self, name: str) -> Tensor:
        with _readable():
            tensor: Tensor = self._file.get_tensor(name)
            return tensor

    def _check(self, name: str, tensor: Tensor, checksum: int | None) -> None:
        if zlib.crc32(_bytes_of(tensor)) != checksum:
            raise UnfitFile(f"{name} is damaged")


def _stored(slots: SlotCache) -> Iterator[tuple[str, Tensor]]:
    """Give the name and the slots of each tensor, in their order in the file."""
    for index, layer in enumerate(slots.slot_layers):
        if layer.is_initialized:
            yield from zip(_names(index), (layer.keys, layer.values), strict=True)


def _names(index: int) -> tuple[str, str]:
    return f"{index}.keys", f"{index}.values"


def _sum_of(facts: Mapping[str, str]) -> int:
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's numbers as bytes, in this machine's order."""
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


@contextmanager
def _readable() -> Iterator[None]:
    """Take whatever a damaged file raises for what it is."""
    try:
        yield
    except (SafetensorError, OSError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UnfitFile(str(error)) from error
