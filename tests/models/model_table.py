"""Write the table of docs/models.md: what the gate says of every causal model type.

    python -m tests.models.model_table docs/models.md

Each type that transformers maps to a causal language model is built tiny and random, judged by the
gate, and set in a row. It happens in a process beside this one, which is started again after a type
that crashed it or took too long: transformers has many types, and some do either.
"""

import argparse
import multiprocessing
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 120.0
_MAX_REASON = 90


@dataclass(frozen=True)
class Row:
    """What the gate says of one model type.

    Attributes:
        model_type: as transformers names it.
        runs: "edited", "prefix", "full", or "-" where nothing could be said.
        rotation: found by the gate, in a few words.
        reason: why the cache is not edited, or what kept the type from being built.
    """

    model_type: str
    runs: str
    rotation: str
    reason: str


def survey(types: Sequence[str], timeout_s: float = _TIMEOUT_S) -> Iterator[Row]:
    """Judge model types one after the other, each in a process that may crash or hang."""
    worker: _Worker | None = None
    try:
        for model_type in types:
            worker = worker or _Worker()
            row = worker.ask(model_type, timeout_s)
            if row is None:
                worker.stop()
                worker = None
                row = Row(model_type, "-", "", "crashed, or took too long")
            yield row
    finally:
        if worker is not None:
            worker.stop()


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the table, a row a type."""
    lines = ["| model type | cache | rotation found | reason |", "|---|---|---|---|"]
    lines += [
        f"| `{row.model_type}` | {row.runs} | {row.rotation} | {_escaped(row.reason)} |"
        for row in rows
    ]
    counts = [
        f"{sum(row.runs == runs for row in rows)} {what}"
        for runs, what in (
            ("edited", "edited"),
            ("prefix", "exact by prefix"),
            ("full", "exact by full recompute"),
            ("-", "not built"),
        )
    ]
    head = f"{len(rows)} types: {', '.join(counts)}. transformers {version('transformers')}, "
    return head + f"torch {version('torch')}, float32.\n\n" + "\n".join(lines)


def parse_markdown(text: str) -> dict[str, Row]:
    """Read a table back, by model type."""
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return {fields[0]: Row(*fields) for fields in rows}


def insert(document: str, table: str) -> str:
    """Put a table between a document's two markers.

    Raises:
        ValueError: when the markers are not there.
    """
    if BEGIN not in document or END not in document:
        raise ValueError(f"no {BEGIN} and {END} to put the table between")
    before, _, rest = document.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


class _Worker:
    """A process that judges one type after the other."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        there.close()
        self._ready = False

    def ask(self, model_type: str, timeout_s: float) -> Row | None:
        """Return the type's row, or None when the process crashed or took too long."""
        try:
            if not self._ready:
                # Importing transformers takes a while, which is no type's fault.
                if not self._here.poll(_START_TIMEOUT_S):
                    return None
                self._here.recv()
                self._ready = True
            self._here.send(model_type)
            if not self._here.poll(timeout_s):
                return None
            row: Row = self._here.recv()
        except (EOFError, OSError):
            return None
        return row

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self._here.close()


def _serve(connection: Connection) -> None:
    """Answer model types with their rows, until the other side is gone."""
    import torch

    from pie_cli.models.quiet import hushed

    torch.set_num_threads(1)
    connection.send(None)
    with hushed():
        while True:
            try:
                model_type = connection.recv()
            except EOFError:
                return
            connection.send(judge_type(model_type))


def judge_type(model_type: str) -> Row:
    """Build a tiny model of a type and judge it."""
    from pie_cli.engine.gate.check import check_model
    from pie_cli.engine.gate.verdicts import UnusableModel
    from tests.models.tiny import build_tiny

    try:
        model = build_tiny(model_type)
    except ValueError as error:
        return Row(model_type, "-", "", f"not built: {error}")
    try:
        verdict = check_model(model)
    except UnusableModel as error:
        return Row(model_type, "-", "", error.reason)
    if verdict.report is None:
        assert verdict.ability is not None
        return Row(model_type, verdict.ability.strategy, "", verdict.refusal or "")
    return Row(model_type, "edited", _rotation(verdict.report), "")


def _rotation(report: Any) -> str:
    """Describe what the gate found, in a few words."""
    layers = report.rotation.layers
    turning = [layer for layer in layers if layer.inv_freq is not None]
    parts = ["half-split" if turning[0].pairing == "half" else "interleaved"]
    kinds = {tuple(layer.inv_freq.tolist()) for layer in turning}
    if len(kinds) > 1:
        parts.append(f"{len(kinds)} kinds of frequencies")
    if len(turning) < len(layers):
        parts.append(f"none in {len(layers) - len(turning)} of {len(layers)} layers")
    if bool((turning[0].inv_freq < 0).any()):
        parts.append("reversed")
    if report.masked:
        parts.append("under a mask")
    if report.limit is not None:
        parts.append(f"up to {report.limit:,} tokens")
    return ", ".join(parts)


def _escaped(reason: str) -> str:
    """Return a reason that fits a table's cell: one short line without bars."""
    line = " ".join(reason.replace("|", "/").split())
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 1] + "…"


def main(arguments: Sequence[str] | None = None) -> None:
    """Rewrite the table in a document."""
    from tests.models.tiny import causal_types

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("document", type=Path, help="a Markdown file with the table's markers")
    parser.add_argument("--types", default="", help="only these, separated by commas")
    options = parser.parse_args(arguments)
    types = [name for name in options.types.split(",") if name] or causal_types()
    document = options.document.read_text(encoding="utf-8")
    table = to_markdown(list(survey(types)))
    options.document.write_text(insert(document, table), encoding="utf-8")


if __name__ == "__main__":
    main()
