"""Which replicas are alive, as far as one of them can know."""

import asyncio
import math
from collections.abc import Callable, Iterator

import structlog

from gateway.health import Health
from gateway.session.storage import BEATS, ReplicaStore, StoreUnavailable

SAME_SECONDS = 0.01
"""What differs by less is the same time, which was rounded."""

AGAIN_SECONDS = 0.2
"""The longest pause before a store that does not answer is asked again."""


log = structlog.stdlib.get_logger("gateway.replicas")


class Peers:
    """The replicas that share a store, this one among them.

    How old another's last beat is by the store's clock does not tell whether it is alive: a store
    that has failed over may have lost the newest. What counts is for how long no newer one was
    seen, while the store was there to have it.

    Args:
        name: This replica's own.
        store: Where each says that it is alive.
        lease_seconds: How long one may be silent and is alive still.
        missed: Called when the store has answered again that had not, or its connection has broken
            meanwhile; with True when this replica was silent for so long that the others may have
            taken it for dead.
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
        """How long it is from one beat to the next."""
        self.ahead = 0.0
        """By how much the store's clock is ahead of the loop's."""
        self._name = name
        self._store = store
        self._lease_seconds = lease_seconds
        self._missed = missed
        self._seen: dict[str, tuple[float, float]] = {}
        """When each replica has beaten last, by the store's clock, and since when that is known."""
        self._beaten_at = self._loop.time()
        self._back_since = float("-inf")
        """When the store has answered again that had not."""
        self._breaks = 0
        self._awaited: dict[str, asyncio.Event] = {}

    def __contains__(self, replica: str) -> bool:
        return replica in self._seen

    async def beat(self) -> None:
        """Say that this is alive, and learn who else is.

        Raises:
            StoreUnavailable: It could not be said.
        """
        asked = self._loop.time()
        with self.health.call():
            clock, ages, breaks = await self._store.beat(self._name)
        now = self._loop.time()
        # The clock was read between the two, which are far apart where this process was stopped.
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
        """Beat until this is cancelled."""
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
        """How long it is until the next beat: no longer than until another is silent."""
        now, certain = self._loop.time(), self._back_since + self._lease_seconds
        ends = [
            max(since + self._lease_seconds, certain) + SAME_SECONDS - now
            for replica, (_, since) in self._seen.items()
            if not self.is_silent(replica)
        ]
        return min([self.pause, *ends])

    async def word_of(self, replica: str) -> None:
        """Wait until a replica has beaten again, or is found dead."""
        await self._awaited.setdefault(replica, asyncio.Event()).wait()

    @property
    def are_certain(self) -> bool:
        """Whether the store has been there for so long that no other can have missed it, and that
        what others have is in it, even if it had lost everything.
        """
        return self.health.is_up and self._loop.time() - self._back_since >= self._lease_seconds

    async def vouch(self) -> bool:
        """Whether what was read of the store just now is all there is.

        A beat later than that has to find the store as it was: another may be there since the last
        one, above all where this process was stopped for a while.

        Raises:
            StoreUnavailable: It could not be found out.
        """
        if self.are_certain:
            await self.beat()
        return self.are_certain

    def others(self) -> list[str]:
        """The others that live, as far as is known."""
        return [each for each in self._seen if each != self._name and not self.is_silent(each)]

    def silent(self) -> Iterator[str]:
        """The others that are dead, as long as they are."""
        for replica in self._seen:  # which a beat replaces, and does not change
            if replica != self._name and self.is_silent(replica):
                yield replica

    def is_silent(self, replica: str) -> bool:
        """Whether a replica that is seen has resigned, or has been silent for too long."""
        seen = self._seen.get(replica)
        if seen is None:
            return False
        beat, since = seen
        if beat < SAME_SECONDS:
            return True
        return self.are_certain and self._loop.time() - since > self._lease_seconds

    def is_late(self, replica: str) -> bool:
        """Whether a replica may be dead: it has missed a beat, or has not answered since."""
        if self.is_silent(replica):
            return False
        _, since = self._seen.get(replica, (0.0, math.inf))
        return replica in self._awaited or self._loop.time() - since > 2.5 * self.pause

    async def is_dead(self, replica: str) -> bool:
        """Whether a replica is silent, or is not there any more.

        Raises:
            StoreUnavailable: It could not be found out.
        """
        if replica not in self._seen:  # it may have come since
            await self.beat()
        return self.is_silent(replica) if replica in self._seen else self.are_certain
