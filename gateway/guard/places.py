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
    """Too many wait, and of those who are the most this is the newest."""


class Places:
    """So many places, and a queue for them with a line for each principal.

    Args:
        most: How many places there are.
        waiting: How many may wait for one; None for as many as do.
    """

    def __init__(self, most: int, waiting: int | None) -> None:
        self._free = most
        self._most_waiting = waiting
        self._loop = asyncio.get_running_loop()
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._turnstile = Turnstile(BEGUN)

    @asynccontextmanager
    async def place(self, principal: str) -> AsyncIterator[None]:
        """Have a place, when its turn has come, until this is left.

        Raises:
            Full: There is none, nor one to wait in.
        """
        waiter: asyncio.Future[None] = self._loop.create_future()
        if self._free:
            self._free -= 1
        else:
            self._queue.add(principal, waiter)
            if self._most_waiting is not None and self._queue.size > self._most_waiting:
                newest = self._queue.drop(self._queue.longest())
                if not newest.done():
                    newest.set_exception(Full())
            try:
                await waiter
            except asyncio.CancelledError:
                self._queue.remove(principal, waiter)
                if not waiter.cancelled() and waiter.exception() is None:
                    self._leave()  # it has been given a place in this very moment
                raise
        try:
            let_in: asyncio.Future[None] = self._loop.create_future()
            self._turnstile.enter(partial(_let_in, let_in))
            await let_in
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        while self._queue.size:
            waiter = self._queue.pop()
            if not waiter.done():  # else it was given up in this very moment
                waiter.set_result(None)  # the place is handed on
                return
        self._free += 1


def _let_in(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # else it was given up meanwhile
        waiter.set_result(None)
