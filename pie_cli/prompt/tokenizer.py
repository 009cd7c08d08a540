"""Text to token ids and back: exactly, with a user's text always staying text.

The ids are those of tokenizing the whole text from scratch, always. Two things make that quick and
safe. A private copy of the tokenizer is configured, so that the caller's own keeps its behaviour.
And work is saved only where the tokenizer provably splits a text whatever is around it (`cuts`):
where it does so at every newline, lines are remembered; a text that was edited is tokenized around
the edit (`incremental`). Without such a proof the whole text is tokenized each time.
"""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import Any, Final, Protocol

from tokenizers import Tokenizer

from pie_cli.errors import ModelError
from pie_cli.prompt.cuts import Cuts, parts
from pie_cli.prompt.incremental import TokenizedText, follow
from pie_cli.prompt.vocabulary import Vocabulary
from pie_cli.text.edit import split_lines

MAX_LINES_REMEMBERED = 1 << 15
"""Lines whose ids are kept: some 15 MB at ten tokens a line."""

MAX_TOKEN_CHARS = 256
"""Characters that no token exceeds, runs of blanks included."""

MAX_LINE_CHARS = 2_000
"""Characters beyond which a line's ids are not kept: minified files would fill the memory."""

_MAX_HEALED: Final = 16
"""Tokens healed at most: a longer stretch is no end of a word, nor a run of blanks."""

# Tokens that steer a model, by their looks: several tokenizers do not flag theirs as special.
_CONTROL = re.compile(
    r"<[|\uff5c].+[|\uff5c]>"
    r"|<(fim|file|repo|commit|issue|jupyter|pr|gh|tool|reponame|filename)[_-]?\w*>"
    r"|<(begin|start|end)_of_\w+>"
    r"|</?(think|tool_call|tool_response|s|pad|unk|mask|bos|eos|cls|sep)>"
    r"|[\u2581 ]?<(pre|suf|mid|eot)>"
    r"|\[/?(inst|prefix|suffix|middle|tool_calls|tool_results|available_tools)\]",
    re.IGNORECASE,
)
_NO_BLANK = {"prepend_scheme": "never", "add_prefix_space": False}
_ANCHOR = "a"


