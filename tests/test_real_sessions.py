"""Real editing sessions, replayed save by save: every save equals a session built from scratch."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pie_cli.config import Settings
from pie_cli.editable import PreparedModel
from pie_cli.session import EditSession
from tests.sessions import check, differences, prompt_ids

SESSIONS = Path(__file__).parents[2] / "shared" / "data" / "edits" / "sessions_python.jsonl.gz"
N_SESSIONS, N_VERSIONS = 3, 5

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def sessions() -> list[dict[str, Any]]:
    """A few sessions, the shortest files first: the tiny model's tokens are short."""
    if not SESSIONS.is_file():
        pytest.skip(f"needs the real sessions, which are not at {SESSIONS}")
    with gzip.open(SESSIONS, "rt", encoding="utf-8") as stream:
        found = [json.loads(line) for line in stream]
    return sorted(found, key=lambda one: len(one["versions"][0]["text"]))[:N_SESSIONS]


@pytest.mark.parametrize("at", ["edit", "end"])
def test_replayed_sessions_keep_every_claim(
    tiny_model: PreparedModel, sessions: list[dict[str, Any]], at: str
) -> None:
    """Of every file its first lines, as many as the tiny window holds whole."""
    for recorded in sessions:
        options = Settings(at=at, max_tokens=4, chunk_tokens=128)
        session = EditSession(tiny_model, recorded["path"], options)
        versions = [_beginning(version["text"]) for version in recorded["versions"]]
        check(session, session.open(versions[0]))
        for save, text in enumerate(versions[1 : N_VERSIONS + 1]):
            prediction = session.update(text)
            check(session, prediction)
            assert prediction.window_dropped == prediction.window_dropped_below == 0
            fresh = EditSession(tiny_model, recorded["path"], Settings(at=at, max_tokens=4))
            reference = fresh.open(text, at=session.cursor)
            assert prompt_ids(session) == prompt_ids(fresh)
            if save % 2:
                comparison = session.compare()
                assert comparison is not None
                assert comparison.text == reference.text
                assert float(differences(session).max()) < 1e-4
            else:
                looks = iter([False, True])
                session.compare(lambda looks=looks: next(looks, True))


def _beginning(text: str) -> str:
    return "".join(text.splitlines(keepends=True)[:30])[:1200]
