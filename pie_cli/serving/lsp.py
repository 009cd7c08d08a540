"""The language server: an editor's documents followed, lines offered at its cursor.

With rpc.py alone it imports pygls and lsprotocol, an extra.
"""

import asyncio
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer

from pie_cli import __version__
from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.errors import InputError, PieError
from pie_cli.serving.buffers import Buffer, Buffers, Replacement, path_of
from pie_cli.serving.items import replacement, word_before
from pie_cli.serving.positions import cursor_at, offset_at, position_of
from pie_cli.serving.relay import FromThread
from pie_cli.serving.rpc import DocumentProtocol
from pie_cli.serving.setup import from_found
from pie_cli.serving.status import Status
from pie_cli.serving.wire import Frame, Pump, QueuedWriter, Reader
from pie_cli.serving.worker import Serving, Worker
from pie_cli.settings.sources import Found, given, resolve
from pie_cli.workspace.documents import Documents
from pie_cli.workspace.events import Event
from pie_cli.workspace.requests import Request

STATUS = "pie/status"
ACCEPTED = "pie.accepted"
EXPLAIN = "pie.explain"

_CONFIGURATION_S = 2.0
_LOOK_FOR_CLIENT_S = 5.0
_CLIENTS_OWN = frozenset({"command", "enable", "trace"})
"""Settings below `pie` that are the client's business."""

_log = logging.getLogger(__name__)


