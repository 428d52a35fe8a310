"""A gateway that keeps a log, and a cable that is cut again and again, at every place there is."""

import asyncio
import itertools
from collections import Counter
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from gateway.client import connect
from tests.client.gateway import LIMITS, Peer
from tests.support.client import JSON, Message
from tests.support.timing import UNIT

TURNS = 4
PARTS = 3


class LoggingGateway:
    """One session, as the protocol has it; each connection is cut after so many frames.

    Args:
        cut: Frames, in and out, after which a connection is cut. Each further connection lasts a
            frame longer, so that all comes to an end.
    """

    def __init__(self, cut: int) -> None:
        self.invoked: Counter[str] = Counter()
        self.connections = 0
        self._cut = cut
        self._log: list[Message] = []
        self._keys = ["k0"]
        self._dead: set[str] = set()

    def emit(self, kind: str, **fields: Any) -> None:
        self._log.append({"type": kind, "event": len(self._log) + 1, **fields})

    async def serve(self, socket: ServerConnection) -> None:
        left = self._cut + self.connections
        self.connections += 1
        peer = Peer(socket)
        position = 0

        def count() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                peer.drop()
                raise ConnectionResetError

        async def receive() -> Message:
            message = await peer.receive()
            count()
            return message

        async def say(message: Message) -> None:
            count()
            await peer.say(
                **{"kind" if name == "type" else name: message[name] for name in message}
            )

        try:
            opening = await receive()
            if "session_id" in opening:
                assert opening["resume_key"] in self._keys
                assert opening["resume_key"] not in self._dead
                position = opening["last_event"]
                self._keys.append(f"k{len(self._keys)}")
                await say(
                    {
                        "type": "session.resumed",
                        "session_id": "s1",
                        "resume_key": self._keys[-1],
                        "expires_at": None,
                        "last_event": len(self._log),
                        "lost": None,
                    }
                )
            elif self._log:
                self._log.clear()
            if not self._log:
                self.emit(
                    "session.opened",
                    session_id="s1",
                    resume_key=self._keys[-1],
                    expires_at=None,
                    route="chat",
                    limits=LIMITS,
                    heartbeat_seconds=30.0,
                )
            while True:
                while position < len(self._log):
                    await say(self._log[position])
                    position += 1
                message = await receive()
                self._dead.update(self._keys[:-1])
                if message["type"] == "session.close":
                    await peer.say("session.closed", event=len(self._log) + 1, reason="client")
                    await socket.close(1000)
                    return
                if message["type"] == "message.send":
                    if message["id"] in self.invoked:
                        await say(
                            {
                                "type": "message.duplicate",
                                "id": message["id"],
                                "status": "completed",
                            }
                        )
                        continue
                    self.turn(message["id"])
        except (ConnectionClosed, ConnectionResetError):
            pass

    def turn(self, message_id: str) -> None:
        self.invoked[message_id] += 1
        self.emit("message.accepted", id=message_id, queued=0)
        for index in range(PARTS):
            self.emit("message.delta", id=message_id, index=index, text=f"{message_id}{index} ")
        self.emit("message.done", id=message_id, status="completed", deltas=PARTS, duration_ms=1)


@pytest.mark.parametrize("cut", range(1, 40))
async def test_every_reply_comes_whole_and_once(cut: int) -> None:
    model = LoggingGateway(cut)
    offered = [Subprotocol(JSON)]
    async with serve(model.serve, "127.0.0.1", 0, subprotocols=offered) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        url = f"ws://127.0.0.1:{port}/ws"
        waits = lambda: itertools.repeat(0.0)  # noqa: E731
        async with (
            asyncio.timeout(20 * UNIT),
            connect(url, delays=waits, close_timeout=0.1 * UNIT) as session,
        ):
            turns = [session.send("hi", id=f"{name}") for name in "abcd"[:TURNS]]
            for turn in turns:
                whole = [f"{turn.id}{index} " for index in range(PARTS)]
                assert [part async for part in turn] == whole
                reply = await turn
                assert reply.complete
                assert reply.text == "".join(whole)
    assert set(model.invoked.values()) == {1}
    assert model.connections > 1 or cut > 20
