"""Sessions in Valkey while that fails, and what it is asked and what is in it.

What it promises as any store does is in ``test_stores.py``.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.session.storage import (
    NOBODY,
    OVER_SECONDS,
    Change,
    Fenced,
    Glimpse,
    Outdated,
    Store,
    StoreUnavailable,
    Title,
    Unreadable,
)
from gateway.stores.sealing import KEY_BYTES
from tests.contract.conftest import until_answered
from tests.support import valkey
from tests.support.listener import listening
from tests.support.timing import UNIT
from tests.support.valkey import A, change, claimed, opened, part

LONG = 1000.0
PLANTED = b"what nobody else is to read"


@pytest.fixture(autouse=True)
def transport() -> None:
    """No store calls a model."""


def all_calls(store: Store) -> Sequence[Awaitable[object]]:
    """Each thing that can be asked."""
    return [
        store.save("s", A, 1, change(), seconds=LONG),
        store.save("s", A, 2, part(), seconds=LONG),
        store.glimpse("s"),
        store.claim("s", A, "b"),
        store.delete("s", A),
        store.owned("a", 5),
        store.disown("a", ["s"]),
        store.beat("a"),
        store.resign("a"),
        store.bury("a"),
        store.post("a", [b"letter"]),
        store.collect("a", 1.0),
        store.collect("a", 0),
        store.add_ticket("digest", b"holder", time.time() + LONG),
        store.take_ticket("digest"),
        store.put_record("name", b"record", LONG),
        store.get_record("name"),
        store.take_record("name"),
        store.delete_record("name"),
    ]


# A server that is gone


async def test_whatever_is_asked_of_a_server_that_is_gone_is_unavailable(
    own_server: valkey.Server,
) -> None:
    async with opened(own_server.url) as store:
        await store.beat("a")
        await store.collect("a", 0)
        own_server.kill()
        for call in all_calls(store):
            with pytest.raises(StoreUnavailable):
                await call
        many = await asyncio.gather(*all_calls(store), return_exceptions=True)
        assert {type(each) for each in many} == {StoreUnavailable}


async def test_a_server_that_is_back_is_used_by_itself(own_server: valkey.Server) -> None:
    async with opened(own_server.url) as store:
        await store.save("s", A, 1, change(), seconds=LONG)
        own_server.kill()
        with pytest.raises(StoreUnavailable):
            await store.save("s", A, 2, part(), seconds=LONG)
        own_server.start()
        with pytest.raises(Outdated):
            await until_answered(lambda: store.save("s", A, 3, part(), seconds=LONG))
        await store.save("s", A, 4, change(), seconds=LONG)
        await store.save("s", A, 5, part(), seconds=LONG)
        await store.post("a", [b"letter"])
        assert await store.collect("a", 1.0) == [b"letter"]


async def test_a_server_that_restarts_between_two_calls_is_noticed_by_the_next_beat_alone(
    own_server: valkey.Server,
) -> None:
    async with opened(own_server.url) as store:
        for breaks in range(3):
            beats = await store.beat("a")
            assert ({*beats.ages}, beats.breaks) == ({"a"}, breaks)
            assert await store.collect("a", 0) == []
            own_server.kill()
            own_server.start()
            await asyncio.sleep(0.01)  # the connection's end is here already, and is read


async def test_who_waits_for_letters_hears_that_the_server_is_gone(
    own_server: valkey.Server,
) -> None:
    async with opened(own_server.url) as store:
        waiting = asyncio.create_task(store.collect("a", 20 * UNIT))
        for _ in range(3):
            await store.beat("a")
        own_server.kill()
        with pytest.raises(StoreUnavailable):
            await waiting


async def test_a_store_can_be_opened_before_its_server(own_server: valkey.Server) -> None:
    own_server.kill()
    async with opened(own_server.url) as store:
        with pytest.raises(StoreUnavailable):
            await store.beat("a")
        own_server.start()
        assert {*(await until_answered(lambda: store.beat("a"))).ages} == {"a"}


async def test_a_store_can_be_closed_while_its_server_is_gone(own_server: valkey.Server) -> None:
    async with opened(own_server.url) as store:
        await store.beat("a")
        waiting = asyncio.create_task(store.collect("a", 20 * UNIT))
        await store.beat("a")
        own_server.kill()
        with pytest.raises(StoreUnavailable):
            await waiting


async def test_who_waits_for_letters_as_the_store_is_closed_is_told(server: valkey.Server) -> None:
    async with opened(server.url) as store:
        waiting = asyncio.create_task(store.collect("a", 20 * UNIT))
        for _ in range(3):
            await store.beat("a")
    with pytest.raises(StoreUnavailable):
        await waiting


# A server that does not answer


async def test_whatever_is_asked_of_a_server_that_does_not_answer_is_unavailable(
    own_server: valkey.Server,
) -> None:
    async with opened(own_server.url, seconds=0.2 * UNIT) as store:
        await until_answered(lambda: store.beat("a"))
        with own_server.paused():
            async with asyncio.timeout(20 * UNIT):
                came = await asyncio.gather(*all_calls(store), return_exceptions=True)
            assert {type(each) for each in came} == {StoreUnavailable}
        assert "a" in (await until_answered(lambda: store.beat("a"))).ages


async def test_a_server_that_does_not_answer_is_not_waited_for_again_and_again(
    own_server: valkey.Server,
) -> None:
    """One command after the other would wait for its own time."""
    async with opened(own_server.url, seconds=0.5 * UNIT) as store:
        await until_answered(lambda: store.beat("a"))
        with own_server.paused():
            asked = [store.glimpse(f"s{i}") for i in range(400)]
            async with asyncio.timeout(20 * UNIT):
                came = await asyncio.gather(*asked, return_exceptions=True)
            assert {type(each) for each in came} == {StoreUnavailable}


async def test_a_write_that_a_server_runs_late_is_followed_by_all_of_the_session(
    own_server: valkey.Server,
) -> None:
    async with opened(own_server.url) as store:
        await store.save("s", A, 1, change(said=[b"1"]), seconds=LONG)
    async with opened(own_server.url, seconds=0.2 * UNIT) as store:
        await until_answered(lambda: store.glimpse("s"))
        with own_server.paused(), pytest.raises(StoreUnavailable):
            await store.save("s", A, 2, part(head=b"late", said=[b"2"]), seconds=LONG)
    async with opened(own_server.url) as store:
        async with asyncio.timeout(20 * UNIT):
            while await store.glimpse("s") != Glimpse(A, b"late"):  # noqa: ASYNC110 - by itself
                await asyncio.sleep(0.01)
        await store.save("s", A, 3, change(said=[b"1", b"2"]), seconds=LONG)
        saved = await claimed(store)
        assert (saved.number, saved.head, saved.said) == (3, b"head", [b"1", b"2"])


@pytest.mark.parametrize("whole", [False, True])
async def test_a_write_that_comes_late_changes_nothing(server: valkey.Server, whole: bool) -> None:
    """It is on its way while its sender gives up, and arrives after the next."""
    held, arrived = asyncio.Event(), asyncio.Event()
    holding = False

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", server.port)

        async def back() -> None:
            while data := await there.read(65536):
                if holding:
                    arrived.set()
                    return
                writer.write(data)

        answering = asyncio.create_task(back())
        try:
            while data := await reader.read(65536):
                if holding:
                    await held.wait()
                to_there.write(data)
            if holding:
                await arrived.wait()
        finally:
            answering.cancel()
            to_there.close()

    async with listening(hold) as port, opened(server.url) as store:
        await store.save("s", A, 1, change(said=[b"1"]), seconds=LONG)
        async with opened(f"valkey://127.0.0.1:{port}", seconds=0.2 * UNIT) as late:
            await until_answered(lambda: late.glimpse("s"))
            holding = True
            wrong = change(whole=whole, head=b"late", said=[b"wrong"], events=b"wrong", last=9)
            with pytest.raises(StoreUnavailable):
                await late.save("s", A, 2, wrong, seconds=LONG)
        await store.save("s", A, 3, change(said=[b"1", b"2"]), seconds=LONG)
        held.set()
        async with asyncio.timeout(20 * UNIT):
            await arrived.wait()
        await store.save("s", A, 4, part(said=[b"3"]), seconds=LONG)
        saved = await claimed(store)
        assert (saved.number, saved.head, saved.events) == (4, b"head", [])
        assert saved.said == [b"1", b"2", b"3"]


async def test_a_caller_that_gives_up_takes_no_answer_from_another(server: valkey.Server) -> None:
    async with opened(server.url) as store:
        for i in range(20):
            await store.save(f"s{i}", A, 1, change(head=f"{i}".encode()), seconds=LONG)
        asked = [asyncio.create_task(store.glimpse(f"s{i}")) for i in range(20)]
        await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
        came = await asyncio.gather(*asked, return_exceptions=True)
        for i, each in enumerate(came):
            if i % 2:
                assert each == Glimpse(A, f"{i}".encode())
            else:
                assert isinstance(each, asyncio.CancelledError)
        assert await store.glimpse("s7") == Glimpse(A, b"7")


# A server that refuses


async def test_a_server_that_has_no_room_writes_no_part_of_a_change(
    own_server: valkey.Server,
) -> None:
    async with opened(own_server.url) as store:
        await store.save("s", A, 1, change(said=[b"1"]), seconds=LONG)
        own_server.ask("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(StoreUnavailable):
            await store.save("s", A, 2, part(head=b"wrong", said=[b"wrong"]), seconds=LONG)
        with pytest.raises(StoreUnavailable):
            await store.save("t", A, 1, change(), seconds=LONG)
        with pytest.raises(StoreUnavailable):
            await store.post("a", [b"letter"])
        own_server.ask("CONFIG", "SET", "maxmemory", 0)
        await store.save("s", A, 2, part(said=[b"2"]), seconds=LONG)
        saved = await claimed(store)
        assert (saved.head, saved.said) == (b"head", [b"1", b"2"])


async def test_a_replica_of_the_server_takes_no_writes(own_server: valkey.Server) -> None:
    with valkey.server() as copy:
        copy.follow(own_server)
        async with opened(copy.url) as store:
            with pytest.raises(StoreUnavailable):
                await store.save("s", A, 1, change(), seconds=LONG)
            with pytest.raises(StoreUnavailable):
                await store.beat("a")


async def test_a_password_is_shown_and_a_wrong_one_is_no_use() -> None:
    with valkey.server() as guarded:
        guarded.ask("CONFIG", "SET", "requirepass", "right")
        async with opened(guarded.url, password="right") as store:
            await store.beat("a")
            await store.collect("a", 0)
        for password in ("wrong", None):
            async with opened(guarded.url, password=password) as store:
                for call in (store.beat("a"), store.collect("a", 0)):
                    with pytest.raises(StoreUnavailable) as caught:
                        await call
                    assert "wrong" not in str(caught.value)


# Scripts


async def test_scripts_that_a_server_has_forgotten_are_sent_again(server: valkey.Server) -> None:
    async with opened(server.url) as store:
        await store.save("s", A, 1, change(said=[b"1"]), seconds=LONG)
        server.ask("SCRIPT", "FLUSH")
        await store.save("s", A, 2, part(said=[b"2"]), seconds=LONG)
        server.ask("SCRIPT", "FLUSH")
        saved = await claimed(store)
        assert saved.said == [b"1", b"2"], "each was run once"
        server.ask("SCRIPT", "FLUSH")
        await store.beat("a")
        server.ask("SCRIPT", "FLUSH")
        await store.delete("s", saved.title)
        assert await store.glimpse("s") is None


async def test_scripts_are_sent_again_while_much_is_asked_at_once(server: valkey.Server) -> None:
    async with opened(server.url) as store:
        titles = {f"s{i}": Title("a", i) for i in range(50)}
        for number in range(1, 6):
            server.ask("SCRIPT", "FLUSH")
            told = change(whole=number == 1, said=[b"%d" % number])
            writes = [
                store.save(session_id, title, number, told, seconds=LONG)
                for session_id, title in titles.items()
            ]
            glimpses = [store.glimpse(session_id) for session_id in titles]
            came = await asyncio.gather(*writes, *glimpses)
            assert came[: len(writes)] == [None] * len(writes)
        for session_id, title in titles.items():
            saved = await claimed(store, session_id, title)
            assert saved.said == [b"1", b"2", b"3", b"4", b"5"]


# What it costs

INSIDE = {"del", "hdel", "hget", "hgetall", "hmget", "hset", "lrange", "ltrim", "pexpire", "rpush"}
INSIDE |= {"time", "xadd", "xrange", "xtrim", "zadd", "zrange"}
"""What scripts do, too."""


async def cost(
    server: valkey.Server,
    ask: Callable[[], Awaitable[object]],
    inside: frozenset[str] = frozenset(INSIDE),
) -> dict[str, int]:
    """How many commands it takes, but for what scripts do."""
    with server.client() as client:
        client.config_resetstat()
        await ask()
        stats = client.info("commandstats")
    assert isinstance(stats, dict)
    ours = {"client|setinfo", "config|resetstat", "info"}
    names = {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}
    return {name: calls for name, calls in names.items() if name not in inside | ours}


async def claim_and_look(store: Store, before: Title, replica: str) -> None:
    """Also what a claim does not wait for is done then."""
    await store.claim("s", before, replica)
    await store.glimpse("s")


async def test_a_write_costs_one_command(server: valkey.Server) -> None:
    async with opened(server.url) as store:
        await store.beat("a")

        async def save(number: int, what: Change, **more: bool) -> dict[str, int]:
            return await cost(
                server, lambda: store.save("s", A, number, what, seconds=LONG, **more)
            )

        assert await save(1, change()) == {"evalsha": 1, "sadd": 1}
        many = part(
            turns={f"m{i}": b"x" for i in range(50)},
            ended=[b"x"] * 50,
            said=[b"x"] * 50,
            events=b"x",
            last=5,
        )
        assert await save(2, many) == {"evalsha": 1}
        assert await save(3, part(), release=True) == {"evalsha": 1}
        glimpse = await cost(server, lambda: store.glimpse("s"), frozenset())
        assert glimpse == {"hmget": 1}
        claim = await cost(server, lambda: store.claim("s", Title(NOBODY, 1), "b"))
        assert claim == {"evalsha": 1, "sadd": 1}
        claim = await cost(server, lambda: claim_and_look(store, Title("b", 2), "a"))
        assert claim == {"evalsha": 1, "sadd": 1, "srem": 1}
        assert await cost(server, lambda: store.beat("a")) == {"evalsha": 1}
        delete = await cost(server, lambda: store.delete("s", Title("a", 3)))
        assert delete == {"evalsha": 1, "srem": 1}


async def test_writes_that_come_together_go_together(server: valkey.Server) -> None:
    """As many of them as there are take as many commands, over the connections that there are."""
    count = 1000
    async with opened(server.url) as store:

        async def save(number: int, what: Change) -> None:
            saved = [store.save(f"s{i}", A, number, what, seconds=LONG) for i in range(count)]
            await asyncio.gather(*saved)

        await save(1, change())
        assert await cost(server, lambda: save(2, part())) == {"evalsha": count}
        with server.client() as client:  # which is the other one
            valkey.until(lambda: connected(client) <= 2)


def connected(client: Any) -> int:
    """How many connections a server has; some may be about to be closed."""
    return int(client.info("clients")["connected_clients"])


async def test_all_that_is_kept_of_a_session_is_kept_as_long(server: valkey.Server) -> None:
    full = change(turns={"m": b"1"}, said=[b"x"], ended=[b"a"], events=b"e", last=1)
    async with opened(server.url) as store:
        await store.save("s", A, 1, full, seconds=LONG)
        with server.client() as client:

            def left() -> list[Any]:
                return [client.pttl(key) for key in client.scan_iter("sg:{s}*")]

            assert len(left()) == 4
            assert all(0 < each <= LONG * 1000 for each in left())
            await store.save("s", A, 2, part(last=1), seconds=2 * LONG)
            assert len(left()) == 4
            assert all(LONG * 1000 < each <= 2 * LONG * 1000 for each in left())
            await store.delete("s", A)
            assert len(left()) == 1
            assert all(0 < each <= OVER_SECONDS * 1000 for each in left())


# Encryption


def a_key() -> bytes:
    return os.urandom(KEY_BYTES)


def everything(server: valkey.Server) -> bytes:
    """All that is kept, and what it is kept under."""
    with server.client() as client:
        read: dict[bytes, Callable[[bytes], object]] = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"list": lambda key: client.lrange(key, 0, -1),
            b"stream": client.xrange,
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
        }
        keys = [*client.scan_iter(count=1000)]
        return repr([(key, read[client.type(key)](key)) for key in keys]).encode()


async def plant(store: Store, text: bytes = PLANTED) -> None:
    """A text in all places where people's words are kept."""
    told = {"head": text, "ended": [text], "said": [text], "events": text}
    await store.save("s", A, 1, change(turns={"m1": text}, last=1, **told), seconds=LONG)
    await store.save("s", A, 2, part(turns={"m2": text}, last=2, **told), seconds=LONG)
    await store.post("a", [text, b"and " + text])
    await store.add_ticket("digest", text, time.time() + LONG)
    await store.put_record("name", text, LONG)


