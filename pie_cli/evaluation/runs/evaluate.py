"""An evaluation from its cases to its records: what is done already is not done again."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pie_cli import __version__
from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.errors import InputError
from pie_cli.evaluation.cases.case import EvalCase, EvalSession
from pie_cli.evaluation.runs.cases import CaseRunner
from pie_cli.evaluation.runs.outcomes import Record
from pie_cli.evaluation.runs.sessions import Replayer, count_saves, policies
from pie_cli.evaluation.runs.sharing import Team
from pie_cli.evaluation.runs.store import ResultFile, read_records
from pie_cli.evaluation.runs.trial import LAYOUTS, Laboratory
from pie_cli.plan.strategies import Strategy, parse

OnProgress: TypeAlias = Callable[[str, int, int], None]
Unit: TypeAlias = EvalCase | EvalSession


@dataclass(frozen=True)
class Experiment:
    """What is evaluated; validated on construction.

    Attributes:
        strategies: canonical names, each once.
        context_tokens: longest prompt.
        max_tokens: most tokens of a predicted line.
        seed: of made-up edits and of the bootstrap.
        refresh_every: for sessions, saves between two exact runs; 0 for none.
        layout: of prompts, one of `LAYOUTS`.
        latency: milliseconds to the first token, which repair may fill up where a strategy names no
            budget.

    Raises:
        InputError: an unknown strategy or layout, or a number that is too small.
    """

    strategies: tuple[str, ...]
    context_tokens: int = 2_048
    max_tokens: int = 64
    seed: int = 0
    refresh_every: tuple[int, ...] = (0, 1, 5)
    layout: str = "auto"
    latency: int = Settings.latency

    def __post_init__(self) -> None:
        """Refuse what could only fail later, and spell the strategies canonically."""
        names = tuple(dict.fromkeys(parse(name).name for name in self.strategies))
        object.__setattr__(self, "strategies", names)
        if not names:
            raise InputError("no strategies to evaluate", "name some: --strategies full,pie")
        if self.layout not in LAYOUTS:
            raise InputError(f"unknown layout {self.layout!r}", f"use one of {', '.join(LAYOUTS)}")
        for what, number, least in (
            ("--context-tokens", self.context_tokens, 16),
            ("--max-tokens", self.max_tokens, 1),
            ("--seed", self.seed, 0),
            ("--refresh-every", min(self.refresh_every, default=0), 0),
        ):
            if number < least:
                raise InputError(f"{what} is {number}", f"it must be at least {least}")

    @property
    def parsed(self) -> list[Strategy]:
        """The strategies."""
        return [parse(name) for name in self.strategies]


def settings_of(
    experiment: Experiment, model: PreparedModel, task: str, units: Sequence[Unit]
) -> dict[str, Any]:
    """Return what two runs must have in common for one to go on with the other's results."""
    return {
        "pie": __version__,
        "model": model.name,
        "parameters": model.n_params,
        "dtype": model.dtype,
        "weights": model.weights,
        "device": model.device.partition(":")[0],
        "task": task,
        "strategies": list(experiment.strategies),
        "context_tokens": experiment.context_tokens,
        "max_tokens": experiment.max_tokens,
        "seed": experiment.seed,
        "refresh_every": list(experiment.refresh_every),
        "layout": experiment.layout,
        "latency": experiment.latency,
        "cases": len(units),
        "cases_sha256": _digest(units),
    }


def evaluate(
    model: PreparedModel,
    experiment: Experiment,
    units: Sequence[Unit],
    team: Team,
    on_progress: OnProgress,
    folder: Path | None = None,
) -> list[Record]:
    """Run every strategy on all cases and sessions that this process has to do.

    Args:
        model: prepared.
        experiment: what to run.
        units: all cases and sessions, in the same order in each process.
        team: the processes that share them.
        on_progress: told (stage, steps done, steps in all) of this process.
        folder: where results are kept, after `prepare_folder`; None keeps them in memory only.

    Returns:
        The records of all processes in the one that leads, those that `folder` held before
        included; in the others nothing that is complete.

    Raises:
        CacheCapacityError: a context beyond the window.
        ModelError: a model whose cache is not edited.
        InputError: results that cannot be written.
    """
    laboratory = Laboratory(
        model,
        experiment.parsed,
        experiment.context_tokens,
        experiment.max_tokens,
        experiment.layout,
        experiment.latency,
    )
    known = read_records(folder) if folder else []
    done = {record.unit for record in known}
    mine = [(turn, unit) for turn, unit in team.share(units) if _key(unit) not in done]
    worker = _Worker(laboratory, experiment, [unit for _, unit in mine], on_progress)
    fresh: list[Record] = []
    results = ResultFile(folder, team.rank if team.size > 1 else None) if folder else None
    try:
        for turn, unit in mine:
            records = worker.run(unit, turn)
            if results:
                results.append(records)
            fresh += records
    finally:
        if results:
            results.close()
    return _once([*known, *team.gather(fresh)])


class _Worker:
    """Runs units one by one, and counts."""

    def __init__(
        self,
        laboratory: Laboratory,
        experiment: Experiment,
        units: Sequence[Unit],
        on_progress: OnProgress,
    ) -> None:
        strategies = experiment.parsed
        self._cases = CaseRunner(laboratory, strategies)
        replayed = policies(strategies, experiment.refresh_every)
        self._sessions = Replayer(laboratory, replayed, self._step)
        self._on_progress = on_progress
        self._done, self._total = 0, sum(map(_steps, units))
        self._stage = "warm-up"
        self._on_progress(self._stage, 0, self._total)
        self._cases.warm_up(unit for unit in units if isinstance(unit, EvalCase))

    def run(self, unit: Unit, turn: int) -> list[Record]:
        if isinstance(unit, EvalSession):
            self._stage = "session"
            return self._sessions.run(unit)
        self._stage = unit.task
        record = self._cases.run(unit, turn)
        self._step()
        return [record]

    def _step(self) -> None:
        self._done += 1
        self._on_progress(self._stage, self._done, self._total)


def _steps(unit: Unit) -> int:
    return count_saves(unit) if isinstance(unit, EvalSession) else 1


def _key(unit: Unit) -> tuple[str, str]:
    """Return what names a unit in its records."""
    return ("session" if isinstance(unit, EvalSession) else unit.task), unit.id


def _once(records: Sequence[Record]) -> list[Record]:
    """Drop what two processes have read or run both."""
    return list({(*record.unit, record.save): record for record in records}.values())


def _digest(units: Sequence[Unit]) -> str:
    digest = hashlib.sha256()
    for unit in units:
        digest.update(repr(unit).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16]
