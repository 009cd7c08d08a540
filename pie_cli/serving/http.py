"""HTTP for plugins that speak to llama.cpp's server or to OpenAI's completions.

Alone imports starlette and uvicorn, an extra.
"""

import asyncio
import errno
import hmac
import json
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pie_cli import __version__
from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.errors import InputError, PieError
from pie_cli.serving.finding import Finder
from pie_cli.serving.infill import (
    Infill,
    completion_document,
    content_of,
    infill_document,
    read_completion,
    read_infill,
)
from pie_cli.serving.positions import cursor_at
from pie_cli.serving.worker import Serving, Worker
from pie_cli.session import OnProgress
from pie_cli.workspace.documents import Documents
from pie_cli.workspace.events import Event
from pie_cli.workspace.requests import Answer, Request

MOST_BODY_BYTES = 16 << 20
_BODY_S = 10.0
_KEEP_ALIVE_S = 5
_MOST_CONNECTIONS = 512
_LOCAL = ("127.0.0.1", "localhost", "::1")

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    503: "unavailable_error",
}

_log = logging.getLogger(__name__)


def is_local(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    return host in _LOCAL


class _Uvicorn(uvicorn.Server):
    """Leaves the signals alone, which uvicorn's own would take late, and give back at its end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


@contextmanager
def _ended_by_signals(end: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the body well, where Python takes any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda *_: end()) for number in taken}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@final
class HttpServer:
    """Answers HTTP requests by a workspace; what one client does holds no other up.

    Args:
        serving: what to load, and how to follow.
        host: address to listen at.
        port: to listen at; 0 for any.
        token: what clients have to show; None for nothing.
        started: told the address once it listens.

    Raises:
        InputError: an address that others can reach, without a token.
    """

    def __init__(
        self,
        serving: Serving,
        host: str,
        port: int,
        token: str | None,
        started: Callable[[str], None],
    ) -> None:
        if not is_local(host) and not token:
            raise InputError(
                f"at {host} others could reach the server", "give a --token, or leave --host out"
            )
        self._host, self._port, self._token = host, port, token
        self._started = started
        self._documents = Documents()
        self._finder = Finder()
        self._model: EditableModel | None = None
        self._failure: PieError | None = None
        self._worker = Worker(self._documents, serving, self)
        routes = [
            Route("/infill", self._guarded(self._infill), methods=["POST"]),
            Route("/v1/completions", self._guarded(self._completions), methods=["POST"]),
            Route("/health", self._guarded(self._health, needs_token=False), methods=["GET"]),
            Route("/v1/models", self._guarded(self._models), methods=["GET"]),
            Route("/props", self._guarded(self._props), methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {HTTPException: self._refused, Exception: self._broken}
        self.app = Starlette(routes=routes, exception_handlers=handlers)
        # A redirection would name whatever Host came along.
        self.app.router.redirect_slashes = False
        self._server = _Uvicorn(
            uvicorn.Config(
                self.app,
                host=host,
                port=port,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=2,
                limit_concurrency=_MOST_CONNECTIONS,
            )
        )

    def run(self) -> None:
        """Serve until a signal comes.

        Raises:
            InputError: the address cannot be had.
            PieError: the model cannot be loaded.
        """
        try:
            with _ended_by_signals(self.end):
                asyncio.run(self._run())
        except (OSError, OverflowError) as error:
            why = f"cannot listen at {self._host}, port {self._port}: {error}"
            is_about_port = getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES)
            remedy = "give another --port" if is_about_port else "give another --host or --port"
            raise InputError(why, remedy) from None
        finally:
            self._worker.stop()
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """End, from any thread."""
        self._server.should_exit = True

    async def _run(self) -> None:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        with socket.create_server((self._host, self._port), family=family) as listening:
            name, port = listening.getsockname()[:2]
            self._started(f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}")
            self._worker.start()
            await self._server.serve([listening])

    # --- the worker tells, in its thread ---------------------------------------------------------

    def loading(self, stage: str, done: int, total: int) -> None:
        """Log it."""
        _log.debug("loading: %s %d of %d", stage, done, total)

    def encoding(self, path: str) -> AbstractContextManager[OnProgress]:
        """Log it."""
        _log.info("encoding %s", path)
        return nullcontext(lambda _done, _total: None)

    def ready(self, model: EditableModel, settings: Settings) -> None:
        """Answer from now on."""
        _log.info("%s is ready, with %s", model.name, settings.strategy)
        self._model = model

    def tell(self, event: Event) -> None:
        """Log it."""
        _log.debug("%s", type(event).__name__)

    def failed(self, error: PieError, *, at_end: bool) -> None:
        """Log it; without a model there is nothing to serve."""
        _log.error("%s", error)
        if at_end:
            self._failure = error
            self.end()

    # --- routes ----------------------------------------------------------------------------------

    async def _infill(self, http: HttpRequest) -> Response:
        asked = read_infill(await _body(http))
        model = self._loaded()
        if asked.n_predict == 0:
            return _json({"content": "", "stop": True} if asked.fields is None else {})
        answer = await self._answer(http, asked)
        content = content_of(asked, answer.prediction, model.tokenizer)
        document = infill_document(asked, model.name, answer.prediction, content)
        return _stream([document]) if asked.stream else _json(document)

    async def _completions(self, http: HttpRequest) -> Response:
        asked = read_completion(await _body(http))
        model = self._loaded()
        answer = await self._answer(http, asked)
        content = content_of(asked, answer.prediction, model.tokenizer)
        document = completion_document(model.name, answer.prediction, content)
        return _stream([document], end="[DONE]") if asked.stream else _json(document)

    async def _health(self, _http: HttpRequest) -> Response:
        self._loaded()
        return _json({"status": "ok"})

    async def _models(self, _http: HttpRequest) -> Response:
        model = self._loaded()
        meta = {"n_params": model.n_params, "n_ctx_train": model.window}
        entry = {"id": model.name, "object": "model", "owned_by": "pie", "created": 0, "meta": meta}
        return _json({"object": "list", "data": [entry]})

    async def _props(self, _http: HttpRequest) -> Response:
        model = self._loaded()
        return _json(
            {
                "default_generation_settings": {"n_ctx": model.window},
                "total_slots": 1,
                "model_path": model.name,
                "chat_template": "",
                "build_info": f"pie {__version__}",
            }
        )

    def _loaded(self) -> EditableModel:
        if self._model is None:
            raise HTTPException(503, "Loading model")
        return self._model

    async def _answer(self, http: HttpRequest, asked: Infill) -> Answer:
        """Ask the workspace, and wait while the client does."""
        text, passes = asked.text, iter(range(asked.n_predict or 1 << 30))
        request = Request(
            self._finder.find(text),
            cursor_at(text, len(asked.before)),
            text,
            context=asked.extra,
            enough=lambda: next(passes, None) is None,
        )
        self._documents.ask(request)
        answered = asyncio.wrap_future(request.answer)
        gone = asyncio.ensure_future(_gone(http))
        both: set[asyncio.Future[Any]] = {answered, gone}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                raise HTTPException(499, "the client is gone")
            answer = await answered
        finally:
            gone.cancel()
            request.drop()
        if answer is None:
            raise HTTPException(503, "another document came first")
        return answer

    # --- what holds for all ----------------------------------------------------------------------

    def _guarded(
        self,
        handle: Callable[[HttpRequest], Awaitable[Response]],
        *,
        needs_token: bool = True,
    ) -> Callable[[HttpRequest], Awaitable[Response]]:
        """Let only those in who may, and turn a user's mistake into a clear answer."""

        async def guarded(http: HttpRequest) -> Response:
            self._check_host(http)
            if needs_token and self._token:
                shown = http.headers.get("authorization", "").removeprefix("Bearer ")
                if not hmac.compare_digest(shown.encode(), self._token.encode()):
                    raise HTTPException(401, "show the token: Authorization: Bearer TOKEN")
            try:
                return await handle(http)
            except PieError as error:
                raise HTTPException(400, str(error)) from None

        return guarded

    def _check_host(self, http: HttpRequest) -> None:
        """Refuse who got here by a name of his own, and pages of other places."""
        if not is_local(self._host):
            # There the token tells who may.
            return
        host, origin = http.headers.get("host", ""), http.headers.get("origin")
        if _without_port(host) not in _LOCAL:
            raise HTTPException(403, f"{host or 'a caller without a name'} is not this server")
        if origin is not None and origin.lower() != f"http://{host}".lower():
            raise HTTPException(403, f"pages of {origin} are not let in")

    async def _refused(self, _http: HttpRequest, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail))

    async def _broken(self, _http: HttpRequest, error: Exception) -> Response:
        _log.error("a request failed", exc_info=error)
        return _error(500, f"internal error: {type(error).__name__}")


