"""uvicorn, with what the protocol asks of connections and uvicorn does not have.

Any frame, a ping or a pong too, is a sign of life, and two silent heartbeats end a connection
with 4408; an application sees no pings, so this is the place. A client that has stopped reading
can still be sent its close code and let go. And a server that stops lets the gateway bring its
sessions to an end before it closes what is left.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from struct import Struct
from typing import Any, Protocol, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, apply_mask  # type: ignore[attr-defined] # in C, if it can
from websockets.http11 import Request
from websockets.protocol import State

from gateway.errors import CloseCode

LINK = "session-gateway.link"
"""The name of the ASGI extension that gives a `Link`."""

TEXT, BINARY = 0x81, 0x82
"""The first byte of a frame that is a whole message."""

CONTROL = 0x08
"""The bit of a frame's first byte that says that it is no part of a message."""

MASKED = 0x80
"""The bit of a frame's second byte that every frame of a client has."""

HEADER_16, HEADER_64 = Struct("!BBH"), Struct("!BBQ")

JOINED_BYTES = 65_536
"""The largest payload that is copied to be written together with others."""

CLOSE_SECONDS = 10.0
"""How long a closed connection may take to go before it is cut."""


def _header(first: int, size: int) -> bytes:
    """Of a server's frame: whole, and not masked (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return HEADER_16.pack(first, 126, size)
    return HEADER_64.pack(first, 127, size)


def _extent(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Where the payload of the frame that begins there begins and ends.

    The end is past the data where the frame is not whole.
    """
    size = data[at + 1] & 0x7F if at + 1 < len(data) else 126
    begin = at + 2
    if size == 126:
        begin += 2
        size = int.from_bytes(data[at + 2 : begin], "big")
    elif size == 127:
        begin += 8
        size = int.from_bytes(data[at + 2 : begin], "big")
    if begin <= len(data) and data[at + 1] & MASKED:
        begin += 4
    return begin, begin + size if begin <= len(data) else len(data) + 1


