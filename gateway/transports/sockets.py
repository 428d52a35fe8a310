"""What connections of every kind have in common: how much they do at once, and how they end."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

CLOSE_SECONDS = 10.0
"""How long a closed connection may take to go before it is cut."""

READ_BYTES = 65_536
"""What comes in larger pieces is read in one turn of the event loop, and the next in another."""

HANDSHAKES = 2
"""How many WebSockets are taken in one turn of the event loop: each takes half a millisecond, and a
message that comes in meanwhile needs several turns until it is answered."""
KEEPALIVE_SECONDS = 60
"""How long a connection may be silent before the system asks whether its peer is there: who waits
for a reply may wait for an hour, and what is in between forgets silent connections."""

OnGone = Callable[[], None]
"""Called once when a connection's socket is gone, whatever it was at the end."""


def nobody_waits() -> None:
    """An `OnGone` that does nothing."""


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Have the system show signs of life on a connection (RFC 9293, section 3.8.4)."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):  # it is gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):  # macOS has another name, and two hours
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)


class HalfClosed(asyncio.Protocol):
    """A connection on which nothing more is written, until its peer has closed it too.

    A socket that is closed with bytes unread is reset, and what was written last may be lost with
    it (RFC 9112, section 9.6). So what still comes is read and thrown away.

    Args:
        transport: The connection's; this becomes its protocol.
        connections: uvicorn's; this is one of them.
        on_gone: See `OnGone`.
        unread: How many bytes the peer is in the middle of sending: it is let finish, since
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
        """Throw it away, at the pace of the event loop."""
        if len(data) >= READ_BYTES:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._transport.resume_reading)
        if 0 < self._unread <= len(data):
            self._half_close()
        self._unread -= len(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It is gone; there is nothing to cut."""
        self._timer.cancel()
        self._connections.discard(self)
        self._on_gone()

    def shutdown(self) -> None:
        """Called by uvicorn when the server stops."""
        self._transport.close()
