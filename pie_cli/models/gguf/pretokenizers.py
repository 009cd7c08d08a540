r"""How byte-level tokenizers split a text before they merge, by the name that a GGUF file gives.

Each name stands for regexes, applied one after the other: what one matches is a piece of its own,
and so is what lies between two matches; the next one looks into each piece. The names, and which of
them look a piece up whole before merging or begin a text with a token by default, are llama.cpp's.
A name that is not here is refused: a wrong split gives other ids than the model was trained on.

Source:
    The pre-tokenizers of the models' own tokenizers, as llama.cpp (2026-10) applies them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class Splitting:
    """How a text is split.

    Attributes:
        regexes: in Oniguruma's syntax, applied in this order.
        whole_first: whether a piece that is a token is taken whole, whatever the merges say.
        bos: whether a text begins with a token where the file does not say.
    """

    regexes: tuple[str, ...]
    whole_first: bool = False
    bos: bool = False


_SPACES = r"\s+(?!\S)|\s+"
_TAILS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_GPT2 = rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
# From U+0800 on, as the models have it, but no blanks: llama.cpp takes them for blanks first.
_OLD_CJK = (
    "[一-龥\u0800-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff\u3001-一"
    "가-\ud7ff]+"
)


def _words(
    digits: str = r"\p{N}", *, letters: str = r"\p{L}", tails: str = _TAILS, ends: str = r"[\r\n]*"
) -> str:
    """Return the regex that GPT-4's kind of tokenizers share, with its variations."""
    other = letters.strip("[]")
    return (
        rf"{tails + '|' if tails else ''}[^\r\n\p{{L}}\p{{N}}]?{letters}+|{digits}"
        rf"| ?[^\s{other}\p{{N}}]+{ends}|\s*[\r\n]+|{_SPACES}"
    )


def _cased(digits: str, tails: str) -> str:
    """Return the regex of GPT-4o's kind, which splits where lower case turns into upper case."""
    upper, lower = r"((?=[\p{L}])([^a-z]))", r"((?=[\p{L}])([^A-Z]))"
    return (
        rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{tails}"
        rf"|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{tails}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|{_SPACES}"
    )


_DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+"
    rf"|{_SPACES}"
)

_GPT2_KIND = Splitting((_GPT2,))
_STARCODER = Splitting((r"\p{N}", _GPT2))
_QWEN2 = Splitting((_words(),))
_LLAMA3 = Splitting((_words(r"\p{N}{1,3}"),))
_LLAMA3_WHOLE = Splitting(_LLAMA3.regexes, whole_first=True)
_LLAMA3_BOS = Splitting(_LLAMA3.regexes, whole_first=True, bos=True)
_DEEPSEEK3 = Splitting((r"\p{N}{1,3}", _CJK, _DEEPSEEK_V3))
_GPT4O = Splitting((_cased(r"\p{N}{1,3}", f"{_TAILS}?"),))

UNNAMED: Final = Splitting(
    (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
)
"""What llama.cpp does with a file that names no kind."""

SPLITTINGS: Final[Mapping[str, Splitting]] = MappingProxyType(
    {
        "default": UNNAMED,
        **dict.fromkeys(
            "gpt-2 phi-2 mpt olmo jais trillion granite-docling mellum gigachat a.x-4.0"
            " exaone4".split(),
            _GPT2_KIND,
        ),
        **dict.fromkeys(
            "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2".split(),
            _STARCODER,
        ),
        **dict.fromkeys(
            "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open"
            " grok-2".split(),
            _QWEN2,
        ),
        **dict.fromkeys("dbrx smaug-bpe chatglm-bpe".split(), _LLAMA3),
        **dict.fromkeys("glm4 glm5".split(), _LLAMA3_WHOLE),
        **dict.fromkeys(
            "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2".split(),
            _LLAMA3_BOS,
        ),
        **dict.fromkeys("deepseek-v3 hunyuan-dense joyai-llm hy_v4".split(), _DEEPSEEK3),
        **dict.fromkeys("gpt-4o llama4 kanana2 minimax-m2 talkie".split(), _GPT4O),
        "deepseek-coder": Splitting(
            (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _OLD_CJK, r"\p{N}"),
        ),
        "falcon": Splitting((r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]")),
        "qwen35": Splitting((_words(letters=r"[\p{L}\p{M}]"),)),
        "seed-coder": Splitting(
            (
                (
                    rf"{_TAILS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
                    rf"| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|{_SPACES}"
                ),
            )
        ),
        "tekken": Splitting((_cased(r"\p{N}", ""),), whole_first=True, bos=True),
        "ufakzeka": Splitting((_words(tails=""),)),
    }
)
"""Splittings by the name in `tokenizer.ggml.pre`."""
