"""What the records of an evaluation say: rows, groups, paired differences, drift.

A pure function of the records, whose order does not matter: an unbroken run, one that was killed
and resumed, and one on several processes give the same, but for the times, which each run measures.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from statistics import fmean
from typing import Any

from pie_cli.evaluation.bootstrap import interval
from pie_cli.evaluation.outcomes import Outcome, Record
from pie_cli.evaluation.sources import TASKS
from pie_cli.timing import median, p95

FULL = "full"
SESSION = "session"

Values = Callable[[Outcome], float | None]


def _percent(value: bool | None) -> float | None:
    return None if value is None else 100.0 * value


def _em(outcome: Outcome) -> float | None:
    return _percent(outcome.exact_match)


def _es(outcome: Outcome) -> float | None:
    return outcome.edit_similarity


def _agrees(outcome: Outcome) -> float | None:
    return _percent(outcome.agrees)


def _kl(outcome: Outcome) -> float | None:
    return outcome.kl


def _echo(outcome: Outcome) -> float | None:
    return _percent(outcome.stale_echo)


@dataclass(frozen=True)
class Buckets:
    """How records are sorted into groups.

    Attributes:
        by: name of the grouping.
        of: gives a record's group; None leaves it out.
        order: the groups in their order; empty for that of the alphabet.
    """

    by: str
    of: Callable[[Record], str | None]
    order: tuple[str, ...] = ()


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

GROUPINGS = (
    Buckets("distance", lambda record: _distance(record.distance), _DISTANCES),
    Buckets("moved", lambda record: _moved(record.moved), _MOVES),
    Buckets("changed", lambda record: _changed(record.changed), _CHANGES),
    Buckets("shares_identifier", lambda record: "yes" if record.shares_identifier else "no"),
    Buckets("kind", lambda record: record.kind or None),
    Buckets("language", lambda record: record.language or None),
)
"""`distance` in lines from the edit to the target; `moved` and `changed` in tokens."""


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
    ordered = sorted(records, key=_place)
    plain = [record for record in ordered if record.task != SESSION]
    replayed = [record for record in ordered if record.task == SESSION]
    policies = _policies(replayed, strategies)
    measured = [record for record in plain if not record.outside]
    return {
        "counts": _counts(ordered),
        "rows": [*_rows(plain, strategies, seed), *_rows(replayed, policies, seed)],
        "paired": _paired(measured, strategies, seed),
        "groups": _groups(measured, strategies),
        "cosines": _cosines(measured, strategies),
        "sessions": _sessions([record for record in replayed if not record.outside], policies),
    }


def _place(record: Record) -> tuple[int, str, int]:
    return TASKS.index(record.task), record.case, record.save


def _counts(records: Sequence[Record]) -> dict[str, dict[str, int]]:
    """Count by task the cases and saves, those cut at the window, those whose edit is not seen."""
    counts: dict[str, dict[str, int]] = {}
    for record in records:
        of_task = counts.setdefault(record.task, {"cases": 0, "truncated": 0, "outside": 0})
        of_task["cases"] += 1
        of_task["truncated"] += record.truncated
        of_task["outside"] += record.outside
    return counts


def _policies(records: Sequence[Record], strategies: Sequence[str]) -> list[str]:
    """List the strategies of replayed sessions, each with its schedules of refreshes behind it."""
    there = dict.fromkeys(name for record in records for name in record.outcomes)
    return [name for chosen in strategies for name in there if name.partition("@")[0] == chosen]


# Rows


def _rows(records: Sequence[Record], names: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Give a row a task and strategy, also where the edits of all cases lie outside the window."""
    return [
        _row(task, name, [record for record in group if not record.outside], seed)
        for task, group in _by(records, lambda record: record.task).items()
        for name in names
    ]


