"""A TCP server of a test's own, none of whose connections is left open."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from tests.support.timing import UNIT

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class Listener:
    """Closes each connection when its handler has ended, however that was.

    asyncio's own servers forget their handlers: one that a test's end cancels before it has begun,
    or for a second time while it cleans up, leaves its connection open.

    Args:
        serve: Handles a connection. It may raise what comes of a client that is gone.
    """

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._closed = False
        self._handlers: set[asyncio.Task[None]] = set()
        self._failures: list[Exception] = []
        self.port = 0

    async def open(self, tls: ssl.SSLContext | None = None) -> None:
        """Take connections, at the same port each time."""
        self._closed = False  # connections may come before the server is here
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # since this connection was made
            writer.close()
            return
        handler = asyncio.create_task(self._handle(reader, writer))
        handler.add_done_callback(lambda _: writer.close())
        handler.add_done_callback(self._handlers.discard)
        self._handlers.add(handler)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        except Exception as error:  # noqa: BLE001 - raised by `close`
            self._failures.append(error)

    def cut(self) -> None:
        """Cancel every handler."""
        for handler in self._handlers:
            handler.cancel()

    async def close(self) -> None:
        """Take no further connection, and wait for the handlers of those that there are.

        Raises:
            TimeoutError: They don't end.
            Exception: The first that a handler has raised.
        """
        assert self._server is not None
        self._closed = True
        self._server.close()
        async with asyncio.timeout(20 * UNIT):
            await asyncio.gather(*self._handlers, return_exceptions=True)
        if self._failures:
            raise self._failures[0]


@asynccontextmanager
async def listening(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server; leaving waits until all its connections have been handled."""
    listener = Listener(serve)
    await listener.open(tls)
    try:
        yield listener.port
    except BaseException:
        listener.cut()
        raise
    finally:
        await listener.close()