async def dig_up(store: Store) -> None:
    """It is all there."""
    assert await store.glimpse("s") == Glimpse(A, PLANTED)
    saved = await claimed(store)
    assert (saved.head, saved.turns) == (PLANTED, {"m1": PLANTED, "m2": PLANTED})
    assert [*saved.ended, *saved.said, *saved.events] == [PLANTED] * 6
    assert await store.collect("a", 0) == [PLANTED, b"and " + PLANTED]
    assert await store.take_ticket("digest") == PLANTED
    assert await store.get_record("name") == PLANTED


async def test_what_is_kept_can_be_read_where_it_is_not_encrypted(server: valkey.Server) -> None:
    async with opened(server.url) as store:
        await plant(store)
        assert everything(server).count(PLANTED) == 13
        await dig_up(store)


async def test_what_is_kept_can_be_read_by_nobody_without_the_key(server: valkey.Server) -> None:
    async with opened(server.url, a_key()) as store:
        await plant(store)
        kept = everything(server)
        assert b"sg:{s}:log" in kept
        assert PLANTED not in kept
        assert not any(word in kept for word in (b"nobody", b"else", b"read"))
        await dig_up(store)


async def test_the_same_text_is_never_kept_as_the_same_bytes(server: valkey.Server) -> None:
    async with opened(server.url, a_key()) as store:
        await store.save("s", A, 1, change(said=[PLANTED] * 50), seconds=LONG)
        with server.client() as client:
            assert len({*client.lrange("sg:{s}:said", 0, -1)}) == 50


