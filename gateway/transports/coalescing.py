"""Coalesces wake-ups of connections for messages that aren't urgent."""

import asyncio
from typing import Protocol

COALESCE_SECONDS = 0.005
"""Seconds that messages which aren't urgent, such as ``message.accepted``, may be delayed to be
written together with what follows."""


class Wakeable(Protocol):
    """A connection that can be woken."""

    def wake_if_behind(self) -> None:
        """Schedule writing, if there is anything unwritten."""
        ...


class Coalescer:
    """Wakes connections after a short delay, with one timer for all of them.

    Args:
        loop: The event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Wakeable] = []

    def add(self, connection: Wakeable) -> None:
        """Wake a connection within `COALESCE_SECONDS`."""
        if not self._waiting:
            self._loop.call_later(COALESCE_SECONDS, self._wake)
        self._waiting.append(connection)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.wake_if_behind()
