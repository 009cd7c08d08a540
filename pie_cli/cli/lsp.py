"""`pie lsp`: the language server, on stdin and stdout or on a port of this machine."""

import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import BinaryIO

from pie_cli.cli.render import Renderer
from pie_cli.errors import InputError
from pie_cli.settings.sources import Found


def run(options: Mapping[str, Found], port: int | None) -> int:
    """Serve one editor until it is gone.

    Args:
        options: what the command line says.
        port: to listen at, on the loopback interface; None for stdin and stdout.

    Returns:
        The process's exit code.

    Raises:
        InputError: the port cannot be had, or there is no stdin.
    """
    try:
        from pie_cli.serving.lsp import serve
    except ImportError as error:
        raise InputError(
            f"the language server needs packages that are not there: {error.name}",
            "install them: pip install 'pie-cli[lsp]'",
        ) from error
    if port is not None:
        return _on_port(port, options)
    if sys.stdin is None or sys.stdout is None:
        raise InputError("stdin or stdout is closed", "let an editor start pie lsp")
    # Not sys.stdin: Python aborts at its end where a thread still reads from that. Nor is this one
    # closed, which would wait for the thread.
    reader = os.fdopen(os.dup(0), "rb")
    return serve(reader, _own_stdout(), options)


def _own_stdout() -> BinaryIO:
    """Keep stdout for the protocol: what anything else prints goes to stderr."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def _on_port(port: int, options: Mapping[str, Found]) -> int:
    """Serve the first client that connects; others find nobody there."""
    from pie_cli.serving.lsp import serve

    try:
        with socket.create_server(("127.0.0.1", port)) as listening:
            Renderer().note(f"Listening at 127.0.0.1:{listening.getsockname()[1]}.")
            connection, _ = listening.accept()
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen at port {port}: {error}", "give another") from None
    with connection, connection.makefile("rb") as reader, connection.makefile("wb") as writer:
        code = serve(reader, writer, options)
        # Wakes the thread that still reads, which closing would wait for.
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        return code
