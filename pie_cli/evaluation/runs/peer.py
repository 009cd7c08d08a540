"""A completion server such as llama.cpp's, given the same edits: what it takes for them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from statistics import median_high
from time import perf_counter
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from pie_cli.errors import InputError
from pie_cli.evaluation.runs.spread import ByEnd, Spread
from pie_cli.timing import elapsed_ms

_TIMEOUT_S = 600
_SHOWN_CHARS = 200


@dataclass(frozen=True)
class PeerAnswer:
    """What a server said after an edit.

    Attributes:
        text: predicted, as many tokens as were asked for.
        encoded_tokens: of the prompt, by the server's own count; 0 where it does not say.
        first_token_ms, line_ms: from sending the text to the first token, and to the last one.
    """

    text: str
    encoded_tokens: int
    first_token_ms: float
    line_ms: float


@dataclass(frozen=True)
class PeerRow:
    """A server on one kind and size of edit at one context length.

    Attributes:
        context_tokens, edit, edit_tokens: of the workload.
        encoded_tokens: of the prompt, by the server's count; the middle one.
        first_token_ms, line_ms: from sending the new text; the line has as many tokens as full
            recompute's here.
        times_slower: than each strategy here, by name: medians to the first token and to the line.
        measurements: of the server.
    """

    context_tokens: int
    edit: str
    edit_tokens: int
    encoded_tokens: int
    first_token_ms: Spread
    line_ms: Spread
    times_slower: dict[str, ByEnd]
    measurements: int

    @classmethod
    def of(
        cls,
        context_tokens: int,
        edit: str,
        edit_tokens: int,
        answers: Sequence[PeerAnswer],
        strategies_ms: Mapping[str, tuple[float, float]],
    ) -> "PeerRow":
        """Sum up answers beside the medians of strategies: to the first token and to the line."""
        first = Spread.of([answer.first_token_ms for answer in answers])
        line = Spread.of([answer.line_ms for answer in answers])
        return cls(
            context_tokens,
            edit,
            edit_tokens,
            median_high(answer.encoded_tokens for answer in answers),
            first,
            line,
            {
                name: ByEnd(first.median / first_ms, line.median / line_ms)
                for name, (first_ms, line_ms) in strategies_ms.items()
            },
            len(answers),
        )


class Peer:
    """A server with llama.cpp's `/completion`.

    Args:
        url: of the server, without a path of its own or with one that its paths follow.

    Raises:
        InputError: the URL is none.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(
                f"{url!r} is not the address of a server", "give one such as http://127.0.0.1:8080"
            )
        self.url = url.rstrip("/")

    def describe(self) -> str:
        """Return the model and the build that the server names in `/props`, or its address.

        Raises:
            InputError: nobody answers, or no such server.
        """
        try:
            facts = dict(json.loads(self._open("/props").read()))
        except (OSError, HTTPException, TypeError, ValueError) as error:
            raise self._unexpected(str(error)) from error
        named = (facts.get("model_path"), facts.get("build_info"))
        return ", ".join(str(fact) for fact in named if fact) or self.url

    def hold(self, text: str) -> None:
        """Have the server encode a text into its cache, untimed."""
        for _ in self._stream(text, 0):
            pass

    def complete(self, text: str, n_tokens: int) -> PeerAnswer:
        """Have the server predict so many tokens after a text, greedily.

        Raises:
            InputError: no answer, or not one as llama.cpp's server gives it.
        """
        said, encoded, first = "", 0, None
        began = perf_counter()
        for part in self._stream(text, n_tokens):
            if first is None and (part.get("content") or part.get("stop")):
                first = perf_counter()
            said += str(part.get("content", ""))
            encoded = int(part.get("timings", {}).get("prompt_n", encoded))
        ended = perf_counter()
        if first is None:
            raise self._unexpected("it sent no token")
        return PeerAnswer(said, encoded, elapsed_ms(began, first), elapsed_ms(began, ended))

    def _stream(self, text: str, n_tokens: int) -> Iterator[dict[str, Any]]:
        """Ask for a completion; yield the server-sent parts."""
        body = {
            "prompt": text,
            "n_predict": n_tokens,
            "cache_prompt": True,
            "id_slot": 0,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        with self._open("/completion", body) as answer:
            try:
                for line in answer:
                    name, _, data = line.decode(errors="replace").strip().partition(":")
                    if name == "data" and data.strip() != "[DONE]":
                        yield json.loads(data)
                    elif name == "error":
                        raise self._unexpected(data)
            except (OSError, HTTPException, ValueError) as error:
                raise self._unexpected(str(error)) from error

    def _open(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"})
        try:
            return urlopen(request, timeout=_TIMEOUT_S)
        except HTTPError as error:
            raise self._unexpected(error.read(_SHOWN_CHARS).decode(errors="replace")) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise InputError(
                f"no answer from {self.url}: {getattr(reason, 'strerror', None) or reason}",
                "start the server, or leave --against out",
            ) from error

    def _unexpected(self, what: str) -> InputError:
        return InputError(
            f"{self.url} does not complete as llama.cpp's server does: {what.strip()}",
            "give the address of one that has /completion and /props",
        )
