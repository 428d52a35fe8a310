"""One connection to Valkey, by what its server does with it."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import pytest
import uvloop
from libvalkey import ReplyError
from structlog.testing import capture_logs
from valkey.asyncio import ConnectionPool
from valkey.exceptions import ConnectionError as ClientConnectionError
from valkey.exceptions import (
    DataError,
    NoPermissionError,
    ReadOnlyError,
    ResponseError,
    ValkeyClusterException,
)

from gateway.session.storage import Fenced, StoreUnavailable
from gateway.stores import line as module
from gateway.stores.line import AT_ONCE, Line, Reply
from tests.support import valkey
from tests.support.timing import UNIT

SILENT = ("BLPOP", "nothing", 0)
"""A command that is never answered."""


@pytest.fixture(autouse=True)
def transport() -> None:
    """No store calls a model."""


@asynccontextmanager
async def opened(
    url: str, *, seconds: float = 20.0 * UNIT, read_seconds: float = 0.05
) -> AsyncIterator[Line]:
    """One that waits so long for an answer, and for one to be read that has come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "TIMEOUT_SECONDS", seconds)
        patch.setattr(module, "READ_SECONDS", read_seconds)
        line = Line(ConnectionPool.from_url(url), ())
        try:
            yield line
        finally:
            await line.aclose()


async def unavailable(reply: Reply) -> str:
    """There is no answer; returns why."""
    with pytest.raises(StoreUnavailable) as caught:
        async with asyncio.timeout(20 * UNIT):
            await reply
    return str(caught.value)


async def test_commands_are_counted_and_of_those_that_were_sent_the_ones_without_an_answer(
    own_server: valkey.Server,
) -> None:
    async with opened(own_server.url) as line:
        await line.send(("SET", "a", 1), ("GET", "a"))
        assert (line._measures.commands, line._measures.failures) == (2, 0)
        sent = line.send(("PING",), SILENT, ("PING",))
        async with asyncio.timeout(20 * UNIT):
            while sent.left != 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
        never_sent = line.send(("PING",))
    for reply in (sent, never_sent):
        await unavailable(reply)
    assert (line._measures.commands, line._measures.failures) == (5, 2)


# Who is told


def goes_on(_server: valkey.Server) -> None:
    pass


@pytest.mark.parametrize("happens", [goes_on, valkey.Server.kill])
@pytest.mark.parametrize("connected", [False, True])
async def test_who_fails_at_what_it_is_told_keeps_it_from_nobody(
    own_server: valkey.Server, connected: bool, happens: Callable[[valkey.Server], None]
) -> None:
    def fail(_reply: Reply) -> None:
        raise KeyError("a defect in one session")

    told: list[Reply] = []
    async with opened(own_server.url) as line:
        if connected:
            await line.send(("PING",))
        replies = [line.send(("BLPOP", "nothing", 0.1))]
        replies += [line.send(("PING",)) for _ in range(2 * AT_ONCE)]
        replies[0].add_done_callback(fail)
        for reply in replies[1:]:
            reply.add_done_callback(told.append)
        happens(own_server)
        with capture_logs() as logs:
            async with asyncio.timeout(20 * UNIT):
                await asyncio.gather(*replies[1:], return_exceptions=True)
    assert told == replies[1:]
    assert [each["event"] for each in logs] == ["a store callback failed"]
    assert {type(reply.exception()) for reply in replies} == {
        type(None) if happens is goes_on else StoreUnavailable
    }


async def test_a_reply_has_for_who_is_called_what_it_has_for_who_waits(
    server: valkey.Server,
) -> None:
    def fenced(_reply: bytes) -> None:
        raise Fenced

    results: list[Any] = []

    def take(reply: Reply) -> None:
        with contextlib.suppress(Fenced, StoreUnavailable):
            results.append(reply.result())

    async with opened(server.url) as line:
        good = line.send(("SET", "key", "1"), ("GET", "key"), read=int)
        lost = line.send(("GET", "key"), read=fenced)
        wrong = line.send(("LPUSH", "key", "2"), ("GET", "key"))
        for reply in (good, lost, wrong):
            reply.add_done_callback(take)
        assert (await good, good.result(), good.exception()) == (1, 1, None)
        for reply, why in ((lost, Fenced), (wrong, StoreUnavailable)):
            for _ in range(2):
                with pytest.raises(why) as awaited:
                    await reply
                with pytest.raises(why) as asked:
                    reply.result()
                assert awaited.value is asked.value is reply.exception()
    assert results == [1]


# When it writes


async def test_commands_are_written_together_that_come_in_one_turn_or_while_one_is_under_way(
    server: valkey.Server,
) -> None:
    async with opened(server.url) as line:
        await line.send(("PING",))
        assert line._transport is not None
        counted: Any = Mock(wraps=line._transport)
        line._transport = counted
        first = [line.send(("PING",)) for _ in range(2)]
        await asyncio.sleep(0)
        assert counted.write.call_count == 1
        others = [line.send(("ECHO", f"{i}")) for i in range(100)]
        await asyncio.sleep(0)
        assert counted.write.call_count == 1
        assert await asyncio.gather(*first) == [b"PONG"] * 2
        assert await asyncio.gather(*others) == [f"{i}".encode() for i in range(100)]
        assert counted.write.call_count == 2
        await line.send(("PING",), ("PING",))
        assert counted.write.call_count == 3


