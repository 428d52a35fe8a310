"""An attacker's end of a connection: bytes out as they are, and what came of it."""

import asyncio
import contextlib
import json
from struct import Struct
from typing import Any, cast

import msgspec

from tests.support.handshakes import handshake

JSON = "v1.json.session-gateway"
MSGPACK = "v1.msgpack.session-gateway"

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, MASKED = 0x80, 0x80
NO_MASK = b"\0\0\0\0"

_16, _64 = Struct("!BBH"), Struct("!BBQ")


def head_of(first: int, size: int) -> bytes:
    """Of a client's frame, whose mask changes nothing (RFC 6455, section 5.2)."""
    if size < 126:
        return bytes((first, MASKED | size)) + NO_MASK
    if size < 65_536:
        return _16.pack(first, MASKED | 126, size) + NO_MASK
    return _64.pack(first, MASKED | 127, size) + NO_MASK


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame."""
    return head_of(opcode | FIN * fin, len(payload)) + payload


def text(**message: Any) -> bytes:
    """The frame of a JSON message."""
    return frame(TEXT, msgspec.json.encode(message))


def binary(**message: Any) -> bytes:
    """The frame of a MessagePack message."""
    return frame(BINARY, msgspec.msgpack.encode(message))


class Gone(Exception):
    """The gateway has closed the connection, or is about to."""


class Peer(asyncio.Protocol):
    """A connection. What is received is looked through for what it says of the connection's end.

    Args:
        reads: Whether anything is received at all.
    """

    def __init__(self, *, reads: bool = True) -> None:
        self.transport: asyncio.Transport
        self.status: int | None = None
        self.close_code: int | None = None
        self.first: Any = None
        self._reads = reads
        self._buffer = bytearray()
        self._lost = False
        self._told = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    @property
    def gone(self) -> bool:
        """Whether it has been closed."""
        return self._lost or self.close_code is not None

    @property
    def answer(self) -> str:
        """What has come of it."""
        if self.close_code is not None:
            return str(self.close_code)
        if self.status not in {None, 101}:
            return f"HTTP {self.status}"
        return "cut" if self._lost else "open"

    # Of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self.transport = cast(asyncio.Transport, transport)
        if not self._reads:
            self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """See what has come."""
        self._buffer += data
        if self.status is None:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self.status = int(head.split(maxsplit=2)[1])
            self._buffer = rest
        if self.status == 101:
            self._see_frames()
        else:
            self._buffer.clear()
        self._told.set()

    def _see_frames(self) -> None:
        at, data = 0, self._buffer
        while at + 2 <= len(data):
            begin, size = at + 2, data[at + 1]
            if size >= 126:
                begin += 2 if size == 126 else 8
                size = int.from_bytes(data[at + 2 : begin], "big")
            if begin + size > len(data):
                break
            if data[at] & 0x0F == CLOSE:
                self.close_code = int.from_bytes(data[begin : begin + 2], "big")
            elif self.first is None and data[at] & 0x0F in {TEXT, BINARY}:
                payload = bytes(data[begin : begin + size])
                is_text = data[at] & 0x0F == TEXT
                self.first = json.loads(payload) if is_text else msgspec.msgpack.decode(payload)
            at = begin + size
        del data[:at]

    def pause_writing(self) -> None:
        """There is no room."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """There is room again."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """It has been closed."""
        self._lost = True
        self._writable.set()
        self._told.set()

    # For attacks

    async def send(self, data: bytes) -> None:
        """Write, and wait for room.

        Raises:
            Gone: The connection is closed.
        """
        if self.gone or self.transport.is_closing():
            raise Gone
        self.transport.write(data)
        await self._writable.wait()

    async def told(self) -> None:
        """Wait for the next of what the gateway says, or for the end."""
        self._told.clear()
        if not self._lost:
            await self._told.wait()

    async def upgraded(self, path: str, *headers: str, subprotocol: str | None = JSON) -> None:
        """Become a WebSocket.

        Raises:
            Gone: It is refused.
        """
        await self.send(handshake(subprotocol, *headers, path=path))
        while self.status is None:
            await self.told()
            if self.gone:
                raise Gone
        if self.status != 101:
            raise Gone

    async def opened(self) -> Any:
        """Wait for the first message; it is ``session.opened``, if all is well."""
        while self.first is None:
            if self.gone:
                raise Gone
            await self.told()
        return self.first

    async def closed(self) -> None:
        """Wait for the end."""
        while not self.gone:
            await self.told()

    def abort(self) -> None:
        """Close without a word."""
        with contextlib.suppress(AttributeError):
            self.transport.abort()
