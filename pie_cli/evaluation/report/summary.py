"""What the records of an evaluation say: rows, groups, paired differences, drift.

A pure function of the records, whose order does not matter: an unbroken run, one that was killed
and resumed, and one on several processes give the same, but for the times, which each run measures.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from statistics import fmean
from typing import Any

import numpy as np

from pie_cli.evaluation.cases.case import TASKS
from pie_cli.evaluation.report.intervals import interval
from pie_cli.evaluation.runs.outcomes import Outcome, Record

FULL = "full"
SESSION = "session"

Value = Callable[[Outcome], float | None]


def _per_cent(field: str) -> Value:
    def value(outcome: Outcome) -> float | None:
        verdict = getattr(outcome, field)
        return None if verdict is None else 100.0 * verdict

    return value


_EM, _AGREEMENT, _ECHO = map(_per_cent, ("exact_match", "agrees", "stale_echo"))
_DIGITS = defaultdict(lambda: 3, kl_mean=9, key_cosine=6, value_cosine=6, cache_bytes_mean=0)


def _es(outcome: Outcome) -> float | None:
    return outcome.edit_similarity


def _kl(outcome: Outcome) -> float | None:
    return outcome.kl


_RATES: dict[str, Value] = {
    "em": _EM,
    "es": _es,
    "agreement": _AGREEMENT,
    "stale_echo": _ECHO,
    "kl_mean": _kl,
}
"""What has an interval in each row."""

_GROUPED = ("agreement", "em", "kl_mean", "stale_echo")
_PAIRED = ("em", "agreement", "kl_mean")


def _ranges(*bounds: int) -> tuple[Callable[[int], str], tuple[str, ...]]:
    """Return what names the range of a number, and all names; a range begins at each bound."""
    names = [
        f"{low:,}" if low + 1 == high else f"{low:,} to {high - 1:,}"
        for low, high in pairwise(bounds)
    ]
    names.append(f"{bounds[-1]:,} and more")

    def name(number: int) -> str:
        return names[sum(number >= bound for bound in bounds[1:])]

    return name, tuple(names)


_distance, _DISTANCES = _ranges(1, 4, 10, 41, 101)
_moved, _MOVES = _ranges(0, 1, 16, 64)
_changed, _CHANGES = _ranges(1, 8, 32, 128)

GROUPINGS: Mapping[str, tuple[Callable[[Record], str], tuple[str, ...]]] = {
    "distance": (lambda record: _distance(record.distance), _DISTANCES),
    "moved": (lambda record: _moved(record.moved), _MOVES),
    "changed": (lambda record: _changed(record.changed), _CHANGES),
    "shares_identifier": (lambda record: "yes" if record.shares_identifier else "no", ()),
    "kind": (lambda record: record.kind, ()),
    "language": (lambda record: record.language, ()),
}
"""What gives a record's group, empty for none, and the groups in order, else that of the alphabet.

`distance` in lines from the edit to the target; `moved` and `changed` in tokens.
"""


def summarise(records: Iterable[Record], strategies: Sequence[str], seed: int) -> dict[str, Any]:
    """Sum up.

    Args:
        records: any order.
        strategies: names, in the order of the report.
        seed: of the bootstrap.

    Returns:
        `counts`, `rows`, `paired`, `groups`, `cosines` and `sessions`, as JSON's types; docs/cli.md
        describes them.
    """
    ordered = sorted(records, key=lambda r: (TASKS.index(r.task), r.case, r.save))
    plain = _by_task(record for record in ordered if record.task != SESSION)
    measured = {task: [r for r in group if not r.outside] for task, group in plain.items()}
    measured = {task: group for task, group in measured.items() if group}
    replayed = [record for record in ordered if record.task == SESSION]
    there = dict.fromkeys(name for record in replayed for name in record.outcomes)
    policies = [name for chosen in strategies for name in there if _parts(name)[0] == chosen]
    rows = [(task, group, strategies) for task, group in plain.items()]
    if replayed:
        rows.append((SESSION, replayed, policies))
    return {
        "counts": _counts(ordered),
        "rows": [
            _row(task, name, [record for record in group if not record.outside], seed)
            for task, group, names in rows
            for name in names
        ],
        "paired": [
            _difference(task, group, pair, seed)
            for task, group in measured.items()
            for pair in combinations(dict.fromkeys((FULL, *strategies)), 2)
        ],
        "groups": [
            group
            for task, of_task in measured.items()
            for by in GROUPINGS
            for group in _groups(task, by, of_task, strategies)
        ],
        "cosines": [
            entry
            for task, group in measured.items()
            for name in strategies
            if (entry := _cosines(task, name, _outcomes(group, name)))
        ],
        "sessions": _sessions([record for record in replayed if not record.outside], policies),
    }


def _counts(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Count by task the cases and saves, those cut at the window, those whose edit is not seen."""
    return {
        task: {
            "cases": len(group),
            "truncated": sum(record.truncated for record in group),
            "outside": sum(record.outside for record in group),
        }
        for task, group in _by_task(records).items()
    }