async def test_keys_can_be_replaced_while_replicas_run(server: valkey.Server) -> None:
    old, new = a_key(), a_key()
    async with AsyncExitStack() as stack:
        first, second, third = [
            await stack.enter_async_context(opened(server.url, *keys))
            for keys in ([old, new], [new, old], [new])
        ]
        for writer, reader in ((first, second), (second, first), (second, third)):
            server.ask("FLUSHALL")
            await plant(writer)
            await dig_up(reader)
        server.ask("FLUSHALL")
        await plant(first)
        await unreadable(third)


async def test_with_another_key_nothing_is_read(server: valkey.Server) -> None:
    async with opened(server.url, a_key()) as store, opened(server.url, a_key()) as other:
        await plant(store)
        await unreadable(other)


@pytest.mark.parametrize("text", [PLANTED, b"", b"{}", b"x" * 12, b"x" * 30])
async def test_what_was_kept_without_a_key_is_not_read_with_one(
    server: valkey.Server, text: bytes
) -> None:
    async with opened(server.url) as plain, opened(server.url, a_key()) as sealed:
        await plant(plain, text)
        await unreadable(sealed)


async def unreadable(store: Store) -> None:
    """All of it is there, and none of it can be read here."""
    with pytest.raises(Unreadable) as glimpsed:
        await store.glimpse("s")
    with pytest.raises(Unreadable):
        await store.claim("s", A, "b")
    assert await store.owned("b", 5) == ["s"], "it is the new owner's"
    with capture_logs() as logs:
        assert await store.collect("a", 0) == []
    assert logs == [unread(glimpsed.value)] * 2
    assert await store.take_ticket("digest") is None
    assert await store.get_record("name") is None


