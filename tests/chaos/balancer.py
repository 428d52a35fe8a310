"""A TCP balancer: each new connection goes to the next backend that takes it."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, cast


class _Side(asyncio.Protocol):
    """One side of a connection: what comes goes to the other one."""

    transport: asyncio.Transport

    def __init__(self, made: Callable[["_Side"], None] | None = None) -> None:
        self.other: _Side | None = None
        self.over = False
        self.early = b""
        self._made = made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self._made is not None:
            self._made(self)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early += data
        elif not self.other.over:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.over = True
        if self.other is None:
            return
        if exc is None:
            self.other.transport.close()
        else:
            self.other.transport.abort()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.over:
            self.other.transport.resume_reading()


class Balancer:
    """Listens on any free port.

    Args:
        ports: The backends'.
        name_of: What a backend is called just now, of which its connections are.

    Attributes:
        port: Its own.
        stopped: Backends that get no new connections.
    """

    def __init__(self, ports: Sequence[int], name_of: Callable[[int], str]) -> None:
        self.port = 0
        self.stopped: set[int] = set()
        self._ports = ports
        self._name_of = name_of
        self._next = 0
        self._open: dict[int, tuple[int, str, _Side]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Side(self._come), "127.0.0.1", 0, backlog=4096
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Listen no more, and cut everything."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def where(self, client_port: int) -> str:
        """What the backend was called that a client's connection went to; empty for none."""
        found = self._open.get(client_port)
        return "" if found is None else found[1]

    def stop(self, backend: int) -> None:
        """Give it no connections any more, and cut those that it has."""
        self.stopped.add(backend)
        self.cut(backend)

    def go_on(self, backend: int) -> None:
        """Give it connections again."""
        self.stopped.discard(backend)

    def cut(self, backend: int | None = None, share: float = 1.0, seed: int = 0) -> int:
        """Reset connections; returns how many.

        Args:
            backend: Those of one backend only.
            share: How many of them, at random.
            seed: Of that.
        """
        chance = random.Random(seed)
        cut = [
            side
            for at, _, side in self._open.values()
            if not side.over and backend in {None, at} and chance.random() < share
        ]
        for side in cut:
            side.transport.abort()
            if side.other is not None:
                side.other.transport.abort()
        return len(cut)

    def _come(self, front: _Side) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(front))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, front: _Side) -> None:
        loop = asyncio.get_running_loop()
        count = len(self._ports)
        peer: int = front.transport.get_extra_info("peername")[1]
        for _ in range(count):
            at = self._next = (self._next + 1) % count
            if at in self.stopped:
                continue
            try:
                _, back = await loop.create_connection(_Side, "127.0.0.1", self._ports[at])
            except OSError:
                continue
            if front.over or at in self.stopped:
                back.transport.abort()
                break
            front.other, back.other = back, front
            self._open[peer] = (at, self._name_of(at), front)
            if len(self._open) > 10_000:
                self._open = {p: each for p, each in self._open.items() if not each[2].over}
            back.transport.write(front.early)
            return
        front.transport.abort()
