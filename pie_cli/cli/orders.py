"""A measuring command: which order of fill-in-the-middle serves a model best.

python -m pie_cli.cli.orders CASES.jsonl.gz [--model M] [--limit N] [--context-tokens N]
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from pie_cli.config import DEFAULT_MODEL, Settings
from pie_cli.editable import prepare
from pie_cli.errors import PieError
from pie_cli.evaluation.environment import describe
from pie_cli.evaluation.orders import compare_orders, read_hidden_lines
from pie_cli.models.loading import load


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print one JSON document; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pie_cli.cli.orders", description=__doc__)
    parser.add_argument("cases", type=Path, help="real edits, as JSON Lines")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device", default=Settings.device)
    parser.add_argument("--limit", type=int, help="evenly spaced cases to take; default: all")
    parser.add_argument("--context-tokens", type=int)
    parser.add_argument("--max-tokens", type=int, default=Settings.max_tokens)
    options = parser.parse_args(arguments)
    try:
        lines = read_hidden_lines(options.cases, options.limit)
        settings = Settings(
            options.model,
            options.device,
            max_tokens=options.max_tokens,
            context_tokens=options.context_tokens,
        )
        model = prepare(load(options.model, options.device))
        rows = compare_orders(model, lines, settings, _show)
    except PieError as error:
        print(f"orders: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(file=sys.stderr)
    document = {
        "environment": asdict(describe(model.loaded)),
        "model": options.model,
        "context_tokens": options.context_tokens,
        "rows": [asdict(row) for row in rows],
    }
    print(json.dumps(document, indent=2))
    return 0


def _show(form: str, done: int, total: int) -> None:
    print(f"\r{form}: {done} of {total} ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
