"""What an attack has at hand: connections to one gateway, a size, and the word to begin."""

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import cycle
from urllib.parse import urlsplit

from tests.hostile.peer import JSON, MSGPACK, Gone, Peer, binary, text

FLOOD_BYTES = 300_000_000
"""How much is enough, where nothing else ends it."""


class Field:
    """One gateway, as an attacker sees it.

    Args:
        url: Where it is.
        scale: How much of the attack to do, up to 1.
        seconds: How long what has no end by itself goes on.
        key: What it shows who it is by; empty for nothing.
    """

    def __init__(self, url: str, *, scale: float, seconds: float, key: str = "") -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self.scale = scale
        self.seconds = seconds
        self.sent = 0
        self._shown = [f"Authorization: Bearer {key}"] if key else []
        self._peers: list[Peer] = []
        self._loop = asyncio.get_running_loop()

    def many(self, count: int) -> int:
        """That many, to scale."""
        return max(1, round(count * self.scale))

    async def begin(self) -> None:
        """Everything is prepared: wait until it may begin."""
        print("ready", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.readline)
        self.end = self._loop.time() + self.seconds

    async def peer(self, *, reads: bool = True) -> Peer:
        """A connection.

        Raises:
            Gone: There is none to be had.
        """
        peer = Peer(reads=reads)
        self._peers.append(peer)
        try:
            await self._loop.create_connection(lambda: peer, self._host, self._port)
        except OSError:
            raise Gone from None
        return peer

    async def websocket(
        self, route: str = "chat", *headers: str, subprotocol: str | None = JSON, reads: bool = True
    ) -> Peer:
        """A WebSocket."""
        peer = await self.peer()
        await peer.upgraded(f"/ws/{route}", *self._shown, *headers, subprotocol=subprotocol)
        if not reads:
            peer.transport.pause_reading()
        return peer

    async def session(self, route: str = "chat", *, subprotocol: str = JSON) -> Peer:
        """A WebSocket with an open session."""
        peer = await self.websocket(route, subprotocol=subprotocol)
        await peer.send((binary if subprotocol == MSGPACK else text)(type="session.open"))
        await peer.opened()
        return peer

    async def flood(self, peer: Peer, *pieces: bytes) -> None:
        """Send these over and over, until it is enough or the connection is closed."""
        with suppress(Gone):
            for piece in cycle(pieces):
                if self._loop.time() > self.end or self.sent > FLOOD_BYTES:
                    return
                await peer.send(piece)
                self.sent += len(piece)
                await asyncio.sleep(0)

    async def again_and_again(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """The same with a connection after the other."""
        while self._loop.time() < self.end:
            with suppress(Gone):
                await attempt()
            await asyncio.sleep(0)

    async def until_end(self, *, more_seconds: float = 0) -> None:
        """Wait until it is enough, or all connections are closed.

        Args:
            more_seconds: What it takes longer than others, to scale.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self.end + more_seconds * self.scale):
                for peer in self._peers:
                    await peer.closed()

    def answers(self) -> dict[str, int]:
        """What has come of the connections, and of how many."""
        return dict(Counter(peer.answer for peer in self._peers))

    def leave(self) -> None:
        """Close all connections without a word."""
        for peer in self._peers:
            peer.abort()
