"""Requests to fill in a middle as llama.cpp's server and the completions of OpenAI have them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pie_cli.errors import InputError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.prompt.tokenizer import TextTokenizer
from pie_cli.results import Prediction
from pie_cli.serving.items import insertion
from pie_cli.serving.positions import clean

_MOST_EXTRA = 256
_MOST_STOPS = 16


@dataclass(frozen=True)
class Infill:
    """What a client asks.

    Attributes:
        before, after: the text on both sides.
        extra: other files before it.
        n_predict: most tokens; None for what the settings say.
        n_indent: blanks that every line after the first begins with, else it is not given.
        stop: texts that end the answer, and are no part of it.
        fields: what of the response is wanted; None for all.
        stream: whether as events.
    """

    before: str
    after: str
    extra: tuple[ContextFile, ...] = ()
    n_predict: int | None = None
    n_indent: int = 0
    stop: tuple[str, ...] = ()
    fields: tuple[str, ...] | None = None
    stream: bool = False

    @property
    def text(self) -> str:
        """The text on both sides."""
        return self.before + self.after


@dataclass(frozen=True)
class Content:
    """What a client gets of a predicted line.

    Attributes:
        text: without what the client's limits cut off.
        why: it ends: eos, limit or word.
        tokens: predicted, and no more than the client wanted.
    """

    text: str
    why: str
    tokens: int


def read_infill(body: Mapping[str, Any]) -> Infill:
    """Read the body of `/infill`.

    Raises:
        InputError: a field of another type.
    """
    fields = body.get("response_fields")
    return Infill(
        before=_text(body, "input_prefix") + _text(body, "prompt"),
        after=_text(body, "input_suffix"),
        extra=_extra(body.get("input_extra")),
        n_predict=_limit(body, "n_predict"),
        n_indent=_limit(body, "n_indent") or 0,
        stop=_texts(body, "stop"),
        fields=None if fields is None else _texts(body, "response_fields"),
        stream=_flag(body, "stream"),
    )


def read_completion(body: Mapping[str, Any]) -> Infill:
    """Read the body of `/v1/completions`.

    Raises:
        InputError: a field of another type, or no prompt.
    """
    prompts = _texts(body, "prompt")
    if len(prompts) != 1:
        raise InputError("prompt must be one text", "send a request for each")
    limit = _limit(body, "max_tokens")
    return Infill(
        before=prompts[0],
        after=_text(body, "suffix"),
        n_predict=16 if limit is None else limit,
        stop=_texts(body, "stop"),
        stream=_flag(body, "stream"),
    )


def content_of(asked: Infill, prediction: Prediction, tokenizer: TextTokenizer) -> Content:
    """Return what a client gets of a predicted line."""
    content = insertion(asked.text, len(asked.before), prediction) or ""
    why = "limit" if prediction.stopped_by in ("max_tokens", "interrupted") else "eos"
    tokens = len(prediction.token_ids)
    if asked.n_predict is not None and tokens > asked.n_predict:
        # A pass that checks a draft may give more than was left to say.
        tokens = asked.n_predict
        first = _first_tokens(prediction, tokenizer, tokens)
        begin = content.find(prediction.text) if first else 0
        content, why = content[: begin + len(first)], "limit"
    ends = [place for place in map(content.find, asked.stop) if place >= 0]
    if ends:
        content, why = content[: min(ends)], "word"
    head, *more = content.split("\n")
    kept = [head]
    for line in more:
        if line.strip() and len(line) - len(line.lstrip()) < asked.n_indent:
            break
        kept.append(line)
    return Content("\n".join(kept), why, tokens)


def infill_document(
    asked: Infill, model: str, prediction: Prediction, content: Content
) -> dict[str, Any]:
    """Return the response of `/infill`."""
    tokens, times = prediction.tokens, prediction.timings_ms
    predicted = content.tokens
    decode = max(times.line - times.first_token, 1e-3)
    document = {
        "index": 0,
        "content": content.text,
        "tokens": [],
        "id_slot": 0,
        "stop": True,
        "model": model,
        "tokens_predicted": predicted,
        "tokens_evaluated": tokens.total,
        "generation_settings": {"n_predict": asked.n_predict},
        "prompt": "",
        "has_new_line": "\n" in content.text,
        "truncated": bool(
            prediction.window_dropped
            or (prediction.window_dropped_below and prediction.form != "plain")
        ),
        "stop_type": content.why,
        "stopping_word": "",
        "tokens_cached": tokens.total + predicted,
        "timings": {
            "cache_n": tokens.reused,
            "prompt_n": tokens.encoded,
            **_rates("prompt", tokens.encoded, times.first_token),
            "predicted_n": predicted,
            **_rates("predicted", predicted, decode),
        },
        "pie": {"exact": prediction.exact, "strategy": prediction.strategy},
    }
    return document if asked.fields is None else _chosen(document, asked.fields)


def completion_document(model: str, prediction: Prediction, content: Content) -> dict[str, Any]:
    """Return the response of `/v1/completions`."""
    choice = {
        "text": content.text,
        "index": 0,
        "logprobs": None,
        "finish_reason": "length" if content.why == "limit" else "stop",
    }
    return {
        "id": f"cmpl-{time.monotonic_ns():x}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": {
            "prompt_tokens": prediction.tokens.total,
            "completion_tokens": content.tokens,
            "total_tokens": prediction.tokens.total + content.tokens,
        },
    }


def _first_tokens(prediction: Prediction, tokenizer: TextTokenizer, count: int) -> str:
    """Return what of a line its first tokens spell; those that healing took back count as well."""
    spelled = b"".join(tokenizer.pieces(prediction.token_ids))
    kept = b"".join(tokenizer.pieces(prediction.token_ids[:count]))
    line = prediction.text.encode()
    start = max(0, spelled.find(line))
    return line[: max(0, len(kept) - start)].decode("utf-8", "ignore")


def _rates(name: str, count: int, ms: float) -> dict[str, float]:
    return {
        f"{name}_ms": round(ms, 3),
        f"{name}_per_token_ms": round(ms / max(count, 1), 3),
        f"{name}_per_second": round(1e3 * count / max(ms, 1e-3), 3),
    }


def _chosen(document: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return the fields of such paths as `timings/prompt_n`, under these names."""
    chosen: dict[str, Any] = {}
    for field in fields:
        value: Any = document
        for part in field.split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            chosen[field] = value
    return chosen


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text", "send a string")
    return clean(value)


def _texts(body: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name)
    values = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise InputError(f"{name} must be texts", "send a string, or a list of strings")
    if name == "stop" and len(values) > _MOST_STOPS:
        raise InputError(f"{name} has {len(values)} texts", f"send {_MOST_STOPS} at most")
    return tuple(clean(one) for one in values if one or name != "stop")


def _limit(body: Mapping[str, Any], name: str) -> int | None:
    """Read a number of which a negative one is no limit."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} must be a whole number", "send one")
    return value if value >= 0 else None


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{name} must be true or false", "send one of them")
    return bool(value)


def _extra(value: Any) -> tuple[ContextFile, ...]:
    if value is None:
        return ()
    chunks = value if isinstance(value, list) else []
    files = [
        ContextFile(clean(str(chunk.get("filename") or "extra")), clean(chunk["text"]))
        for chunk in chunks
        if isinstance(chunk, dict) and isinstance(chunk.get("text"), str)
    ]
    if not isinstance(value, list) or len(files) < len(chunks):
        raise InputError("input_extra must be chunks with a text", "send a list of objects")
    return tuple(files[:_MOST_EXTRA])
