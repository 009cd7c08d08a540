"""`pie serve`: HTTP on this machine, for plugins that exist already."""

from pie_cli.cli.render import Renderer
from pie_cli.errors import InputError
from pie_cli.serving.worker import Serving


def run(serving: Serving, host: str, port: int, token: str | None) -> None:
    """Serve until Ctrl-C.

    Raises:
        PieError: an address that cannot be had or needs a token, a model that cannot be loaded.
    """
    try:
        from pie_cli.serving.http import HttpServer
    except ImportError as error:
        raise InputError(
            f"the server needs packages that are not there: {error.name}",
            "install them: pip install 'pie-cli[serve]'",
        ) from error
    renderer = Renderer()
    model = serving.settings.model

    def started(address: str) -> None:
        renderer.note(f"Serving {model} at {address}: /infill, /v1/completions. Ctrl-C ends.")

    HttpServer(serving, host, port, token, started).run()
