"""A uvicorn server that lets the gateway drain its sessions before it closes connections."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn

HANDSHAKE_SECONDS = 10.0
"""How long a TLS handshake may take: before it has ended, no connection is counted."""


class DrainingServer(uvicorn.Server):
    """A server that brings all sessions to an end before it stops.

    Args:
        config: uvicorn's.
        drain: Brings all sessions to an end.
        ready: Called when connections are taken.
        encryption: How connections are encrypted; None for not at all.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[], Awaitable[None]],
        ready: Callable[[], None],
        encryption: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._ready = ready
        self._encryption = encryption

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the server."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections, and say so."""
        await super().startup([])  # it would wait a minute for a TLS handshake
        config, encryption = self.config, self._encryption
        protocol = partial(
            cast(Any, config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for listener in sockets or ():
            server = await asyncio.get_running_loop().create_server(
                protocol,
                sock=listener,
                backlog=config.backlog,
                ssl=encryption,
                ssl_handshake_timeout=None if encryption is None else HANDSHAKE_SECONDS,
            )
            self.servers.append(server)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connection, drain, then close what is left."""
        for server in self.servers:
            server.close()
        await self._drain()
        await super().shutdown(sockets)