class Link(Protocol):
    """An accepted WebSocket without a queue, a task and a coroutine between it and its user."""

    @property
    def can_write(self) -> bool:
        """Whether it takes more now; `take_frames` says when it does again."""
        ...

    def take_frames(
        self,
        on_frame: Callable[[str | bytes], None],
        on_writable: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        """Have frames handed over in place of ASGI's ``receive``, which then tells nothing more.

        The connection outlives the application's call, which is to return: what is needed for a
        handshake takes more memory than all else of an idle connection and its session.

        Args:
            on_frame: Takes each, at once for those that have come already. It does not raise.
            on_writable: Called when there is room to write again.
            on_end: Called once with the close code, when no frame comes any more.
        """
        ...

    def write_frames(self, frames: Iterable[str | bytes], *, text: bool) -> None:
        """Write frames, together where they are not large.

        Args:
            frames: Strings are text.
            text: Whether bytes are text too, in UTF-8.
        """
        ...

    def close(self, code: int, reason: str) -> None:
        """Close once what has been written is gone."""
        ...

    def abandon(self, code: int, reason: str) -> None:
        """Close without waiting for what is unsent."""
        ...


class _Flag:
    """An `asyncio.Event` for which nobody waits."""

    __slots__ = ("_set",)

    def __init__(self, value: bool) -> None:
        self._set = value

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False


class _End:
    """In place of the queue to an application that has returned: tells of the end."""

    __slots__ = ("_on_end", "_protocol")

    def __init__(self, protocol: "WebSocketProtocol", on_end: Callable[[int], None]) -> None:
        self._on_end = on_end
        self._protocol: WebSocketProtocol | None = protocol

    def put_nowait(self, message: Mapping[str, Any]) -> None:
        """Take a disconnect; the first is the one that counts."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.cut_later()  # a client that does not read would keep it for ever
            # Not at once: it may come of what its connection is doing at this moment.
            protocol.loop.call_soon(self._on_end, message["code"])
            del self._on_end  # which refers back to the protocol


class HttpProtocol(HttpToolsProtocol):
    """A connection that has not become a WebSocket."""

    def handle_websocket_upgrade(self) -> None:
        """Leave it to a `WebSocketProtocol`; drop the parser, which refers back to this."""
        super().handle_websocket_upgrade()
        del self.parser


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection, and its own `Link`. ``ws_ping_interval`` is the heartbeat."""

    on_frame: Callable[[str | bytes], None] | None = None
    on_writable: Callable[[], None] | None = None
    last_seen: float
    joined: bytearray
    cut_timer: asyncio.TimerHandle | None = None
    unsent_pong: bytes = b""
    partial: bytearray | None = None
    """The beginning of a frame that has not come whole."""

    def data_received(self, data: bytes) -> None:
        """Hand a message over that is in one frame; leave all others to websockets.

        It is given whole frames, so that it is never in the middle of one; but one that is too
        large at once, since it refuses it by its header. Control frames that follow one another
        are given together.
        """
        self.last_seen = self.loop.time()
        if not self.handshake_initiated:
            super().data_received(data)  # the request, and nothing but that
            return
        came: bytes | bytearray = data
        if self.partial is not None:
            self.partial += data
            came, self.partial = self.partial, None
        at = others = 0
        while at < len(came):
            begin, stop = _extent(came, at)
            fits = stop - begin <= self.config.ws_max_size
            if stop > len(came) and fits:
                break
            if not came[at] & CONTROL:
                self._pass_on(came, others, at)
                if self.conn.parser_exc is not None:
                    return
                if (
                    came[at] in (TEXT, BINARY)
                    and fits
                    and came[at + 1] & MASKED
                    and self._is_between_messages()
                ):
                    payload = apply_mask(memoryview(came)[begin:stop], came[begin - 4 : begin])
                    self.hand_over(payload, text=came[at] == TEXT)
                else:
                    self._pass_on(came, at, stop)
                others = stop
            at = stop
        self._pass_on(came, others, at)
        if at < len(came):
            self.partial = bytearray(came[at:]) if at or isinstance(came, bytes) else came

    def _pass_on(self, data: bytes | bytearray, begin: int, end: int) -> None:
        """Give frames to websockets."""
        if begin < end:
            super().data_received(bytes(data[begin:end]))

    def _is_between_messages(self) -> bool:
        return (
            self.on_frame is not None
            and not self.close_sent
            and self.conn.current_size is None  # no message is in the middle of its frames
            and self.conn.state is State.OPEN
        )

    def handle_connect(self, event: Request) -> None:
        """Give the application a shorter way than ASGI's."""
        self.joined = bytearray()
        super().handle_connect(event)
        if not self.close_sent:
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[LINK] = self

    @property
    def can_write(self) -> bool:
        """See `Link.can_write`."""
        return self.writable.is_set()

    def take_frames(
        self,
        on_frame: Callable[[str | bytes], None],
        on_writable: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        """See `Link.take_frames`."""
        self.on_frame, self.on_writable = on_frame, on_writable
        queue = self.queue
        self.queue = cast(Any, _End(self, on_end))
        self.writable = cast(Any, _Flag(self.writable.is_set()))
        self.request.headers.clear()  # the parser of what follows keeps them
        del self.request, self.response, self.scope
        while not queue.empty():
            message = queue.get_nowait()
            if message["type"] == "websocket.receive":
                text = message.get("text")
                on_frame(message["bytes"] if text is None else text)  # type: ignore[arg-type]
            else:
                self.queue.put_nowait(message)
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def send_receive_event_to_app(self) -> None:
        """Hand a message over."""
        if self.on_frame is None:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if not self.close_sent:
            self.hand_over(bytes(data), text=self.curr_msg_data_type == "text")

    def hand_over(self, payload: bytes, *, text: bool) -> None:
        """Give the application a message."""
        assert self.on_frame is not None  # noqa: S101 - looked at before
        if not text:
            self.on_frame(payload)
            return
        try:
            message = payload.decode()
        except UnicodeDecodeError:
            if self.conn.state is State.OPEN:
                self.conn.send_close(1007)
                self.handle_parser_exception()
            return
        self.on_frame(message)

    def write_frames(self, frames: Iterable[str | bytes], *, text: bool) -> None:
        """See `Link.write_frames`."""
        if self.close_sent or self.transport.is_closing():
            return
        if self.conn.state is not State.OPEN:
            return  # the peer is closing at the same time
        joined: list[bytes] = []
        for frame in frames:
            if isinstance(frame, str):
                payload, first = frame.encode(), TEXT
            else:
                payload, first = frame, TEXT if text else BINARY
            joined.append(_header(first, len(payload)))
            if len(payload) <= JOINED_BYTES:
                joined.append(payload)
            else:
                self.transport.write(b"".join(joined))
                self.transport.write(payload)
                joined = []
        if joined:
            self.transport.write(b"".join(joined))

    def close(self, code: int, reason: str) -> None:
        """See `Link.close`."""
        if not self.say_closed(code, reason):
            return
        # The peer's own close frame comes first: a socket closed with bytes unread is reset, and
        # what was sent last may be lost with it.
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.close)
        self.cut_later()

    def say_closed(self, code: int, reason: str) -> bool:
        """Tell the peer and the application; False where the connection is closing already."""
        if self.close_sent or self.transport.is_closing():
            return False
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        with contextlib.suppress(InvalidState):  # the peer is closing at the same time
            self.conn.send_close(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        return True

    def handle_ping(self) -> None:
        """Answer it; who does not read gets the newest answers only (RFC 6455, section 5.5.3)."""
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():
            self.transport.write(pong)
        else:
            self.unsent_pong = pong or self.unsent_pong

    def resume_writing(self) -> None:
        """There is room again."""
        super().resume_writing()
        pong, self.unsent_pong = self.unsent_pong, b""
        if pong and not self.close_sent:
            self.transport.write(pong)
        if self.on_writable is not None:
            self.on_writable()

    def handle_cont(self, event: Frame) -> None:
        """Join a message as it comes: kept apart, frames of a byte take many times their size."""
        if not self.joined:
            self.joined += self.frames[0]
        self.joined += event.data
        if event.fin:
            self.frames = [bytes(self.joined)]
            self.joined.clear()
            self.send_receive_event_to_app()

    def start_keepalive(self) -> None:
        """Begin to watch for silence."""
        self.last_seen = self.loop.time()
        self.await_sign(1)

    def await_sign(self, heartbeats: int) -> None:
        """Look again when the silence has lasted that long."""
        assert self.ping_interval is not None  # noqa: S101 - the gateway always sets it
        due = self.last_seen + heartbeats * self.ping_interval
        self.ping_timer = self.loop.call_at(due, self.look)

    def look(self) -> None:
        """Ping after one silent heartbeat, close after two."""
        assert self.ping_interval is not None  # noqa: S101
        self.ping_timer = None
        if self.close_sent or self.transport.is_closing():
            return
        heartbeats = (self.loop.time() - self.last_seen) / self.ping_interval
        if heartbeats >= 2:
            self.abandon(CloseCode.SILENT, "silent")
        elif heartbeats >= 1:
            self.conn.send_ping(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.await_sign(2)
        else:
            self.await_sign(1)

    def abandon(self, code: CloseCode, reason: str) -> None:
        """Send a close frame behind what is unsent, and cut the connection if it does not go."""
        if not self.say_closed(code, reason):
            return
        # A sender that waits for room would wait for as long as the client does not read.
        self.disconnected = True
        self.writable.set()
        self.transport.close()
        self.cut_later()

    def cut_later(self) -> None:
        """Cut the connection if it is still there after a while: a close waits for its buffer."""
        if self.cut_timer is None:
            self.cut_timer = self.loop.call_later(CLOSE_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone; there is nothing to cut."""
        super().connection_lost(exc)
        if self.cut_timer is not None:
            self.cut_timer.cancel()
        # So that no cycle holds its session, with all of its log, until the collector runs.
        self.on_frame = self.on_writable = None
        self.conn.parser.close()

    def eof_received(self) -> None:
        """The client sends nothing more; what is unsent may still go."""
        self.cut_later()

    def shutdown(self) -> None:
        """Close, unless the peer does so at the same time."""
        with contextlib.suppress(InvalidState):
            super().shutdown()

    async def run_asgi(self) -> None:
        """Run the application, and close the connection after it unless it has taken the frames."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except BaseException:
            self.logger.exception("Exception in ASGI application\n")
        self.send_500_response()  # where the handshake is not over
        if self.on_frame is None and self.close_timer is None:
            self.transport.close()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """The application has done with the connection."""
        super().on_task_complete(task)
        if self.on_frame is None and not self.disconnected:
            self.cut_later()


class Server(uvicorn.Server):
    """A uvicorn server that lets the gateway drain before it closes connections.

    Args:
        config: uvicorn's.
        drain: Brings all sessions to an end.
        ready: Called with the address when connections are taken.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[], Awaitable[None]],
        ready: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the server."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say so when it is up."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connection, drain, then close what is left."""
        for server in self.servers:
            server.close()
        await self._drain()
        await super().shutdown(sockets)
