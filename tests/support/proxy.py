"""A TCP proxy that breaks connections as it is told: between a client and the gateway, or between
the gateway and the platform.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator
from typing import Literal
from urllib.parse import urlsplit

from msgspec import Struct

from tests.support.listener import Listener

Way = Literal["up", "down"]


class Fault(Struct, frozen=True):
    """What happens to one connection.

    Attributes:
        way: Whose bytes are counted: those that go ``up`` to the server, or ``down`` from it.
        after: How many pass first.
        how: ``cut`` ends the connection in both directions, ``reset`` does so with a TCP reset,
            ``stall`` lets nothing pass any more in that direction, without a word.
        delay: Seconds that each piece waits, in both directions.
    """

    way: Way
    after: int
    how: Literal["cut", "reset", "stall"]
    delay: float = 0.0


class Proxy:
    """Passes connections on; the first fault that waits is the next connection's."""

    def __init__(self, url: str) -> None:
        self.lead_to(url)
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._path = parts.path
        self.listener = Listener(self._serve)
        self.faults: deque[Fault] = deque()
        self.connections = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self.listener.port}{self._path}"

    def lead_to(self, url: str) -> None:
        """Pass the connections on that come from now on to another address."""
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)

    def cut_all(self) -> None:
        """End every connection that there is."""
        self.listener.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        fault = self.faults.popleft() if self.faults else None
        end = reset if fault is not None and fault.how == "reset" else asyncio.StreamWriter.close
        try:
            up_reader, up_writer = await connect(self._target)
            passing = [
                asyncio.create_task(_pass(reader, up_writer, fault, "up")),
                asyncio.create_task(_pass(up_reader, writer, fault, "down")),
            ]
            try:
                await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
            finally:
                end(up_writer)  # before anything is awaited, and so can be cancelled
                for task in passing:
                    task.cancel()
                await asyncio.gather(*passing, return_exceptions=True)
        finally:
            end(writer)


async def _pass(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, fault: Fault | None, way: Way
) -> None:
    left = fault.after if fault is not None and fault.way == way else None
    while data := await source.read(65_536):
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        if left is not None:
            data, left = data[:left], left - len(data)
        sink.write(data)
        await sink.drain()
        if left is not None and left <= 0:
            assert fault is not None
            if fault.how == "stall":
                await asyncio.Event().wait()
            return


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(target: tuple[str | None, int | None]) -> Streams:
    """A connection to there; who is cancelled just when there is one leaves none behind."""
    connecting = asyncio.create_task(asyncio.open_connection(*target))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_close)
        raise


def _close(connecting: asyncio.Task[Streams]) -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result()[1].close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with a TCP reset."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    writer.transport.abort()


@contextlib.asynccontextmanager
async def proxy_to(url: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    """A proxy in front of this address, until the context ends."""
    proxy = Proxy(url)
    await proxy.listener.open(tls)
    try:
        yield proxy
    finally:
        proxy.cut_all()
        await proxy.listener.close()
