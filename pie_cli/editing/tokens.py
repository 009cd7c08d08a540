"""Text to token ids and back: exactly, with a user's text always staying text.

The ids are those of tokenizing the whole text from scratch, always. Two things make that quick and
safe. A private copy of the tokenizer is configured, so that the caller's own keeps its behaviour.
And where the tokenizer provably splits at every newline before anything else, a line's ids depend
on that line alone and are remembered; any other tokenizer works on the whole text each time.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Protocol

from tokenizers import Tokenizer

from pie_cli.editing.hunks import split_lines
from pie_cli.errors import ModelError

MAX_LINES_REMEMBERED = 1 << 15
"""Lines whose ids are kept: some 15 MB at ten tokens a line."""

MAX_LINE_CHARS = 2_000
"""Characters beyond which a line's ids are not kept: minified files would fill the memory."""

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
# Regexes whose matches are newlines, each alone, and pieces that never hold one: alternatives made
# of classes that leave newlines out, each with a part that cannot be empty. They look no further
# than one character ahead, which in a line is at most its own newline.
_LETTERS = r"\\[dw]|\\p\{[LNPSM]\w?\}"
_RANGE = r"[A-Za-z0-9]-[A-Za-z0-9]"
_WITH = rf"\[(?:{_LETTERS}|{_RANGE}|[\w ])+\]"
_ITEM = rf"(?:\\[dDwWsSnrt]|\\p\{{\w+\}}|{_RANGE}|[\w \r\n])"
_WITHOUT = rf"\[\^{_ITEM}*(?:\\s|\\n|\n){_ITEM}*\]"
_ATOM = rf"(?:{_LETTERS}|{_WITH}|{_WITHOUT})"
_PIECE = rf"(?:{_ATOM}[?*]?)*{_ATOM}\+?(?:{_ATOM}[?*+]?)*(?:\(\?=\[ \]\))?"
_NEWLINE = r"(?:\\n|\n|\[(?:\\n|\n|\\r|\r)*(?:\\n|\n)(?:\\r|\r)*\])"
_NEWLINE_SPLIT = re.compile(rf"(?:(?:\\r|\r|{_PIECE})\|)*{_NEWLINE}(?:\|(?:\\r|\r|{_PIECE}))*")
_LOCAL_PRE_TOKENIZERS = frozenset({"Split", "Digits", "Punctuation", "ByteLevel", "Whitespace"})
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
            control: further added tokens that must stay text when they stand in a text.

        Raises:
            ModelError: the tokenizer has no `tokenizers` backend (a slow, Python-only one).
        """
        state = json.loads(_backend(tokenizer).to_str())
        _mark_control_tokens(state, frozenset(control))
        self._tokenizer = Tokenizer.from_str(json.dumps(state))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.by_line = splits_at_newlines(state)
        self.vocab_size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
        self._remembered = lru_cache(MAX_LINES_REMEMBERED)(self._encode_line)
        self._anchor = self._tokenizer.encode(_ANCHOR, add_special_tokens=False).ids
        self._anchor_text: str = self.decode(self._anchor)
        self._pieces = _Pieces(self.decode_continuation)

    def encode(self, text: str) -> list[int]:
        """Tokenize a text from scratch, or as if.

        Args:
            text: any text; lone surrogates are read as the replacement character.

        Returns:
            Its token ids, without a beginning-of-text token.
        """
        if self.by_line:
            return list(chain.from_iterable(map(self._line_ids, split_lines(text))))
        # The batch call leaves the offsets out, which saves a fifth of the time.
        encodings = self._tokenizer.encode_batch_fast([_encodable(text)], add_special_tokens=False)
        ids: list[int] = encodings[0].ids
        return ids

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

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """Give what each token adds to a text, as UTF-8; remembered token by token.

        A token that ends within a character gives a replacement character in its place.
        """
        return list(map(self._pieces.__getitem__, ids))

    def token_id(self, token: str) -> int | None:
        """Look a token of the vocabulary up, control tokens included; None where there is none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def _line_ids(self, line: str) -> tuple[int, ...]:
        return self._remembered(line) if len(line) <= MAX_LINE_CHARS else self._encode_line(line)

    def _encode_line(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(_encodable(text), add_special_tokens=False).ids)


class _Pieces(dict[int, bytes]):
    """Bytes of single tokens, each decoded when first asked for."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        super().__init__()
        self._decode = decode

    def __missing__(self, token_id: int) -> bytes:
        piece = self[token_id] = self._decode([token_id]).encode()
        return piece


def splits_at_newlines(state: Mapping[str, Any]) -> bool:
    r"""Tell whether a tokenizer's parts prove that text can be tokenized line by line.

    The proof: nothing changes the text beforehand (no normalizer), the first pre-tokenizer makes
    every "\n" a piece of its own, whatever follows looks at one piece at a time, added tokens can
    not reach over a newline, and a model sees single pieces. So no token depends on two lines.

    Args:
        state: the tokenizer as its JSON form.
    """
    steps = _parts(state.get("pre_tokenizer"), "pretokenizers")
    return (
        not _parts(state.get("normalizer"), "normalizers")
        and bool(steps)
        and _isolates_newlines(steps[0])
        and all(_is_local(step) for step in steps[1:])
        and not any(_crosses_lines(token) for token in state.get("added_tokens") or ())
        and not (state.get("model") or {}).get("dropout")
    )


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


def _encodable(text: str) -> str:
    """Replace what UTF-8 cannot hold: undecodable bytes that were read as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return text


def _parts(step: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """Flatten a part of a tokenizer that may be nothing, one step or a (nested) sequence."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [part for inner in step[key] for part in _parts(inner, key)]
    return [step]


def _isolates_newlines(step: Mapping[str, Any]) -> bool:
    if step["type"] != "Split" or step.get("behavior") != "Isolated" or step.get("invert"):
        return False
    pattern = step["pattern"]
    # As a plain string only a newline itself will do; "\n" in two characters is a regex.
    return pattern.get("String") == "\n" or bool(
        _NEWLINE_SPLIT.fullmatch(pattern.get("Regex") or "")
    )


def _is_local(step: Mapping[str, Any]) -> bool:
    """Tell whether a pre-tokenizer looks at one piece at a time, wherever that piece stands."""
    return step["type"] in _LOCAL_PRE_TOKENIZERS


def _crosses_lines(token: Mapping[str, Any]) -> bool:
    """Tell whether an added token that is matched in text can depend on a neighbouring line."""
    if "\n" in token["content"]:
        return True
    looks_around = token["lstrip"] or token["rstrip"] or token["single_word"]
    return bool(looks_around and not token["special"])
