"""Measure a model of pie-nano's prompt format on real edits that it never saw.

    python -m pie_cli.models.nano.measure CASES.jsonl.gz [--model DIR] [--contexts 256,2048,4096]

The cases are those of a JSON Lines file with `path`, `after` and `target_line`. All by full
recompute, in float32. For each context length:

- bits per byte of the after texts, in windows that overlap by half: every token but those of a
  file's first window sees at least half a context;
- the next line at `target_line`, greedy, given the text before it: exact match and edit similarity
  (`rapidfuzz.fuzz.ratio`), both of stripped lines;
- the same line hidden between its prefix and its suffix: exact match of the fill-in-the-middle.

Prints one JSON document.
"""

import argparse
import gzip
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rapidfuzz import fuzz
from tokenizers import Tokenizer
from torch import Tensor
from transformers import DynamicCache, LlamaForCausalLM

from pie_cli.errors import InputError, PieError
from pie_cli.models.nano.tokenizer import END_OF_TEXT, FIM_BEGIN, FIM_END, FIM_HOLE, special_ids

MAX_LINE_TOKENS = 64
SUFFIX_SHARE = 0.25


@dataclass(frozen=True)
class Case:
    """A file and the line to predict in it."""

    path: str
    after: str
    target_line: int

    @property
    def parts(self) -> tuple[str, str, str]:
        """The text before the target line, the line, the text behind it."""
        lines = self.after.splitlines(keepends=True)
        before, behind = lines[: self.target_line], lines[self.target_line + 1 :]
        return "".join(before), lines[self.target_line], "".join(behind)


class Scorer:
    """A model with its tokenizer, asked for likelihoods and lines."""

    def __init__(self, folder: Path, device: str) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True
        model = cast(Any, LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32))
        self.model = model.to(device).eval()
        self.device = device
        self.special = special_ids(self.tokenizer)

    def encode(self, text: str) -> list[int]:
        """Tokenize without special tokens."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def head(self, case: Case) -> list[int]:
        """Return the tokens that every prompt of a file begins with."""
        return [self.special[END_OF_TEXT], *self.encode(f"# {case.path}\n")]

    @torch.inference_mode()
    def bits(self, case: Case, context: int) -> float:
        """Return the bits that the after text costs, in windows that overlap by half."""
        head, ids = self.head(case), self.encode(case.after)
        room = context - len(head)
        total, done = 0.0, 0
        while done < len(ids):
            start = max(0, done - room // 2) if done else 0
            window = head + ids[start : start + room]
            logits = self.model(torch.tensor([window[:-1]], device=self.device)).logits[0]
            first = len(head) + done - start
            nats = torch.nn.functional.cross_entropy(
                logits[first - 1 :].float(),
                torch.tensor(window[first:], device=self.device),
                reduction="sum",
            )
            total += float(nats) / math.log(2)
            done = start + len(window) - len(head)
        return total

    def next_line(self, case: Case, context: int) -> str:
        """Predict the target line from the text before it."""
        head, ids = self.head(case), self.encode(case.parts[0])
        return self._line(head + ids[-(context - MAX_LINE_TOKENS - len(head)) :])

    def filled_line(self, case: Case, context: int) -> str:
        """Predict the target line from the text on both sides, prefix-suffix-middle."""
        prefix, _, suffix = case.parts
        head = [*self.head(case), self.special[FIM_BEGIN]]
        room = context - MAX_LINE_TOKENS - len(head) - 2
        before, behind = self.encode(prefix), self.encode(suffix)
        behind = behind[: max(int(room * SUFFIX_SHARE), room - len(before))]
        before = before[-(room - len(behind)) :]
        ends = self.special[FIM_HOLE], self.special[FIM_END]
        return self._line([*head, *before, ends[0], *behind, ends[1]])

    @torch.inference_mode()
    def _line(self, prompt: Sequence[int]) -> str:
        """Decode greedily through the first line with content."""
        cache = DynamicCache(config=self.model.config)
        step: Tensor = torch.tensor([list(prompt)], device=self.device)
        ids: list[int] = []
        while len(ids) < MAX_LINE_TOKENS:
            logits = self.model(
                step, past_key_values=cache, use_cache=True, logits_to_keep=1
            ).logits
            ids.append(int(logits[0, -1].argmax()))
            text = self.tokenizer.decode(ids)
            if ids[-1] == self.special[END_OF_TEXT] or "\n" in text.lstrip():
                break
            step = torch.tensor([ids[-1:]], device=self.device)
        return self.tokenizer.decode(ids).strip().split("\n")[0]


def read_cases(path: Path, limit: int | None) -> list[Case]:
    """Read cases; with a limit, evenly spaced ones.

    Raises:
        InputError: when there are none.
    """
    if not path.is_file():
        raise InputError(f"there are no cases at {path}", "name a cases_*.jsonl.gz file")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        records = [json.loads(line) for line in stream]
    cases = [Case(r["path"], r["after"], r["target_line"]) for r in records]
    if not cases:
        raise InputError(f"{path} holds no case", "name another file")
    step = max(1, len(cases) // limit) if limit else 1
    return cases[::step][:limit]


def measure(scorer: Scorer, cases: Sequence[Case], context: int) -> dict[str, float | int]:
    """Return the figures at one context length."""
    bits = sum(scorer.bits(case, context) for case in cases)
    size = sum(len(case.after.encode()) for case in cases)
    matches = filled = 0
    similarity = 0.0
    for number, case in enumerate(cases, 1):
        target = case.parts[1].strip()
        line = scorer.next_line(case, context)
        matches += line == target
        similarity += fuzz.ratio(line, target)
        filled += scorer.filled_line(case, context) == target
        print(f"\r{context} tokens: case {number} of {len(cases)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    n = len(cases)
    return {
        "context_tokens": context,
        "cases": n,
        "bits_per_byte": round(bits / size, 4),
        "exact_match_pct": round(100 * matches / n, 2),
        "edit_similarity": round(similarity / n, 2),
        "fim_exact_match_pct": round(100 * filled / n, 2),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pie_cli.models.nano.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", type=Path)
    parser.add_argument("--model", type=Path, default=Path(__file__).parent)
    parser.add_argument("--contexts", default="2048,4096")
    parser.add_argument("--limit", type=int, help="evenly spaced cases to take; default: all")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    try:
        cases = read_cases(options.cases, options.limit)
        scorer = Scorer(options.model, options.device)
        rows = [measure(scorer, cases, int(c)) for c in options.contexts.split(",")]
    except PieError as error:
        print(f"measure: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(json.dumps({"model": str(options.model), "rows": rows}, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
