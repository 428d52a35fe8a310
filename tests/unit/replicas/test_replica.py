"""One replica among others: what it takes over of the dead, and what it leaves to those who can."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from unittest.mock import AsyncMock

import pytest
from msgspec import structs

from gateway.admission import Refused
from gateway.conversation import Resuming
from gateway.errors import CloseCode, ErrorCode
from gateway.protocol.messages import EventAck
from gateway.replicas import ownership
from gateway.replicas import replica as module
from gateway.replicas.following import FOLLOWED, Follower
from gateway.replicas.replica import Replica
from gateway.session.storage import NOBODY, Glimpse, StoreUnavailable, Unreadable
from gateway.stores.memory import MemoryStore
from tests.support.sessions import Connection, Fixture, nobody_asks, running

LEASE = 60.0


class Store(MemoryStore):
    """Has sessions that were written with a key that the replicas do not have now."""

    def __init__(self) -> None:
        super().__init__()
        self.locked: set[str] = set()
        self.glimpses = 0

    async def glimpse(self, session_id: str) -> Glimpse | None:
        self.glimpses += 1
        if session_id in self.locked:
            raise Unreadable("no key opens it")
        return await super().glimpse(session_id)


@asynccontextmanager
async def replica(
    store: Store, name: str, *routes: str, lease: float = LEASE
) -> AsyncIterator[tuple[Replica, Fixture]]:
    """One that has these routes."""
    async with running() as f:
        here = Replica(name, store, f.sessions, lease, nobody_asks)
        f.sessions.share(here)
        for route in routes:
            f.add_route(route=route, resume_seconds=30.0)
        yield here, f


@asynccontextmanager
async def dead(store: Store, *routes: str) -> AsyncIterator[list[Resuming]]:
    """A replica that has died, with a session of each of these routes; yields their clients."""
    async with running(store, "dead") as f:
        clients = []
        await store.beat("dead")
        for route in routes:
            f.connection = Connection()
            runner = await f.open(route=route, resume_seconds=30.0)
            await f.until(lambda runner=runner: runner.log.told)  # type: ignore[misc]
            key = f.connection.key
            clients.append(Connection().resuming(runner.id, key, 1, runner.route))
        await f.settled()
        for runner in f.sessions.runners:
            runner.abandon()
        await store.resign("dead")
        yield clients


async def inherit(here: Replica) -> None:
    await here._peers.beat()
    for name in here._peers.silent():
        await here._ownership.inherit(name)


class TestTheDead:
    async def test_what_it_can_run_is_taken_over_and_nothing_is_left(self) -> None:
        store = Store()
        async with (
            dead(store, "chat", "chat") as clients,
            replica(store, "one", "chat") as (one, f),
        ):
            await inherit(one)
            assert {runner.id for runner in f.sessions.runners} == {
                client.session_id for client in clients
            }
            assert await store.owned("dead", 9) == []
            assert "dead" not in (await store.beat("one")).ages

    async def test_what_another_version_is_to_run_is_left_to_it(self) -> None:
        store = Store()
        async with (
            dead(store, "chat", "new") as (known, other),
            replica(store, "old", "chat") as (old, f),
            replica(store, "new", "chat", "new") as (new, g),
        ):
            await inherit(old)
            assert [runner.id for runner in f.sessions.runners] == [known.session_id]
            assert await store.owned("dead", 9) == [other.session_id]
            assert "dead" in (await store.beat("old")).ages
            await inherit(new)
            assert [runner.id for runner in g.sessions.runners] == [other.session_id]
            await inherit(new)
            assert "dead" not in (await store.beat("new")).ages

    async def test_what_another_key_opens_is_left_until_it_is_there(self) -> None:
        store = Store()
        async with (
            dead(store, "chat", "chat") as (known, locked),
            replica(store, "one", "chat") as (one, f),
        ):
            store.locked.add(locked.session_id)
            await inherit(one)
            assert [runner.id for runner in f.sessions.runners] == [known.session_id]
            assert await store.owned("dead", 9) == [locked.session_id]
            assert "dead" in (await store.beat("one")).ages
            store.locked.clear()
            await inherit(one)
            assert f.sessions.knows(locked.session_id)
            assert "dead" not in (await store.beat("one")).ages

    async def test_nothing_is_taken_over_whose_owner_the_store_may_have_forgotten(self) -> None:
        store = Store()
        async with dead(store, "chat") as (client,), replica(store, "one", "chat") as (one, f):
            one.health.failed(StoreUnavailable())
            await inherit(one)
            assert len(f.sessions) == 0
            one._peers._back_since -= LEASE
            await inherit(one)
            assert f.sessions.knows(client.session_id)

    async def test_who_is_about_to_end_takes_nothing_over(self) -> None:
        store = Store()
        async with dead(store, "chat") as (client,), replica(store, "one", "chat") as (one, f):
            f.sessions.draining = True
            await inherit(one)
            assert len(f.sessions) == 0
            assert await store.owned("dead", 9) == [client.session_id]


class TestLetters:
    async def test_where_nobody_knows_whether_they_are_there_the_link_is_cut(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def post(*_: object) -> int:
            raise StoreUnavailable

        store = Store()
        async with dead(store, "chat") as (client,), replica(store, "one", "chat") as (one, f):
            follower = Follower("one/1", "dead", client, f.routes["chat"], one)
            one._followers["one/1"] = follower
            monkeypatch.setattr(store, "post", post)
            follower.handle(EventAck(event=1), FOLLOWED)
            await f.until(follower.answer.done)
            assert follower.answer.result() == CloseCode.RESTARTING
            assert not one.health.is_up
            await f.until(lambda: not one._mail._out)
            assert not one._followers


class TestComingBack:
    async def test_for_what_can_be_read(self) -> None:
        store = Store()
        async with dead(store, "chat") as (client,), replica(store, "one", "chat") as (one, f):
            await one._peers.beat()
            found = await one.resume(client._replace(route=f.routes["chat"]))
            assert found is not None
            assert f.sessions.has(client.session_id)

    async def test_who_waits_until_the_owner_is_dead_asks_for_nothing_meanwhile(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "JOIN_SECONDS", 0.001)
        monkeypatch.setattr(ownership, "AT_ONCE", 2)
        store = Store()
        async with (
            dead(store, *["chat"] * 5) as clients,
            replica(store, "one", "chat", lease=0.3) as (one, f),
        ):
            await store.beat("dead")  # after all, it has not resigned
            await one._peers.beat()
            monkeypatch.setattr(one._ownership, "inherit", AsyncMock())
            living = asyncio.create_task(one.run())
            there = [client._replace(route=f.routes["chat"]) for client in clients]
            first = await one.resume(there[0])
            assert first is not None
            assert store.glimpses <= 3, "before it asks the owner, and when that is late"
            others = await asyncio.gather(*map(one.resume, there[1:]))
            assert all(others)
            assert len(f.sessions) == len(clients)
            living.cancel()

    @pytest.mark.parametrize(
        ("asked", "owner", "taken"),
        [
            (False, NOBODY, False),
            (True, NOBODY, True),
            (True, "one", False),
        ],
    )
    async def test_what_the_store_may_have_lost_is_left_to_whom_it_was_seen_with(
        self, asked: bool, owner: str, taken: bool
    ) -> None:
        store = Store()
        async with dead(store, "chat") as (client,), replica(store, "one", "chat") as (one, f):
            kept = store._sessions[client.session_id]
            kept.title = kept.title._replace(owner=owner)
            one.health.failed(StoreUnavailable())
            await one._peers.beat()
            with nullcontext() if taken else pytest.raises(module._NotYetError):
                await one._try_to_resume(client._replace(route=f.routes["chat"]), asked)
            assert f.sessions.knows(client.session_id) == taken

    async def test_what_cant_be_read_is_not_lost(self) -> None:
        store = Store()
        async with dead(store, "chat") as (client,), replica(store, "one", "chat") as (one, f):
            store.locked.add(client.session_id)
            with pytest.raises(Refused) as refused:
                await one.resume(client)
            assert refused.value.code is ErrorCode.UNAVAILABLE
            assert len(f.sessions) == 0

    async def test_what_is_damaged_is_not_lost(self) -> None:
        store = Store()
        async with dead(store, "chat") as (client,), replica(store, "one", "chat") as (one, _):
            kept = store._sessions[client.session_id]
            assert kept.saved is not None
            kept.saved = structs.replace(kept.saved, head=b"{}")
            with pytest.raises(Refused) as refused:
                await one.resume(client)
            assert refused.value.code is ErrorCode.UNAVAILABLE
