"""Limits concurrent calls that open and close sessions."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from gateway.guard.fair_queue import FairQueue
from gateway.turnstile import Turnstile

BEGUN = 2
"""Calls that start in one iteration of the event loop: hundreds at once would delay every callback
that is due in the meantime."""


class Full(Exception):
    """The queue is full and this call the newest of its longest line, or it has waited too long.

    Attributes:
        waited: Seconds that it was queued for.
    """

    def __init__(self, waited: float) -> None:
        super().__init__()
        self.waited = waited


class Places:
    """A fair semaphore: a number of places, with a queue that has a line for each principal.

    Args:
        most: Number of places.
        waiting: Maximum length of the queue.
        patience: Seconds that a call may be queued.
    """

    def __init__(self, most: int, waiting: int, patience: float) -> None:
        self._free = most
        self._most_waiting = waiting
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._turnstile = Turnstile(BEGUN)

    @asynccontextmanager
    async def place(self, principal: str) -> AsyncIterator[None]:
        """Wait for a place, and hold it for as long as the context lasts.

        Raises:
            Full: The queue is full, or no place has become free in time.
        """
        if self._free:
            self._free -= 1
        else:
            try:
                async with asyncio.timeout(self._patience):
                    await self._wait(principal)
            except TimeoutError:
                raise Full(self._patience) from None
        try:
            let_in: asyncio.Future[None] = self._loop.create_future()
            self._turnstile.enter(partial(_let_in, let_in))
            await let_in
            yield
        finally:
            self._leave()

    async def _wait(self, principal: str) -> None:
        """Wait until a place is handed over.

        Raises:
            Full: The queue is full.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._queue.add(principal, waiter)
        if self._queue.size > self._most_waiting:
            newest = self._queue.drop(self._queue.longest())
            if not newest.done():
                newest.set_exception(Full(0.0))
        try:
            await waiter
        except asyncio.CancelledError:
            self._queue.remove(principal, waiter)
            if not waiter.cancelled() and waiter.exception() is None:
                self._leave()  # cancelled just after it was given a place
            raise

    def _leave(self) -> None:
        while (principal := self._queue.next_up()) is not None:
            waiter = self._queue.pop(principal)
            if not waiter.done():  # else it was cancelled at the same time
                waiter.set_result(None)
                return
        self._free += 1


def _let_in(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # else it was cancelled in the meantime
        waiter.set_result(None)
