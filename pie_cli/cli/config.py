"""`pie config`: each setting, its value, and where it is from."""

from typing import Any

from pie_cli.cli.documents import dump
from pie_cli.cli.render import Renderer
from pie_cli.settings.keys import Value
from pie_cli.settings.sources import resolve


def run(*, as_json: bool) -> None:
    """Show every setting.

    Raises:
        InputError: a file or a variable that says what no setting can be.
    """
    found = resolve()
    if as_json:
        settings: dict[str, Any] = {
            name: {"value": _plain(name, one.value), "source": one.source}
            for name, one in found.items()
        }
        print(dump({"settings": settings}, indent=2))
        return
    renderer = Renderer()
    shown = {name: _shown(name, one.value) for name, one in found.items()}
    names, values = max(map(len, shown)), max(map(len, shown.values()))
    for name, one in found.items():
        renderer.line(f"{name:<{names}}  {shown[name]:<{values}}  {one.source}")


def _plain(name: str, value: Value) -> object:
    if name == "token" and value is not None:
        return "***"
    return list(value) if isinstance(value, tuple) else value


def _shown(name: str, value: Value) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(_plain(name, value))