def unread(error: Unreadable) -> dict[str, Any]:
    """What is logged of a letter."""
    return {
        "event": "a message from another replica can't be read",
        "log_level": "warning",
        "why": str(error),
    }


async def test_a_letter_that_can_not_be_read_takes_none_of_the_others_with_it(
    server: valkey.Server,
) -> None:
    old, new = a_key(), a_key()
    async with opened(server.url, new) as store, opened(server.url, old) as other:
        await store.post("a", [b"1", b"2"])
        await other.post("a", [b"of another key"])
        await store.post("a", [b"3"])
        assert await store.collect("a", 0) == [b"1", b"2", b"3"]
        assert await store.collect("a", 0) == []


async def test_what_is_kept_of_a_session_is_no_good_as_anothers(server: valkey.Server) -> None:
    async with opened(server.url, a_key()) as store:
        await plant(store)
        server.ask("COPY", "sg:{s}", "sg:{t}")
        server.ask("COPY", "sg:ticket:digest", "sg:ticket:another")
        server.ask("COPY", "sg:record:name", "sg:record:another")
        server.ask("COPY", "sg:inbox:a", "sg:inbox:b")
        with pytest.raises(Unreadable):
            await store.glimpse("t")
        assert await store.take_ticket("another") is None
        assert await store.get_record("another") is None
        assert await store.collect("b", 0) == []
        await dig_up(store)


