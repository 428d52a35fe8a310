"""Many clients in one process, driven as the bench's are.

``python -m tests.load.crowd URL PID NICE``, where the second is the id of the gateway's process.
Each client sends its next turn when it is time, whether the one before is answered or not: so a
gateway that is slow is not asked less, and all of its slowness is measured.
"""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import msgspec
import picows
import uvloop

from tests.bench.load import ACK_EVERY, OPENING_AT_ONCE, WAYS

BODY = b"x" * 200
GRACE_SECONDS = 3.0
"""How long the last answers are waited for."""


LEAVE_SECONDS = 0.001
"""Between two that leave."""


class Gather(msgspec.Struct, tag="gather"):
    """Have so many more clients, each with an open session.

    Attributes:
        clients: How many.
        route: Where they connect.
        keys: Of whom they are, in turns.
    """

    clients: int
    route: str
    keys: list[str]


class Talk(msgspec.Struct, tag="talk"):
    """Send turns for a while.

    Attributes:
        seconds: How long.
        every: How often each client sends one, in seconds; None for never.
        newcomers: How many connect meanwhile, as fast as they can, and leave at the end.
    """

    seconds: float
    every: float | None
    newcomers: int = 0


class Part(msgspec.Struct, tag="part"):
    """Close the sessions, and the connections with them."""


Command = Gather | Talk | Part


class Turn(msgspec.Struct, array_like=True):
    """One turn.

    Attributes:
        sent: When, by the clock of this machine that is never set.
        seconds: How long it took; None where no answer has come.
        work: What the gateway has worked in the meantime, in seconds of its CPU time: this does
            not depend on what else the machine does.
        code: Why it failed, or was refused; None where it is completed.
    """

    sent: float
    work: float
    seconds: float | None = None
    code: str | None = None


class Told(msgspec.Struct):
    """What came of it.

    Attributes:
        turns: All of them.
        clients: How many have a session.
        closed: The close codes of connections, and how many there were of each.
    """

    turns: list[Turn]
    clients: int
    closed: dict[str, int]


class _Error(msgspec.Struct):
    code: str


class _Said(msgspec.Struct):
    type: str
    event: int = 0
    id: str | None = None
    code: str | None = None
    error: _Error | None = None


WAY = WAYS["json"]()
CLOSE = msgspec.json.encode({"type": "session.close"})
SAID = msgspec.json.Decoder(_Said)


