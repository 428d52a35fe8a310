"""A pool of HTTP/1.1 connections to one server.

A request is written once. Errors before that are distinguished from errors after it, when the
server may have seen the request: see `gateway.sagemaker.exceptions`.
"""

import asyncio
import socket
import ssl
from collections import deque

import aiohappyeyeballs
import msgspec

from gateway.sagemaker.connection import HttpConnection, Request
from gateway.sagemaker.exceptions import ConnectError, ConnectTimeout, NotSentInTime, TlsError
from gateway.sagemaker.transport import CallLimits

IDLE_SECONDS = 12.0
"""How long an idle connection is kept; AWS closes them after 20 seconds."""
NEXT_ADDRESS_SECONDS = 0.25
"""How long to wait for one of a host's addresses before the next one is tried too."""


class Origin(msgspec.Struct, frozen=True):
    """Where to connect.

    Attributes:
        host: A name or an address.
        port: Its port.
        tls: None for no TLS.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None


class ConnectionPool:
    """A pool of connections, for one event loop.

    Args:
        origin: Where to connect.
        limits: The number of connections, and timeouts.
    """

    def __init__(self, origin: Origin, limits: CallLimits) -> None:
        self._origin = origin
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._free = limits.connections
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._unsent: list[Request] = []
        self._idle: deque[HttpConnection] = deque()  # the most recently used is the last
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def send(self, request: Request) -> None:
        """Send a request together with the others of this iteration of the event loop.

        A write wakes a server that waits, which costs a fifth of a message; this way the first
        request wakes it for all of them.
        """
        if not self._unsent:
            self._loop.call_soon(self._send_all)
        self._unsent.append(request)

    def _send_all(self) -> None:
        requests, self._unsent = self._unsent, []
        for request in requests:
            if request.over:
                continue  # it was cancelled meanwhile
            if self._free and (connection := self._usable()) is not None:
                self._free -= 1
                connection.begin(request)
            else:
                request.starting = self._loop.create_task(self._start(request))

    def close(self) -> None:
        """Close idle connections now, and the others once they are idle."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def ended(self, connection: HttpConnection | None) -> None:
        """Return a slot to the pool, with its connection."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the slot is passed on
                break
        else:
            self._free += 1
        if connection is None:
            return
        if connection.reusable and not self._closed:
            self._keep(connection)
        else:
            connection.abort()

    async def _start(self, request: Request) -> None:
        """Send a request once there is a free slot, and a connection."""
        connection = None
        try:
            async with asyncio.timeout_at(request.deadline):
                await self._place()
                try:
                    connection = self._usable() or await self._connect()
                finally:
                    if connection is None:
                        self.ended(None)
        except TimeoutError as error:
            request.end(NotSentInTime(error))
        except Exception as error:  # noqa: BLE001 - the caller's
            request.end(error)
        else:
            connection.begin(request)

    async def _place(self) -> None:
        if self._free:
            self._free -= 1
            return
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it was given a slot at the same moment
                self.ended(None)
            raise

    def _usable(self) -> HttpConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.quiet():
                return connection
            connection.abort()
        return None

    def _keep(self, connection: HttpConnection) -> None:
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close connections that were idle for too long; the first was idle for longest."""
        now = self._loop.time()
        self._sweeper = None
        while self._idle:
            left = self._idle[0].used_at + IDLE_SECONDS - now
            if left > 0:
                self._sweeper = self._loop.call_later(left, self._sweep)
                return
            self._idle.popleft().abort()

    async def _connect(self) -> HttpConnection:
        try:
            async with asyncio.timeout(self._limits.connect_timeout):
                return await self._connected()
        except TimeoutError as error:
            raise ConnectTimeout(error) from None
        except ssl.SSLError as error:  # a certificate error is one too
            raise TlsError(error) from None
        except (OSError, UnicodeError) as error:
            raise ConnectError(error) from None

    async def _connected(self) -> HttpConnection:
        origin, loop = self._origin, self._loop
        addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1, loop=loop
        )
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            name = None if origin.tls is None else origin.host
            _, connection = await loop.create_connection(
                lambda: HttpConnection(self.ended, loop, self._limits.read_timeout),
                sock=sock,
                ssl=origin.tls,
                server_hostname=name,
            )
        except BaseException:
            sock.close()
            raise
        return connection