def _row(task: str, name: str, records: Sequence[Record], seed: int) -> dict[str, Any]:
    """Return one strategy's figures on one task; null where nothing was measured."""
    outcomes = [record.outcomes[name] for record in records]
    strategy, _, every = name.partition("@")
    prompt_tokens = sum(record.prompt_tokens for record in records)
    encoded = [float(outcome.encoded) for outcome in outcomes]
    kl = [outcome.kl for outcome in outcomes]
    times = [outcome.first_token_ms for outcome in outcomes]
    full_ms = _of(median, [record.outcomes[FULL].first_token_ms for record in records])
    time_ms = _of(median, times)
    reduction = None
    if time_ms is not None and full_ms:
        reduction = 100 * (1 - time_ms / full_ms)
    share = 100 * sum(encoded) / prompt_tokens if prompt_tokens else None

    def interval_of(value: Values, digits: int = 3) -> list[float] | None:
        return _interval(records, lambda record: value(record.outcomes[name]), seed, digits)

    return {
        "task": task,
        "strategy": strategy,
        "refresh_every": int(every or 0) if task == SESSION else None,
        "cases": len(records),
        "em": _rounded(_mean(outcomes, _em), 3),
        "es": _rounded(_mean(outcomes, _es), 3),
        "agreement": _rounded(_mean(outcomes, _agrees), 3),
        "kl_mean": _rounded(_of(fmean, kl), 9),
        "kl_p95": _rounded(_of(p95, kl), 9),
        "kl_max": _rounded(_of(max, kl), 9),
        "stale_echo": _rounded(_mean(outcomes, _echo), 3),
        "encoded_tokens_mean": _rounded(_of(fmean, encoded), 3),
        "encoded_pct": _rounded(share, 3),
        "stale_tokens_mean": _rounded(_mean(outcomes, lambda outcome: outcome.stale), 3),
        "key_cosine": _rounded(_mean_layers(outcome.key_cosine for outcome in outcomes), 6),
        "value_cosine": _rounded(_mean_layers(outcome.value_cosine for outcome in outcomes), 6),
        "cache_bytes_mean": _rounded(_mean(outcomes, lambda outcome: outcome.cache_bytes), 0),
        "first_token_ms_median": _rounded(time_ms, 3),
        "first_token_ms_p95": _rounded(_of(p95, times), 3),
        "reduction_pct": _rounded(reduction, 3),
        "ci": {
            "em": interval_of(_em),
            "es": interval_of(_es),
            "agreement": interval_of(_agrees),
            "stale_echo": interval_of(_echo),
            "kl_mean": interval_of(_kl, 9),
        },
    }


def _of(statistic: Callable[[Sequence[float]], float], values: Sequence[float]) -> float | None:
    """Return a statistic; None of nothing."""
    return statistic(values) if values else None


def _interval(
    records: Sequence[Record], value: Callable[[Record], float | None], seed: int, digits: int = 3
) -> list[float] | None:
    """Return the bootstrap interval of a mean; None where no value, or one that is no number."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        number = value(record)
        if number is not None:
            sums[record.case] += number
            counts[record.case] += 1
    if not sums or not all(map(math.isfinite, sums.values())):
        return None
    low, high = interval(list(sums.values()), list(counts.values()), seed)
    return [round(low, digits), round(high, digits)]


# Paired differences


def _paired(
    records: Sequence[Record], strategies: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """Compare each two strategies on the same cases, full recompute among them."""
    names = list(dict.fromkeys((FULL, *strategies)))
    return [
        _difference(task, group, pair, seed)
        for task, group in _by(records, lambda record: record.task).items()
        for pair in combinations(names, 2)
    ]


def _difference(
    task: str, records: Sequence[Record], pair: tuple[str, str], seed: int
) -> dict[str, Any]:
    first, second = pair
    entry: dict[str, Any] = {"task": task, "strategy": second, "against": first}
    for name, value, digits in (("em", _em, 3), ("agreement", _agrees, 3), ("kl_mean", _kl, 9)):
        pairs = [(value(r.outcomes[first]), value(r.outcomes[second])) for r in records]
        deltas = [b - a for a, b in pairs if a is not None and b is not None]
        entry[name] = _rounded(fmean(deltas), digits) if deltas else None

        def delta(record: Record, value: Values = value) -> float | None:
            a, b = value(record.outcomes[first]), value(record.outcomes[second])
            return None if a is None or b is None else b - a

        entry[f"{name}_ci"] = _interval(records, delta, seed, digits)
    return entry


# Groups


def _groups(records: Sequence[Record], strategies: Sequence[str]) -> list[dict[str, Any]]:
    """Give agreement, exact match, divergence and stale echo in each group of each task."""
    found = []
    for task, of_task in _by(records, lambda record: record.task).items():
        for buckets in GROUPINGS:
            groups = _by(of_task, buckets.of)
            order = buckets.order or sorted(groups)
            found += [
                _group(task, buckets.by, name, groups[name], strategies)
                for name in order
                if name in groups
            ]
    return found


def _group(
    task: str, by: str, name: str, records: Sequence[Record], strategies: Sequence[str]
) -> dict[str, Any]:
    def means(value: Values, digits: int = 3) -> dict[str, float | None]:
        return {
            strategy: _rounded(_mean([r.outcomes[strategy] for r in records], value), digits)
            for strategy in strategies
        }

    return {
        "task": task,
        "by": by,
        "group": name,
        "cases": len(records),
        "agreement": means(_agrees),
        "em": means(_em),
        "kl_mean": means(_kl, 9),
        "stale_echo": means(_echo),
    }


# Cosines


def _cosines(records: Sequence[Record], strategies: Sequence[str]) -> list[dict[str, Any]]:
    """Give the mean cosine of keys and values with full recompute's, by task and layer."""
    found = []
    for task, of_task in _by(records, lambda record: record.task).items():
        for strategy in strategies:
            outcomes = [record.outcomes[strategy] for record in of_task]
            keys = _by_layer(outcome.key_cosine for outcome in outcomes)
            values = _by_layer(outcome.value_cosine for outcome in outcomes)
            if keys and values:
                found.append({"task": task, "strategy": strategy, "keys": keys, "values": values})
    return found


