"""What is broken, when: all of it follows from a seed, but for how long others take."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from tests.chaos.fleet import LEASE_SECONDS, Fleet, Gateway

PAUSES = (0.5, 4.0)
"""How far apart faults begin, in seconds."""

CALM_SECONDS = 20.0
"""How long at most what needs all else to be well waits for that."""


class Faults:
    """Breaks things until it is cancelled.

    Args:
        fleet: What.
        seed: Of all that is left to chance.
        kinds: Of faults; see `KINDS`.
    """

    def __init__(self, fleet: Fleet, seed: int, kinds: tuple[str, ...]) -> None:
        self.counts: Counter[str] = Counter()
        self._fleet = fleet
        self._chance = random.Random(seed)
        self._kinds = kinds
        self._tasks: set[asyncio.Task[None]] = set()
        self._rolling = asyncio.Lock()

    async def run(self) -> None:
        """Break one thing after the other; some go on while the next one begins."""
        try:
            while True:
                await asyncio.sleep(self._chance.uniform(*PAUSES))
                kind = self._chance.choice(self._kinds)
                task = asyncio.create_task(self._break(kind))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                if kind in ALONE:
                    await asyncio.wait([task])
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _break(self, kind: str) -> None:
        if kind in CALM and not await self._calm():
            return
        self.counts[kind] += 1
        await KINDS[kind](self)

    async def _calm(self) -> bool:
        until = time.monotonic() + CALM_SECONDS
        while not self._fleet.is_calm:
            if time.monotonic() > until:
                return False
            await asyncio.sleep(0.1)
        return True

    def _one(self) -> Gateway:
        return self._chance.choice(self._fleet.gateways)

    async def kill(self) -> None:
        """A gateway dies, and is there again sooner or later."""
        gateway = self._one()
        gateway.stays_away = self._chance.choice([0.0, 0.3, 3 * LEASE_SECONDS])
        gateway.kill()

    async def pause(self) -> None:
        """A gateway stands still, most often for so long that others take it for dead."""
        seconds = self._chance.uniform(0.5, 4) * LEASE_SECONDS
        await self._one().pause(seconds)

    async def stop(self) -> None:
        """Valkey answers nobody."""
        if self._fleet.store_is_up:
            await self._fleet.stop_store(self._chance.uniform(0.3, 6))

    async def empty(self) -> None:
        """Valkey loses everything, while all gateways are well."""
        if self._fleet.store_is_up:
            await self._fleet.empty_store(self._chance.choice([0.0, 1.0, 4.0]))
            await asyncio.sleep(2 * LEASE_SECONDS)

    async def disaster(self) -> None:
        """Valkey loses everything while a gateway dies."""
        if self._fleet.store_is_up:
            self._one().kill()
            await self._fleet.empty_store(self._chance.uniform(0, 1))

    async def cut(self) -> None:
        """Connections are cut."""
        share = self._chance.choice([0.1, 0.5, 1.0])
        self._fleet.balancer.cut(share=share, seed=self._chance.randrange(1000))

    async def unlink(self) -> None:
        """A gateway can't be reached by clients, and is well."""
        at, balancer = self._chance.randrange(len(self._fleet.gateways)), self._fleet.balancer
        balancer.stop(at)
        try:
            await asyncio.sleep(self._chance.uniform(1, 8))
        finally:
            balancer.go_on(at)

    async def rolling(self) -> None:
        """All gateways are started again, one after the other."""
        async with self._rolling:
            for gateway in self._fleet.gateways:
                await gateway.ready()
                starts = gateway.starts
                gateway.stays_away = 0.0
                if gateway.is_up:
                    gateway.terminate()
                    await gateway.restarted(starts)


Fault = Callable[[Faults], Awaitable[None]]

KINDS: Mapping[str, Fault] = {
    "kill": Faults.kill,
    "pause": Faults.pause,
    "stop": Faults.stop,
    "empty": Faults.empty,
    "cut": Faults.cut,
    "unlink": Faults.unlink,
    "rolling": Faults.rolling,
    "disaster": Faults.disaster,
}

CALM = {"empty"}
"""Those that begin when all is well: with others at once, more is lost than need be."""

ALONE = {"empty"}
"""Those during which nothing else begins."""

USUAL = ("kill", "pause", "stop", "empty", "cut", "unlink", "rolling")
"""Those that nothing may be lost by."""
