"""Lets a crowd in by turns, so that those who are there do not feel it."""

import asyncio
from collections import deque
from collections.abc import Callable


class Turnstile:
    """Lets so many begin in one turn of the event loop, and the others in later ones, in order.

    Args:
        room: How many that is.
    """

    def __init__(self, room: int) -> None:
        self._room = self._left = room
        self._waiting: deque[Callable[[], object]] = deque()

    def enter(self, begin: Callable[[], object]) -> None:
        """Call this now, or when its turn has come."""
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