# How long it waits


async def test_a_server_that_says_nothing_is_not_waited_for_any_longer(
    server: valkey.Server,
) -> None:
    async with opened(server.url, seconds=0.5 * UNIT) as line:
        before = await line.send(("CLIENT", "ID"))
        replies = [line.send(SILENT), line.send(("PING",))]
        assert [await unavailable(each) for each in replies] == ["it takes too long"] * 2
        assert await line.send(("CLIENT", "ID")) != before, "over another connection"


async def test_a_server_that_answers_one_after_the_other_may_take_longer_for_all_of_them(
    server: valkey.Server,
) -> None:
    async with opened(server.url, seconds=0.5 * UNIT, read_seconds=0.5 * UNIT) as line:
        replies = [line.send(("BLPOP", "nothing", 0.1 * UNIT)) for _ in range(10)]
        silent = line.send(SILENT)
        assert await asyncio.gather(*replies) == [None] * len(replies)
        assert await unavailable(silent) == "it takes too long"


def test_an_answer_that_came_while_the_process_did_not_run_is_taken(
    own_server: valkey.Server,
) -> None:
    """This event loop, which is the gateway's, calls timers before it reads."""

    async def main() -> None:
        seconds = 0.5 * UNIT
        stop, stopped = socket.socketpair()
        with stop, stopped, contextlib.ExitStack() as stack:
            async with opened(own_server.url, seconds=seconds, read_seconds=5 * UNIT) as line:
                before = await line.send(("CLIENT", "ID"))
                stack.enter_context(own_server.paused())
                late = line.send(("ECHO", "late"))
                await asyncio.sleep(0)  # it is written by then

                def do_not_run() -> None:
                    loop.remove_reader(stopped)
                    stack.close()
                    own_server.ask("PING")  # and so it has answered
                    time.sleep(seconds)

                loop = asyncio.get_running_loop()
                loop.add_reader(stopped, do_not_run)
                stop.send(b"now")
                assert await late == b"late"
                assert await line.send(("CLIENT", "ID")) == before, "over the same connection"

    uvloop.run(main())


# What is said of it


PRIVATE = "what nobody is to read"


@pytest.mark.parametrize(
    ("before", "command", "why"),
    [
        ("PING", ("NOSUCHCOMMAND", PRIVATE), "it answers ERR"),
        ("PING", ("SET", "key", PRIVATE, PRIVATE), "it answers ERR"),
        ("SET key text", ("HGET", "key", PRIVATE), "it answers WRONGTYPE"),
        ("ACL SETUSER default -getdel", ("GETDEL", PRIVATE), "it answers NOPERM"),
        ("CONFIG SET maxmemory 1", ("SET", "key", PRIVATE), "it answers OOM"),
        ("REPLICAOF 127.0.0.1 1", ("SET", "key", PRIVATE), "it answers READONLY"),
    ],
)
async def test_what_a_server_answers_is_told_without_what_was_sent(
    own_server: valkey.Server, before: str, command: tuple[str, ...], why: str
) -> None:
    own_server.ask(*before.split())
    async with opened(own_server.url) as line:
        assert await unavailable(line.send(command)) == why


async def test_a_server_that_lets_nobody_in_is_told_without_the_password(
    own_server: valkey.Server,
) -> None:
    own_server.ask("CONFIG", "SET", "requirepass", "right")
    async with opened(own_server.url.replace("//", f"//:{PRIVATE}@")) as line:
        why = await unavailable(line.send(("PING",)))
    assert why == "invalid username-password pair or user is disabled."


async def test_a_server_that_is_not_there_is_told_with_its_address(
    own_server: valkey.Server,
) -> None:
    own_server.kill()
    async with opened(own_server.url) as line:
        assert f"127.0.0.1:{own_server.port}" in await unavailable(line.send(("PING", PRIVATE)))


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ReplyError("OOM command not allowed"), "it answers OOM"),
        (ReplyError(PRIVATE), "ReplyError"),
        (ResponseError("WRONGPASS invalid"), "it answers WRONGPASS"),
        (ReadOnlyError("You can't write"), "ReadOnlyError"),
        (NoPermissionError(PRIVATE), "NoPermissionError"),
        (DataError(PRIVATE), "DataError"),
        (ValkeyClusterException(PRIVATE), "ValkeyClusterException"),
        (TimeoutError(), "TimeoutError"),
        (OSError(111, "Connection refused"), "[Errno 111] Connection refused"),
        (ClientConnectionError("Connection closed by server."), "Connection closed by server."),
        (ClientConnectionError(), "ConnectionError"),
    ],
)
def test_an_error_is_told_by_its_code_or_its_type(error: Exception, why: str) -> None:
    assert str(module.unavailable(error)) == why
