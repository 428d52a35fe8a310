"""A gateway that plays a script: a real WebSocket server which says exactly what a test wants.

It stands for the real one at the moments that a test can't bring about there.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.support.client import JSON, MSGPACK, Message, in_time

LIMITS = {"message_bytes": 100_000, "queued_messages": 16, "resume_seconds": 60.0}


class Peer:
    """One connection, seen from the gateway."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.received: list[Message] = []

    async def receive(self) -> Message:
        """The client's next message."""
        frame = await in_time(self.socket.recv())
        message: Message = (
            json.loads(frame) if isinstance(frame, str) else msgspec.msgpack.decode(frame)
        )
        self.received.append(message)
        return message

    async def expect(self, kind: str, **fields: Any) -> Message:
        """The client's next message but for acknowledgements; it must be this one."""
        while (message := await self.receive())["type"] == "event.ack" and kind != "event.ack":
            pass
        assert message["type"] == kind, message
        assert fields.items() <= message.items(), message
        return message

    async def say(self, kind: str, **fields: Any) -> None:
        """Send a message."""
        message = {"type": kind, **fields}
        if self.socket.subprotocol == MSGPACK:
            await self.socket.send(msgspec.msgpack.encode(message))
        else:
            await self.socket.send(json.dumps(message))

    async def open(self, session: str = "s1", key: str = "k1", **limits: Any) -> None:
        """Take ``session.open`` and open a session."""
        await self.expect("session.open")
        await self.opened(session, key, **limits)

    async def opened(self, session: str = "s1", key: str = "k1", **limits: Any) -> None:
        """Say that a session is there."""
        await self.say(
            "session.opened",
            event=1,
            session_id=session,
            resume_key=key,
            expires_at="2027-01-15T08:20:00Z",
            route="chat",
            limits={**LIMITS, **limits},
            heartbeat_seconds=30.0,
        )

    async def resume(
        self, last_event: int, newest: int, key: str = "k1", lost: list[int] | None = None
    ) -> None:
        """Take a ``session.open`` that resumes with that key, and give another one."""
        await self.expect("session.open", session_id="s1", resume_key=key, last_event=last_event)
        await self.say(
            "session.resumed",
            session_id="s1",
            resume_key=f"{key}'",
            expires_at=None,
            last_event=newest,
            lost=lost,
        )

    async def accept(self, event: int, **fields: Any) -> str:
        """Take a message and accept it; its id."""
        message = await self.expect("message.send", **fields)
        await self.say("message.accepted", event=event, id=message["id"], queued=0)
        return str(message["id"])

    async def delta(self, event: int, message_id: str, index: int, text: str) -> None:
        """Say a part of a reply."""
        await self.say("message.delta", event=event, id=message_id, index=index, text=text)

    async def done(self, event: int, message_id: str, **fields: Any) -> None:
        """End a turn."""
        message = {"status": "completed", "deltas": 0, "duration_ms": 1, **fields}
        await self.say("message.done", event=event, id=message_id, **message)

    async def end(self, event: int) -> None:
        """Take ``session.close``, say the last event, and close."""
        await self.expect("session.close")
        await self.say("session.closed", event=event, reason="client")
        await self.socket.close(1000)

    async def heard(self) -> None:
        """Wait until the client has read all that was said."""
        await in_time(await self.socket.ping())

    def drop(self) -> None:
        """Cut the connection, as a cable does."""
        self.socket.transport.abort()


Scene = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def gateway(*scenes: Scene) -> AsyncIterator[str]:
    """The address of a gateway whose first connection plays the first scene, and so on.

    A scene that fails, a connection too many and a scene that is never played fail the test. The
    end of a scene cuts its connection.
    """
    left = list(scenes)
    failures: list[BaseException] = []

    async def play(socket: ServerConnection) -> None:
        peer = Peer(socket)
        try:
            assert left, "a connection too many"
            await left.pop(0)(peer)
        except ConnectionClosed as error:
            failures.append(error)
        except (AssertionError, TimeoutError) as error:
            failures.append(error)
            await socket.close(4400, "not in the script")
        else:
            peer.drop()

    offered = [Subprotocol(JSON), Subprotocol(MSGPACK)]
    async with serve(play, "127.0.0.1", 0, subprotocols=offered, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/ws"
        server.close()
        await server.wait_closed()
    assert not failures, failures
    assert not left, f"{len(left)} scenes were not played"