async def _gone(http: HttpRequest) -> None:
    """Wait until a client hangs up."""
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _body(http: HttpRequest) -> dict[str, Any]:
    """Read a body of JSON, within bounds of size and time."""
    length = http.headers.get("content-length", "0")
    if length.isdigit() and int(length) > MOST_BODY_BYTES:
        raise HTTPException(413, f"a body has {MOST_BODY_BYTES} bytes at most")
    try:
        data = await asyncio.wait_for(_read(http), _BODY_S)
    except (asyncio.TimeoutError, TimeoutError):
        raise HTTPException(408, "the body did not come") from None
    except ClientDisconnect:
        raise HTTPException(499, "the client is gone") from None
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "the body is no object")
    return body


async def _read(http: HttpRequest) -> bytes:
    data = bytearray()
    async for part in http.stream():
        data += part
        if len(data) > MOST_BODY_BYTES:
            raise HTTPException(413, f"a body has {MOST_BODY_BYTES} bytes at most")
    return bytes(data)


def _without_port(name: str) -> str:
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].lower()


def _dumped(document: Any) -> str:
    # llama.vim looks for "content":" by a pattern: no blank after a colon.
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _json(document: Any, status: int = 200) -> Response:
    return Response(_dumped(document), status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return _json({"error": {"code": status, "message": message, "type": kind}}, status)


def _stream(documents: list[Any], end: str | None = None) -> Response:
    """Answer as server-sent events."""
    events = [*map(_dumped, documents), *([end] if end else [])]
    return StreamingResponse(
        (f"data: {event}\n\n" for event in events), media_type="text/event-stream"
    )
