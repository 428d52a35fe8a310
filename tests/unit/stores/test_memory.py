"""The memory store: bounded, and what has expired takes no room."""

import pytest

from gateway.session.ports import LogBounds, ModelSession, SessionRecord, StoreFull
from gateway.stores.memory import MemoryStore

BOUNDS = LogBounds(max_events=10, max_bytes=1000, max_age=60.0)


def record(session_id: str, expires_at: float | None = None) -> SessionRecord:
    return SessionRecord(
        id=session_id,
        route="chat",
        principal="anonymous",
        model=ModelSession("m", expires_at),
        expires_at=expires_at,
    )


class Fixture:
    def __init__(self, max_sessions: int = 2) -> None:
        self.now = 1000.0
        self.store = MemoryStore(max_sessions=max_sessions, clock=lambda: self.now)

    async def create(self, *session_ids: str) -> None:
        for session_id in session_ids:
            await self.store.create(record(session_id), BOUNDS)


async def test_create_put_delete() -> None:
    f = Fixture()
    log = await f.store.create(record("a"), BOUNDS)
    assert (log.last, log.bounds) == (0, BOUNDS)
    await f.store.put(record("a", 2000.0))
    assert len(f.store) == 1
    await f.store.delete("a")
    await f.store.delete("a")
    assert len(f.store) == 0


async def test_a_full_store_takes_no_new_session_and_keeps_those_that_it_has() -> None:
    f = Fixture()
    await f.create("a", "b")
    with pytest.raises(StoreFull):
        await f.create("c")
    await f.store.put(record("a", 2000.0))
    assert len(f.store) == 2
    await f.store.delete("b")
    await f.create("c")


async def test_what_has_expired_takes_no_room_from_others_again() -> None:
    f = Fixture(max_sessions=2)
    await f.create("a", "b")
    await f.store.put(record("a", 2000.0))
    f.now = 2000.0
    await f.create("c")
    await f.store.put(record("a", 3000.0))
    assert len(f.store) == 2
    with pytest.raises(StoreFull):
        await f.create("d")
    await f.store.delete("b")
    await f.store.delete("c")
    assert len(f.store) == 0


async def test_what_has_expired_makes_room() -> None:
    f = Fixture(max_sessions=1)
    await f.create("a")
    await f.store.put(record("a", 2000.0))
    f.now = 1999.0
    with pytest.raises(StoreFull):
        await f.create("b")
    f.now = 2000.0
    await f.create("b")
