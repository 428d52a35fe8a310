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
from functools import lru_cache
from typing import cast

import aiohappyeyeballs
import httptools
import msgspec
from botocore import exceptions as boto

from gateway.sagemaker.errors import NeverConnected
from gateway.sagemaker.transport import ERROR_BYTES, Limits, OnBytes, ReplyFailed

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


class Connections:
    """A pool of connections. It is used by one event loop.

    Args:
        server: Where they go.
        limits: How many there can be, and how long they may take.
    """

    def __init__(self, server: Server, limits: Limits) -> None:
        self._server = server
        self._limits = limits
        self._slots = asyncio.Semaphore(limits.connections)
        self._idle: deque[_Connection] = deque()  # the one used last is the last
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(
        self,
        head: bytes,
        body: bytes,
        on_head: OnGoodHead,
        *,
        deadline: float,
        then: float | None = None,
    ) -> Reply:
        """Send a request, and wait for the whole of its reply.

        Cancelling it closes the connection.

        Args:
            head: Its head.
            body: Its body.
            on_head: Called when a good reply begins. What it raises, or what it gives, ends the
                call.
            deadline: When to give up, by the loop's clock.
            then: In place of that, how long a good reply may take once it has begun, in seconds.

        Raises:
            ReplyFailed: The connection broke or fell silent after the head of a good reply, or
                the reply took too long.
            TimeoutError: It was too late before that.
            BotoCoreError: Something else went wrong before that.
        """
        if self._slots.locked():
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        else:
            await self._slots.acquire()
        try:
            connection = self._usable()
            if connection is None:
                async with asyncio.timeout_at(deadline):
                    connection = await self._connect()
            try:
                return await connection.exchange(head, body, on_head, deadline, then)
            finally:
                if connection.reusable and not self._closed:
                    self._keep(connection)
                else:
                    connection.abort()
        finally:
            self._slots.release()

    def close(self) -> None:
        """Close what is idle now, and the others when they become so."""
        self._closed = True
        while self._idle:
            self._idle.pop().abort()
        if self._sweeper is not None:
            self._sweeper.cancel()

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
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for long; the first of them has been for longest."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._sweeper = None
        while self._idle:
            left = self._idle[0].used_at + IDLE_SECONDS - now
            if left > 0:
                self._sweeper = loop.call_later(left, self._sweep)
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
        server = self._server
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        sock = await aiohappyeyeballs.start_connection(
            addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1, loop=loop
        )
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            name = None if server.tls is None else server.host
            _, connection = await loop.create_connection(
                lambda: _Connection(loop, server.url, self._limits.read_timeout),
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

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str, read_timeout: float) -> None:
        self.reusable = False
        self.used_at = 0.0
        self._loop = loop
        self._url = url
        self._read_timeout = read_timeout
        self._deadline = 0.0
        self._then: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._poll = select.poll()
        self._transport: asyncio.Transport
        self._received: dict[bytes, bytes] = {}
        self.on_header = self._received.__setitem__
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Reply] | None = None
        self._on_head: OnGoodHead
        self._reset()

    def _reset(self) -> None:
        self._take: OnBytes | None = None
        self._body: list[bytes] = []  # of an error
        self._size = 0
        self._status = 0
        self._headers: Headers = {}
        self._until_end = False  # the body is over when the connection is
        self._fruitless = 0  # bytes that came without bringing any of the body

    async def exchange(
        self, head: bytes, body: bytes, on_head: OnGoodHead, deadline: float, then: float | None
    ) -> Reply:
        """See `Connections.send`."""
        self._reset()
        self._on_head = on_head
        self._deadline = deadline
        self._then = then
        self.reusable = False
        self.used_at = self._loop.time()
        self._watch_until_due()
        self._waiter = self._loop.create_future()
        if len(body) <= JOINED_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)
        try:
            return await self._waiter
        except asyncio.CancelledError:
            if self._waiter is not None:
                self._waiter = None
                self.abort()
            raise

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
        if self._waiter is None or self._waiter.done():
            self.abort()  # nobody asked, or it is being cancelled and is not to hear more
            return
        self.used_at = self._loop.time()
        self._fruitless += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(boto.HTTPClientError(error=error))
            return
        if self._fruitless > HEAD_BYTES:
            self._break(boto.HTTPClientError(error=ValueError("a head without end")))

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        if self._timer is not None:
            self._timer.cancel()

    def on_message_begin(self) -> None:
        self.reusable = False  # where it is more than was asked for
        self._received.clear()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._waiter is None or status < 200:
            return
        if self._fruitless > HEAD_BYTES and sum(map(_size, self._received.items())) > HEAD_BYTES:
            self._break(boto.HTTPClientError(error=ValueError("a head too large")))
            return
        try:
            # A value has no line feed in it.
            values = b"\n".join(self._received.values()).decode().split("\n")
            headers = {
                _lowered(name): value.rstrip(" \t")
                for name, value in zip(self._received, values, strict=False)
            }
        except UnicodeDecodeError as error:
            self._break(boto.HTTPClientError(error=error))
            return
        self._status = status
        self._headers = headers
        chunked = headers.get("transfer-encoding", "").lower().endswith("chunked")
        self._until_end = not chunked and "content-length" not in headers
        if status < 300:
            if self._then is not None:
                self._deadline = self.used_at + self._then
                self._watch_until_due()
            try:
                self._take = self._on_head(headers)
            except Exception as error:  # noqa: BLE001 - the caller's
                self._fail(error)

    def on_body(self, data: bytes) -> None:
        self._fruitless = 0
        if self._waiter is None:
            return
        if self._take is not None:
            try:
                self._take(data)
            except Exception as error:  # noqa: BLE001 - the caller's
                self._fail(error)
            return
        self._body.append(data)
        self._size += len(data)
        if self._size >= ERROR_BYTES:
            self._finish()
            self.abort()

    def on_message_complete(self) -> None:
        if self._waiter is None or not self._status:
            return
        self.reusable = (
            self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
        )
        self._finish()

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            body = b"".join(self._body)[:ERROR_BYTES]
            waiter.set_result(Reply(self._status, self._headers, body))

    def _fail(self, error: Exception) -> None:
        self.abort()
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _break(self, error: Exception) -> None:
        """Fail for a reason that means something else once a good reply has begun."""
        self._fail(error if self._take is None else ReplyFailed(error))

    def _ended(self, error: Exception | None) -> None:
        self.reusable = False
        if self._waiter is None:
            return
        if error is not None:
            self._break(boto.EndpointConnectionError(endpoint_url=self._url, error=error))
        elif self._status and self._until_end:
            self._finish()
        else:
            gone = ConnectionError("closed by the server")
            self._break(boto.ConnectionClosedError(endpoint_url=self._url, error=gone))

    def _watch_until_due(self) -> None:
        """See that `_watch` is called in time; often it is set to be called early enough already.

        So there is one timer for many exchanges, and none is stopped with each.
        """
        at = min(self.used_at + self._read_timeout, self._deadline)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._watch)
        self._timer_at = at

    def _watch(self) -> None:
        """Tell of what takes too long."""
        self._timer = None
        if self._waiter is None:
            return
        now = self._loop.time()
        if now >= self._deadline:
            self._break(TimeoutError())
        elif now >= self.used_at + self._read_timeout:
            self._break(boto.ReadTimeoutError(endpoint_url=self._url, error=TimeoutError()))
        else:
            self._watch_until_due()


@lru_cache(maxsize=1_024)
def _lowered(name: bytes) -> str:
    return name.decode("ascii").lower()


def _size(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1])