class HasBackend(Protocol):
    """What is needed of a transformers tokenizer: the `tokenizers` object inside."""

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer proper."""


class TextTokenizer:
    """A tokenizer for source text: no special tokens added, none read out of the text, no clean-up.

    Added tokens that steer a model (`<|fim_middle|>` and the like) are never matched in the text,
    also where a tokenizer does not flag them as special, as Qwen's and DeepSeek's do with some.
    Added tokens that stand for ordinary text (runs of blanks, letters) are matched as ever. Use
    `token_id` for the control tokens of a prompt.

    Attributes:
        by_line: whether a line's ids are remembered, which is proved from the tokenizer's parts.
        vocab_size: ids, added ones included.
    """

    def __init__(self, tokenizer: Tokenizer | HasBackend, control: Iterable[str] = ()) -> None:
        """Take a private copy of a tokenizer; the given one is not changed.

        Args:
            tokenizer: a fast transformers tokenizer or a `tokenizers.Tokenizer`.
            control: further added tokens that must stay text when they are in a text.

        Raises:
            ModelError: the tokenizer has no `tokenizers` backend (a slow, Python-only one).
        """
        state = json.loads(_backend(tokenizer).to_str())
        _mark_control_tokens(state, frozenset(control))
        self._cuts = Cuts(state)
        self._spelling = {key: state.get(key) for key in ("added_tokens", "decoder")}
        self._spelling["model"] = {"unk_token": state["model"].get("unk_token")}
        self._begins_with_blank = _without_first_blank(state) != state
        self._tokenizer = Tokenizer.from_str(json.dumps(state))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.by_line = self._cuts.after("\n")
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self._remembered = lru_cache(MAX_LINES_REMEMBERED)(self._encode_line)
        self._anchor = self._tokenizer.encode(_ANCHOR, add_special_tokens=False).ids
        self._anchor_text: str = self.decode(self._anchor)

    def encode(self, text: str) -> list[int]:
        """Tokenize a text from scratch, or as if.

        Args:
            text: any text; lone surrogates are read as the replacement character.

        Returns:
            Its token ids, without a beginning-of-text token.
        """
        if self.by_line:
            return list(chain.from_iterable(map(self._line_ids, split_lines(text))))
        return self._encode_each([text])[0]

    def tokenize(self, text: str) -> TokenizedText:
        """Tokenize a text from scratch, so that an edit of it can be followed."""
        return follow(None, text, self._cuts, self._encode_each)

    def retokenize(self, previous: TokenizedText | None, text: str) -> TokenizedText:
        """Tokenize a text around what an earlier one does not have in common with it.

        Costs as much as the changes, wherever they are, and a comparison of the texts. Where the
        tokenizer has no provable cuts, or the text none for long, the whole stretch is tokenized.

        Args:
            previous: a tokenized text of this tokenizer, such as this one before an edit; it is
                not changed. None tokenizes from scratch.
            text: any text; lone surrogates are read as the replacement character.

        Returns:
            The text with the ids that `encode` gives; `previous` itself for an equal text.
        """
        return follow(previous, text, self._cuts, self._encode_each)

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Turn the ids of a whole text back into it.

        Args:
            ids: token ids. Bytes that make no valid UTF-8 become replacement characters.
            skip_special: leave control tokens out rather than spell them.

        Returns:
            The text, without any clean-up.
        """
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def decode_continuation(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Turn ids that follow other ids into text: what they add to it.

        Decoders of the SentencePiece kind take a blank off the beginning of a text, which a
        prediction in the middle of a file must keep.

        Args:
            ids: token ids, such as a prediction.
            skip_special: leave control tokens out rather than spell them.

        Returns:
            The text that these ids append.
        """
        whole = self.decode([*self._anchor, *ids], skip_special=skip_special)
        return whole[len(self._anchor_text) :]

    def token_id(self, token: str) -> int | None:
        """Look a token of the vocabulary up, control tokens included; None where there is none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    @cached_property
    def continuing(self) -> "TextTokenizer":
        """The same for text after other text: no blank is put before it, as some do with a text.

        This very object where the tokenizer puts none.
        """
        if not self._begins_with_blank:
            return self
        state = _without_first_blank(json.loads(self._tokenizer.to_str()))
        return TextTokenizer(Tokenizer.from_str(json.dumps(state)))

    def pieces(self, ids: Iterable[int]) -> list[bytes]:
        """Return the bytes that each id adds to a text: none for control tokens."""
        return self._vocabulary.pieces(ids)

    def tokens_starting_with(self, text: str | bytes) -> tuple[int, ...]:
        """Return the ids with which a text can begin that begins with the given one.

        For token healing: those of the tokens that begin with it, and of those that it begins with.
        Control tokens are none of them; for an empty text it is every other token. The first call
        sorts the vocabulary.
        """
        return self._vocabulary.starting_with(text.encode() if isinstance(text, str) else text)

    def open_end(self, text: str) -> int:
        """Return how many bytes at a text's end a token could hold that also holds what follows."""
        return self._vocabulary.open_end(_encodable(text[-MAX_TOKEN_CHARS:]).encode())

    @property
    def line_ends(self) -> tuple[int, ...]:
        """The ids of the tokens that end a line before they add anything to it."""
        return self._vocabulary.line_ends

    def tokens_beginning(self, fits: Callable[[bytes], bool]) -> tuple[int, ...]:
        """Return the ids of the tokens with a text whose beginning fits.

        Args:
            fits: asked of the blanks that tokens begin with, line ends among them; a dot after
                them stands for whatever follows.
        """
        groups = self._vocabulary.by_blanks
        return tuple(chain.from_iterable(ids for blanks, ids in groups.items() if fits(blanks)))

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self._spelling, self._tokenizer.get_vocab(with_added_tokens=True))

    def _encode_each(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize several texts, each alone."""
        # The batch call leaves the offsets out, which saves a fifth of the time.
        encodings = self._tokenizer.encode_batch_fast(
            [_encodable(text) for text in texts], add_special_tokens=False
        )
        return [encoding.ids for encoding in encodings]

    def _line_ids(self, line: str) -> tuple[int, ...]:
        return self._remembered(line) if len(line) <= MAX_LINE_CHARS else self._encode_line(line)

    def _encode_line(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(_encodable(text), add_special_tokens=False).ids)


@dataclass(frozen=True, slots=True)
class Healed:
    """Healed tokens: those at a prompt's end that might merge with what follows.

    They are left out of the prompt, and the prediction has to spell their text first.

    Attributes:
        text: as it is in the file.
        token_ids: as the prompt would have had them.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()


UNHEALED: Final = Healed()


def heal(tokenizer: TextTokenizer, text: str, token_ids: Sequence[int]) -> Healed:
    """Find the last tokens of a text that might be others, did the text go on.

    They are those that reach into the longest end of the text with which a longer token begins: no
    token that crosses the text's end could begin before it.

    Args:
        tokenizer: the model's.
        text: before the cursor.
        token_ids: of it.
    """
    if not text or not token_ids or (tokenizer.by_line and text.endswith("\n")):
        return UNHEALED
    open_bytes = tokenizer.open_end(text)
    if not open_bytes:
        return UNHEALED
    taken = b""
    for count in range(1, min(_MAX_HEALED, len(token_ids)) + 1):
        piece = tokenizer.pieces(token_ids[len(token_ids) - count : len(token_ids) - count + 1])[0]
        taken = piece + taken
        if len(taken) < open_bytes:
            continue
        spelled = _decoded(taken)
        if spelled is not None:
            # A tokenizer that changes its text cannot be asked for it again.
            fits = text.endswith(spelled)
            return Healed(spelled, tuple(token_ids[-count:])) if fits else UNHEALED
    return UNHEALED


def _decoded(taken: bytes) -> str | None:
    """Return the text of some bytes, None where they begin or end within a character."""
    try:
        return taken.decode()
    except UnicodeDecodeError:
        return None


def _backend(tokenizer: Tokenizer | HasBackend) -> Tokenizer:
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        raise ModelError(
            f"the model's tokenizer ({type(tokenizer).__name__}) runs in Python only",
            "use a model with a tokenizer.json, that is a fast tokenizer",
        )
    return backend


def _mark_control_tokens(state: dict[str, Any], control: frozenset[str]) -> None:
    """Call the tokens special that steer a model: `encode_special_tokens` then leaves them text."""
    for token in state.get("added_tokens") or ():
        if token["content"] in control or _CONTROL.fullmatch(token["content"]):
            token["special"] = True


def _without_first_blank(state: dict[str, Any]) -> dict[str, Any]:
    """Leave out what puts a blank before a text."""
    normalizers = parts(state.get("normalizer"), "normalizers")
    others = [part for part in normalizers if part["type"] != "Prepend"]
    if others != normalizers:
        state = {**state, "normalizer": {"type": "Sequence", "normalizers": others}}
    steps = parts(state.get("pre_tokenizer"), "pretokenizers")
    without = [
        {**step, **{key: none for key, none in _NO_BLANK.items() if key in step}} for step in steps
    ]
    if without != steps:
        state = {**state, "pre_tokenizer": {"type": "Sequence", "pretokenizers": without}}
    return state


def _encodable(text: str) -> str:
    """Replace what UTF-8 cannot hold: undecodable bytes that were read as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text
