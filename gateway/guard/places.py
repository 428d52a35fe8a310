"""Places for calls that are waited for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from gateway.guard.fair_queue import FairQueue
from gateway.turnstile import Turnstile

BEGUN = 2
"""How many calls begin in one turn of the event loop: hundreds may want to at once, and whoever
waits for an answer would wait for all of them."""


class Full(Exception):
    """Too many wait, and of those who are the most this is the newest; or it has waited too long.

    Attributes:
        waited: How many seconds it was.
    """

    def __init__(self, waited: float) -> None:
        super().__init__()
        self.waited = waited


class Places:
    """So many places, and a queue for them with a line for each principal.

    Args:
        most: How many places there are.
        waiting: How many may wait for one.
        patience: How many seconds one may.
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
        """Have a place, when its turn has come, until this is left.

        Raises:
            Full: There is none, nor one to wait in; or not in time.
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
        """Have a place handed on.

        Raises:
            Full: There is no place to wait in.
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
                self._leave()  # it has been given a place in this very moment
            raise

    def _leave(self) -> None:
        while (principal := self._queue.next_up()) is not None:
            waiter = self._queue.pop(principal)
            if not waiter.done():  # else it was given up in this very moment
                waiter.set_result(None)  # the place is handed on
                return
        self._free += 1


def _let_in(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # else it was given up meanwhile
        waiter.set_result(None)
