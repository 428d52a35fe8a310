"""A uvicorn server that lets the gateway drain its sessions before it closes connections."""

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import uvicorn


class DrainingServer(uvicorn.Server):
    """A server that drains all sessions before it stops.

    Args:
        config: uvicorn's configuration.
        drain: Drains all sessions.
        ready: Called when the server accepts connections.
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
        """Leave signals to the code that runs the server."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and call `ready`."""
        await super().startup(sockets)
        self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, drain, then close the remaining connections."""
        for server in self.servers:
            server.close()
        await self._drain()
        await super().shutdown(sockets)
