"""HTTP/1.1 connections with bounds on time, bytes, and concurrent work.

uvicorn's own protocols bound neither the time that a request takes to arrive, nor the size of what
arrives at once. Here a request is answered before the next one is read, and each turn of the event
loop does one piece of work.
"""

import asyncio
import re
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState

from gateway.transports import sockets
from gateway.transports.calls import (
    BODY_BYTES,
    HttpCall,
    connection_scope,
    plain_response,
    target_scope,
)
from gateway.transports.peers import Peers
from gateway.transports.requests import BadRequest, head_of

HEAD_BYTES = 16_384
"""Maximum size of a request's head, including its first line."""

HEAD_LINES = 101
"""Maximum lines of a request's head: the first line, and 100 headers."""

REQUEST_SECONDS = 10.0
"""Seconds for the head of a request: from connecting, or from the first byte of a later one."""

WRITE_SECONDS = 30.0
"""Seconds that a client may stop reading a response while there is more to write."""

CHUNKED_BYTES = 2048
"""Bytes of a chunked body parsed in one turn of the event loop: at the worst, 400 chunks."""

REFUSED_CONNECTIONS = 1000
"""Connections over the limit that are refused with a response; further ones are cut."""

RETRY_AFTER_SECONDS = 5
"""``Retry-After`` of that response."""

_HEAD_END = re.compile(rb"\n\r?\n")
_UPGRADE = re.compile(rb"\nupgrade:[ \t]*websocket[ \t]*\r?\n", re.IGNORECASE)
_CONNECTION = re.compile(rb"\nconnection:[^\n]*\bupgrade\b", re.IGNORECASE)

_REFUSALS = {
    400: "Not a valid HTTP request.\n",
    408: "The request took too long.\n",
    431: "The request's headers are too large.\n",
}


