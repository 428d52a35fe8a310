"""SageMaker Runtime's side of connections, for models that do what no other does."""

import asyncio
import re
from collections.abc import Callable
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

LOOKED_AT = 40
"""How many bytes of a body are handed over: enough to tell what opens or closes a session, and
what a client of the chaos says."""


class Runtime(asyncio.Protocol):
    """One connection, kept alive, on which there is one request at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own does not derive from it

    def data_received(self, data: bytes) -> None:
        """Have a request answered when it is whole."""
        received = self._received
        received += data
        end = received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        length = _LENGTH.search(received, 0, end)
        if len(received) < end + int(length[1] if length else 0):
            return
        head, body = bytes(received[:end]), bytes(received[end : end + LOOKED_AT])
        received.clear()
        self.answer(head, body)

    def answer(self, head: bytes, body: bytes) -> None:
        """Answer a request.

        Args:
            head: All of it.
            body: How it begins.
        """
        raise NotImplementedError


async def serve(protocol: Callable[[], Runtime]) -> None:
    """Serve on any free port, and say which."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=4096)
    host, port = server.sockets[0].getsockname()
    print(f"listening on http://{host}:{port}", flush=True)  # noqa: T201
    await server.serve_forever()
