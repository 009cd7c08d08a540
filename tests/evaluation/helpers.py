"""Cases of a small made-up module, and records without a model."""

from dataclasses import replace

from pie_cli.evaluation.cases.case import EvalCase, Gap
from pie_cli.evaluation.runs.outcomes import Outcome, Record

LINES = [
    line
    for n in range(12)
    for line in (
        f"def area_{n}(width, height):\n",
        f"    size = width * height + {n}\n",
        "    return size\n",
        "\n",
    )
]
TEXT = "".join(LINES)


def case(
    number: int,
    at: int = 8,
    removed: int = 0,
    added: int = 2,
    below: str | None = None,
    **fields,
) -> EvalCase:
    """An edit of line `at`, the cursor at the end of these lines."""
    new = [f"    extra_{number}_{n} = width + {n}\n" for n in range(added)]
    after = "".join([*LINES[:at], *new, *LINES[at + removed :]])
    made = EvalCase(
        id=f"case-{number}",
        task="real",
        path="shop/area.py",
        language="python",
        before=Gap(TEXT, below),
        after=Gap(after, below),
        target="def area_12(width, height):",
        distance=len(LINES) - at,
        shares_identifier=bool(number % 2),
        kind="insert" if added else "delete",
        obsolete=(f"area_{number}",),
    )
    return replace(made, **fields)


def outcome(**fields) -> Outcome:
    """What full recompute would give."""
    made = Outcome(
        line="return size",
        token_ids=(7, 8),
        exact_match=True,
        edit_similarity=100.0,
        agrees=True,
        exact=True,
        kl=0.0,
        stale_echo=None,
        encoded=10,
        stale=0,
        key_cosine=(1.0, 0.5),
        value_cosine=(1.0, 1.0),
        cache_bytes=100,
        passes=2,
        first_token_ms=10.0,
        line_ms=30.0,
    )
    return replace(made, **fields)


def record(name: str, **fields) -> Record:
    """A record with full recompute's outcome, and pie's, which differs."""
    made = Record(
        task="real",
        case=name,
        save=0,
        saves=0,
        kind="insert",
        language="python",
        distance=5,
        shares_identifier=False,
        target="return size",
        prompt_tokens=100,
        truncated=False,
        outside=False,
        moved=4,
        changed=9,
        outcomes={
            "full": outcome(encoded=100),
            "pie": outcome(exact_match=False, agrees=False, kl=0.5, encoded=5, first_token_ms=2.0),
        },
    )
    return replace(made, **fields)
