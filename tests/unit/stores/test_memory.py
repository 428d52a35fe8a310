"""The memory store: bounded, and nothing leaves it unnoticed."""

import pytest

from gateway.session.ports import ModelSession, SessionRecord, StoreFull
from gateway.stores.memory import MemoryStore


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
        self.evicted: list[str] = []
        self.store = MemoryStore(
            max_sessions=max_sessions,
            evicted=lambda record: self.evicted.append(record.id),
            clock=lambda: self.now,
        )


async def test_put_get_replace_delete() -> None:
    f = Fixture()
    await f.store.put(record("a"))
    await f.store.put(record("a", 2000.0))
    assert await f.store.get("a") == record("a", 2000.0)
    await f.store.delete("a")
    await f.store.delete("a")
    assert await f.store.get("a") is None
    assert f.evicted == []


async def test_a_full_store_refuses_the_new_and_keeps_the_old() -> None:
    f = Fixture()
    await f.store.put(record("a"))
    await f.store.put(record("b"))
    with pytest.raises(StoreFull):
        await f.store.put(record("c"))
    await f.store.put(record("b", 1500.0))
    assert await f.store.get("a") is not None
    assert len(f.store) == 2


async def test_each_record_expires_at_its_own_time_and_is_told_of_once() -> None:
    f = Fixture()
    await f.store.put(record("a", 1010.0))
    await f.store.put(record("b", 1005.0))
    f.now = 1005.0
    assert await f.store.get("b") is None
    await f.store.expire()
    assert f.evicted == ["b"]
    f.now = 2000.0
    await f.store.expire()
    await f.store.expire()
    assert f.evicted == ["b", "a"]


async def test_expired_records_make_room_and_are_told_of_then() -> None:
    f = Fixture(max_sessions=1)
    await f.store.put(record("a", 1001.0))
    f.now = 1001.0
    await f.store.put(record("b"))
    assert f.evicted == ["a"]


async def test_deleting_tells_of_what_has_expired_too() -> None:
    f = Fixture()
    await f.store.put(record("a", 1001.0))
    f.now = 1001.0
    await f.store.delete("a")
    assert f.evicted == ["a"]


async def test_a_record_that_has_expired_already_is_not_kept() -> None:
    f = Fixture()
    await f.store.put(record("a", 3000.0))
    await f.store.put(record("a", 999.0))
    await f.store.put(record("b", 1000.0))
    assert f.evicted == ["a", "b"]
    assert len(f.store) == 0


async def test_a_record_that_is_replaced_late_is_not_told_of_as_expired() -> None:
    f = Fixture()
    await f.store.put(record("a", 1010.0))
    await f.store.put(record("b", 1010.0))
    f.now = 1020.0
    await f.store.put(record("a", 1140.0))
    assert await f.store.get("a") == record("a", 1140.0)
    assert f.evicted == ["b"], "its session lives on, to give its last events"
