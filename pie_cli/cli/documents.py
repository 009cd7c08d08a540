"""JSON documents of the contract `pie/1`; docs/cli.md describes them."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pie_cli.errors import PieError
from pie_cli.results import Comparison, Prediction, Recompute

if TYPE_CHECKING:
    from pie_cli.cli.tally import Summary
    from pie_cli.workspace.pool import SessionPool

SCHEMA = "pie/1"


class ModelFacts(Protocol):
    """What results say of a model."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def dtype(self) -> str:
        """The type that it computes in."""

    @property
    def weights(self) -> str:
        """How its weights are kept: "full" or "int8"."""


@dataclass(frozen=True)
class Beginning:
    """What a watch begins with.

    Attributes:
        paths: the files and folders that are watched, as results name them.
        context: the files that the user wants before the prompt, likewise.
        pool: with the model, the settings and the bound of memory.
        n_folders: folders that are watched in and below those named.
        import_ms: what importing Python's packages took.
        load_ms: what loading the model took.
    """

    paths: tuple[str, ...]
    context: tuple[str, ...]
    pool: "SessionPool"
    n_folders: int
    import_ms: float
    load_ms: float


def prediction_document(path: str, model: ModelFacts, prediction: Prediction) -> dict[str, Any]:
    """Return the fields of a prediction in a file, without `schema`."""
    return {
        "path": path,
        "model": model.name,
        "device": model.device,
        "dtype": model.dtype,
        "weights": model.weights,
        "strategy": prediction.strategy,
        "at": asdict(prediction.at),
        "prediction": prediction.text,
        "first": prediction.text if prediction.first is None else prediction.first,
        "final": prediction.text,
        "completes_line": prediction.completes_line,
        "stopped_by": prediction.stopped_by,
        "exact": prediction.exact,
        "lines": {"added": prediction.lines_added, "removed": prediction.lines_removed},
        "window_dropped": prediction.window_dropped,
        "window_dropped_below": prediction.window_dropped_below,
        "form": prediction.form,
        "context": list(prediction.context),
        "tokens": asdict(prediction.tokens),
        "timings_ms": _rounded(asdict(prediction.timings_ms)),
    }


def comparison_document(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison's fields, without `schema`."""
    return {
        "strategy": comparison.strategy,
        "at": asdict(comparison.at),
        "prediction": comparison.text,
        "completes_line": comparison.completes_line,
        "agrees": comparison.agrees,
        "timings_ms": _rounded(asdict(comparison.timings_ms)),
        "speedup": _rounded(asdict(comparison.speedup)),
    }


def recompute_document(recompute: Recompute | None) -> dict[str, Any] | None:
    """Return what full recompute takes, and whether that was measured."""
    if recompute is None:
        return None
    return {"line_ms": round(recompute.line_ms, 3), "measured": recompute.measured}


def start_document(beginning: Beginning) -> dict[str, Any]:
    """Return the fields of a watch's `start`, without `schema`."""
    pool = beginning.pool
    model, settings = pool.model, pool.settings
    return {
        "path": beginning.paths[0],
        "paths": list(beginning.paths),
        "context": list(beginning.context),
        "folders": beginning.n_folders,
        "model": model.name,
        "device": model.device,
        "dtype": model.dtype,
        "weights": model.weights,
        "parameters": model.n_params,
        "strategy": settings.strategy,
        "compare": settings.compare,
        "window_tokens": min(settings.context_tokens or model.window, model.window),
        "cache_memory_bytes": pool.limit_bytes,
        "import_ms": round(beginning.import_ms, 3),
        "load_ms": round(beginning.load_ms, 3),
    }


def error_document(error: PieError) -> dict[str, Any]:
    """Return the fields of what went wrong, without `schema`."""
    return {"cause": error.cause, "remedy": error.remedy}


def summary_document(summary: "Summary") -> dict[str, Any]:
    """Return the fields of a watch's `stop`, without `schema`; what was not measured is null."""
    agreement = summary.agreement_pct
    return {
        "saves": summary.saves,
        "predictions": summary.predictions,
        "superseded": summary.superseded,
        "errors": summary.errors,
        "comparisons": summary.comparisons,
        "agreement_pct": None if agreement is None else round(agreement, 1),
        "median_ms": {
            name: _rounded(asdict(times)) if times else None
            for name, times in (
                ("prediction", summary.prediction_ms),
                ("comparison", summary.comparison_ms),
            )
        },
    }


def dump(document: dict[str, Any], *, indent: int | None = None) -> str:
    """Return a document as JSON in ASCII: no control character reaches a terminal raw."""
    return json.dumps({"schema": SCHEMA, **document}, indent=indent, allow_nan=False)


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(number, 3) for name, number in numbers.items()}
