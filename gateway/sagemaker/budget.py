"""Limits how much of streamed replies is processed in one iteration of the event loop.

A hostile container may write a million empty lines, or single bytes, which all arrive together. So
that this doesn't delay other routes, each iteration processes a limited amount over all replies,
round-robin. The rest is buffered, and once the buffer is full the connection is paused.
"""

import asyncio
from collections import deque
from typing import Protocol

TURN_COST = 256
"""How much is read in one iteration of the event loop, over all replies.

An event of a stream costs 1, and so do a line and each 256 bytes.
"""
SHARE_COST = 64
"""How much of that one reply may use before the next one's turn."""


class Readable(Protocol):
    """Something that can be read in pieces."""

    def read(self, most: int) -> int:
        """Read more.

        Args:
            most: The approximate limit of the cost.

        Returns:
            The actual cost.
        """
        ...

    @property
    def unread(self) -> bool:
        """Whether there is more to read."""
        ...


class ReadBudget:
    """The budget of one iteration of the event loop, shared by all readers.

    Attributes:
        waiting: Whether more is scheduled for the next iteration.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[Readable] = deque()
        self._left = TURN_COST
        self.waiting = False

    def read(self, reader: Readable) -> None:
        """Let a reader read, now or in a later iteration; call it once whenever there is more."""
        self._queue.append(reader)
        if not self.waiting:
            self._run()

    def _run(self) -> None:
        try:
            while self._queue and self._left > 0:
                reader = self._queue.popleft()
                self._left -= reader.read(min(SHARE_COST, self._left))
                if reader.unread:
                    self._queue.append(reader)
        finally:  # an error in one must not stop the others
            if self._queue:
                self.waiting = True
                self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self.waiting = False
        self._left = TURN_COST
        self._run()
