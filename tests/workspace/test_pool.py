"""One session a document: memory stays bounded, and the least recently used go."""

from pathlib import Path

from pie_cli.config import Settings
from pie_cli.editable import EditableModel
from pie_cli.session import EditSession
from pie_cli.workspace.documents import Document
from pie_cli.workspace.events import Dropped
from pie_cli.workspace.pool import SessionPool
from tests.conftest import SOURCE

SETTINGS = Settings(max_tokens=4)


def size_of_one(model: EditableModel) -> int:
    session = EditSession(model, "f0.py", SETTINGS)
    session.open(SOURCE)
    return session.cache_bytes


def use(pool: SessionPool, path: str, text: str) -> None:
    used = pool.use(path)
    if used.document is None:
        used.session.open(text)
    else:
        used.session.update(text)
    used.document = Document(Path(path), 0, text)


def test_over_many_files_memory_stays_bounded_and_the_least_recently_used_go(
    tiny_model: EditableModel,
) -> None:
    # Sessions differ by the copies of a few tokens that their texts have more.
    limit = 7 * size_of_one(tiny_model) // 2
    pool = SessionPool(tiny_model, SETTINGS, limit)
    dropped: list[Dropped] = []
    for number in range(12):
        use(pool, f"f{number}.py", SOURCE)
        use(pool, "often.py", f"{SOURCE}x = {number}\n")
        dropped += pool.trim()
        assert pool.cache_bytes <= limit
    assert [one.path for one in dropped] == [f"f{n}.py" for n in range(10)]
    assert all(one.freed_bytes > 0 for one in dropped)
    assert "f9.py" not in pool
    assert "f11.py" in pool
    assert pool.use("f9.py").document is None, "it comes back by being encoded again"


def test_the_session_used_last_stays_though_it_is_too_large(tiny_model: EditableModel) -> None:
    pool = SessionPool(tiny_model, SETTINGS, 1)
    for path in ("a.py", "b.py"):
        use(pool, path, SOURCE)
        pool.trim()
        assert path in pool
    assert "a.py" not in pool


def test_all_but_the_session_used_last_can_go_at_once(tiny_model: EditableModel) -> None:
    pool = SessionPool(tiny_model, SETTINGS, 1 << 30)
    use(pool, "a.py", SOURCE)
    assert not pool.drop_others()
    use(pool, "b.py", SOURCE)
    use(pool, "c.py", SOURCE)
    assert pool.drop_others()
    left = pool.cache_bytes
    assert [(one.path, one.cache_bytes) for one in pool.trim()] == [("a.py", left), ("b.py", left)]
    assert "c.py" in pool
