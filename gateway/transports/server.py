"""A uvicorn server that lets the gateway drain its sessions before it closes connections."""

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn


class DrainingServer(uvicorn.Server):
    """A server that brings all sessions to an end before it stops.

    Args:
        config: uvicorn's.
        drain: Brings all sessions to an end.
        ready: Called when connections are taken.
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