# Failover


@pytest.fixture
async def sides(own_server: valkey.Server) -> AsyncIterator[tuple[Store, Store]]:
    """Stores at a server and at its copy, which leads since it has got a session."""
    with valkey.server() as copy:
        copy.follow(own_server)
        async with opened(own_server.url) as store, opened(copy.url) as after:
            await store.save("s", A, 1, change(said=[b"1"]), seconds=LONG)
            copy.caught_up(own_server)
            copy.lead()
            yield store, after


async def test_a_write_that_was_lost_in_a_failover_is_made_good(
    own_server: valkey.Server, sides: tuple[Store, Store]
) -> None:
    store, after = sides
    await store.save("s", A, 2, part(said=[b"2"]), seconds=LONG)
    own_server.kill()
    with pytest.raises(Outdated):
        await after.save("s", A, 3, part(said=[b"3"]), seconds=LONG)
    assert await after.glimpse("s") == Glimpse(A, b"head")
    await after.save("s", A, 4, change(said=[b"1", b"2", b"3"]), seconds=LONG)
    await after.save("s", A, 5, part(said=[b"4"]), seconds=LONG)
    saved = await claimed(after)
    assert saved.said == [b"1", b"2", b"3", b"4"]


async def test_a_claim_that_was_lost_in_a_failover_is_made_good_by_who_has_claimed(
    own_server: valkey.Server, sides: tuple[Store, Store]
) -> None:
    store, after = sides
    saved = await claimed(store)
    own_server.kill()
    with pytest.raises(Outdated):
        await after.save("s", saved.title, 2, part(), seconds=LONG)
    await after.save("s", saved.title, 3, change(), seconds=LONG)
    with pytest.raises(Fenced):
        await after.save("s", A, 2, part(), seconds=LONG)
    assert await after.owned("b", 5) == ["s"]


