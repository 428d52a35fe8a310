"""Who counts as dead, as long as nobody can be told from one that the store has forgotten."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from gateway.replicas.peers import Peers
from gateway.session.storage import BEATS, Beats, StoreUnavailable
from gateway.stores.memory import MemoryStore
from tests.support.timing import UNIT

LEASE = 3.0
PAUSE = LEASE / BEATS
AHEAD = 1_800_000_000.0


class Clock:
    """The time, which goes on as it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class Store(MemoryStore):
    """Fails as it is told to."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=lambda: clock.now + AHEAD)
        self.errors: list[Exception] = []
        self.clock, self.seconds, self.breaks = clock, 0.0, 0

    async def beat(self, replica: str) -> Beats:
        if self.errors:
            raise self.errors.pop()
        beats = await super().beat(replica)
        self.clock.now += self.seconds
        return beats._replace(breaks=self.breaks)


class World:
    """This replica among others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.missed: list[bool] = []
        self.peers = Peers("me", self.store, LEASE, missed=self.missed.append)
        monkeypatch.setattr(self.peers, "_loop", self.clock)
        self.peers._beaten_at = self.clock.now

    async def go_on(self, seconds: float, *others: str) -> None:
        """So much time passes, in which this and some others are alive."""
        until = self.clock.now + seconds
        while self.clock.now < until - PAUSE / 2:
            self.clock.now += PAUSE
            for other in others:
                await MemoryStore.beat(self.store, other)
            await self.peers.beat()

    async def fail(self) -> None:
        """The store does not answer once, as `Peers.live` finds."""
        self.store.errors = [StoreUnavailable()]
        with pytest.raises(StoreUnavailable):
            await self.peers.beat()

    @property
    def silent(self) -> Sequence[str]:
        return [*self.peers.silent()]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


async def test_who_beats_is_alive(world: World) -> None:
    await world.go_on(3 * LEASE, "other")
    assert {"me", "other"} <= world.peers._seen.keys()
    assert "other" in world.peers
    assert world.silent == []
    assert not world.peers.is_late("other")
    assert not await world.peers.is_dead("other")
    assert world.peers.ahead == AHEAD


async def test_how_the_clocks_differ_is_known_also_where_this_process_was_stopped(
    world: World,
) -> None:
    await world.peers.beat()
    world.store.seconds = LEASE
    await world.peers.beat()
    assert world.peers.ahead == AHEAD
    world.store._clock = lambda: world.clock.now + AHEAD + 3600
    await world.peers.beat()
    assert AHEAD + 3600 - LEASE <= world.peers.ahead <= AHEAD + 3600


async def test_who_misses_a_beat_is_late_and_who_misses_all_is_dead(world: World) -> None:
    await world.go_on(PAUSE, "other")
    await world.go_on(2 * PAUSE)
    late = [world.peers.is_late("other")]
    await world.go_on(PAUSE)
    late.append(world.peers.is_late("other"))
    assert late == [False, True]
    await world.go_on(PAUSE)
    assert (world.silent, await world.peers.is_dead("other")) == (["other"], True)
    await world.go_on(PAUSE, "other")
    assert (world.silent, world.peers.is_late("other")) == ([], False)


async def test_for_exactly_as_long_as_its_lease_it_is_alive(world: World) -> None:
    await world.go_on(PAUSE, "other")
    await world.go_on(LEASE)
    assert world.silent == []
    world.clock.now += 0.01
    assert world.silent == ["other"]


async def test_it_is_dead_a_lease_after_its_last_beat_whenever_that_was_seen(
    world: World,
) -> None:
    await world.go_on(PAUSE, "other")
    await MemoryStore.beat(world.store, "other")
    world.clock.now += 0.5
    await world.peers.beat()
    assert world.peers._rest() == PAUSE
    await world.go_on(2 * PAUSE)
    world.clock.now += 0.25
    assert world.peers._rest() == pytest.approx(LEASE - 2 * PAUSE - 0.75 + 0.01)
    world.clock.now += world.peers._rest()
    assert world.silent == ["other"]
    assert world.peers._rest() == PAUSE


@pytest.mark.parametrize("hours", [-1, 1])
async def test_nobody_dies_of_the_clock_of_the_store(world: World, hours: int) -> None:
    await world.go_on(PAUSE, "other")
    await MemoryStore.beat(world.store, "other")
    world.store._clock = lambda: world.clock.now + AHEAD + 3600 * hours
    await world.peers.beat()
    assert world.silent == []
    await world.go_on(LEASE)
    assert world.silent == []
    world.clock.now += 0.01
    assert world.silent == ["other"]


