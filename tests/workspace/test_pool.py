"""One session a file: memory stays bounded, and what goes comes back by encoding it anew."""

from typing import Any

import pytest

from pie_cli.config import Settings
from pie_cli.errors import CacheCapacityError, InputError
from pie_cli.prompt.assembly import ContextFile
from pie_cli.results import Prediction
from pie_cli.session import EditableModel, EditSession
from pie_cli.workspace.pool import Dropped, SessionPool
from tests.conftest import SOURCE

SETTINGS = Settings(max_tokens=4)


def size_of_one(model: EditableModel) -> int:
    session = EditSession(model, "f0.py", SETTINGS)
    session.open(SOURCE)
    return session.cache_bytes


def test_over_many_files_memory_stays_bounded_and_the_least_recently_used_go(
    tiny_model: EditableModel,
) -> None:
    # Sessions differ by the copies of a few tokens that their texts have more.
    limit = 7 * size_of_one(tiny_model) // 2
    pool = SessionPool(tiny_model, SETTINGS, limit)
    dropped: list[Dropped] = []
    for number in range(12):
        pool.predict(f"f{number}.py", SOURCE)
        pool.predict("often.py", f"{SOURCE}x = {number}\n")
        dropped += pool.trim()
        assert pool.cache_bytes <= limit
    assert [one.path for one in dropped] == [f"f{n}.py" for n in range(10)]
    assert all(one.freed_bytes > 0 for one in dropped)
    assert pool.text("f9.py") is None
    assert pool.text("f11.py") == SOURCE


def test_the_session_used_last_stays_though_it_is_too_large(tiny_model: EditableModel) -> None:
    pool = SessionPool(tiny_model, SETTINGS, 1)
    for path in ("a.py", "b.py"):
        pool.predict(path, SOURCE)
        pool.trim()
        assert pool.text(path) == SOURCE
    assert pool.text("a.py") is None


def test_a_known_file_is_updated_and_a_dropped_one_encoded_anew(tiny_model: EditableModel) -> None:
    pool = SessionPool(tiny_model, SETTINGS, 1)
    assert pool.predict("a.py", SOURCE).tokens.reused == 0
    assert pool.predict("a.py", SOURCE + "x = 1\n").tokens.reused > 0
    pool.predict("b.py", SOURCE)
    pool.trim()
    assert pool.predict("a.py", SOURCE).tokens.reused == 0


def test_context_reaches_the_session_at_each_call(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    open_session, update = EditSession.open, EditSession.update

    def opening(session: EditSession, text: str, on_progress: Any, context: Any) -> Prediction:
        seen.append(("open", context))
        return open_session(session, text, on_progress, context)

    def updating(session: EditSession, text: str, stop: Any, *, context: Any) -> Prediction:
        seen.append(("update", context))
        return update(session, text, stop, context=context)

    monkeypatch.setattr(EditSession, "open", opening)
    monkeypatch.setattr(EditSession, "update", updating)
    pool = SessionPool(tiny_model, SETTINGS, 1 << 30)
    context = (ContextFile("b.py", "y = 1\n"),)
    pool.predict("a.py", SOURCE, context)
    pool.predict("a.py", SOURCE, ())
    assert seen == [("open", context), ("update", ())]


def test_where_memory_runs_out_the_others_go_and_it_is_tried_again(
    tiny_model: EditableModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = SessionPool(tiny_model, SETTINGS, 1 << 30)
    pool.predict("a.py", SOURCE)
    pool.predict("b.py", SOURCE)
    open_session = EditSession.open

    def short(session: EditSession, *arguments: Any) -> Prediction:
        if pool.text("a.py") is not None:
            raise CacheCapacityError("no memory left") from MemoryError()
        return open_session(session, *arguments)

    monkeypatch.setattr(EditSession, "open", short)
    assert pool.predict("c.py", SOURCE).tokens.total > 0
    assert [one.path for one in pool.trim()] == ["a.py", "b.py"]


def test_where_settings_leave_no_room_nothing_goes(tiny_model: EditableModel) -> None:
    pool = SessionPool(tiny_model, Settings(max_tokens=4, at="40"), 1 << 30)
    pool.predict("a.py", SOURCE)
    with pytest.raises(InputError):
        pool.predict("b.py", "x = 1\n")
    assert pool.trim() == []
    pool.settings = Settings(max_tokens=4, context_tokens=16)
    with pytest.raises(CacheCapacityError):
        pool.predict("a/very/long/path/that/leaves/no/room/behind/it.py", SOURCE)
    assert pool.text("a.py") == SOURCE
