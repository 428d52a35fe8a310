"""TLS handshakes of connections that are counted from their start."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial

from gateway.transports.peers import Peers

HANDSHAKE_SECONDS = 10.0
"""Seconds that a TLS handshake may take."""


def encrypted(
    protocol: Callable[..., asyncio.BaseProtocol], context: ssl.SSLContext, peers: Peers
) -> Callable[..., asyncio.BaseProtocol]:
    """Return a protocol factory for connections with TLS.

    Args:
        protocol: The factory of their protocol; also takes `on_gone`, to call when a connection is
            closed.
        context: The TLS context.
        peers: Counts connections by address.
    """

    def begin(*args: object, **options: object) -> TlsHandshake:
        return TlsHandshake(partial(protocol, *args, **options), context, peers)

    return begin


class TlsHandshake(asyncio.Protocol):
    """A connection before its TLS handshake.

    asyncio's own server reports connections only after their handshake, so those in it, which take
    the most memory, could not be counted. This class takes the socket over from the server before
    anything is read.
    """

    def __init__(
        self,
        protocol: Callable[..., asyncio.BaseProtocol],
        context: ssl.SSLContext,
        peers: Peers,
    ) -> None:
        self._protocol = protocol
        self._context = context
        self._peers = peers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, and start its handshake."""
        address, *_ = transport.get_extra_info("peername") or [""]
        on_gone = self._peers.enter(address)
        if on_gone is not None:
            own = transport.get_extra_info("socket")
            taken = socket.fromfd(own.fileno(), own.family, own.type)
            self._task = asyncio.get_running_loop().create_task(self._encrypt(taken, on_gone))
        transport.abort()  # type: ignore[attr-defined]  # uvloop's transports have no useful base

    async def _encrypt(self, taken: socket.socket, on_gone: Callable[[], None]) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                partial(self._protocol, on_gone=on_gone),
                taken,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except OSError:  # includes `ssl.SSLError`; the socket is closed
            on_gone()
