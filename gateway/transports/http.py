"""HTTP/1.1 connections: each is bounded in time, in bytes, and in what it asks for at once.

uvicorn's own protocols bound neither the time for a request nor what comes in one piece. A request
is answered before the next one is read, and there is one piece of work in a turn of the event loop.
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
"""The largest head of a request, its first line included."""

HEAD_LINES = 101
"""How many lines it may have: that, and 100 headers."""

REQUEST_SECONDS = 10.0
"""How long the head of a request may take: the first from connecting, others from a byte on."""

WRITE_SECONDS = 30.0
"""How long a client may take no more of a response, while more is to be written."""

CHUNKED_BYTES = 2048
"""How much of a chunked body is parsed in one turn of the event loop: 400 chunks at the worst."""

REFUSED_CONNECTIONS = 1000
"""How many connections over the limit may be there to be told so; others are cut."""

RETRY_AFTER_SECONDS = 5
"""What they are told."""

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
        config: uvicorn's; ``limit_concurrency`` is the number of connections over which others are
            refused, ``timeout_keep_alive`` how long one may be idle between requests.
        server_state: uvicorn's.
        app_state: That of the application's lifespan.
        peers: Counts connections by address; None where nobody does, or this one is counted.
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

    # Of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and give its first request its time."""
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
        """Do what there is to do, as far as that is one turn's work."""
        self._buffer += data
        if not self._working:
            self._work(len(data))

    def pause_writing(self) -> None:
        """There is no room."""
        self.writable.clear()
        self._stalled = self._loop.call_later(WRITE_SECONDS, self._transport.abort)

    def resume_writing(self) -> None:
        """There is room again."""
        self.writable.set()
        self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It is gone."""
        self._leave()
        self._on_gone()

    # Of uvicorn

    @property
    def _connections(self) -> set[Any]:
        return cast(set[Any], self._server_state.connections)

    def shutdown(self) -> None:
        """Called when the server stops: a request that is being answered still is."""
        self._stopping = True
        if self._call is None:
            self._transport.close()

    # In

    def _work(self, received: int = 0) -> None:
        """Read a request's head, or go on with its body."""
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
        """There is something to do, in the next turn of the event loop."""
        if not self._working:
            self._working = True
            self._loop.call_soon(self._work)

    def _pause_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _read_head(self) -> None:
        """Take a request, where its head is whole."""
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):  # some clients end a body so (RFC 9112, section 2.2)
            del buffer[:2]
        if not buffer:
            self._be_idle()
            return
        if buffer[0] <= 0x20 and buffer != b"\r":  # a TLS handshake, as likely as not
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
        """Hand the connection over."""
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
        """Call the application with a request."""
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
        """Take more of a request's body."""
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
        """The application's call has ended, and with it the request."""
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
            self._half_close(b"")  # what is unread of the request is no other request
        elif self._stopping or not call.keep_alive:
            self._close()
        else:
            if not self._buffer:
                self._be_idle()
            if self._buffer or not self._reading:
                self.read_on()

    def _be_idle(self) -> None:
        """Wait for the next request, for so long."""
        if self._timer is None and self._idle_since is None:
            self._idle_since = self._loop.time()
            if self._idle_timer is None:  # else that sees to it: most requests come before
                self._look_at(self._idle_since + self._config.timeout_keep_alive)

    def _look_at(self, when: float) -> None:
        self._idle_timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        """Close, if it has been idle for so long."""
        self._idle_timer = None
        if self._idle_since is not None:
            ends = self._idle_since + self._config.timeout_keep_alive
            if self._loop.time() < ends:
                self._look_at(ends)
            else:
                self._close()

    def refuse(self, status: int, *, answered: bool = False) -> None:
        """Answer a request that can't be taken, and close."""
        text = _REFUSALS.get(status, _REFUSALS[400])
        self._half_close(b"" if answered else plain_response(status, text))

    def _half_close(self, answer: bytes) -> None:
        self._leave()
        self._buffer.clear()
        if answer:
            self._transport.write(answer)
        sockets.HalfClosed(self._transport, self._connections, self._on_gone)

    def _leave(self) -> None:
        """Be no longer the connection's protocol."""
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
        """Close once what is written is gone, or it takes too long to go."""
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
    """Whether a request asks for a WebSocket (RFC 6455, section 4.2.1)."""
    return (
        head.startswith(b"GET ")
        and _UPGRADE.search(head) is not None
        and _CONNECTION.search(head) is not None
    )
