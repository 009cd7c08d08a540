"""What is recorded of each case: what every strategy predicted there, how close, at what cost."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

_TUPLES = ("token_ids", "key_cosine", "value_cosine")


@dataclass(frozen=True)
class Outcome:
    """One strategy on one case.

    Attributes:
        line: predicted.
        token_ids: of the line as generated.
        exact_match, edit_similarity: against the true line; None where there is none.
        agrees: whether full recompute predicts the same line, to the character.
        exact: whether every token of the prompt is as full recompute would have it.
        kl: divergence of the next token's distribution from full recompute's, nats.
        stale_echo: whether the line uses what the edit took out of the text; None where it took
            nothing out that could be told.
        encoded: tokens run through the model.
        stale: tokens that may not be as full recompute would have them.
        key_cosine, value_cosine: with full recompute's, by layer; None where no token was kept
            after a change.
        cache_bytes: memory of the cache.
        passes: forward passes that the line took, the one over the edit included.
        first_token_ms, line_ms: from having the new text to the first token, and to the line.
        refresh_ms: of making the cache exact afterwards; 0 where that was not asked for.
    """

    line: str
    token_ids: tuple[int, ...]
    exact_match: bool | None
    edit_similarity: float | None
    agrees: bool
    exact: bool
    kl: float
    stale_echo: bool | None
    encoded: int
    stale: int
    key_cosine: tuple[float, ...] | None
    value_cosine: tuple[float, ...] | None
    cache_bytes: int
    passes: int
    first_token_ms: float
    line_ms: float
    refresh_ms: float = 0.0


@dataclass(frozen=True)
class Record:
    """One case, or one save of a session, with every strategy's outcome.

    Attributes:
        task: of the case; "session" for a save.
        case: id of the case, or of the session.
        save: counted from 1; 0 for a case.
        saves: of the session in all; 0 for a case.
        kind, language, distance, shares_identifier: of the case.
        target: the true line; None where a save ends the file.
        prompt_tokens: of the prompt after the edit.
        truncated: whether text outside the window was left out.
        outside: whether the edit lies outside the window: nothing was measured.
        moved: tokens by which the edit moved kept text, the farthest of its runs.
        changed: tokens that came and tokens that went.
        outcomes: by strategy; "full" is among them unless nothing was measured.
    """

    task: str
    case: str
    save: int
    saves: int
    kind: str
    language: str
    distance: int
    shares_identifier: bool
    target: str | None
    prompt_tokens: int
    truncated: bool
    outside: bool
    moved: int
    changed: int
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    @property
    def unit(self) -> tuple[str, str]:
        """What is measured and stored as one piece: the case, or the whole session."""
        return self.task, self.case


def record_to_json(record: Record) -> dict[str, Any]:
    """Return a record as JSON's types."""
    return asdict(record)


def record_from_json(fields: Mapping[str, Any]) -> Record:
    """Read a record back.

    Raises:
        TypeError: fields that are missing or that no record has.
    """
    outcomes = {name: _outcome(entry) for name, entry in fields["outcomes"].items()}
    return Record(**{**fields, "outcomes": outcomes})


def _outcome(fields: Mapping[str, Any]) -> Outcome:
    tuples = {name: None if fields[name] is None else tuple(fields[name]) for name in _TUPLES}
    return Outcome(**{**fields, **tuples})
