"""HTTP/1.1 to one server, over connections that are kept; no more of it than the calls need.

A request is written once. What goes wrong before is told apart from what goes wrong after, when
the server may have seen it: see `NeverConnected`.
"""

import asyncio
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import cast

import aiohappyeyeballs
import httptools
import msgspec
from botocore import exceptions as boto

from gateway.sagemaker.errors import NeverConnected
from gateway.sagemaker.transport import ERROR_BYTES, Limits, OnBytes, OnEnd, ReplyFailed

HEAD_BYTES = 65_536
"""The largest head of a reply, and the most that may come between two pieces of its body."""
IDLE_SECONDS = 12.0
"""How long a connection is kept without a call; AWS closes them after 20."""
NEXT_ADDRESS_SECONDS = 0.25
"""How long one of a host's addresses may take before the next one is tried too."""
JOINED_BYTES = 65_536
"""The largest body that is copied to be written together with its head."""

Headers = Mapping[str, str]
"""A reply's, by their names in lower case; of several with one name the last."""

OnGoodHead = Callable[[Headers], OnBytes]
"""Takes the headers of a good reply, and gives what takes its body, which comes in any slices."""


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An answer, whatever its status.

    Attributes:
        status: Its status.
        headers: Its headers.
        body: An error's, or its beginning where it is very large; a good reply's has been taken.
    """

    status: int
    headers: Headers
    body: bytes


class Server(msgspec.Struct, frozen=True):
    """Where to connect.

    Attributes:
        url: For errors.
        host: A name or an address.
        port: Its port.
        tls: None to speak in the clear.
    """

    url: str
    host: str
    port: int
    tls: ssl.SSLContext | None


class Exchange:
    """A request, and who hears of its reply.

    Args:
        body: Its body.
        on_head: Called when a good reply begins. What it raises, or what it gives, ends the
            exchange.
        on_end: Called once, last, with the answer or with what went wrong: `ReplyFailed` where
            the connection broke or fell silent after the head of a good reply or the reply took
            too long, ``TimeoutError`` where it was too late before that, and botocore's exceptions
            for anything else.
        deadline: When to give up, by the loop's clock.
        then: In place of that, how long a good reply may take once it has begun, in seconds.
    """

    __slots__ = (
        "_on_end",
        "body",
        "connection",
        "deadline",
        "head",
        "on_head",
        "over",
        "starting",
        "then",
    )

    def __init__(
        self,
        body: bytes,
        on_head: OnGoodHead,
        on_end: OnEnd[Reply],
        *,
        deadline: float,
        then: float | None = None,
    ) -> None:
        self.body = body
        self.head = b""
        """The request's, by the time that it is sent."""
        self.on_head = on_head
        self.deadline = deadline
        self.then = then
        self.starting: asyncio.Task[None] | None = None
        """What it waits for before it can be sent."""
        self.connection: _Connection | None = None
        """What it was sent over."""
        self.over = False
        self._on_end = on_end

    def cancel(self) -> None:
        """Close its connection; nothing more is heard of it."""
        if self.over:
            return
        self.over = True
        if self.connection is not None:
            self.connection.let_go()
        elif self.starting is not None:
            self.starting.cancel()

    def end(self, result: Reply | Exception) -> None:
        """Tell of the end, unless it has been cancelled."""
        if not self.over:
            self.over = True
            self._on_end(result)


