"""A connection whose codec breaks; the rest of it is tested on real sockets."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.admission import Credentials
from gateway.budget import ByteBudget
from gateway.conversation import Resuming
from gateway.errors import CloseCode
from gateway.protocol.codecs import JsonCodec
from gateway.protocol.messages import ServerMessage
from gateway.route import Route
from gateway.session.policy import Opening, Policy
from gateway.sessions import Sessions
from gateway.transports import connection as connections
from gateway.transports.coalescing import Coalescer
from gateway.transports.connection import WebSocketConnection
from gateway.transports.link import LINK
from tests.support.visitors import anybody


class Broken(JsonCodec):
    """Can read and not write."""

    def encode(self, message: ServerMessage) -> bytes:
        raise ValueError(message)


class Socket:
    """Stands for Starlette's and its link: one frame from the client, then what is done with it."""

    on_end: Callable[[int], None]

    can_write = True

    def __init__(self, frame: str) -> None:
        self.scope = {"extensions": {LINK: self}}
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.receive", "text": frame})
        self.closed: tuple[int, str] | None = None

    def abandon(self, code: int, reason: str) -> None:
        self.close(code, reason)

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    def take_frames(self, _: object, __: object, on_end: Callable[[int], None]) -> None:
        """There are no more."""
        self.on_end = on_end

    def finish(self) -> None:
        """Nothing waits for it."""

    def close(self, code: int, reason: str, *_: object) -> None:
        self.closed = (code, reason)
        self.on_end(code)


async def run(
    sessions: Sessions, route: Route, socket: Socket, codec: JsonCodec, open_timeout: float = 1.0
) -> asyncio.Future[tuple[int, str | None]]:
    """Let a client open its session; what is given is how its connection ends."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[tuple[int, str | None]] = loop.create_future()
    connection = WebSocketConnection(
        socket,  # type: ignore[arg-type]
        codec,
        route,
        visitor=anybody(),
        on_end=lambda *how: ended.set_result(how),
        coalescer=Coalescer(loop),
    )
    await connection.run(sessions, Credentials(), open_timeout)
    return ended


async def test_a_message_that_can_not_be_written_ends_its_connection_with_a_code() -> None:
    route = Route(Policy(route="chat", opening=Opening.NONE, resume_seconds=0), model=None)  # type: ignore[arg-type]
    socket = Socket('{"type":"session.open"}')
    async with Sessions(
        {"chat": route}, max_sessions=1, budget=ByteBudget(1000), drain_seconds=1
    ) as sessions:
        ended = await run(sessions, route, socket, Broken())
        code, session = await ended
        assert code == CloseCode.INTERNAL
        assert session
        assert len(sessions) == 0
    assert socket.closed == (CloseCode.INTERNAL, "internal")


async def test_a_client_that_does_not_read_the_last_of_its_session_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "LEAVE_SECONDS", 0.0)
    route = Route(Policy(route="chat", opening=Opening.NONE, resume_seconds=0), model=None)  # type: ignore[arg-type]
    socket = Socket('{"type":"session.open"}')
    socket.can_write = False
    async with Sessions(
        {"chat": route}, max_sessions=1, budget=ByteBudget(1000), drain_seconds=1
    ) as sessions:
        ended = await run(sessions, route, socket, JsonCodec())
        await sessions.drain()
        code, _ = await ended
        assert code == CloseCode.TOO_SLOW
        assert sessions.budget.total == 0


async def test_who_has_asked_in_time_may_have_to_wait_longer_until_a_session_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def find(_: Resuming) -> None:
        await asyncio.sleep(0.05)

    route = Route(Policy(route="chat", opening=Opening.NONE, resume_seconds=0), model=None)  # type: ignore[arg-type]
    socket = Socket('{"type":"session.open","session_id":"a","resume_key":"b","last_event":0}')
    async with Sessions(
        {"chat": route}, max_sessions=1, budget=ByteBudget(1000), drain_seconds=1
    ) as sessions:
        monkeypatch.setattr(sessions, "resume", find)
        code, _ = await (await run(sessions, route, socket, JsonCodec(), open_timeout=0.01))
    assert code == CloseCode.GONE