def _row(task: str, name: str, records: Sequence[Record], seed: int) -> dict[str, Any]:
    """Return one strategy's figures on one task; null where nothing was measured."""
    outcomes = _outcomes(records, name)
    strategy, every = _parts(name)
    prompt_tokens = sum(record.prompt_tokens for record in records)
    kl = [outcome.kl for outcome in outcomes]
    times = [outcome.first_token_ms for outcome in outcomes]
    full_ms = _percentile([record.outcomes[FULL].first_token_ms for record in records], 50)
    time_ms = _percentile(times, 50)
    share = reduction = per_pass = None
    if prompt_tokens:
        share = 100 * sum(outcome.encoded for outcome in outcomes) / prompt_tokens
    if time_ms is not None and full_ms:
        reduction = 100 * (1 - time_ms / full_ms)
    if outcomes:
        generated = sum(len(outcome.token_ids) for outcome in outcomes)
        per_pass = generated / sum(outcome.passes for outcome in outcomes)
    return {
        "task": task,
        "strategy": strategy,
        "refresh_every": every if task == SESSION else None,
        "cases": len(records),
        "em": _mean(outcomes, _EM),
        "es": _mean(outcomes, _es),
        "agreement": _mean(outcomes, _AGREEMENT),
        "kl_mean": _mean(outcomes, _kl, 9),
        "kl_p95": _rounded(_percentile(kl, 95), 9),
        "kl_max": _rounded(_percentile(kl, 100), 9),
        "stale_echo": _mean(outcomes, _ECHO),
        "encoded_tokens_mean": _mean(outcomes, lambda outcome: outcome.encoded),
        "encoded_pct": _rounded(share),
        "stale_tokens_mean": _mean(outcomes, lambda outcome: outcome.stale),
        "key_cosine": _mean_layers(outcome.key_cosine for outcome in outcomes),
        "value_cosine": _mean_layers(outcome.value_cosine for outcome in outcomes),
        "cache_bytes_mean": _mean(outcomes, lambda outcome: outcome.cache_bytes, 0),
        "first_token_ms_median": _rounded(time_ms),
        "first_token_ms_p95": _rounded(_percentile(times, 95)),
        "line_ms_median": _rounded(_percentile([outcome.line_ms for outcome in outcomes], 50)),
        "reduction_pct": _rounded(reduction),
        "tokens_per_pass": _rounded(per_pass),
        "ci": {
            rate: _interval([(r.case, value(r.outcomes[name])) for r in records], seed, rate)
            for rate, value in _RATES.items()
        },
    }


def _interval(
    values: Iterable[tuple[str, float | None]], seed: int, rate: str
) -> list[float] | None:
    """Return the bootstrap interval of a mean over cases, each value with the case it is of.

    None where there is no value, or one that is no number.
    """
    clusters: dict[str, list[float]] = defaultdict(list)
    for case, value in values:
        if value is not None:
            clusters[case].append(value)
    sums = [sum(numbers) for numbers in clusters.values()]
    if not sums or not all(map(math.isfinite, sums)):
        return None
    low, high = interval(sums, [len(numbers) for numbers in clusters.values()], seed)
    return [round(low, _DIGITS[rate]), round(high, _DIGITS[rate])]


def _difference(
    task: str, records: Sequence[Record], pair: tuple[str, str], seed: int
) -> dict[str, Any]:
    """Compare two strategies on the same cases."""
    first, second = pair
    entry: dict[str, Any] = {"task": task, "strategy": second, "against": first}
    for rate in _PAIRED:
        value = _RATES[rate]
        pairs = [(r.case, value(r.outcomes[first]), value(r.outcomes[second])) for r in records]
        deltas = [(case, b - a) for case, a, b in pairs if a is not None and b is not None]
        mean = fmean(delta for _, delta in deltas) if deltas else None
        entry[rate] = _rounded(mean, _DIGITS[rate])
        entry[f"{rate}_ci"] = _interval(deltas, seed, rate)
    return entry


