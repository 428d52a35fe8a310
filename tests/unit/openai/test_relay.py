"""What waits for a client, apart from who reads a turn."""

import asyncio

import pytest

from gateway.transports.exchange import Moved
from gateway.transports.openai.relay import Json, Relay
from tests.support.sessions import Fixture, running
from tests.support.timing import UNIT

SIZE = 5000


class Turn:
    """Is told by a test."""

    def __init__(self) -> None:
        self.is_over = False
        self.has_left = False
        self._told: asyncio.Queue[list[Json] | None] = asyncio.Queue()

    async def tell(self, *events: Json, is_last: bool = False) -> None:
        """Tell it, and let it be read."""
        self.is_over = is_last
        self._told.put_nowait([*events])
        await self.read()

    async def move(self) -> None:
        self._told.put_nowait(None)
        await self.read()

    async def read(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def next(self) -> list[Json]:
        told = await self._told.get()
        if told is None:
            raise Moved
        return told

    def leave(self) -> None:
        self.has_left = True


def event(name: str, size: int = SIZE) -> Json:
    return {"name": name.ljust(size)}


def written(events: list[Json]) -> list[bytes]:
    return [each["name"].encode() for each in events]


async def taken(relay: Relay) -> list[str]:
    return [each.decode().strip() for each in await relay.next()]


def relayed(f: Fixture, turn: Turn, most: int = 3 * SIZE) -> Relay:
    return Relay(f.sessions, turn, written, most)


async def test_all_that_is_taken_in_time() -> None:
    async with running() as f:
        turn = Turn()
        relay = relayed(f, turn)
        waiting = asyncio.create_task(taken(relay))
        await turn.tell(event("a", 10 * SIZE))
        assert await waiting == ["a"], "whatever its size: nothing else waits"
        waiting = asyncio.create_task(taken(relay))
        await turn.tell()
        assert await waiting == [], "a sign of life"
        await turn.tell(event("b"), event("c"))
        await turn.tell(event("d"), is_last=True)
        assert turn.has_left
        assert f.sessions.budget.total == 3 * SIZE
        assert await taken(relay) == ["b", "c", "d"]
        assert relay.is_through
        assert not relay.has_missed
        assert f.sessions.budget.total == 0


async def test_who_is_too_slow_is_told_the_last() -> None:
    async with running() as f:
        turn = Turn()
        relay = relayed(f, turn)
        for name in "abcdef":
            await turn.tell(event(name))
        await turn.tell(event("g"), event("h"), is_last=True)
        assert relay.has_missed
        assert await taken(relay) == ["a", "b", "c", "h"]
        assert relay.is_through


async def test_what_waits_is_given_back() -> None:
    async with running() as f:
        turn = Turn()
        relay = relayed(f, turn)
        await turn.tell(event("a"))
        relay.give_back()
        assert f.sessions.budget.total == 0
        await turn.tell(event("b"))
        await turn.tell(event("c"), is_last=True)
        assert await taken(relay) == ["c"]


async def test_a_turn_is_read_without_its_client() -> None:
    async with running() as f:
        turn = Turn()
        relay = relayed(f, turn)
        await turn.tell(event("a"))
        relay.leave()
        assert f.sessions.budget.total == 0
        await turn.tell(event("b"), is_last=True)
        assert turn.has_left
        assert f.sessions.budget.total == 0


async def test_why_nothing_more_is_told_comes_last() -> None:
    async with running() as f:
        turn = Turn()
        relay = relayed(f, turn)
        await turn.tell(event("a"))
        await turn.move()
        assert turn.has_left
        assert await taken(relay) == ["a"]
        with pytest.raises(Moved):
            await relay.next()


async def test_what_is_not_read_any_more_is_through() -> None:
    async with running() as f:
        pass
    turn = Turn()
    relay = relayed(f, turn)
    async with asyncio.timeout(UNIT):
        assert await relay.next() == []
    assert relay.is_through
    assert turn.has_left
