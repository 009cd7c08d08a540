"""The vocabulary as bytes: what each token adds to a text, and which tokens can begin one."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from functools import cached_property
from itertools import chain
from typing import Any

from pie_cli.prompt.cuts import Part, parts

_LINE_END = re.compile(rb"[ \t\f\v]*(\r?\n|\r)")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

# GPT-2's alphabet: bytes that print stand for themselves, the others for characters from 256 on.
_PRINTING = (*range(33, 127), *range(161, 173), *range(174, 256))
_OTHERS = {256 + place: byte for place, byte in enumerate(sorted(set(range(256)) - set(_PRINTING)))}
_ALPHABET = re.compile(f"[{re.escape(''.join(map(chr, (*_PRINTING, *_OTHERS))))}]*")


class Vocabulary:
    """The bytes of a tokenizer's tokens, sorted.

    Takes some 0.2 s for 100,000 tokens to make, so make it when it is first needed.

    Args:
        state: the tokenizer as its JSON form, its control tokens flagged as special.
        vocabulary: tokens and their ids, added ones included.
    """

    def __init__(self, state: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
        added = state.get("added_tokens") or ()
        control = {token["content"] for token in added if token["special"]}
        control.add((state.get("model") or {}).get("unk_token"))
        tokens = {i: token for token, i in vocabulary.items() if token not in control}
        spelled = _spelled(list(tokens.values()), parts(state.get("decoder"), "decoders"))
        self._pieces = dict(zip(tokens, spelled, strict=True))
        self._ids = sorted(
            (i for i, piece in self._pieces.items() if piece), key=self._pieces.__getitem__
        )
        self._sorted = [self._pieces[i] for i in self._ids]
        self._longest = max(map(len, self._sorted), default=0)

    def pieces(self, ids: Iterable[int]) -> list[bytes]:
        """Return the bytes that each id adds to a text; none for a control token."""
        return [self._pieces.get(i, b"") for i in ids]

    def starting_with(self, prefix: bytes) -> tuple[int, ...]:
        """Return the ids of the tokens that begin with a prefix, and of those that it begins with.

        Together these are the ways in which a text can begin that begins with the prefix. In no
        order; every token for an empty prefix.
        """
        start = bisect_left(self._sorted, prefix)
        stop = bisect_right(self._sorted, prefix + b"\xff" * self._longest, start)
        shorter = (self._equal_to(prefix[:length]) for length in range(1, len(prefix)))
        return (*self._ids[start:stop], *chain.from_iterable(shorter))

    def open_end(self, tail: bytes) -> int:
        """Return the length of the longest end of some bytes that a longer token begins with."""
        for length in range(min(self._longest, len(tail)), 0, -1):
            end = tail[-length:]
            place = bisect_right(self._sorted, end)
            if place < len(self._sorted) and self._sorted[place].startswith(end):
                return length
        return 0

    @cached_property
    def line_ends(self) -> tuple[int, ...]:
        """The ids of the tokens that end a line before they add anything to it, blanks at most."""
        return tuple(i for i, piece in self._pieces.items() if _LINE_END.match(piece))

    @cached_property
    def by_blanks(self) -> Mapping[bytes, tuple[int, ...]]:
        """The ids of tokens with a text by what they begin with: blanks, then a dot for more."""
        groups: dict[bytes, list[int]] = {}
        for i, piece in self._pieces.items():
            content = piece.lstrip()
            blanks = piece[: len(piece) - len(content)]
            if piece:
                groups.setdefault(blanks + (b"." if content else b""), []).append(i)
        return {blanks: tuple(ids) for blanks, ids in groups.items()}

    def _equal_to(self, piece: bytes) -> list[int]:
        start = bisect_left(self._sorted, piece)
        return self._ids[start : bisect_right(self._sorted, piece, start)]


def _spelled(tokens: list[str], decoder: list[Part]) -> list[bytes]:
    """Turn tokens into bytes, as the tokenizer's decoder does within a text."""
    kinds = {part["type"] for part in decoder}
    if "ByteLevel" in kinds:
        return _spelled_in_alphabet(tokens)
    replaced = [(part["replacement"], " ") for part in decoder if part["type"] == "Metaspace"]
    replaced += [
        (part["pattern"]["String"], part["content"])
        for part in decoder
        if part["type"] == "Replace" and "String" in part["pattern"]
    ]

    def spell(token: str) -> bytes:
        byte = _BYTE_TOKEN.fullmatch(token) if "ByteFallback" in kinds else None
        if byte:
            return bytes([int(byte[1], 16)])
        for old, new in replaced:
            token = token.replace(old, new)
        return token.encode()

    return [spell(token) for token in tokens]


def _spelled_in_alphabet(tokens: list[str]) -> list[bytes]:
    """Turn tokens of GPT-2's alphabet into bytes, all at once; others, added ones, are text."""
    known = [_ALPHABET.fullmatch(token) is not None for token in tokens]
    letters = "".join(token for token, is_known in zip(tokens, known, strict=True) if is_known)
    data = letters.translate(_OTHERS).encode("latin-1")
    pieces, at = [], 0
    for token, is_known in zip(tokens, known, strict=True):
        if is_known:
            pieces.append(data[at : at + len(token)])
            at += len(token)
        else:
            pieces.append(token.encode())
    return pieces
