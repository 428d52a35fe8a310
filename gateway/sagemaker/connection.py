"""An HTTP/1.1 client connection, which carries one request at a time.

It implements only what the calls need, and raises only `gateway.sagemaker.exceptions`.
"""

import asyncio
import select
from collections.abc import Callable, Mapping
from typing import cast

import httptools

from gateway.protocol.discretion import Discreet
from gateway.sagemaker.exceptions import (
    CallError,
    ConnectionLost,
    MalformedReply,
    ReplyFailed,
    ReplyTimeout,
)
from gateway.sagemaker.transport import ERROR_BYTES, OnBytes, OnEnd

HEAD_BYTES = 65_536
"""The largest head of a reply, and the most bytes of framing between two pieces of its body."""
JOINED_BYTES = 65_536
"""The largest body that is copied to be written together with the head."""

Headers = Mapping[str, str]
"""A reply's headers, by name in lower case; if a name is repeated, the last one."""

OnGoodHead = Callable[[Headers], OnBytes]
"""Called with the headers of a successful reply; returns the receiver of its body, in slices."""


class Reply(Discreet, frozen=True, gc=False):
    """A response, whatever its status.

    Attributes:
        status: Its status.
        headers: Its headers.
        body: The body of an error, truncated if it is very large; that of a successful reply is
            passed on as it arrives.
    """

    status: int
    headers: Headers
    body: bytes


class Request:
    """A request, and the callbacks for its reply.

    Args:
        body: Its body.
        on_head: Called when a successful reply begins. An exception that it or its receiver raises
            ends the request.
        on_end: Called once, last, with the reply or an error: a `CallError`, or what a callback has
            raised.
        deadline: When it times out, by the loop's clock.
        then: How long a successful reply may take once it has begun, in seconds, instead of that.
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
        """The request's head, set before it is sent."""
        self.on_head = on_head
        self.deadline = deadline
        self.then = then
        self.starting: asyncio.Task[None] | None = None
        """The task that it waits for before it can be sent."""
        self.connection: HttpConnection | None = None
        """The connection that it was sent over."""
        self.over = False
        self._on_end = on_end

    def cancel(self) -> None:
        """Close its connection; no callback runs after this."""
        if self.over:
            return
        self.over = True
        if self.connection is not None:
            self.connection.drop()
        elif self.starting is not None:
            self.starting.cancel()

    def pause_reading(self) -> None:
        """Pause receiving the reply."""
        if self.connection is not None and not self.over:
            self.connection.pause_reading()

    def resume_reading(self) -> None:
        """Resume receiving the reply."""
        if self.connection is not None and not self.over:
            self.connection.resume_reading()

    def end(self, result: Reply | Exception) -> None:
        """Call `on_end`, unless it was cancelled."""
        if not self.over:
            self.over = True
            self._on_end(result)