class HttpProtocol(asyncio.Protocol):
    """A connection, until it becomes a WebSocket.

    Args:
        config: uvicorn's configuration; above ``limit_concurrency`` connections, others are
            refused; ``timeout_keep_alive`` is the maximum idle time between requests.
        server_state: uvicorn's state.
        app_state: State of the application's lifespan.
        peers: Counts connections by address; None if nothing does, or if this one is counted.
        on_gone: See `gateway.transports.sockets.OnGone`.
    """

    __slots__ = (
        "_app_state",
        "_buffer",
        "_call",
        "_config",
        "_idle_since",
        "_idle_timer",
        "_left",
        "_loop",
        "_on_gone",
        "_peers",
        "_reading",
        "_scope",
        "_server_state",
        "_stalled",
        "_stopping",
        "_task",
        "_timer",
        "_transport",
        "_working",
        "writable",
    )

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        peers: Peers | None = None,
        on_gone: sockets.OnGone = sockets.nobody_waits,
    ) -> None:
        self._peers = peers
        self._on_gone = on_gone
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._buffer = bytearray()
        self._call: HttpCall | None = None
        self._scope: dict[str, Any] | None = None
        self._reading = True
        self._working = False
        self._stopping = False
        self._left = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and start the timeout of its first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not derive from it
        sockets.keep_alive(transport)
        address, *_ = transport.get_extra_info("peername") or [""]
        if self._peers is not None:
            on_gone = self._peers.enter(address)
            if on_gone is None:
                self._transport.abort()
                return
            self._on_gone = on_gone
        limit, there = self._config.limit_concurrency, len(self._connections)
        self._connections.add(self)
        if limit is None or there < limit:
            self._timer = self._loop.call_later(REQUEST_SECONDS, self.refuse, 408)
        elif there < limit + REFUSED_CONNECTIONS:
            retry = ("Retry-After", str(RETRY_AFTER_SECONDS))
            self._half_close(plain_response(503, "Too many connections.\n", retry))
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Handle received data, within the limits of one turn of the event loop."""
        self._buffer += data
        if not self._working:
            self._work(len(data))

    def pause_writing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self.writable.clear()
        self._stalled = self._loop.call_later(WRITE_SECONDS, self._transport.abort)

    def resume_writing(self) -> None:
        """Resume writing: the transport's buffer has room."""
        self.writable.set()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Clean up after the connection has closed."""
        self._leave()
        self._on_gone()

    # Called by uvicorn

    @property
    def _connections(self) -> set[Any]:
        return cast(set[Any], self._server_state.connections)

    def shutdown(self) -> None:
        """Stop accepting requests; one that is being answered is completed."""
        self._stopping = True
        if self._call is None:
            self._transport.close()

    # In

    def _work(self, received: int = 0) -> None:
        """Read a request's head, or more of its body."""
        self._working = False
        if self._transport.is_closing():
            return
        call, before = self._call, len(self._buffer)
        if call is None:
            self._read_head()
        elif call.takes_body:
            self._read_body(call)
        if self._left:
            return
        call = self._call
        waits = call is not None and not call.takes_body and bool(self._buffer)
        left = call is not None and call.takes_body and 0 < len(self._buffer) < before
        if waits:
            self._pause_reading()
        elif left or received >= sockets.READ_BYTES:
            self._pause_reading()
            self.read_on()
        elif not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def read_on(self) -> None:
        """Schedule more work for the next turn of the event loop."""
        if not self._working:
            self._working = True
            self._loop.call_soon(self._work)

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _read_head(self) -> None:
        """Handle a request once its head is complete."""
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):  # sent by some clients after a body (RFC 9112, section 2.2)
            del buffer[:2]
        if not buffer:
            self._be_idle()
            return
        if buffer[0] <= 0x20 and buffer != b"\r":  # probably a TLS handshake
            self.refuse(400)
            return
        end = _HEAD_END.search(buffer, 0, HEAD_BYTES)
        if end is None:
            self._idle_since = None
            if len(buffer) >= HEAD_BYTES:
                self.refuse(431)
            elif self._timer is None:
                self._timer = self._loop.call_later(REQUEST_SECONDS, self.refuse, 408)
            return
        head = bytes(buffer[: end.end()])
        del buffer[: end.end()]
        self._set_no_timer()
        if head.count(b"\n") - 1 > HEAD_LINES:
            self.refuse(431)
        elif self._config.ws_protocol_class and _is_handshake(head):
            self._upgrade(head)
        else:
            self._begin(head)

    def _upgrade(self, head: bytes) -> None:
        """Hand the connection over to the WebSocket protocol."""
        self._leave()
        upgraded: Any = self._config.ws_protocol_class
        protocol: asyncio.Protocol = upgraded(
            config=self._config,
            server_state=self._server_state,
            app_state=self._app_state,
            on_gone=self._on_gone,
        )
        if not self._reading:
            self._transport.resume_reading()
        protocol.connection_made(self._transport)
        self._transport.set_protocol(protocol)
        protocol.data_received(head + self._buffer)

    def _begin(self, head: bytes) -> None:
        """Call the application for a request."""
        try:
            request = head_of(head)
        except BadRequest as error:
            self.refuse(error.status)
            return
        if self._scope is None:
            self._scope = connection_scope(self._transport, self._config)
            secure = self._transport.get_extra_info("sslcontext") is not None
            self._scope |= {"type": "http", "scheme": "https" if secure else "http"}
        scope = {
            **self._scope,
            "state": self._app_state.copy(),
            "http_version": request.version,
            "method": request.method.decode("ascii"),
            "headers": request.headers,
            **target_scope(request.target, self._config.root_path),
        }
        self._call = call = HttpCall(self, self._transport, request, scope)
        self._read_body(call)
        if self._left:
            return
        self._task = self._loop.create_task(call.run(self._config.loaded_app))
        self._server_state.tasks.add(self._task)

    def _read_body(self, call: HttpCall) -> None:
        """Read more of a request's body."""
        size = CHUNKED_BYTES if call.chunked else BODY_BYTES
        data = bytes(self._buffer[:size])
        if not data:
            return
        del self._buffer[:size]
        try:
            self._buffer[:0] = call.take_body(data)
        except BadRequest as error:
            call.disconnect()
            self.refuse(error.status, answered=call.started)

    # Out

    def end_call(self, call: HttpCall) -> None:
        """End the request after the application's call has ended."""
        self._call = None
        if self._task is not None:
            self._server_state.tasks.discard(self._task)
            self._task = None
        self._server_state.total_requests += 1
        if self._left or self._transport.is_closing():
            return
        if not call.complete:
            self._close()
        elif not call.body_ended:
            self._half_close(b"")  # the rest of the body must not be read as another request
        elif self._stopping or not call.keep_alive:
            self._close()
        else:
            if not self._buffer:
                self._be_idle()
            if self._buffer or not self._reading:
                self.read_on()

    def _be_idle(self) -> None:
        """Wait for the next request, with a timeout."""
        if self._timer is None and self._idle_since is None:
            self._idle_since = self._loop.time()
            if self._idle_timer is None:  # else it reschedules itself: most requests come sooner
                self._look_at(self._idle_since + self._config.timeout_keep_alive)

    def _look_at(self, when: float) -> None:
        self._idle_timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        """Close, if the connection has been idle for too long."""
        self._idle_timer = None
        if self._idle_since is not None:
            ends = self._idle_since + self._config.timeout_keep_alive
            if self._loop.time() < ends:
                self._look_at(ends)
            else:
                self._close()

    def refuse(self, status: int, *, answered: bool = False) -> None:
        """Refuse a request that is not valid or took too long, and close."""
        text = _REFUSALS.get(status, _REFUSALS[400])
        self._half_close(b"" if answered else plain_response(status, text))

    def _half_close(self, answer: bytes) -> None:
        self._leave()
        self._buffer.clear()
        if answer:
            self._transport.write(answer)
        sockets.HalfClosed(self._transport, self._connections, self._on_gone)

    def _leave(self) -> None:
        """Stop being the connection's protocol."""
        self._left = True
        self._set_no_timer()
        self._stop_looking()
        self._connections.discard(self)
        if self._call is not None:
            self._call.disconnect()
        self.writable.set()
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _stop_looking(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _close(self) -> None:
        """Close once everything is written, or after a timeout."""
        self._set_no_timer()
        self._stop_looking()
        self._timer = self._loop.call_later(sockets.CLOSE_SECONDS, self._transport.abort)
        self._transport.close()

    def _set_no_timer(self) -> None:
        self._idle_since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _is_handshake(head: bytes) -> bool:
    """Return whether a request is a WebSocket handshake (RFC 6455, section 4.2.1)."""
    return (
        head.startswith(b"GET ")
        and _UPGRADE.search(head) is not None
        and _CONNECTION.search(head) is not None
    )
