"""The store in memory: who may write, what a claim gives, and what has expired takes no room."""

import asyncio

import pytest

from gateway.session.storage import (
    NOBODY,
    OVER_SECONDS,
    Beats,
    Change,
    Fenced,
    Glimpse,
    Outdated,
    Saved,
    Title,
)
from gateway.stores import memory
from gateway.stores.memory import MemoryStore

HERE = Title("here", 1)


def change(head: bytes = b"head", *, whole: bool = True, **parts: object) -> Change:
    given: dict[str, object] = {
        "turns": {},
        "gone": [],
        "ended": [],
        "max_ended": 2,
        "said": [],
        "max_said": 2,
        "events": None,
        "last": 0,
        "first": 1,
        **parts,
    }
    return Change(whole=whole, head=head, **given)  # type: ignore[arg-type]


class Fixture:
    def __init__(self) -> None:
        self.now = 1000.0
        self.store = MemoryStore(clock=lambda: self.now)

    async def save(
        self,
        change: Change,
        number: int = 1,
        title: Title = HERE,
        *,
        seconds: float = 60.0,
        release: bool = False,
    ) -> None:
        await self.store.save("a", title, number, change, seconds=seconds, release=release)


async def test_a_session_is_there_from_the_first_write_until_it_is_deleted() -> None:
    f = Fixture()
    assert await f.store.glimpse("a") is None
    await f.save(change())
    assert await f.store.glimpse("a") == Glimpse(HERE, b"head")
    assert await f.store.owned("here", 10) == ["a"]
    await f.store.delete("a", HERE)
    await f.store.delete("a", HERE)
    assert await f.store.glimpse("a") is None
    assert await f.store.owned("here", 10) == []


async def test_changes_are_added_to_what_is_there() -> None:
    f = Fixture()
    await f.save(
        change(turns={"x": b"1", "y": b"2"}, ended=[b"e1"], said=[b"s1"], events=b"[1,2]", last=2)
    )
    await f.save(
        change(
            b"later",
            whole=False,
            turns={"z": b"3"},
            gone=["x", "never there"],
            ended=[b"e2", b"e3"],
            said=[b"s2"],
            events=b"[3]",
            last=3,
            first=2,
        ),
        number=2,
    )
    saved = await f.store.claim("a", HERE, "there")
    assert saved == Saved(
        title=Title("there", 2),
        number=2,
        head=b"later",
        turns={"y": b"2", "z": b"3"},
        ended=[b"e2", b"e3"],
        said=[b"s1", b"s2"],
        events=[b"[1,2]", b"[3]"],
    )


async def test_pieces_of_the_log_go_when_all_of_their_events_are_forgotten() -> None:
    f = Fixture()
    await f.save(change(events=b"[1,2]", last=2))
    await f.save(change(whole=False, events=b"[3]", last=3, first=3), number=2)
    await f.save(change(whole=False, last=3, first=4), number=3)
    saved = await f.store.claim("a", HERE, "there")
    assert saved is not None
    assert saved.events == []


async def test_a_write_without_events_is_no_piece_of_the_log() -> None:
    f = Fixture()
    await f.save(change(events=b"[1]", last=1))
    await f.save(change(whole=False, last=1), number=2)
    await f.save(change(whole=False, events=b"[2]", last=2), number=3)
    await f.save(change(whole=False, last=2, first=2), number=4)
    saved = await f.store.claim("a", HERE, "there")
    assert saved is not None
    assert saved.events == [b"[2]"]


async def test_all_of_it_replaces_what_is_there() -> None:
    f = Fixture()
    await f.save(change(turns={"x": b"1"}, ended=[b"e"], said=[b"s"], events=b"[1]", last=1))
    await f.save(change(b"new", events=b"[7]", last=7, first=7), number=3)
    saved = await f.store.claim("a", HERE, "there")
    assert saved is not None
    assert (saved.head, saved.number, saved.events) == (b"new", 3, [b"[7]"])
    assert (saved.turns, saved.ended, saved.said) == ({}, [], [])


