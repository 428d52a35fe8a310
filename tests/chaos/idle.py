"""A process of clients that have a session each, say nothing, and come back when they are cut off.

``python -m tests.chaos.idle PORT OTHER COUNT``: all connect to the first port, and say so in a
line; when all have come back at the other one, that is told in another, by the clock of all
processes. They know the protocol's text alone, and as little of it as will do.
"""

import asyncio
import json
import random
import struct
import sys
import time
from collections import Counter
from typing import Any, cast

import uvloop

from tests.support.handshakes import handshake

AT_ONCE = 100
"""How many connect at once at first."""

SPREAD_SECONDS = 0.5
"""Within which all come back that were cut off at once."""

KNOCKING = 500
"""How many of this process's clients wait for a handshake at once: where more come in a moment than
a listening socket's queue holds, the kernel has each wait for seconds, up to 15, before it tries
again, and that would be all there is to measure.
"""

WAIT_SECONDS = (0.5, 1.0)
"""How long one waits before it tries again."""

_GOES_ON = 0x80


class Client(asyncio.Protocol):
    """One client, over one connection after the other.

    Args:
        crowd: All of them.
    """

    _transport: asyncio.Transport

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._received = bytearray()
        self._upgraded = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.upgraded = asyncio.Event()
        self.session = self.key = ""
        self.last = 0
        self.resumed_at: float | None = None
        self.code = 0
        self.wrong = ""

    async def connect(self, port: int) -> None:
        """Connect, whatever comes of it."""
        self._received.clear()
        self._upgraded, self.code = False, 0
        self.upgraded.clear()
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        except OSError:
            self.connection_lost(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(handshake("v1.json.session-gateway", path="/ws"))

    def data_received(self, data: bytes) -> None:
        """Take whole frames."""
        received = self._received
        received += data
        if not self._upgraded:
            end = received.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            if not received.startswith(b"HTTP/1.1 101 "):
                self._transport.abort()
                return
            del received[:end]
            self._upgraded = True
            self.upgraded.set()
            self._open()
        while len(received) >= 2:
            opcode, size, start = received[0] & 15, received[1], 2
            if size == 126:
                size, start = struct.unpack_from("!H", received, 2)[0], 4
            if len(received) < start + size:
                return
            payload = bytes(received[start : start + size])
            del received[: start + size]
            self._take(opcode, payload)

    def _open(self) -> None:
        opening: dict[str, Any] = {"type": "session.open"}
        if self.session:
            opening |= {"session_id": self.session, "resume_key": self.key, "last_event": self.last}
        self._send(1, json.dumps(opening).encode())

    def _send(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([_GOES_ON | size]) if size < 126 else struct.pack("!BH", 254, size)
        # A mask of zeros is as good as any where nobody looks on.
        self._transport.write(bytes([_GOES_ON | opcode]) + length + bytes(4) + payload)

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:
            self._send(10, payload)
        elif opcode == 8:
            self.code = int.from_bytes(payload[:2], "big")
            self._send(8, payload[:2])
        elif opcode == 1:
            self._hear(json.loads(payload))

    def _hear(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "session.opened" if not self.session:
                self.session, self.key = message["session_id"], message["resume_key"]
                self.last = message["event"]
                self.opened.set_result(None)
            case "session.resumed" if message["session_id"] == self.session:
                if message["lost"] is not None or message["last_event"] != self.last:
                    self.wrong = f"resumed with {message}"
                self.key = message["resume_key"]
                self.resumed_at = time.monotonic()
                self._crowd.resumed()
            case "error":
                self._crowd.counts[message["code"]] += 1
            case kind:
                self.wrong = f"hears {kind}"

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """See `asyncio.Protocol`."""
        self.upgraded.set()
        self._crowd.lost(self)


class Crowd:
    """All clients of this process.

    Args:
        port: Where they are at first.
        other: Where they come back.
        count: How many they are.
    """

    def __init__(self, port: int, other: int, count: int) -> None:
        self.counts: Counter[str] = Counter()
        self._port = port
        self._other = other
        self._left = count
        self._all_there = False
        self._knocking = asyncio.Semaphore(KNOCKING)
        self.over = asyncio.Event()
        self._clients: list[Client] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def gather(self) -> None:
        """Let them all open a session."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one() -> None:
            async with places:
                client = Client(self)
                self._clients.append(client)
                await client.connect(self._port)
                await client.opened

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._left):
                tasks.create_task(one())
        self._all_there = True

    def lost(self, client: Client) -> None:
        """A client has no connection: let it come back."""
        self.counts[f"closed with {client.code}" if client.code else "cut off"] += 1
        if not self._all_there:
            client.opened.cancel()
            return
        first = client.resumed_at is None and not client.code
        pause = random.uniform(0, SPREAD_SECONDS) if first else random.uniform(*WAIT_SECONDS)
        task = asyncio.create_task(self._come_back(client, pause))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _come_back(self, client: Client, pause: float) -> None:
        await asyncio.sleep(pause)
        async with self._knocking:
            self.counts["connects"] += 1
            await client.connect(self._other)
            await client.upgraded.wait()

    def resumed(self) -> None:
        """A client has its session again."""
        self._left -= 1
        if not self._left:
            self.over.set()

    def told(self) -> dict[str, Any]:
        """What there is to tell."""
        return {
            "resumed": sorted(each.resumed_at or 0.0 for each in self._clients),
            "counts": self.counts,
            "wrong": [each.wrong for each in self._clients if each.wrong][:10],
        }


async def main(port: int, other: int, count: int) -> None:
    """Do it."""
    crowd = Crowd(port, other, count)
    await crowd.gather()
    print("opened", flush=True)  # noqa: T201
    await crowd.over.wait()
    print(json.dumps(crowd.told()), flush=True)  # noqa: T201
    await asyncio.sleep(3600)


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:])))
