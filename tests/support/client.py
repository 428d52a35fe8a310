"""A client that is not ours: the `websockets` library, and the protocol's JSON by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from tests.support.secrets import register
from tests.support.timing import UNIT

JSON = "v1.json.session-gateway"
MSGPACK = "v1.msgpack.session-gateway"

Message = dict[str, Any]


class Client:
    """One connection; every message that has come is kept."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[Message] = []

    async def send(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        message = {"type": kind, **fields}
        if self.socket.subprotocol == MSGPACK:
            await self.socket.send(msgspec.msgpack.encode(message))
        else:
            await self.socket.send(json.dumps(message))

    def send_at_once(self, *messages: Message) -> None:
        """Send JSON messages in one piece, so that the gateway has all before it answers any."""
        frames = (Frame(Opcode.TEXT, json.dumps(message).encode()) for message in messages)
        self.socket.transport.write(b"".join(frame.serialize(mask=True) for frame in frames))

    async def receive(self) -> Message:
        """The next message."""
        frame = await in_time(self.socket.recv())
        message: Message = (
            json.loads(frame) if isinstance(frame, str) else msgspec.msgpack.decode(frame)
        )
        if "resume_key" in message:
            register(message["resume_key"], "a resume key")
        self.messages.append(message)
        return message

    async def until(self, kind: str, **fields: Any) -> Message:
        """The next message of that type with those fields; what comes before is passed over."""
        while True:
            message = await self.receive()
            if message["type"] == kind and fields.items() <= message.items():
                return message

    async def open(self) -> Message:
        """Open a session."""
        await self.send("session.open")
        return await self.until("session.opened")

    async def ask(self, text: str, message_id: str | None = None, **fields: Any) -> Message:
        """Send one turn and wait for its end."""
        message_id = message_id or f"m{len(self.messages)}"
        await self.send("message.send", id=message_id, text=text, **fields)
        return await self.until("message.done", id=message_id)

    async def closed(self) -> tuple[int, str]:
        """Wait for the end of the connection; its code and reason."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed:
            assert self.socket.close_code is not None
            return self.socket.close_code, self.socket.close_reason or ""


async def in_time(awaitable: Any) -> Any:
    """What it gives, within the time that anything may take here."""
    async with asyncio.timeout(20 * UNIT):
        return await awaitable


@asynccontextmanager
async def client(
    url: str, *subprotocols: str, route: str = "", **options: Any
) -> AsyncIterator[Client]:
    """A connection to the gateway at that address; JSON unless said otherwise."""
    offered = [Subprotocol(name) for name in subprotocols or (JSON,)]
    path = f"/ws/{route}" if route else "/ws"
    options.setdefault("max_size", None)
    options.setdefault("open_timeout", 20 * UNIT)
    async with connect(url + path, subprotocols=offered, **options) as socket:
        yield Client(socket)


@asynccontextmanager
async def raw(url: str, route: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
    """A connection without a subprotocol."""
    options.setdefault("open_timeout", 20 * UNIT)
    async with connect(f"{url}/ws/{route}", **options) as socket:
        yield socket
