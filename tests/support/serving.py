"""An ASGI application on the gateway's own protocols, in the test's process and on uvloop."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Self

import uvicorn
import uvloop

from gateway.budget import ByteBudget
from gateway.transports.http import HttpProtocol
from gateway.transports.peers import Peers
from gateway.transports.protocol import WebSocketProtocol
from gateway.transports.server import DrainingServer
from gateway.transports.sockets import HANDSHAKES
from gateway.turnstile import Turnstile
from tests.support.timing import UNIT

App = Callable[[Any, Any, Any], Awaitable[None]]

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test as the gateway runs: asyncio's own loop reads less in one turn."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*args, **kwargs))

    return run


class Peer:
    """A client's socket."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self.got = bytearray()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self._socket, ("127.0.0.1", self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._socket.close()

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        async with asyncio.timeout(20 * UNIT):
            await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def end(self) -> None:
        """Send nothing more."""
        self._socket.shutdown(socket.SHUT_WR)

    async def more(self) -> bytes:
        """What comes next; nothing at the end."""
        async with asyncio.timeout(20 * UNIT):
            return await asyncio.get_running_loop().sock_recv(self._socket, 65_536)

    async def until(self, text: bytes, count: int = 1) -> bytes:
        """Read until that has come that often; all that has come up to then."""
        async with asyncio.timeout(20 * UNIT):
            while self.got.count(text) < count:
                data = await self.more()
                assert data, (text, self.got)
                self.got += data
        return bytes(self.got)

    async def cut(self) -> bytes:
        """Read until the server has closed, or gone without that; all that has come."""
        with contextlib.suppress(ConnectionResetError):
            await self.closed()
        return bytes(self.got)

    async def closed(self) -> bytes:
        """Read until the server has closed; all that has come."""
        async with asyncio.timeout(20 * UNIT):
            while data := await self.more():
                self.got += data
        return bytes(self.got)


class Loner(Peers):
    """Lets one in at a time, this machine's too.

    Attributes:
        there: How many are.
    """

    def __init__(self) -> None:
        super().__init__(1, lambda _address: False)
        self.there = 0

    def enter(self, address: str) -> Callable[[], None] | None:
        assert address == "127.0.0.1"
        if self.there:
            return None
        self.there += 1
        return self._gone

    def _gone(self) -> None:
        self.there -= 1


class Served:
    """A server that runs.

    Args:
        server: uvicorn's.
        port: Where it listens.
    """

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self.server.server_state.connections)

    def peer(self) -> Peer:
        """A new client."""
        return Peer(self.port)

    async def until_connections(self, number: int) -> None:
        """Wait until there are that many."""
        async with asyncio.timeout(20 * UNIT):
            while self.connections != number:  # noqa: ASYNC110 - it is but a number
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving(app: App, **options: Any) -> AsyncIterator[Served]:
    """Serve an application; options are uvicorn's."""
    given: dict[str, Any] = {
        "http": HttpProtocol,
        "ws": functools.partial(
            WebSocketProtocol, budget=ByteBudget(1_000_000_000), turnstile=Turnstile(HANDSHAKES)
        ),
        "ws_ping_interval": 1000,
    } | options
    config = uvicorn.Config(
        app,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
        **given,
    )
    ready = asyncio.Event()

    async def drain() -> None:
        pass

    server = DrainingServer(config, drain=drain, ready=ready.set)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await ready.wait()
        try:
            yield Served(server, listener.getsockname()[1])
        finally:
            server.should_exit = True
            await running


class Turns:
    """Counts the turns of the event loop while this context lasts."""

    def __init__(self) -> None:
        self.now = 0
        self._counting = True

    def __enter__(self) -> Self:
        self._count()
        return self

    def __exit__(self, *_: object) -> None:
        self._counting = False

    def _count(self) -> None:
        self.now += 1
        if self._counting:
            asyncio.get_running_loop().call_soon(self._count)
