"""Which engine runs a model: the gate's verdict decides."""

from collections.abc import Callable

from pie_cli.engine.edited import EditedEngine
from pie_cli.engine.gate.verdicts import Verdict
from pie_cli.engine.model import CausalModel
from pie_cli.engine.plain.engine import PlainEngine
from pie_cli.engine.plain.threshold import ThresholdEngine
from pie_cli.engine.protocol import Engine
from pie_cli.engine.slots import SlotCache


def engine_maker(model: CausalModel, verdict: Verdict) -> Callable[[int], Engine]:
    """Return what makes an empty engine for a model, with so many slots to begin with."""

    def make(capacity: int) -> Engine:
        report, ability = verdict.report, verdict.ability
        if report is None:
            assert ability is not None
            return PlainEngine(model, ability)
        limit = report.limit
        slots = SlotCache.for_model(model, min(capacity, limit or capacity))
        edited = EditedEngine(model, report.rotation, slots, limit)
        return edited if limit is None else ThresholdEngine(model, edited, limit)

    return make
