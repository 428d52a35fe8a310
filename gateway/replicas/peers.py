"""Detects which replicas are alive, by their heartbeats in the store."""

import asyncio
import math
from collections.abc import Callable, Iterator

import structlog

from gateway.health import Health
from gateway.session.storage import BEATS, ReplicaStore, StoreUnavailable

SAME_SECONDS = 0.01
"""Times that differ by less are equal, but rounded."""

AGAIN_SECONDS = 0.2
"""The longest pause before an unavailable store is retried."""


log = structlog.stdlib.get_logger("gateway.replicas")


class Peers:
    """The replicas that share a store, including this one.

    The age of a replica's last heartbeat by the store's clock doesn't show whether it is alive: a
    store that has failed over may have lost newer ones. What counts is for how long no newer one
    was seen while the store was available.

    Args:
        name: This replica's name.
        store: The store with the heartbeats.
        lease_seconds: How long a live replica may go without a heartbeat.
        missed: Called when the store is available again, or its connection was lost meanwhile; with
            True if this replica's heartbeats were missing for so long that the others may consider
            it dead.
    """

    def __init__(
        self,
        name: str,
        store: ReplicaStore,
        lease_seconds: float,
        *,
        missed: Callable[[bool], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.health = Health(self._loop.time)
        self.pause = lease_seconds / BEATS
        """The interval between heartbeats."""
        self.ahead = 0.0
        """How far the store's clock is ahead of the loop's."""
        self._name = name
        self._store = store
        self._lease_seconds = lease_seconds
        self._missed = missed
        self._seen: dict[str, tuple[float, float]] = {}
        """Each replica's last heartbeat, by the store's clock, and since when it is known."""
        self._beaten_at = self._loop.time()
        self._back_since = float("-inf")
        """When the store became available again."""
        self._breaks = 0
        self._awaited: dict[str, asyncio.Event] = {}

    def __contains__(self, replica: str) -> bool:
        return replica in self._seen

    async def beat(self) -> None:
        """Send a heartbeat, and read those of the others.

        Raises:
            StoreUnavailable: The heartbeat may not have been stored.
        """
        asked = self._loop.time()
        with self.health.call():
            clock, ages, breaks = await self._store.beat(self._name)
        now = self._loop.time()
        # The store's clock was read between the two, which are far apart if this process stalled.
        self.ahead = min(max(self.ahead, clock - now), clock - asked)
        last, self._beaten_at = self._beaten_at, now
        if now - last > self._lease_seconds:
            self._missed(True)
        seen, self._seen = self._seen, {}
        for replica, age in ages.items():
            beat = clock - age
            before, since = seen.get(replica, (math.inf, now))
            if abs(beat - before) < SAME_SECONDS:
                beat = before
            elif beat > before:
                since = min(max(now - age, last), now)  # even if the store's clock was set
            else:
                since = now
            self._seen[replica] = beat, since
        if not self.health.is_up or breaks != self._breaks:
            self._breaks = breaks
            self._back_since = now
            self.health.answered()
            self._missed(False)
        for replica in [*self._awaited]:
            word = self._seen.get(replica)
            if word is None or word != seen.get(replica) or self.is_silent(replica):
                self._awaited.pop(replica).set()

    async def live(self) -> None:
        """Send heartbeats until this is cancelled."""
        while True:
            try:
                async with asyncio.timeout(self.pause):
                    await self.beat()
            except Exception as error:
                if not isinstance(error, StoreUnavailable | TimeoutError):
                    log.exception("the lease could not be renewed")
                self.health.failed(error)
            else:
                await self.health.trouble(self._rest())
            if not self.health.is_up:
                await asyncio.sleep(min(self.pause, AGAIN_SECONDS))

    def _rest(self) -> float:
        """Return the time to the next heartbeat, at most until another replica's lease ends."""
        now, certain = self._loop.time(), self._back_since + self._lease_seconds
        ends = [
            max(since + self._lease_seconds, certain) + SAME_SECONDS - now
            for replica, (_, since) in self._seen.items()
            if not self.is_silent(replica)
        ]
        return min([self.pause, *ends])

    async def word_of(self, replica: str) -> None:
        """Wait for a replica's next heartbeat, or until it is found dead."""
        await self._awaited.setdefault(replica, asyncio.Event()).wait()

    @property
    def are_certain(self) -> bool:
        """Whether the store was available for so long that all live replicas have sent heartbeats
        and written their sessions again, even if it had lost everything.
        """
        return self.health.is_up and self._loop.time() - self._back_since >= self._lease_seconds

    async def vouch(self) -> bool:
        """Whether what was just read from the store is complete.

        A later heartbeat has to find the same store: it may have failed over since the last one,
        especially if this process stalled.

        Raises:
            StoreUnavailable: The heartbeat failed.
        """
        if self.are_certain:
            await self.beat()
        return self.are_certain

    def others(self) -> list[str]:
        """Return the other replicas that are alive, as far as is known."""
        return [each for each in self._seen if each != self._name and not self.is_silent(each)]

    def silent(self) -> Iterator[str]:
        """Yield the other replicas that are dead."""
        for replica in self._seen:  # a heartbeat replaces the dict, and doesn't change it
            if replica != self._name and self.is_silent(replica):
                yield replica

    def is_silent(self, replica: str) -> bool:
        """Whether a known replica has resigned, or its lease has ended without a heartbeat."""
        seen = self._seen.get(replica)
        if seen is None:
            return False
        beat, since = seen
        if beat < SAME_SECONDS:
            return True
        return self.are_certain and self._loop.time() - since > self._lease_seconds

    def is_late(self, replica: str) -> bool:
        """Whether a replica may be dead: a heartbeat is overdue, or it hasn't answered since."""
        if self.is_silent(replica):
            return False
        _, since = self._seen.get(replica, (0.0, math.inf))
        return replica in self._awaited or self._loop.time() - since > 2.5 * self.pause

    async def is_dead(self, replica: str) -> bool:
        """Whether a replica is dead, or no longer known.

        Raises:
            StoreUnavailable: It is unknown.
        """
        if replica not in self._seen:  # it may be new
            await self.beat()
        return self.is_silent(replica) if replica in self._seen else self.are_certain