class HttpConnection(asyncio.Protocol):
    """See the module.

    Args:
        on_free: Called whenever a request has ended, before its `on_end`.
        loop: The event loop.
        read_timeout: How long a server may send nothing during a request, in seconds.

    Attributes:
        reusable: Whether it can be used for another request.
        used_at: When data was last received, by the loop's clock.
    """

    def __init__(
        self,
        on_free: Callable[["HttpConnection"], None],
        loop: asyncio.AbstractEventLoop,
        read_timeout: float,
    ) -> None:
        self.reusable = False
        self.used_at = 0.0
        self._on_free = on_free
        self._loop = loop
        self._read_timeout = read_timeout
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._poll = select.poll()
        self._transport: asyncio.Transport
        self._received: dict[bytes, bytes] = {}
        self.on_header = self._received.__setitem__
        self._parser = httptools.HttpResponseParser(self)
        self._names: tuple[bytes, ...] = ()
        self._lowered: list[str] = []
        self._request: Request | None = None
        self._take: OnBytes | None = None
        self._body: list[bytes] = []  # an error's
        self._slices: list[bytes] = []  # of a successful reply, from one read

    def begin(self, request: Request) -> None:
        """Send a request."""
        request.connection = self
        self._request = request
        self._size = self._status = 0
        self._headers: Headers = {}
        self._until_end = False  # the body ends with the connection
        self._fruitless = 0  # bytes received since the last piece of the body
        self._whole = False
        self.reusable = False
        self.used_at = self._loop.time()
        self._watch_until_due(request)
        if len(request.body) <= JOINED_BYTES:
            self._transport.write(request.head + request.body)
        else:
            self._transport.write(request.head)
            self._transport.write(request.body)

    def drop(self) -> None:
        """Close the connection, and drop its request."""
        self._request = self._take = None
        self.reusable = False
        self._on_free(self)

    def quiet(self) -> bool:
        """Whether the server has neither closed it nor sent anything since the last request.

        Asks the socket, since the event loop may not have reported it yet.
        """
        return self.reusable and not self._transport.is_closing() and not self._poll.poll(0)

    def pause_reading(self) -> None:
        """Pause receiving; the read timeout is suspended meanwhile."""
        self._paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume receiving."""
        if self._paused:
            self._paused = False
            self.used_at = self._loop.time()
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close it immediately."""
        self.reusable = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._request is None:
            self.abort()  # unsolicited data
            return
        self.used_at = self._loop.time()
        self._fruitless += len(data)
        wrong: Exception | None = None
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            wrong = error
        # Not while parsing: a callback may begin the next request over this connection.
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
            self._break(MalformedReply(wrong))
        elif self._fruitless > HEAD_BYTES:
            self._break(MalformedReply(ValueError("a head without end")))

    def eof_received(self) -> bool:
        self._ended(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(exc)
        if self._timer is not None:
            self._timer.cancel()
        del self._parser, self.on_header  # which form reference cycles

    def on_message_begin(self) -> None:
        self.reusable = False  # in case it is an unsolicited reply
        self._received.clear()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        request = self._request
        if request is None or self._whole or status < 200:
            return
        if self._fruitless > HEAD_BYTES and sum(map(_size, self._received.items())) > HEAD_BYTES:
            self._break(MalformedReply(ValueError("a head too large")))
            return
        names = tuple(self._received)
        if names != self._names:  # a server usually sends the same ones each time
            self._names, self._lowered = names, [name.decode("ascii").lower() for name in names]
        try:
            # A value can't contain a line feed.
            values = b"\n".join(self._received.values()).decode()
            if " \n" in values or "\t\n" in values or values.endswith((" ", "\t")):
                values = "\n".join(value.rstrip(" \t") for value in values.split("\n"))
            headers = dict(zip(self._lowered, values.split("\n"), strict=False))
        except UnicodeDecodeError as error:
            self._break(MalformedReply(error))
            return
        self._status = status
        self._headers = headers
        coding = headers.get("transfer-encoding", "")
        self._until_end = "content-length" not in headers and not coding.lower().endswith("chunked")
        if status < 300:
            if request.then is not None:
                request.deadline = self.used_at + request.then
                self._watch_until_due(request)
            try:
                self._take = request.on_head(headers)
            except Exception as error:  # noqa: BLE001 - the caller's
                self._fail(error)

    def on_body(self, data: bytes) -> None:
        self._fruitless = 0
        if self._request is None or self._whole:
            return
        if self._take is not None:
            self._slices.append(data)
            return
        self._body.append(data)
        self._size += len(data)
        if self._size >= ERROR_BYTES:
            self._end(self._reply())

    def on_message_complete(self) -> None:
        if self._request is None or self._whole or not self._status:
            return
        self._whole = True
        self.reusable = (
            self._parser.should_keep_alive() and not self._transport.get_write_buffer_size()
        )

    def _reply(self) -> Reply:
        return Reply(self._status, self._headers, b"".join(self._body)[:ERROR_BYTES])

    def _end(self, result: Reply | Exception) -> None:
        request, self._request = self._request, None
        self._take, self._body = None, []  # an idle connection holds no reply
        if request is not None:
            self.resume_reading()  # for the next request's reply, or the server's close
            self._on_free(self)
            request.end(result)

    def _fail(self, error: Exception) -> None:
        self.reusable = False
        self._end(error)

    def _break(self, error: CallError) -> None:
        """Fail a request; once a successful reply has begun, the error is a `ReplyFailed`."""
        self._fail(error if self._take is None else ReplyFailed(error))

    def _ended(self, error: Exception | None) -> None:
        self.reusable = False
        if self._request is None:
            return
        if error is not None:
            self._break(ConnectionLost(error))
        elif self._status and self._until_end:
            self._end(self._reply())
        else:
            self._break(ConnectionLost())

    def _watch_until_due(self, request: Request) -> None:
        """Ensure that `_watch` is called in time; often it already is.

        So one timer serves many requests, instead of being cancelled with each.
        """
        at = min(self.used_at + self._read_timeout, request.deadline)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._watch)
        self._timer_at = at

    def _watch(self) -> None:
        """Fail a request that has timed out."""
        self._timer = None
        request = self._request
        if request is None:
            return
        now = self._loop.time()
        if self._paused:
            self.used_at = now
        if now >= min(request.deadline, self.used_at + self._read_timeout):
            self._break(ReplyTimeout())
        else:
            self._watch_until_due(request)


def _size(header: tuple[bytes, bytes]) -> int:
    return len(header[0]) + len(header[1])
