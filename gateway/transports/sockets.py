"""Limits and ends that connections of every kind share."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

CLOSE_SECONDS = 10.0
"""Seconds that a closed connection may take to end before it is cut."""

READ_BYTES = 65_536
"""Size of received data from which reading pauses until the next turn of the event loop."""

HANDSHAKES = 2
"""WebSocket handshakes in one turn of the event loop. Each takes half a millisecond, and a message
that arrives meanwhile takes several turns to be answered."""
KEEPALIVE_SECONDS = 60
"""Seconds of silence before the system probes whether the peer is alive: a reply may take an hour,
and middleboxes drop the state of silent connections."""

OnGone = Callable[[], None]
"""Called once when a connection's socket is closed, whichever protocol it had last."""


def nobody_waits() -> None:
    """An `OnGone` that does nothing."""


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Enable TCP keep-alives on a connection (RFC 9293, section 3.8.4)."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # the connection is already closed
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):  # macOS has another name; its default is two hours
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)


class HalfClosed(asyncio.Protocol):
    """A connection that is closed for writing, until its peer has closed it too.

    A socket that is closed with unread data is reset, and what was written last may be lost
    (RFC 9112, section 9.6). So whatever still arrives is read and discarded.

    Args:
        transport: Transport of the connection; this becomes its protocol.
        connections: uvicorn's connections; this becomes one of them.
        on_gone: See `OnGone`.
        unread: Bytes that the peer still has to send of a frame. They are read first, since
            asyncio's own transport can't be aborted (`AttributeError`) once it has written what it
            had when it was closed.
    """

    __slots__ = ("_connections", "_on_gone", "_timer", "_transport", "_unread")

    def __init__(
        self,
        transport: asyncio.Transport,
        connections: set[Any],
        on_gone: OnGone,
        unread: int = 0,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._transport = transport
        self._connections = connections
        self._on_gone = on_gone
        self._timer = loop.call_later(CLOSE_SECONDS, transport.abort)
        self._unread = unread
        connections.add(self)
        transport.set_protocol(self)
        transport.resume_reading()
        if unread <= 0:
            self._half_close()

    def _half_close(self) -> None:
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:  # TLS
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Discard received data, at the pace of the event loop."""
        if len(data) >= READ_BYTES:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._transport.resume_reading)
        if 0 < self._unread <= len(data):
            self._half_close()
        self._unread -= len(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Clean up after the connection has closed."""
        self._timer.cancel()
        self._connections.discard(self)
        self._on_gone()

    def shutdown(self) -> None:
        """Close; called by uvicorn when the server stops."""
        self._transport.close()