def _by_layer(rows: Iterable[Sequence[float] | None]) -> list[float | None]:
    there = [row for row in rows if row]
    return [_rounded(fmean(layer), 6) for layer in zip(*there, strict=True)]


def _mean_layers(rows: Iterable[Sequence[float] | None]) -> float | None:
    layers = _by_layer(rows)
    numbers = [cosine for cosine in layers if cosine is not None]
    return fmean(numbers) if numbers and len(numbers) == len(layers) else None


# Sessions


def _sessions(records: Sequence[Record], policies: Sequence[str]) -> dict[str, Any]:
    """Give drift save by save, and each policy's time and memory over whole sessions.

    Saves are numbered as they were answered: those above the window did nothing to the cache.
    """
    by_answer: dict[int, list[Record]] = defaultdict(list)
    for session in _by(records, lambda record: record.case).values():
        for number, record in enumerate(session, 1):
            by_answer[number].append(record)
    return {
        "drift": [_drift(number, group, policies) for number, group in sorted(by_answer.items())],
        # Full recompute is what times are set beside, also where it was not asked for.
        "totals": [_totals(records, policy) for policy in dict.fromkeys((FULL, *policies))]
        if records
        else [],
    }


def _drift(save: int, records: Sequence[Record], policies: Sequence[str]) -> dict[str, Any]:
    of = {policy: [record.outcomes[policy] for record in records] for policy in policies}
    return {
        "save": save,
        "sessions": len(records),
        "kl_mean": {p: _rounded(_mean(outcomes, _kl), 9) for p, outcomes in of.items()},
        "agreement": {p: _rounded(_mean(outcomes, _agrees), 3) for p, outcomes in of.items()},
        "key_cosine": {
            p: _rounded(_mean_layers(o.key_cosine for o in outcomes), 6)
            for p, outcomes in of.items()
        },
        "value_cosine": {
            p: _rounded(_mean_layers(o.value_cosine for o in outcomes), 6)
            for p, outcomes in of.items()
        },
        "cache_bytes_mean": {
            p: round(fmean(o.cache_bytes for o in outcomes)) for p, outcomes in of.items()
        },
        "first_token_ms_mean": {
            p: _rounded(fmean(o.first_token_ms for o in outcomes), 3) for p, outcomes in of.items()
        },
    }


def _totals(records: Sequence[Record], policy: str) -> dict[str, Any]:
    outcomes = [record.outcomes[policy] for record in records]
    return {
        "policy": policy,
        "saves": len(outcomes),
        "encoded_tokens": sum(outcome.encoded for outcome in outcomes),
        "cache_bytes_max": max(outcome.cache_bytes for outcome in outcomes),
        "answers_total_ms": _rounded(sum(outcome.first_token_ms for outcome in outcomes), 3),
        "refreshes_total_ms": _rounded(sum(outcome.refresh_ms for outcome in outcomes), 3),
    }


# Shared


def _by(records: Iterable[Record], of: Callable[[Record], str | None]) -> dict[str, list[Record]]:
    """Sort records into groups, in the order in which these appear."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        name = of(record)
        if name is not None:
            groups.setdefault(name, []).append(record)
    return groups


def _mean(outcomes: Sequence[Outcome], value: Values) -> float | None:
    """Return the mean over the outcomes that have a value; None where none has."""
    numbers = [number for outcome in outcomes if (number := value(outcome)) is not None]
    return fmean(numbers) if numbers else None


def _rounded(number: float | None, digits: int) -> float | None:
    """Round what is published; what is no number (a broken model's) is null in JSON."""
    return None if number is None or not math.isfinite(number) else round(number, digits)