class _Server(LanguageServer):
    """What an editor asks, as requests to a workspace; everything here is one event loop's."""

    protocol: DocumentProtocol

    def __init__(self, options: Mapping[str, Found]) -> None:
        super().__init__("pie", __version__, protocol_cls=DocumentProtocol)
        self.started = False
        self.exit_code = 1
        self._options = options
        self._editors: dict[str, Found] = {}
        self._wrong: list[InputError] = []
        self._root: Path | None = None
        self._documents = Documents()
        self._buffers = Buffers(self._documents)
        self._pending: dict[str, set[Request]] = {}
        self._status = Status()
        self._state = "starting"
        self._model: dict[str, Any] = {}
        self._worker: Worker | None = None
        self._serving: Serving | None = None
        self._progress_id = 0
        self._register()

    # --- the connection ----------------------------------------------------------------------

    def run(self, reader: Reader, stream: BinaryIO) -> int:
        """Serve one client until it is gone.

        Returns:
            The process's exit code.
        """
        asyncio.run(self._run(reader, stream))
        return self.exit_code

    async def _run(self, reader: Reader, stream: BinaryIO) -> None:
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        writer = QueuedWriter(stream, self._lost)
        self.protocol.set_writer(writer)
        Pump(reader, self._deal).start(self._loop)
        await self._done.wait()
        for uri in list(self._pending):
            self._drop(uri)
        await asyncio.sleep(0)
        if self._worker is not None:
            await self._loop.run_in_executor(None, self._worker.stop)
        writer.close()

    def _lost(self) -> None:
        """Note, from any thread, that nobody reads any more."""
        self._loop.call_soon_threadsafe(self._done.set)

    def end(self, code: int) -> None:
        """End the connection."""
        self.exit_code = code
        self._done.set()

    async def _deal(self, frame: Frame) -> None:
        """Deal with one message; what it begins has begun before the next one is looked at."""
        if frame is None:
            self._done.set()
            return
        self.protocol.deal(frame)
        # A request begins in a task: it shall see the documents as they are now.
        await asyncio.sleep(0)

    def report_server_error(self, error: Exception, source: Any) -> None:
        """Log it: pygls would open a window in the editor each time."""
        _log.error("%s: %s", getattr(source, "__name__", source), error)

    # --- the beginning -----------------------------------------------------------------------

    def _register(self) -> None:
        self.feature(types.INITIALIZE)(partial(self._initialize))
        self.feature(types.INITIALIZED)(partial(self._initialized))
        self.feature(types.TEXT_DOCUMENT_DID_SAVE, types.SaveOptions(include_text=False))(
            lambda _params: None
        )
        self.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)(lambda _params: None)
        self.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION)(partial(self._inline))
        self.command(ACCEPTED)(partial(self._accepted))
        self.command(EXPLAIN)(partial(self._explain))

    def _initialize(self, params: types.InitializeParams) -> None:
        uri = params.root_uri
        if params.workspace_folders:
            uri = params.workspace_folders[0].uri
        self._root = path_of(uri) if uri else None
        general = params.capabilities.general
        encodings = (general and general.position_encodings) or []
        known = [str(getattr(one, "value", one)) for one in encodings]
        self._buffers.encoding = next((e for e in known if e in _ENCODINGS), "utf-16")
        if params.process_id:
            self._loop.call_later(_LOOK_FOR_CLIENT_S, self._look_for, params.process_id)
        self._take(params.initialization_options, "initializationOptions")
        if self._wants_completion():
            offered = self.feature(types.TEXT_DOCUMENT_COMPLETION, types.CompletionOptions())
            offered(partial(self._complete))

    def _look_for(self, process_id: int) -> None:
        """End when the client's process is gone, also where a pipe of it stays open."""
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            self._done.set()
        except OSError:
            pass
        else:
            self._loop.call_later(_LOOK_FOR_CLIENT_S, self._look_for, process_id)

    async def _initialized(self, _params: types.InitializedParams) -> None:
        workspace = self.client_capabilities.workspace
        if workspace is not None and workspace.configuration:
            items = [types.ConfigurationItem(section="pie")]
            asked = self.workspace_configuration_async(types.ConfigurationParams(items=items))
            try:
                found = await asyncio.wait_for(asked, _CONFIGURATION_S)
            except (asyncio.TimeoutError, JsonRpcException):
                found = []
            self._take(found[0] if found else None, "the editor's settings")
        self._start()

    def _take(self, values: Any, source: str) -> None:
        """Take the editor's settings; what is wrong in them costs none of the others."""
        if not isinstance(values, Mapping):
            if values is not None:
                self._wrong.append(InputError(f"{source} are no object", "send names and values"))
            return
        own = {name: raw for name, raw in values.items() if name not in _CLIENTS_OWN}
        found, wrong = given(own, source)
        self._editors |= found
        self._wrong += wrong

    def _wants_completion(self) -> bool:
        try:
            found = {**resolve(self._root), **self._options, **self._editors}
        except InputError:
            # Said when all settings are there.
            return False
        return bool(found["completion"].value)

    def _start(self) -> None:
        """Load the model, by all settings together."""
        for wrong in self._wrong:
            self._complain(wrong)
        try:
            found = {**resolve(self._root), **self._options, **self._editors}
            serving = replace(from_found(found), root=self._root)
        except PieError as error:
            self.failed(error, at_end=True)
            return
        self._serving = serving
        self._state = "loading"
        self._worker = Worker(self._documents, serving, FromThread(self, self._loop))
        self._worker.start()
        self._notify()

    # --- documents ---------------------------------------------------------------------------

    def opened(self, document: types.TextDocumentItem) -> None:
        """Take in a document."""
        self._drop(document.uri)
        self._buffers.open(document.uri, document.version, document.text)

    def changed(self, params: types.DidChangeTextDocumentParams) -> None:
        """Take in a new version; whoever waits for an answer about the last one gets none."""
        uri = params.text_document.uri
        self._drop(uri)
        try:
            replacements = [_replacement(one) for one in params.content_changes]
            self._buffers.change(uri, params.text_document.version, replacements)
        except InputError as error:
            self._note(error)

    def closed(self, uri: str) -> None:
        """Forget a document."""
        self._drop(uri)
        self._buffers.close(uri)

    def lost(self, uri: str) -> None:
        """Follow a document no further, until its whole text comes."""
        self._drop(uri)
        if self._buffers.lose(uri):
            self._note(InputError(f"a change of {uri} is none", "open it again"))

    def _drop(self, uri: str) -> None:
        for request in self._pending.pop(uri, ()):
            request.drop()

    # --- answers -----------------------------------------------------------------------------

    async def _inline(self, params: types.InlineCompletionParams) -> Any:
        found = await self._line_at(params.text_document.uri, params.position)
        if found is None:
            return None
        buffer, offset, line, taken = found
        command = types.Command("pie: accepted", ACCEPTED, arguments=[params.text_document.uri])
        stop = self._after(buffer, offset, taken, params.position)
        here = types.Range(params.position, stop)
        item = types.InlineCompletionItem(line, range=here, command=command)
        return types.InlineCompletionList([item])

    async def _complete(self, params: types.CompletionParams) -> Any:
        uri = params.text_document.uri
        found = await self._line_at(uri, params.position)
        if found is None:
            return None
        buffer, offset, line, taken = found
        word = word_before(buffer.text or "", offset)
        start = position_of(buffer.text or "", offset - len(word), self._buffers.encoding)
        item = types.CompletionItem(
            label=line.strip().splitlines()[0],
            kind=types.CompletionItemKind.Text,
            detail="pie",
            sort_text="0",
            filter_text=word + line,
            text_edit=types.TextEdit(
                types.Range(
                    types.Position(*start), self._after(buffer, offset, taken, params.position)
                ),
                word + line,
            ),
            command=types.Command("pie: accepted", ACCEPTED, arguments=[uri]),
        )
        return types.CompletionList(is_incomplete=True, items=[item])

    async def _line_at(
        self, uri: str, position: types.Position
    ) -> tuple[Buffer, int, str, int] | None:
        """Ask for a line, and wait; None where there is none, or a newer version came."""
        buffer = self._buffers.get(uri)
        if buffer is None or buffer.text is None or self._state == "failed":
            return None
        try:
            encoding = self._buffers.encoding
            offset = offset_at(buffer.text, position.line, position.character, encoding)
        except InputError as error:
            raise JsonRpcInvalidParams(str(error)) from None
        cursor = cursor_at(buffer.text, offset)
        request = Request(buffer.path, cursor, buffer.text, buffer.version)
        self._pending.setdefault(uri, set()).add(request)
        self._documents.ask(request)
        try:
            answer = await asyncio.wrap_future(request.answer)
        except PieError as error:
            _log.warning("%s", error)
            return None
        finally:
            request.drop()
            self._pending.get(uri, set()).discard(request)
        if answer is None or self._buffers.get(uri) is not buffer:
            return None
        line = replacement(buffer.text, offset, answer.prediction)
        return None if line is None else (buffer, offset, *line)

    def _after(
        self, buffer: Buffer, offset: int, taken: int, position: types.Position
    ) -> types.Position:
        """Return the end of what an item takes the place of."""
        if not taken:
            return position
        return types.Position(
            *position_of(buffer.text or "", offset + taken, self._buffers.encoding)
        )

    def _accepted(self, *_arguments: Any) -> None:
        """Count; the text itself comes as a change, which is an edit like any."""
        self._status.accepted += 1
        self._notify()

    def _explain(self, *arguments: Any) -> dict[str, Any]:
        buffer = self._buffers.get(str(arguments[0])) if arguments else None
        path = buffer and self._serving and self._serving.show(buffer.path)
        return {
            **self._summary(),
            "document": self._status.of(path) if path else None,
            "open_documents": len(self._buffers),
            "version": buffer and buffer.version,
            "digest": buffer and buffer.digest,
        }

    # --- what the worker says, in the loop -----------------------------------------------------

    def ready(self, model: EditableModel, settings: Settings) -> None:
        """Say that the model answers."""
        self._state = "ready"
        self._model = {
            "model": model.name,
            "device": model.device,
            "dtype": model.dtype,
            "weights": model.weights,
            "window_tokens": min(settings.context_tokens or model.window, model.window),
            "notice": model.notice,
        }
        self._notify()

    def tell(self, event: Event) -> None:
        """Say what became of a document."""
        document = self._status.tell(event)
        if document is not None:
            self._notify(document=document)

    def failed(self, error: PieError, *, at_end: bool) -> None:
        """Say what went wrong."""
        if at_end:
            self._state = "failed"
            for uri in list(self._pending):
                self._drop(uri)
        message = types.ShowMessageParams(types.MessageType.Error, f"pie: {error}")
        self.window_show_message(message)
        self._notify(message=str(error))

    def _complain(self, error: PieError) -> None:
        """Show what the user can mend, where pie goes on without it."""
        self._note(error)
        message = types.ShowMessageParams(types.MessageType.Warning, f"pie: {error}")
        self.window_show_message(message)

    def _note(self, error: PieError) -> None:
        """Have the editor keep what went wrong, without a window."""
        _log.warning("%s", error)
        self.window_log_message(types.LogMessageParams(types.MessageType.Error, f"pie: {error}"))

    def _summary(self) -> dict[str, Any]:
        return {"state": self._state, **self._model, **self._status.counts()}

    def _notify(self, **further: Any) -> None:
        self.protocol.notify(STATUS, {**self._summary(), **further})

    # --- progress ------------------------------------------------------------------------------

    def begin_progress(self, title: str) -> str | None:
        """Begin to show progress; None where the client does not show it."""
        window = self.client_capabilities.window
        if window is None or not window.work_done_progress:
            return None
        self._progress_id += 1
        token = f"pie-{self._progress_id}"
        self.window_work_done_progress_create(types.WorkDoneProgressCreateParams(token))
        self._progress(token, types.WorkDoneProgressBegin(title))
        return token

    def show_progress(self, token: str | None, message: str, done: int, total: int) -> None:
        """Show how far it is."""
        if token is not None:
            percentage = min(100, 100 * done // total) if total else None
            self._progress(
                token, types.WorkDoneProgressReport(message=message, percentage=percentage)
            )

    def end_progress(self, token: str | None) -> None:
        """Show no more of it."""
        if token is not None:
            self._progress(token, types.WorkDoneProgressEnd())

    def _progress(self, token: str, value: Any) -> None:
        self.protocol.notify(types.PROGRESS, types.ProgressParams(token, value))


_ENCODINGS = ("utf-8", "utf-16", "utf-32")


def _replacement(change: Any) -> Replacement:
    span = cast("types.Range | None", getattr(change, "range", None))
    if span is None:
        return Replacement(change.text)
    return Replacement(
        change.text,
        (span.start.line, span.start.character),
        (span.end.line, span.end.character),
    )


def serve(reader: Reader, stream: BinaryIO, options: Mapping[str, Found]) -> int:
    """Serve one client until it is gone.

    Args:
        reader: what the client writes.
        stream: what the client reads.
        options: what the command line says; the editor may say otherwise.

    Returns:
        The process's exit code: 0 where the client said goodbye.
    """
    return _Server(options).run(reader, stream)