async def test_of_two_that_have_claimed_one_on_each_side_of_a_failover_one_is_fenced(
    own_server: valkey.Server, sides: tuple[Store, Store]
) -> None:
    store, after = sides
    lost, found = await claimed(store), await claimed(after, replica="c")
    own_server.kill()
    with pytest.raises(Fenced):
        await after.save("s", lost.title, 2, change(), seconds=LONG)
    await after.save("s", found.title, 2, part(), seconds=LONG)


# A cluster


def elsewhere(cluster: valkey.Cluster, slot: int) -> valkey.Server:
    """A node that has not got a slot."""
    return next(node for node in cluster.nodes if node is not cluster.holder(slot))


async def test_a_session_is_followed_to_another_node(cluster: valkey.Cluster) -> None:
    async with opened(cluster.url) as store:
        await store.save("moves", A, 1, change(said=[b"1"], events=b"1", last=1), seconds=LONG)
        for number in range(2, 10):
            slot = cluster.slot("sg:{moves}")
            cluster.move(slot, elsewhere(cluster, slot))
            told = part(said=[b"%d" % number], events=b"%d" % number, last=number)
            await store.save("moves", A, number, told, seconds=LONG)
        slot = cluster.slot("sg:{moves}")
        cluster.move(slot, elsewhere(cluster, slot))
        saved = await claimed(store, "moves")
        assert saved.said == saved.events == [b"%d" % number for number in range(1, 10)]


