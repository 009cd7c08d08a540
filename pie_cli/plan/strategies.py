"""Strategies by name: what an edit keeps of the cache, and which further tokens it computes again.

- `full`, `prefix`, `cfe`, `pie`: what is kept, see docs/method.md.
- `pie+seam`: pie, and the 16 tokens after each hunk computed again.
- `pie+seam:4`: the 4 tokens after each hunk.
- `pie+seam+tail`: also the last tokens before the cursor, as many as there is time for.
- `pie+seam:8+tail:16`, `pie+names:5%`: mixtures, and budgets as a share of the prompt.
- `pie+seam+again`: a second look: where a token was chosen by a small margin, further tokens are
  computed again, and the line is decided again.
- `pie+evict:4+1024`: pie, then all but 4 sinks and 1,024 recent tokens dropped: a question for
  evaluation, no way to predict.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pie_cli.errors import InputError

BASES: Final = ("full", "prefix", "cfe", "pie")
"""What a plan keeps."""

DEFAULT_STRATEGY: Final = "pie+seam+tail+again"
"""What predicts where nothing else is asked for: chosen by measurement, docs/log.md."""

BENCHED: Final = (*BASES, DEFAULT_STRATEGY)
"""What is measured where nothing else is asked for."""

AGAIN: Final = "again"
"""The term that asks for a second look."""

_TERM = re.compile(r"([a-z]+)(?::(\d+(?:\.\d+)?)(%?))?")


@dataclass(frozen=True)
class Budget:
    """How many tokens a repair may compute again.

    Attributes:
        amount: tokens, or per cent of the prompt.
        percent: whether it is per cent.
    """

    amount: float
    percent: bool = False

    def of(self, prompt_tokens: int) -> int:
        """Return the tokens for a prompt of this length, rounded down."""
        return int(self.amount * prompt_tokens / 100 if self.percent else self.amount)

    def __str__(self) -> str:
        return f"{self.amount:g}{'%' if self.percent else ''}"


REPAIRS: Final[Mapping[str, Budget | None]] = MappingProxyType(
    {
        "seam": Budget(16),
        "tail": None,
        "names": None,
        "random": None,
        "deviation": Budget(15, percent=True),
        AGAIN: None,
    }
)
"""Repairs and their budgets where none is given; None for what there is time for.

A number of tokens counts after each hunk for `seam`, as a total for the others. `random` and
`deviation` are there to compare with, `deviation` in `pie eval` only. `again` is for after the
first look.
"""


@dataclass(frozen=True)
class Repair:
    """One way to pick further tokens.

    Attributes:
        kind: one of `REPAIRS`.
        budget: how many; None for what there is time for, shared by the repairs without one.
    """

    kind: str
    budget: Budget | None

    def __str__(self) -> str:
        default = self.budget == REPAIRS[self.kind]
        return self.kind if default else f"{self.kind}:{self.budget}"


@dataclass(frozen=True)
class Evict:
    """What is left of a cache that is cut down after the edit.

    Attributes:
        sinks: first tokens kept.
        recent: last tokens kept.
    """

    sinks: int
    recent: int

    def __str__(self) -> str:
        return f"evict:{self.sinks}+{self.recent}"


@dataclass(frozen=True)
class Strategy:
    """How an edit updates the cache.

    Attributes:
        base: one of `BASES`.
        repairs: further tokens to compute, in the order in which they are picked; only on `pie`.
        again: those that a second look computes, where one is taken; None for no second look.
        evict: what is left of the cache then; None for all of it.
    """

    base: str
    repairs: tuple[Repair, ...] = ()
    again: Repair | None = None
    evict: Evict | None = None

    @property
    def name(self) -> str:
        """The canonical spelling: budgets only where they are not the default."""
        last = [part for part in (self.again, self.evict) if part]
        return "+".join([self.base, *map(str, (*self.repairs, *last))])

    @property
    def takes_time(self) -> bool:
        """Whether it takes what there is time for, which has to be measured."""
        picked = [*self.repairs, *([self.again] if self.again else [])]
        return any(repair.budget is None for repair in picked)

    @property
    def serves(self) -> bool:
        """Whether it can predict while somebody types; the others only answer `pie eval`."""
        return self.evict is None and all(repair.kind != "deviation" for repair in self.repairs)


@lru_cache
def parse(text: str) -> Strategy:
    """Read a strategy's name.

    Raises:
        InputError: an unknown strategy, repair or budget; it lists what there is.
    """
    base, *terms = text.split("+")
    if base not in BASES:
        raise _unknown(text)
    evict = None
    repairs: list[Repair] = []
    while terms:
        term = terms.pop(0)
        if term.startswith("evict:"):
            evict = _evict(text, term, terms)
        else:
            repairs.append(_repair(text, term))
    kinds = [repair.kind for repair in repairs]
    if len(set(kinds)) < len(kinds):
        raise InputError(f"strategy {text!r} names a repair twice", "name each once")
    if repairs and base != "pie":
        raise InputError(f"strategy {text!r} repairs {base}", "repairs go with pie: pie+seam")
    again = next((repair for repair in repairs if repair.kind == AGAIN), None)
    at_once = tuple(repair for repair in repairs if repair is not again)
    return Strategy(base, at_once, again, evict)


def check(text: str) -> None:
    """Refuse a name that is none, or of a strategy that only evaluation can run.

    Raises:
        InputError: with what there is.
    """
    if not parse(text).serves:
        raise InputError(f"strategy {text!r} cannot predict", "it is there for `pie eval`")


def _repair(text: str, term: str) -> Repair:
    match = _TERM.fullmatch(term)
    if match is None or match[1] not in REPAIRS:
        raise _unknown(text)
    if match[2] is None:
        return Repair(match[1], REPAIRS[match[1]])
    budget = Budget(float(match[2]), match[3] == "%")
    whole = budget.percent or budget.amount.is_integer()
    if not whole or budget.amount <= 0 or (budget.percent and budget.amount > 100):
        raise InputError(
            f"strategy {text!r} has no such budget: {match[2]}{match[3]}",
            "write tokens from 1 (:16) or a share of the prompt (:5%)",
        )
    return Repair(match[1], budget)


def _evict(text: str, term: str, terms: list[str]) -> Evict:
    """Read `evict:SINKS+RECENT`, whose second number is the next term; it ends the name."""
    sinks, recent = term.removeprefix("evict:"), terms.pop(0) if terms else ""
    if terms or not (sinks.isdecimal() and recent.isdecimal()) or int(recent) < 1:
        raise InputError(
            f"strategy {text!r} evicts nothing known",
            "end it with the first and the last tokens to keep: +evict:4+1024",
        )
    return Evict(int(sinks), int(recent))


def _unknown(text: str) -> InputError:
    return InputError(
        f"unknown strategy {text!r}",
        f"use {', '.join(BASES)}, or pie with {', '.join('+' + kind for kind in REPAIRS)} "
        "and budgets as in pie+seam:4+names:5%",
    )