async def test_a_write_follows_the_one_before() -> None:
    f = Fixture()
    with pytest.raises(Outdated):
        await f.save(change(whole=False), number=2)
    await f.save(change())
    for number in (1, 3):
        with pytest.raises(Outdated):
            await f.save(change(whole=False), number=number)
    with pytest.raises(Outdated):
        await f.save(change(), number=1)
    await f.save(change(), number=5)
    await f.save(change(whole=False), number=6)


async def test_only_the_newest_owner_writes() -> None:
    f = Fixture()
    await f.save(change())
    assert await f.store.claim("a", HERE, "there") is not None
    assert await f.store.claim("a", HERE, "late") is None
    assert await f.store.owned("here", 10) == []
    assert await f.store.owned("there", 10) == ["a"]
    for whole in (False, True):
        with pytest.raises(Fenced):
            await f.save(change(whole=whole), number=2)
    with pytest.raises(Fenced):
        await f.save(change(), number=2, title=Title("other", 2))
    await f.store.delete("a", HERE)
    assert await f.store.glimpse("a") == Glimpse(Title("there", 2), b"head")
    await f.save(change(b"theirs", whole=False), number=2, title=Title("there", 2))


async def test_what_is_released_waits_for_an_owner() -> None:
    f = Fixture()
    await f.store.save("a", HERE, 1, change(), seconds=60.0)
    assert await f.store.glimpse("a") == Glimpse(HERE, b"head")
    await f.save(change(whole=False), number=2, release=True)
    waiting = Title(NOBODY, 1)
    assert await f.store.glimpse("a") == Glimpse(waiting, b"head")
    with pytest.raises(Fenced):
        await f.save(change(whole=False), number=3)
    saved = await f.store.claim("a", waiting, "here")
    assert saved is not None
    assert saved.title == Title("here", 2)


async def test_what_is_over_can_not_be_written_or_claimed() -> None:
    f = Fixture()
    await f.save(change())
    await f.store.delete("a", HERE)
    assert await f.store.claim("a", Title(NOBODY, 1), "there") is None
    for whole in (False, True):
        for title in (HERE, Title(NOBODY, 1)):
            with pytest.raises(Fenced):
                await f.save(change(whole=whole), number=2, title=title)
    f.now += OVER_SECONDS
    await f.save(change(), number=2)


async def test_what_nothing_is_heard_of_is_gone_in_time() -> None:
    f = Fixture()
    await f.save(change(), seconds=60.0)
    f.now += 59.0
    await f.save(change(whole=False), number=2, seconds=60.0)
    f.now += 59.0
    assert await f.store.glimpse("a") is not None
    f.now += 1.0
    assert await f.store.glimpse("a") is None
    assert await f.store.claim("a", HERE, "there") is None
    with pytest.raises(Outdated):
        await f.save(change(whole=False), number=3)
    assert len(f.store._sessions) == 0


async def test_some_of_what_a_replica_owns() -> None:
    f = Fixture()
    for name in "abc":
        await f.store.save(name, HERE, 1, change(), seconds=60.0)
    assert len({*await f.store.owned("here", 2)}) == 2
    await f.store.disown("here", ["a", "c", "never there"])
    assert await f.store.owned("here", 2) == ["b"]


async def test_who_is_alive_and_since_when_not() -> None:
    f = Fixture()
    assert await f.store.beat("one") == Beats(1000.0, {"one": 0.0})
    f.now += 3.0
    assert await f.store.beat("two") == Beats(1003.0, {"one": 3.0, "two": 0.0})
    await f.store.resign("one")
    assert (await f.store.beat("two")).ages["one"] >= 1000.0
    await f.save(change(), title=Title("one", 1))
    await f.store.post("one", [b"1"])
    for _ in range(2):
        await f.store.bury("one")
    assert (await f.store.beat("two")).ages == {"two": 0.0}
    assert await f.store.owned("one", 10) == []
    assert await f.store.collect("one", 0.0) == []