async def test_a_session_on_its_way_to_another_node_is_unavailable_and_nothing_is_lost(
    cluster: valkey.Cluster,
) -> None:
    """Of its keys some may be here and some there, so that no script can be run."""
    async with opened(cluster.url) as store:
        await store.save("on its way", A, 1, change(said=[b"1"]), seconds=LONG)
        slot = cluster.slot("sg:{on its way}")
        to = elsewhere(cluster, slot)
        cluster.begin_move(slot, to)
        with pytest.raises(StoreUnavailable):
            await store.save("on its way", A, 2, part(said=[b"2"]), seconds=LONG)
        cluster.move_keys(slot, to)
        with pytest.raises(StoreUnavailable):
            await store.save("on its way", A, 2, part(said=[b"2"]), seconds=LONG)
        cluster.end_move(slot, to)
        await store.save("on its way", A, 2, part(said=[b"2"]), seconds=LONG)
        saved = await claimed(store, "on its way")
        assert saved.said == [b"1", b"2"]


async def test_scripts_that_one_node_has_forgotten_are_sent_again(cluster: valkey.Cluster) -> None:
    async with opened(cluster.url) as store:
        for number in range(1, 4):
            cluster.nodes[number - 1].ask("SCRIPT", "FLUSH")
            told = change(whole=number == 1, said=[b"%d" % number])
            writes = [store.save(f"s{i}", A, number, told, seconds=LONG) for i in range(30)]
            await asyncio.gather(*writes)
        for i in range(30):
            saved = await claimed(store, f"s{i}")
            assert saved.said == [b"1", b"2", b"3"]


async def test_each_node_has_some_of_the_sessions(cluster: valkey.Cluster) -> None:
    async with opened(cluster.url, a_key()) as store:
        await asyncio.gather(
            *[store.save(f"many{i}", A, 1, change(), seconds=LONG) for i in range(60)]
        )
        for node in cluster.nodes:
            with node.client() as client:
                assert any(client.scan_iter("sg:{many*", count=1000))


async def test_a_cluster_that_was_gone_is_used_by_itself() -> None:
    with valkey.cluster() as own:
        async with opened(own.url, seconds=2.0 * UNIT) as store:
            asked = [f"s{i}" for i in range(30)]
            await asyncio.gather(*[store.glimpse(each) for each in asked])
            for node in own.nodes:
                node.kill()
            for _ in range(3):
                gone = [store.glimpse(each) for each in asked]
                came = await asyncio.gather(*gone, *all_calls(store), return_exceptions=True)
                assert {type(each) for each in came} == {StoreUnavailable}
            for node in own.nodes:
                node.start()
            own.settle()
            await until_answered(lambda: store.save("s1", A, 1, change(), seconds=LONG))
            await store.post("a", [b"letter"])
            assert await until_answered(lambda: store.collect("a", 1.0)) == [b"letter"]


async def test_a_node_that_does_not_answer_is_unavailable_and_others_are_not() -> None:
    with valkey.cluster() as own:
        node = own.nodes[-1]  # while the one with the first slot is silent, the client asks nobody
        asked = [f"s{i}" for i in range(30)]
        its = [each for each in asked if own.holder(own.slot(f"sg:{{{each}}}")) is node]
        assert 2 < len(its) < len(asked)
        async with opened(own.url) as store:
            for each in asked:
                await store.save(each, A, 1, change(head=each.encode()), seconds=LONG)
        async with opened(own.url, seconds=0.3 * UNIT) as store:
            await asyncio.gather(*[until_answered(partial(store.glimpse, each)) for each in asked])
            with node.paused():
                for each in its[:2]:
                    with pytest.raises(StoreUnavailable):
                        await store.glimpse(each)
                for each in asked:
                    if each not in its:
                        glimpse = await until_answered(partial(store.glimpse, each))
                        assert glimpse == Glimpse(A, each.encode())
            for each in asked:
                glimpse = await until_answered(partial(store.glimpse, each))
                assert glimpse == Glimpse(A, each.encode())
