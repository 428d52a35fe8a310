"""Connections that are to be encrypted, until they are."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import partial

from gateway.transports.peers import Peers

HANDSHAKE_SECONDS = 10.0
"""How long a TLS handshake may take."""


def encrypted(
    protocol: Callable[..., asyncio.BaseProtocol], context: ssl.SSLContext, peers: Peers
) -> Callable[..., asyncio.BaseProtocol]:
    """What makes a protocol of connections, for those that are to be encrypted.

    Args:
        protocol: Makes it, and is also told what to call when the connection is gone (`on_gone`).
        context: How they are encrypted.
        peers: Counts them by address.
    """

    def begin(*args: object, **options: object) -> TlsHandshake:
        return TlsHandshake(partial(protocol, *args, **options), context, peers)

    return begin


class TlsHandshake(asyncio.Protocol):
    """A connection whose handshake is yet to come.

    A server of asyncio's own tells of a connection when its handshake has ended. So nobody could
    count those that are at it, for whom there is the most memory. This one takes the socket out of
    the server's hands before anything is read.
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
        """Count it, and begin."""
        address, *_ = transport.get_extra_info("peername") or [""]
        on_gone = self._peers.enter(address)
        if on_gone is not None:
            own = transport.get_extra_info("socket")
            taken = socket.fromfd(own.fileno(), own.family, own.type)
            self._task = asyncio.get_running_loop().create_task(self._encrypt(taken, on_gone))
        transport.abort()  # type: ignore[attr-defined]  # uvloop's own derives from nothing better

    async def _encrypt(self, taken: socket.socket, on_gone: Callable[[], None]) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                partial(self._protocol, on_gone=on_gone),
                taken,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except OSError:  # of which `ssl.SSLError` is one; the socket is closed
            on_gone()
