"""Getting a model ready to edit, with progress shown."""

import logging
import time
from dataclasses import dataclass

from pie_cli.cli.render import Renderer
from pie_cli.config import DEFAULT_MODEL, Settings
from pie_cli.editable import PreparedModel, prepare
from pie_cli.engine.crew import engage
from pie_cli.errors import ModelError
from pie_cli.models.cache import Presence, look_up
from pie_cli.models.choice import EMBEDDED, advised, best_at_hand
from pie_cli.models.loading import load
from pie_cli.models.machine import Machine, examine
from pie_cli.models.registry import resolve
from pie_cli.timing import elapsed_ms

_log = logging.getLogger(__name__)


def advised_on(machine: Machine) -> str:
    """Return the name of the model to run on a machine."""
    return advised(machine.threads, machine.free_bytes, [gpu.free_bytes for gpu in machine.gpus])


def is_at_hand(name: str) -> bool:
    """Tell whether a model that is known by name is on this disk, whole."""
    try:
        return look_up(resolve(name)).presence is Presence.COMPLETE
    except ModelError:
        return False


def advice() -> str:
    """Say how to get a better model for this machine."""
    name = advised_on(examine())
    if is_at_hand(name):
        return f"`--model {name}` is a better one for this machine, and on this disk"
    return f"`pie models pull {name}` gets a better one for this machine"


@dataclass(frozen=True, eq=False)
class Opened:
    """A model that is ready, and what getting it ready took."""

    model: PreparedModel
    load_ms: float


def open_model(settings: Settings, renderer: Renderer, *, random_weights: bool = False) -> Opened:
    """Load the model that the settings name and run the gate; note what it restricts."""
    began = time.perf_counter()
    engage(settings.threads)
    name = best_at_hand() if settings.model == DEFAULT_MODEL else settings.model
    with renderer.progress(f"loading {name}") as report:
        loaded = load(
            settings.model,
            settings.device,
            settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            weights=settings.weights,
            random_weights=random_weights,
            on_progress=report,
        )
        model = prepare(loaded)
    if model.notice:
        renderer.note(model.notice)
    if settings.model == DEFAULT_MODEL and model.name == EMBEDDED:
        renderer.note(
            f"{EMBEDDED} is a demonstration model: its lines are seldom right; {advice()}"
        )
    load_ms = elapsed_ms(began, time.perf_counter())
    _log.info("loaded %s on %s in %s: %.0f ms", model.name, model.device, model.dtype, load_ms)
    return Opened(model, load_ms)
