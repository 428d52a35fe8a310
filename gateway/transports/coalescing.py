"""Wakes connections for what nobody waits for, together."""

import asyncio
from typing import Protocol

COALESCE_SECONDS = 0.005
"""How long what nobody waits for, as an acceptance, may wait to be written with what follows."""


class Wakeable(Protocol):
    """A connection."""

    def wake_if_behind(self) -> None:
        """Write what is unwritten."""
        ...


class Coalescer:
    """Wakes connections in a moment, with one timer for all.

    Args:
        loop: Has the timer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Wakeable] = []

    def add(self, connection: Wakeable) -> None:
        """Have it woken within `COALESCE_SECONDS`."""
        if not self._waiting:
            self._loop.call_later(COALESCE_SECONDS, self._wake)
        self._waiting.append(connection)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.wake_if_behind()