class TestWord:
    async def test_is_a_beat(self, world: World) -> None:
        await world.go_on(PAUSE, "other")
        word = asyncio.create_task(world.peers.word_of("other"))
        await world.go_on(PAUSE)
        await asyncio.sleep(0)
        assert not word.done()
        assert world.peers.is_late("other"), "as far as whoever waits can tell"
        await world.go_on(PAUSE, "other")
        await word
        assert not world.peers.is_late("other")

    async def test_or_that_it_is_dead(self, world: World) -> None:
        await world.go_on(PAUSE, "other")
        word = asyncio.create_task(world.peers.word_of("other"))
        await world.go_on(LEASE)
        await asyncio.sleep(0)
        assert not word.done()
        await world.go_on(PAUSE)
        await word
        assert world.silent == ["other"]

    @pytest.mark.parametrize("happens", ["before", "meanwhile"])
    async def test_or_that_the_store_does_not_name_it(self, world: World, happens: str) -> None:
        await world.go_on(PAUSE, *(["other"] if happens == "meanwhile" else []))
        word = asyncio.create_task(world.peers.word_of("other"))
        await asyncio.sleep(0)
        await world.store.bury("other")
        await world.go_on(PAUSE)
        await word
        assert "other" not in world.peers
        assert not world.peers.is_late("other")

    async def test_of_who_is_known_to_be_dead_is_not_waited_for(self, world: World) -> None:
        await world.go_on(PAUSE, "other")
        await world.go_on(LEASE + PAUSE)
        assert world.silent == ["other"]
        assert not world.peers.is_late("other")


async def test_who_resigns_is_dead_at_once(world: World) -> None:
    await world.go_on(PAUSE, "other")
    await world.store.resign("other")
    await world.peers.beat()
    assert world.silent == ["other"]


async def test_one_that_was_buried_meanwhile_is_passed_over(world: World) -> None:
    await world.go_on(PAUSE, "a", "b")
    for name in ("a", "b"):
        await world.store.resign(name)
    await world.peers.beat()
    silent = world.peers.silent()
    first = next(silent)
    for name in ("a", "b"):
        await world.store.bury(name)
    await world.peers.beat()
    assert (first, [*silent]) == ("a", [])


async def test_one_that_is_not_known_is_looked_for(world: World) -> None:
    await world.go_on(LEASE)
    await world.store.beat("new")
    assert not await world.peers.is_dead("new")
    assert await world.peers.is_dead("nobody")
    assert not world.peers.is_late("nobody")


async def test_a_store_that_has_lost_the_newest_beats_makes_nobody_dead(world: World) -> None:
    await world.go_on(LEASE, "other")
    world.store._beats["other"] -= 2 * LEASE
    await world.peers.beat()
    assert world.silent == []
    await world.go_on(LEASE)
    assert world.silent == []
    world.clock.now += 0.01
    assert world.silent == ["other"]


class TestOutage:
    async def test_nobody_is_dead_until_all_could_beat_again(self, world: World) -> None:
        await world.go_on(PAUSE, "other")
        await world.fail()
        world.clock.now += 10 * LEASE
        assert (world.silent, world.peers.are_certain) == ([], False)
        await world.peers.beat()
        assert (world.silent, world.peers.are_certain) == ([], False)
        assert not await world.peers.is_dead("nobody")
        await world.go_on(LEASE)
        assert world.peers.are_certain
        assert world.silent == ["other"]

    async def test_also_where_something_else_than_a_beat_has_found_it_out(
        self, world: World
    ) -> None:
        await world.go_on(LEASE)
        world.peers.health.failed(StoreUnavailable())
        await world.peers.beat()
        certain = [world.peers.are_certain]
        await world.go_on(LEASE)
        assert [*certain, world.peers.are_certain] == [False, True]

    async def test_what_others_have_is_known_when_all_could_write_it_again(
        self, world: World
    ) -> None:
        knows = [world.peers.are_certain]
        await world.fail()
        knows.append(world.peers.are_certain)
        await world.peers.beat()
        knows.append(world.peers.are_certain)
        await world.go_on(LEASE)
        assert [*knows, world.peers.are_certain] == [True, False, False, True]

    async def test_what_was_missed_is_said_once(self, world: World) -> None:
        await world.fail()
        await world.peers.beat()
        await world.peers.beat()
        assert world.missed == [False]

    async def test_a_connection_that_has_broken_may_lead_elsewhere(self, world: World) -> None:
        await world.go_on(LEASE)
        world.store.breaks = 1
        await world.peers.beat()
        assert (world.missed, world.peers.are_certain) == ([False], False)
        await world.go_on(LEASE)
        assert (world.missed, world.peers.are_certain) == ([False], True)

    async def test_what_another_store_lacks_may_be_there(self, world: World) -> None:
        await world.go_on(LEASE)
        assert await world.peers.vouch()
        world.store.breaks = 1
        assert not await world.peers.vouch(), "before any beat has told"
        assert not await world.peers.vouch()
        await world.go_on(LEASE)
        assert await world.peers.vouch()

    async def test_who_was_silent_for_too_long_may_have_been_taken_for_dead(
        self, world: World
    ) -> None:
        world.clock.now += LEASE
        await world.peers.beat()
        assert world.missed == []
        world.clock.now += LEASE + 0.01
        await world.peers.beat()
        assert world.missed == [True]

    async def test_a_beat_that_breaks_is_logged_and_the_replica_lives_on(self) -> None:
        store = Store(Clock())
        answered = asyncio.Event()
        peers = Peers("me", store, LEASE / 100, missed=lambda _: answered.set())
        store.errors = [StoreUnavailable("away"), ZeroDivisionError()]
        with capture_logs() as logs:
            living = asyncio.create_task(peers.live())
            async with asyncio.timeout(10 * UNIT):
                await answered.wait()
        assert not living.done()
        assert peers.health.is_up
        living.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await living
        assert [line["event"] for line in logs] == [
            "the lease could not be renewed",
            "the store does not answer",
            "the store answers again",
        ]