class Connections:
    """A pool of connections. It is used by one event loop.

    Args:
        server: Where they go.
        limits: How many there can be, and how long they may take.
    """

    def __init__(self, server: Server, limits: Limits) -> None:
        self._server = server
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._free = limits.connections
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: deque[_Connection] = deque()  # the one used last is the last
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    def send(self, exchange: Exchange) -> None:
        """Send a request, at once where there is a connection for it."""
        if self._free and (connection := self._usable()) is not None:
            self._free -= 1
            connection.begin(exchange)
        else:
            exchange.starting = self._loop.create_task(self._start(exchange))

    def close(self) -> None:
        """Close what is idle now, and the others when they become so."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def ended(self, connection: "_Connection | None") -> None:
        """Take back a place, and the connection that had it."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the place is handed on
                break
        else:
            self._free += 1
        if connection is None:
            return
        if connection.reusable and not self._closed:
            self._keep(connection)
        else:
            connection.abort()

    async def _start(self, exchange: Exchange) -> None:
        """Send a request once there is a place, and a connection in it."""
        connection = None
        try:
            async with asyncio.timeout_at(exchange.deadline):
                await self._place()
                try:
                    connection = self._usable() or await self._connect()
                finally:
                    if connection is None:
                        self.ended(None)
        except Exception as error:  # noqa: BLE001 - the caller's
            exchange.end(error)
        else:
            connection.begin(exchange)

    async def _place(self) -> None:
        if self._free:
            self._free -= 1
            return
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it has been handed a place in this very moment
                self.ended(None)
            raise

    def _usable(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.quiet():
                return connection
            connection.abort()
        return None

    def _keep(self, connection: "_Connection") -> None:
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for long; the first of them has been for longest."""
        now = self._loop.time()
        self._sweeper = None
        while self._idle:
            left = self._idle[0].used_at + IDLE_SECONDS - now
            if left > 0:
                self._sweeper = self._loop.call_later(left, self._sweep)
                return
            self._idle.popleft().abort()

    async def _connect(self) -> "_Connection":
        server = self._server
        try:
            async with asyncio.timeout(self._limits.connect_timeout):
                return await self._connected()
        except TimeoutError as error:
            raise boto.ConnectTimeoutError(endpoint_url=server.url, error=error) from None
        except ssl.SSLError as error:  # a certificate that does not fit is one too
            raise boto.SSLError(endpoint_url=server.url, error=error) from None
        except (OSError, UnicodeError) as error:
            never = NeverConnected(type(error).__name__)
            raise boto.EndpointConnectionError(endpoint_url=server.url, error=never) from None

    async def _connected(self) -> "_Connection":
        server, loop = self._server, self._loop
        addresses = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1, loop=loop
        )
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            name = None if server.tls is None else server.host
            _, connection = await loop.create_connection(
                lambda: _Connection(self, loop, server.url, self._limits.read_timeout),
                sock=sock,
                ssl=server.tls,
                server_hostname=name,
            )
        except BaseException:
            sock.close()
            raise
        return connection


class _Connection(asyncio.Protocol):
    """One connection, which carries one exchange at a time.

    Attributes:
        reusable: Whether the last exchange left it good for another.
        used_at: When it was last heard from, by the loop's clock.
    """

    def __init__(
        self,
        pool: Connections,
        loop: asyncio.AbstractEventLoop,
        url: str,
        read_timeout: float,
    ) -> None:
        self.reusable = False
        self.used_at = 0.0
        self._pool = pool
        self._loop = loop
        self._url = url
        self._read_timeout = read_timeout
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._poll = select.poll()
        self._transport: asyncio.Transport
        self._received: dict[bytes, bytes] = {}
        self.on_header = self._received.__setitem__
        self._parser = httptools.HttpResponseParser(self)
        self._names: tuple[bytes, ...] = ()
        self._lowered: list[str] = []
        self._exchange: Exchange | None = None

    def begin(self, exchange: Exchange) -> None:
        """Send a request."""
        exchange.connection = self
        self._exchange = exchange
        self._take: OnBytes | None = None
        self._body: list[bytes] = []  # of an error
        self._size = 0
        self._slices: list[bytes] = []  # of a good reply, as they come in one read
        self._status = 0
        self._headers: Headers = {}
        self._until_end = False  # the body is over when the connection is
        self._fruitless = 0  # bytes that came without bringing any of the body
        self._whole = False
        self.reusable = False
        self.used_at = self._loop.time()
        self._watch_until_due(exchange)
        if len(exchange.body) <= JOINED_BYTES:
            self._transport.write(exchange.head + exchange.body)
        else:
            self._transport.write(exchange.head)
            self._transport.write(exchange.body)

    def let_go(self) -> None:
        """Drop the exchange, and the connection with it."""
        self._exchange = self._take = None
        self.reusable = False
        self._pool.ended(self)

    def quiet(self) -> bool:
        """Whether the server has neither closed it nor sent anything since the last exchange.

        The loop may not have come round to telling of it.
        """
        return self.reusable and not self._transport.is_closing() and not self._poll.poll(0)

    def abort(self) -> None:
        """Close it at once."""
        self.reusable = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.abort()  # nobody asked
            return
        self.used_at = self._loop.time()
        self._fruitless += len(data)
        wrong: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            wrong = error
        # Not while it is parsed: the next exchange may begin now, and over this connection.
        if self._slices and self._take is not None:
            slices, self._slices = self._slices, []
            try:
                self._take(slices[0] if len(slices) == 1 else b"".join(slices))
            except Exception as error:  # noqa: BLE001 - the caller's
                self._fail(error)
        if self._whole:
            self.reusable = self.reusable and wrong is None
            self._end(self._reply())
        elif wrong is not None:
            self._break(boto.HTTPClientError(error=wrong))
        elif self._fruitless > HEAD_BYTES:
            self._break(boto.HTTPClientError(error=ValueError("a head without end")))

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        if self._timer is not None:
            self._timer.cancel()
        del self._parser, self.on_header  # which refer back to this

    def on_message_begin(self) -> None:
        self.reusable = False  # where it is more than was asked for
        self._received.clear()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        exchange = self._exchange
        if exchange is None or self._whole or status < 200:
            return
        if self._fruitless > HEAD_BYTES and sum(map(_size, self._received.items())) > HEAD_BYTES:
            self._break(boto.HTTPClientError(error=ValueError("a head too large")))
            return
        names = tuple(self._received)
        if names != self._names:  # one server writes them as the last time
            self._names, self._lowered = names, [name.decode("ascii").lower() for name in names]
        try:
            # A value has no line feed in it.
            values = b"\n".join(self._received.values()).decode()
            if " \n" in values or "\t\n" in values or values.endswith((" ", "\t")):
                values = "\n".join(value.rstrip(" \t") for value in values.split("\n"))
            headers = dict(zip(self._lowered, values.split("\n"), strict=False))
        except UnicodeDecodeError as error:
            self._break(boto.HTTPClientError(error=error))
            return
        self._status = status
        self._headers = headers
        chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        self._until_end = not chunked and "content-length" not in headers
        if status < 300:
            if exchange.then is not None:
                exchange.deadline = self.used_at + exchange.then
                self._watch_until_due(exchange)
            try:
                self._take = exchange.on_head(headers)
            except Exception as error:  # noqa: BLE001 - the caller's
                self._fail(error)

    def on_body(self, data: bytes) -> None:
        self._fruitless = 0
        if self._exchange is None or self._whole:
            return
        if self._take is not None:
            self._slices.append(data)
            return
        self._body.append(data)
        self._size += len(data)
        if self._size >= ERROR_BYTES:
            self._end(self._reply())

    def on_message_complete(self) -> None:
        if self._exchange is None or self._whole or not self._status:
            return
        self._whole = True
        self.reusable = (
            self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
        )

    def _reply(self) -> Reply:
        return Reply(self._status, self._headers, b"".join(self._body)[:ERROR_BYTES])

    def _end(self, result: Reply | Exception) -> None:
        exchange, self._exchange = self._exchange, None
        self._take, self._body = None, []  # an idle connection holds no reply
        if exchange is not None:
            self._pool.ended(self)
            exchange.end(result)

    def _fail(self, error: Exception) -> None:
        self.reusable = False
        self._end(error)

    def _break(self, error: Exception) -> None:
        """Fail for a reason that means something else once a good reply has begun."""
        self._fail(error if self._take is None else ReplyFailed(error))

    def _ended(self, error: Exception | None) -> None:
        self.reusable = False
        if self._exchange is None:
            return
        if error is not None:
            self._break(boto.EndpointConnectionError(endpoint_url=self._url, error=error))
        elif self._status and self._until_end:
            self._end(self._reply())
        else:
            gone = ConnectionError("closed by the server")
            self._break(boto.ConnectionClosedError(endpoint_url=self._url, error=gone))

    def _watch_until_due(self, exchange: Exchange) -> None:
        """See that `_watch` is called in time; often it is set to be called early enough already.

        So there is one timer for many exchanges, and none is stopped with each.
        """
        at = min(self.used_at + self._read_timeout, exchange.deadline)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._watch)
        self._timer_at = at

    def _watch(self) -> None:
        """Tell of what takes too long."""
        self._timer = None
        exchange = self._exchange
        if exchange is None:
            return
        now = self._loop.time()
        if now >= exchange.deadline:
            self._break(TimeoutError())
        elif now >= self.used_at + self._read_timeout:
            self._break(boto.ReadTimeoutError(endpoint_url=self._url, error=TimeoutError()))
        else:
            self._watch_until_due(exchange)


def _size(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1])