async def test_letters_come_in_the_order_posted() -> None:
    f = Fixture()
    assert await f.store.collect("here", 0.0) == []
    assert await f.store.post("here", [b"1", b"2"]) == 2
    assert await f.store.post("here", [b"3"]) == 3
    assert await f.store.collect("here", 0.0) == [b"1", b"2", b"3"]
    waiting = asyncio.create_task(f.store.collect("here", 10.0))
    await asyncio.sleep(0)
    await f.store.post("there", [b"not this"])
    await f.store.post("here", [b"4"])
    assert await waiting == [b"4"]
    waiting = asyncio.create_task(f.store.collect("here", 10.0))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    await f.store.post("here", [b"5"])
    assert await waiting == [b"5"]


async def test_a_ticket_is_taken_once_and_in_time() -> None:
    f = Fixture()
    for name in ("used", "void"):
        await f.store.add_ticket(name, b"ada", 1010.0)
    assert await f.store.take_ticket("used") == b"ada"
    assert await f.store.take_ticket("used") is None
    f.now = 1010.0
    assert await f.store.take_ticket("void") is None


async def test_there_are_only_so_many_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_TICKETS", 2)
    f = Fixture()
    for name in "abc":
        await f.store.add_ticket(name, b"ada", 1010.0)
    assert [await f.store.take_ticket(name) for name in "abc"] == [None, b"ada", b"ada"]


async def test_records_that_nobody_reads_make_room() -> None:
    store = MemoryStore(record_bytes=3 * (1000 + memory._RECORD_OVERHEAD))
    for name in "abc":
        await store.put_record(name, bytes(1000), 60.0)
    assert await store.get_record("a") == bytes(1000)
    await store.put_record("d", bytes(1000), 60.0)
    assert [await store.get_record(name) is not None for name in "abcd"] == [
        True,
        False,
        True,
        True,
    ]


async def test_a_record_that_is_larger_than_all_may_be_is_not_kept() -> None:
    store = MemoryStore(record_bytes=2000)
    await store.put_record("a", b"before", 60.0)
    await store.put_record("a", bytes(2000), 60.0)
    assert await store.get_record("a") is None, "nor what it was to replace"


async def test_a_record_is_there_until_its_time_is_over() -> None:
    f = Fixture()
    await f.store.put_record("a", b"record", 10.0)
    f.now = 1009.9
    assert await f.store.get_record("a") == b"record"
    f.now = 1010.0
    assert await f.store.get_record("a") is None


async def test_who_asks_for_a_record_can_have_it_kept_for_longer() -> None:
    f = Fixture()
    await f.store.put_record("a", b"record", 10.0)
    assert await f.store.get_record("a", 20.0) == b"record"
    f.now = 1019.9
    assert await f.store.get_record("a") == b"record"
    f.now = 1020.0
    assert await f.store.get_record("a", 20.0) is None


async def test_a_record_is_added_where_there_is_none() -> None:
    f = Fixture()
    assert await f.store.add_record("a", b"first", 10.0)
    assert not await f.store.add_record("a", b"second", 60.0)
    assert await f.store.get_record("a") == b"first"
    f.now = 1010.0
    assert await f.store.add_record("a", b"third", 10.0)
    assert await f.store.get_record("a") == b"third"


async def test_a_record_is_replaced_where_there_is_one() -> None:
    f = Fixture()
    assert not await f.store.replace_record("a", b"none", 10.0)
    assert await f.store.get_record("a") is None
    await f.store.put_record("a", b"first", 10.0)
    assert await f.store.replace_record("a", b"second", 20.0)
    f.now = 1019.9
    assert await f.store.get_record("a") == b"second"
    f.now = 1020.0
    assert not await f.store.replace_record("a", b"third", 10.0)


async def test_a_record_is_taken_or_deleted_once() -> None:
    f = Fixture()
    for name in "ab":
        await f.store.put_record(name, b"record", 10.0)
    assert await f.store.take_record("a") == b"record"
    assert await f.store.take_record("a") is None
    assert await f.store.delete_record("b")
    assert not await f.store.delete_record("b")
