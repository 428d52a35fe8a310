"""Spreads bursts of work over several iterations of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable


class Turnstile:
    """Starts a limited number of callbacks in each iteration of the event loop, in order.

    Args:
        room: Maximum per iteration.
    """

    def __init__(self, room: int) -> None:
        self._room = self._left = room
        self._waiting: deque[Callable[[], object]] = deque()

    def enter(self, begin: Callable[[], object]) -> None:
        """Call this now, or in a later iteration of the event loop."""
        if self._left == self._room:
            asyncio.get_running_loop().call_soon(self._turn)
        if self._left > 0:
            self._left -= 1
            begin()
        else:
            self._waiting.append(begin)

    def _turn(self) -> None:
        self._left = self._room
        for _ in range(min(self._room, len(self._waiting))):
            self.enter(self._waiting.popleft())
