"""A cable that breaks at a named place: it knows the messages that pass through it.

`Proxy` counts bytes; a cable counts WebSocket messages, or the requests and replies of HTTP. So a
test can say where in a conversation it is cut, whatever the sizes.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from websockets.frames import Opcode

from tests.support.listener import Listener
from tests.support.proxy import Way, connect, reset

Where = Literal["before", "middle", "after"]
Pieces = AsyncGenerator[tuple[str, bytes], None]


class Break(Struct, frozen=True):
    """Where the cable breaks, and how.

    Attributes:
        way: ``up`` to the server, or ``down`` from it.
        what: The kind of piece, such as ``message.delta``.
        where: ``before`` it, in its ``middle``, or ``after`` it.
        number: Which of its kind, from 0, since this break is the next.
        how: See `tests.support.proxy.Fault`.
    """

    way: Way
    what: str
    where: Where = "before"
    number: int = 0
    how: Literal["cut", "reset", "stall"] = "cut"


Reader = Callable[[asyncio.StreamReader, Way, deque[str]], Pieces]
"""Takes one direction of a connection apart; the deque is both directions' own."""


class Cable:
    """Passes connections on; the first break that waits happens on whichever gets to its place.

    Args:
        url: Where it leads.
        pieces: Takes a stream apart.
    """

    def __init__(self, url: str, pieces: Reader) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._scheme = parts.scheme
        self._pieces = pieces
        self._listener = Listener(self._serve)
        self._passed: Counter[tuple[Way, str]] = Counter()
        self.breaks: deque[Break] = deque()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self._scheme}://127.0.0.1:{self._listener.port}"

    def prepare(self, *breaks: Break) -> None:
        """Break there, one after the other."""
        self.breaks.extend(breaks)
        self._passed.clear()

    async def plug(self) -> None:
        """Take connections, at the same address each time."""
        await self._listener.open()

    async def unplug(self) -> None:
        """End every connection and refuse others."""
        self._listener.cut()
        await self._listener.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end: Callable[[asyncio.StreamWriter], None] = asyncio.StreamWriter.close
        try:
            up_reader, up_writer = await connect(self._target)
            shared: deque[str] = deque()
            ways = [
                asyncio.create_task(self._pass(reader, up_writer, "up", shared)),
                asyncio.create_task(self._pass(up_reader, writer, "down", shared)),
            ]
            try:
                ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                if any(isinstance(way.exception(), ConnectionResetError) for way in ended):
                    end = reset
            finally:
                end(up_writer)  # before anything is awaited, and so can be cancelled
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            end(writer)

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Way, shared: deque[str]
    ) -> None:
        async with aclosing(self._pieces(source, way, shared)) as pieces:
            async for what, data in pieces:
                number = self._passed[way, what]
                self._passed[way, what] += 1
                here = self.breaks[0] if self.breaks else None
                if here is None or (here.way, here.what, here.number) != (way, what, number):
                    sink.write(data)
                    await sink.drain()
                    continue
                self.breaks.popleft()
                self._passed.clear()
                passes = {"before": 0, "middle": len(data) // 2, "after": len(data)}[here.where]
                sink.write(data[:passes])
                await sink.drain()
                if here.how == "stall":
                    await asyncio.Event().wait()
                if here.how == "reset":
                    raise ConnectionResetError
                return


async def messages(source: asyncio.StreamReader, way: Way, shared: deque[str]) -> Pieces:
    """The handshake, then each WebSocket message by its type."""
    del way, shared
    try:
        yield "handshake", await source.readuntil(b"\r\n\r\n")
        while True:
            head = await source.readexactly(2)
            length = head[1] & 0x7F
            if length >= 126:
                head += await source.readexactly(2 if length == 126 else 8)
                length = int.from_bytes(head[2:])
            mask = await source.readexactly(4) if head[1] & 0x80 else b""
            body = await source.readexactly(length)
            payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(body)) if mask else body
            yield _type_of(head[0] & 0x0F, payload), head + mask + body
    except (asyncio.IncompleteReadError, OSError):
        return


def _type_of(opcode: int, payload: bytes) -> str:
    message: dict[str, Any]
    if opcode == Opcode.TEXT:
        message = json.loads(payload)
    elif opcode == Opcode.BINARY:
        message = msgspec.msgpack.decode(payload)
    else:
        return Opcode(opcode).name.lower()
    return str(message["type"])


async def calls(source: asyncio.StreamReader, way: Way, asked: deque[str]) -> Pieces:
    """Calls of the platform: ``turn``, or ``control`` for what opens and closes sessions.

    Each is followed the other way by the head of its reply, ``turn begin``, and by its body: ``turn
    reply``, or each ``turn part`` where it is streamed.
    """
    try:
        while True:
            head = await source.readuntil(b"\r\n\r\n")
            fields = dict(
                field.lower().split(b": ", 1) for field in head.split(b"\r\n")[1:] if field
            )
            body = await source.readexactly(int(fields.get(b"content-length", 0)))
            if way == "up":
                asked.append("control" if b'"requestType"' in body else "turn")
                yield asked[-1], head + body
                continue
            name = asked.popleft()
            yield f"{name} begin", head
            if b"transfer-encoding" not in fields:
                yield f"{name} reply", body
                continue
            size = -1
            while size:
                first = await source.readuntil(b"\r\n")
                size = int(first, 16)
                yield f"{name} part", first + await source.readexactly(size + 2)
    except (asyncio.IncompleteReadError, OSError):
        return


@asynccontextmanager
async def cable_to(url: str, pieces: Reader) -> AsyncIterator[Cable]:
    """A cable to this address, until the context ends."""
    cable = Cable(url, pieces)
    await cable.plug()
    try:
        yield cable
    finally:
        await cable.unplug()
