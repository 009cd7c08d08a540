"""pygls's protocol, with documents of our own and errors where it has silence."""

import json
import logging
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.protocol import LanguageServerProtocol, lsp_method

from pie_cli.errors import InputError

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_NOT_INITIALIZED: Final = -32002

_log = logging.getLogger(__name__)


class Handler(Protocol):
    """Who deals with documents, and with the end.

    Attributes:
        started: whether `initialize` came.
    """

    started: bool

    def opened(self, document: types.TextDocumentItem) -> None:
        """Take in a document."""

    def changed(self, params: types.DidChangeTextDocumentParams) -> None:
        """Take in a document's new version."""

    def closed(self, uri: str) -> None:
        """Forget a document."""

    def lost(self, uri: str) -> None:
        """Follow a document no further, until its whole text comes."""

    def end(self, code: int) -> None:
        """End the connection."""


class DocumentProtocol(LanguageServerProtocol):
    """pygls's protocol with documents of our own, and errors where it has silence."""

    @property
    def _handler(self) -> Handler:
        return cast("Handler", self._server)

    def handle_message(self, message: Any) -> None:
        """Refuse what comes before `initialize`, or again, or after `shutdown`."""
        method = getattr(message, "method", None)
        request = getattr(message, "id", None) if method else None
        started = self._handler.started
        if method == types.INITIALIZE and started:
            self.refuse(request, _INVALID_REQUEST, "initialize came before")
        elif method not in (None, types.INITIALIZE, types.EXIT) and not started:
            self.refuse(request, _NOT_INITIALIZED, "initialize comes first")
        elif method not in (None, types.EXIT) and self._shutdown:
            self.refuse(request, _INVALID_REQUEST, "shutdown came before")
        else:
            self._handler.started |= method == types.INITIALIZE
            super().handle_message(message)

    def _send_response(self, msg_id: Any, result: Any = None, error: Any = None) -> None:
        """Answer; pygls does not say that there is inline completion: no client would ask."""
        if isinstance(result, types.InitializeResult):
            result.capabilities.inline_completion_provider = True
        super()._send_response(msg_id, result=result, error=error)

    def refuse(self, request: Any, code: int, why: str) -> None:
        """Answer a request by an error; a notification by nothing."""
        _log.warning("refused: %s", why)
        if request is not None:
            self._send_response(request, error=types.ResponseError(code=code, message=why))

    def deal(self, body: bytes | InputError) -> None:
        """Deal with one message, or with what came instead of one."""
        if isinstance(body, InputError):
            self.complain(_PARSE_ERROR, str(body))
            return
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            self.complain(_PARSE_ERROR, f"no JSON: {error}")
            return
        if not isinstance(data, dict) or data.get("jsonrpc") != self.VERSION:
            self.complain(_INVALID_REQUEST, "no message of JSON-RPC 2.0")
            return
        try:
            _check(data)
            self.handle_message(self.structure_message(data))
        except JsonRpcException as error:
            if "method" in data:
                why = f"{data['method']}: parameters of another form"
                self.refuse(data.get("id"), error.CODE, why)
                self._lose(data)

    def _lose(self, data: dict[str, Any]) -> None:
        """Follow a document no further whose change was in a form that nobody understands."""
        if data["method"] == types.TEXT_DOCUMENT_DID_CHANGE and self._handler.started:
            with suppress(TypeError, KeyError):
                self._handler.lost(str(data["params"]["textDocument"]["uri"]))

    def complain(self, code: int, why: str) -> None:
        """Say that what came was no message at all."""
        _log.warning("%s", why)
        # A dictionary: lsprotocol's types leave out what is null, which here must be said.
        error = {"code": code, "message": why}
        self._send_data({"jsonrpc": self.VERSION, "id": None, "error": error})

    @lsp_method(types.EXIT)
    def lsp_exit(self, *_: Any) -> Any:
        """End, well if `shutdown` came before."""
        self._handler.end(0 if self._shutdown else 1)

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """Take in a document."""
        self._handler.opened(params.text_document)

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """Take in a document's new version."""
        self._handler.changed(params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """Forget a document."""
        self._handler.closed(params.text_document.uri)


def _check(data: dict[str, Any]) -> None:
    """Refuse changes of another form: lsprotocol takes one with a broken range for a whole text.

    A document without a version, which the protocol demands, has 0: what comes next is newer.
    """
    match data:
        case {
            "method": types.TEXT_DOCUMENT_DID_OPEN | types.TEXT_DOCUMENT_DID_CHANGE,
            "params": {"textDocument": dict(document)},
        } if document.get("version") is None:
            document["version"] = 0
    if data.get("method") != types.TEXT_DOCUMENT_DID_CHANGE:
        return
    match data.get("params"):
        case {"contentChanges": [*changes]} if all(map(_is_change, changes)):
            return
    raise JsonRpcInvalidParams


def _is_change(change: object) -> bool:
    match change:
        case {"text": str(), "range": {"start": start, "end": end}}:
            return _is_place(start) and _is_place(end)
        case {"text": str(), **others}:
            return others.get("range") is None
    return False


def _is_place(place: object) -> bool:
    match place:
        case {"line": int(line), "character": int(character)}:
            return line >= 0 and character >= 0
    return False