class Client(picows.WSListener):
    """One connection."""

    def __init__(self, crowd: "Crowd") -> None:
        self.opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.transport: picows.WSTransport
        self.leaves = False
        self._crowd = crowd
        self._turns: dict[str, Turn] = {}
        self._sent = 0
        self._events = 0
        self._code: str | None = None

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Open a session."""
        self.transport = transport
        self._crowd.connected.add(self)
        transport.send(WAY.kind, WAY.opening)

    def on_ws_frame(self, _transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """A message, or the end."""
        if frame.msg_type is picows.WSMsgType.CLOSE:
            self._code = f"{frame.get_close_code():d}"
            self.transport.send_close(frame.get_close_code())
            return
        said = SAID.decode(frame.get_payload_as_memoryview())
        self._events = max(said.event, self._events)
        if said.type == "session.opened" and not self.opened.done():
            self.opened.set_result(True)
        elif said.type == "message.done":
            self._ended(said.id, None if said.error is None else said.error.code)
            if self._sent % ACK_EVERY == 0:
                self.transport.send(WAY.kind, WAY.ack(self._events))
        elif said.type == "error" and said.id is not None:
            self._ended(said.id, said.code)

    def _ended(self, message: str | None, code: str | None) -> None:
        turn = self._turns.pop(message or "", None)
        if turn is not None:
            turn.seconds = time.monotonic() - turn.sent
            turn.work = self._crowd.work() - turn.work
            turn.code = code

    def on_ws_disconnected(self, _transport: picows.WSTransport) -> None:
        """It is over."""
        if not self.leaves:
            self._crowd.closed[self._code or "cut"] += 1
        self._crowd.clients.discard(self)
        self._crowd.connected.discard(self)
        if not self.opened.done():
            self.opened.set_result(False)

    def send(self) -> None:
        """The next turn."""
        self._sent += 1
        turn = self._turns[f"m{self._sent:07}"] = Turn(time.monotonic(), self._crowd.work())
        self._crowd.turns.append(turn)
        self.transport.send(WAY.kind, WAY.message(self._sent, BODY))


class Crowd:
    """All clients of this process.

    Args:
        url: The gateway's.
        gateway: The id of its process.
    """

    def __init__(self, url: str, gateway: int) -> None:
        self._url = url
        self._clock = ~gateway << 3 | 2  # clock_getcpuclockid(3)
        self._gather = Gather(0, "", [""])
        self._number = 0
        self.connected: set[Client] = set()
        self.clients: set[Client] = set()  # those with a session
        self.turns: list[Turn] = []
        self.closed: Counter[str] = Counter()

    def work(self) -> float:
        """CPU time of the gateway so far, in seconds."""
        return time.clock_gettime(self._clock)

    async def obey(self) -> None:
        """Take commands from standard input until it ends."""
        commands = msgspec.json.Decoder[Command](Command)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
            command = commands.decode(line)
            self.turns, self.closed = [], Counter()
            match command:
                case Gather():
                    self._gather = command
                    await self._connect(command.clients)
                case Talk():
                    await self._talk(command)
                case Part():
                    await self._part()
            told = Told(self.turns, len(self.clients), dict(self.closed))
            os.write(1, msgspec.json.encode(told).replace(b"\n", b"") + b"\n")

    async def _connect(self, count: int) -> None:
        while count > 0:
            now = min(count, OPENING_AT_ONCE)
            count -= now
            await asyncio.gather(*(self._add() for _ in range(now)))

    async def _add(self) -> None:
        gather = self._gather
        key = gather.keys[self._number % len(gather.keys)]
        self._number += 1
        _, client = await picows.ws_connect(
            lambda: Client(self),
            f"{self._url}/ws/{gather.route}",
            extra_headers={
                "Sec-WebSocket-Protocol": WAY.subprotocol or "",
                "Authorization": f"Bearer {key}",
            },
            websocket_handshake_timeout=60,
            read_buffer_init_size=4096,
        )
        assert isinstance(client, Client)
        if await client.opened:
            self.clients.add(client)

    async def _talk(self, talk: Talk) -> None:
        end = time.monotonic() + talk.seconds
        talking = [*self.clients] if talk.every is not None else []
        every = talk.every or talk.seconds
        before = set(self.connected)
        newcomers = asyncio.create_task(self._connect(talk.newcomers))
        await asyncio.gather(
            *(self._one(client, every, end) for client in talking),
            asyncio.sleep(talk.seconds),
        )
        await _until(lambda: all(turn.seconds is not None for turn in self.turns))
        newcomers.cancel()  # some may wait for a session that is not given
        await asyncio.gather(newcomers, return_exceptions=True)
        for client in self.connected - before:
            client.leaves = True
            client.transport.disconnect()
            await asyncio.sleep(LEAVE_SECONDS)

    async def _one(self, client: Client, every: float, end: float) -> None:
        due = time.monotonic() + random.random() * every
        while due < end and client in self.clients:
            await asyncio.sleep(due - time.monotonic())
            if client in self.clients:
                client.send()
            due += every

    async def _part(self) -> None:
        for client in [*self.connected]:
            client.transport.send(WAY.kind, CLOSE)
        await _until(lambda: not self.connected)
        for client in [*self.connected]:
            client.transport.disconnect()


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for that, but not for ever."""
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE_SECONDS):
            while not condition():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)


def main() -> None:
    """Run as a module."""
    url, gateway, nice = sys.argv[1:]
    os.nice(int(nice))
    uvloop.run(Crowd(url, int(gateway)).obey())


if __name__ == "__main__":
    main()