def _groups(
    task: str, by: str, records: Sequence[Record], strategies: Sequence[str]
) -> Iterable[dict[str, Any]]:
    """Give agreement, exact match, divergence and stale echo in each group of a task."""
    of, order = GROUPINGS[by]
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[of(record)].append(record)
    for name in order or sorted(groups):
        if name and name in groups:
            yield {
                "task": task,
                "by": by,
                "group": name,
                "cases": len(groups[name]),
                **{
                    rate: {
                        s: _mean(_outcomes(groups[name], s), _RATES[rate], _DIGITS[rate])
                        for s in strategies
                    }
                    for rate in _GROUPED
                },
            }


def _cosines(task: str, name: str, outcomes: Sequence[Outcome]) -> dict[str, Any] | None:
    """Give the mean cosine of keys and values with full recompute's, by layer."""
    keys = _by_layer(outcome.key_cosine for outcome in outcomes)
    values = _by_layer(outcome.value_cosine for outcome in outcomes)
    return {"task": task, "strategy": name, "keys": keys, "values": values} if keys else None


def _by_layer(rows: Iterable[Sequence[float] | None]) -> list[float | None]:
    there = [row for row in rows if row]
    return [_rounded(fmean(layer), 6) for layer in zip(*there, strict=True)]


def _mean_layers(rows: Iterable[Sequence[float] | None]) -> float | None:
    layers = _by_layer(rows)
    numbers = [cosine for cosine in layers if cosine is not None]
    return _rounded(fmean(numbers), 6) if numbers and len(numbers) == len(layers) else None


def _sessions(records: Sequence[Record], policies: Sequence[str]) -> dict[str, Any]:
    """Give drift save by save, and each policy's time and memory over whole sessions.

    Saves are numbered as they were answered: those outside the window did nothing to the cache.
    """
    answered: dict[str, int] = defaultdict(int)
    by_answer: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        answered[record.case] += 1
        by_answer[answered[record.case]].append(record)
    return {
        "drift": [_drift(number, group, policies) for number, group in sorted(by_answer.items())],
        # Full recompute is what times are set beside, also where it was not asked for.
        "totals": [
            _totals(policy, _outcomes(records, policy))
            for policy in dict.fromkeys((FULL, *policies))
            if records
        ],
    }


def _drift(save: int, records: Sequence[Record], policies: Sequence[str]) -> dict[str, Any]:
    def of(figure: Callable[[list[Outcome]], float | None]) -> dict[str, float | None]:
        return {policy: figure(_outcomes(records, policy)) for policy in policies}

    return {
        "save": save,
        "sessions": len(records),
        "kl_mean": of(lambda outcomes: _mean(outcomes, _kl, 9)),
        "agreement": of(lambda outcomes: _mean(outcomes, _AGREEMENT)),
        "key_cosine": of(lambda outcomes: _mean_layers(o.key_cosine for o in outcomes)),
        "value_cosine": of(lambda outcomes: _mean_layers(o.value_cosine for o in outcomes)),
        "cache_bytes_mean": of(lambda outcomes: _mean(outcomes, lambda o: o.cache_bytes, 0)),
        "first_token_ms_mean": of(lambda outcomes: _mean(outcomes, lambda o: o.first_token_ms)),
    }


def _totals(policy: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "policy": policy,
        "saves": len(outcomes),
        "encoded_tokens": sum(outcome.encoded for outcome in outcomes),
        "cache_bytes_max": max(outcome.cache_bytes for outcome in outcomes),
        "answers_total_ms": _rounded(sum(outcome.first_token_ms for outcome in outcomes)),
        "refreshes_total_ms": _rounded(sum(outcome.refresh_ms for outcome in outcomes)),
    }


def _by_task(records: Iterable[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record.task, []).append(record)
    return groups


def _parts(name: str) -> tuple[str, int]:
    """Take the name of a policy apart: its strategy, and saves between two exact runs."""
    strategy, _, every = name.partition("@")
    return strategy, int(every or 0)


def _outcomes(records: Iterable[Record], name: str) -> list[Outcome]:
    return [record.outcomes[name] for record in records]


def _mean(outcomes: Iterable[Outcome], value: Value, digits: int = 3) -> float | None:
    """Return the mean over the outcomes that have a value; None where none has."""
    numbers = [number for outcome in outcomes if (number := value(outcome)) is not None]
    return _rounded(fmean(numbers), digits) if numbers else None


def _percentile(values: Sequence[float], per_cent: float) -> float | None:
    return float(np.percentile(values, per_cent)) if values else None


def _rounded(number: float | None, digits: int = 3) -> float | None:
    """Round what is published; what is no number (a broken model's) is null in JSON."""
    return None if number is None or not math.isfinite(number) else round(number, digits)
