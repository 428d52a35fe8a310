"""The WebSocket protocol on asyncio: a connection from its handshake to its end, and its `Link`."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from uvicorn.server import ServerState
from websockets.protocol import State

from gateway.budget import ByteBudget
from gateway.errors import CloseCode
from gateway.transports import sockets
from gateway.transports.calls import WebSocketCall, connection_scope
from gateway.transports.frames import BINARY, PING, TEXT, header
from gateway.transports.reading import FRAME_COST, INVALID_DATA, NOT_UTF_8, FrameReader
from gateway.turnstile import Turnstile

WRITE_BUDGET = 131_072
"""Bytes written in one turn of the event loop; each frame counts `FRAME_COST` more."""

JOINED_BYTES = 65_536
"""Maximum payload that is copied so that it can be written together with others."""

ABNORMAL = 1006
"""Code of a connection that was lost without a close frame (RFC 6455, section 7.4.1)."""

_PING = header(PING, 0)


class WebSocketProtocol(FrameReader):
    """One connection, which is its own `Link`.

    It is created by one of uvicorn's protocols for HTTP, or by the gateway's own, once the head of
    a request is complete.

    Args:
        config: uvicorn's configuration; ``ws_max_size`` is the maximum message size,
            ``ws_ping_interval`` the heartbeat.
        server_state: uvicorn's state.
        app_state: State of the application's lifespan.
        budget: Accounts for buffered data, such as incomplete messages.
        turnstile: Limits the rate at which handshakes start.
        strangers: Used instead of `budget` until the client is authenticated.
        on_gone: See `gateway.transports.sockets.OnGone`.
    """

    __slots__ = (
        "_app_state",
        "_budget_inside",
        "_call",
        "_config",
        "_cut",
        "_end_code",
        "_heartbeat",
        "_is_finishing",
        "_on_answer",
        "_on_end",
        "_on_frame",
        "_on_gone",
        "_on_writable",
        "_room",
        "_server_state",
        "_turnstile",
        "_unsent_pong",
        "_write_paused",
        "can_write",
    )

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        budget: ByteBudget,
        turnstile: Turnstile,
        strangers: ByteBudget | None = None,
        on_gone: sockets.OnGone = sockets.nobody_waits,
    ) -> None:
        loop = _loop or asyncio.get_running_loop()
        super().__init__(loop, config.ws_max_size, strangers or budget)
        self._budget_inside = budget
        self._turnstile = turnstile
        self._on_gone = on_gone
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._call: WebSocketCall | None = None
        self._on_frame: Callable[[str | bytes], None] | None = None
        self._on_writable: Callable[[], None] | None = None
        self._on_end: Callable[[int], None] | None = None
        self._on_answer: Callable[[], None] | None = None
        self._is_finishing = False
        self._end_code: int | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._cut: asyncio.TimerHandle | None = None
        self.can_write = True
        self._write_paused = False
        self._room = WRITE_BUDGET
        self._unsent_pong = b""

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own does not derive from it
        self._connections.add(self)

    def eof_received(self) -> None:
        """Close soon: the client sends nothing more, but may still read what is unsent."""
        self._cut_later()

    def pause_writing(self) -> None:
        """Stop writing: the transport's buffer is full."""
        self._write_paused = True
        self.can_write = False
        if self._state is not State.CLOSED:
            self._unsent = self._transport.get_write_buffer_size()
            # Deferred: counting may close the connection, in the middle of writing a frame.
            self._loop.call_soon(self._count)

    def resume_writing(self) -> None:
        """Resume writing: the transport's buffer has room."""
        self._write_paused = False
        self._unsent = 0
        self._count()
        pong, self._unsent_pong = self._unsent_pong, b""
        if pong and self._state is State.OPEN:
            self._transport.write(pong)
        if self._room > 0:
            self._tell_writable()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Clean up after the connection has closed."""
        self._connections.discard(self)
        self._end(ABNORMAL, "")
        self._dispose()
        self._on_gone()

    # Called by uvicorn

    @property
    def _connections(self) -> set[Any]:
        return cast(set[Any], self._server_state.connections)

    def shutdown(self) -> None:
        """Close, since the server stops."""
        if self._state is State.CONNECTING and self._call is not None:
            self._call.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "The server is restarting.\n")
        elif self._is_finishing:
            pass  # closes once the client has been sent everything
        elif self._state is State.OPEN:
            self.abandon(CloseCode.RESTARTING, "")
        else:
            self._transport.close()

    # Called by the application's call

    def _receive_early(self, data: bytes) -> None:
        """Handle the handshake's request; buffer what arrives before it is answered."""
        if self._call is not None:
            self._keep(data)
            self._pause_reading()
            return
        head, blank, self._buffer = data.partition(b"\r\n\r\n")
        scope = connection_scope(self._transport, self._config)
        scope["state"] = self._app_state.copy()
        scope["scheme"] = "wss" if self._transport.get_extra_info("sslcontext") else "ws"
        self._call = WebSocketCall(self, self._config, scope)
        self._turnstile.enter(partial(self._run, self._call, head + blank))

    def _run(self, call: WebSocketCall, request: bytes) -> None:
        """Call the application."""
        if self._transport.is_closing():
            return
        task = self._loop.create_task(call.run(request))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def accept(self, answer: bytes) -> None:
        """Open the connection: the application has accepted the handshake."""
        if self._transport.is_closing():
            return
        self._transport.write(answer)
        self._state = State.OPEN
        self._last_seen = self._loop.time()
        if self._config.ws_ping_interval:
            self._check_alive(self._config.ws_ping_interval)
        self.read_on()

    def refuse(self, answer: bytes) -> None:
        """Refuse the handshake with this HTTP response."""
        if not self._transport.is_closing():
            self._transport.write(answer)
            self._half_close(ABNORMAL, "")

    def end_call(self, code: CloseCode) -> None:
        """Close, unless the application has taken the frames, now that its call has ended."""
        if self._call is not None:
            self.close(code, "")
            self._cut_later()
            self._call = None

    # Link

    @property
    def is_open(self) -> bool:
        """See `Link.is_open`."""
        return self._end_code is None

    def take_frames(
        self,
        on_frame: Callable[[str | bytes], None],
        on_writable: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        """See `Link.take_frames`."""
        assert self._call is not None  # noqa: S101 - the call itself calls this
        self.admit()
        call, self._call = self._call, None
        for message in call.take():
            if message["type"] == "websocket.receive":
                text = message.get("text")
                on_frame(message["bytes"] if text is None else text)
        if self._end_code is not None:
            self._loop.call_soon(on_end, self._end_code)
            return
        self._on_frame, self._on_writable, self._on_end = on_frame, on_writable, on_end
        self.read_on()

    def write_frames(self, frames: Iterable[str | bytes], *, text: bool) -> None:
        """See `Link.write_frames`."""
        transport = self._transport
        if self._state is not State.OPEN or transport.is_closing():
            return
        joined: list[bytes] = []
        spent = 0
        for frame in frames:
            if isinstance(frame, str):
                payload, first = frame.encode(), TEXT
            else:
                payload, first = frame, TEXT if text else BINARY
            size = len(payload)
            joined.append(header(first, size))
            if size <= JOINED_BYTES:
                joined.append(payload)
            else:
                transport.writelines((b"".join(joined), payload))
                joined = []
                spent += size
        if joined:
            data = b"".join(joined)
            transport.write(data)
            spent += len(data) + len(joined) // 2 * FRAME_COST
        room = self._room = self._room - spent
        if room <= 0 < room + spent:
            self.can_write = False
            self._loop.call_soon(self._write_on)

    def admit(self) -> None:
        """See `Link.admit`."""
        if self._budget is not self._budget_inside:
            self._budget.change(self, 0)
            self._budget = self._budget_inside
            self._count()

    def finish(self) -> None:
        """See `Link.finish`."""
        self._is_finishing = True

    def close(self, code: int, reason: str, on_answer: Callable[[], None] | None = None) -> None:
        """See `Link.close`."""
        self._is_finishing = False
        # Wait for the peer's close frame: a socket that is closed with unread data is reset, and
        # what was sent last may be lost.
        if self._send_close(code, reason):
            self._on_answer = on_answer
            self._cut_later()

    def abandon(self, code: int, reason: str) -> None:
        """See `Link.abandon`."""
        self._is_finishing = False
        if self._send_close(code, reason):
            self._cut_later()
            self._state = State.CLOSED
            self._unsent = 0  # about to be freed
            self._discard()
            self._transport.close()

    def give_back(self) -> None:
        """Close to free memory: most of it is unread by the client, or an incomplete message."""
        if self._unsent:
            self.abandon(CloseCode.TOO_SLOW, "too slow")
        else:
            self.abandon(CloseCode.TOO_MANY, "no room for this message")

    # Received frames

    def _deliver(self, payload: bytes, *, text: bool) -> None:
        """Pass a message on."""
        if not text:
            message: str | bytes = payload
        else:
            try:
                message = payload.decode()
            except UnicodeDecodeError:
                self._fail(INVALID_DATA, NOT_UTF_8)
                return
        if self._on_frame is not None:
            self._on_frame(message)
        elif self._call is not None:
            self._behind = True
            kind = "text" if text else "bytes"
            self._call.deliver({"type": "websocket.receive", kind: message})

    def _answered(self) -> None:
        """Report that the client has answered the close."""
        if self._on_answer is not None:
            self._loop.call_soon(self._on_answer)

    def _answer(self, pongs: list[bytes]) -> None:
        """Answer pings; only the newest if the client doesn't read (RFC 6455, 5.5.3)."""
        if self._write_paused:
            self._unsent_pong = pongs[-1]
        else:
            self._transport.write(b"".join(pongs))

    # Closing

    def _send_close(self, code: int, reason: str) -> bool:
        """Send a close frame; return False if the connection is already closing."""
        if self._state is not State.OPEN or self._transport.is_closing():
            return False
        checker = self._start_checker()
        checker.send_close(code, reason)
        self._send(checker)
        self._state = State.CLOSING
        self._end(code, reason)
        return True

    def _half_close(self, code: int, reason: str, unread: int = 0) -> None:
        """Stop writing, and wait for the peer to close."""
        self._state = State.CLOSED
        self._end(code, reason)
        self._dispose()
        self._connections.discard(self)
        if not self._transport.is_closing():
            sockets.HalfClosed(self._transport, self._connections, self._on_gone, unread)

    def _end(self, code: int, reason: str) -> None:
        """Tell the application that no more frames will arrive."""
        if self._end_code is not None:
            return
        self._end_code = code
        self.can_write = False
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            self._heartbeat = None
        if self._call is not None:
            self._call.end(code, reason)
        elif self._on_end is not None:
            # Deferred: the connection's user may be what called this.
            self._loop.call_soon(self._on_end, code)
        self._on_frame = self._on_writable = self._on_end = None

    def _dispose(self) -> None:
        """Break reference cycles that would keep a session and its log until garbage collection."""
        self._state = State.CLOSED
        self._unsent = 0
        self._on_answer = None
        self._discard()
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None

    def _cut_later(self) -> None:
        """Cut the connection after a timeout, since a close waits for the buffer to empty."""
        if self._cut is None and self._state is not State.CLOSED:
            self._cut = self._loop.call_later(sockets.CLOSE_SECONDS, self._transport.abort)

    # Writing

    def _write_on(self) -> None:
        """Renew the budget for writing, in the next turn of the event loop."""
        self._room = WRITE_BUDGET
        if not self._write_paused:
            self._tell_writable()

    def _tell_writable(self) -> None:
        if self._end_code is not None:
            return
        self.can_write = True
        if self._call is not None:
            self._call.resume_writing()
        elif self._on_writable is not None:
            self._on_writable()

    # The heartbeat

    def _check_alive(self, interval: float, pinged: float | None = None) -> None:
        """Ping after a silent heartbeat interval, and close after another.

        Args:
            interval: The heartbeat interval in seconds.
            pinged: Time of a ping that was unanswered when this was scheduled.
        """
        now = self._loop.time()
        due = self._last_seen + interval
        # uvloop's clock counts milliseconds. What arrived in the ping's own came after it: a client
        # is only pinged if it sent nothing for a whole interval before.
        if pinged is not None and self._last_seen < pinged:
            self.abandon(CloseCode.SILENT, "silent")
            return
        if due > now:
            pinged = None
        else:  # this may run late, long after the answer to the last ping
            self._transport.write(_PING)
            pinged, due = now, now + interval
        self._heartbeat = self._loop.call_at(due, self._check_alive, interval, pinged)
