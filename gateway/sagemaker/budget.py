"""How much of streamed replies is read in one turn of the event loop.

They are read in small pieces, so that no other route feels one that is hostile. A
container may write a million empty lines, or a byte at a time, and all of it is there at once.
However much has come, only so much of it is worked on in one turn of the event loop, over all
replies and with each in its turn. The rest is kept, and once there is enough of that, nothing more
is read from the connection.
"""

import asyncio
from collections import deque
from typing import Protocol

TURN_COST = 256
"""How much is read in one turn of the event loop, over all replies.

An event of a stream costs 1, and so do a line and each 256 bytes.
"""
SHARE_COST = 64
"""How much of that one reply has before the next has its share."""


class Readable(Protocol):
    """What has something to be read in pieces."""

    def read(self, most: int) -> int:
        """Read on.

        Args:
            most: How much may be read, about.

        Returns:
            What it has cost.
        """
        ...

    @property
    def unread(self) -> bool:
        """Whether there is more."""
        ...


class ReadBudget:
    """How much is read in one turn of the event loop, by all who share it.

    Attributes:
        waiting: Whether there is more to be read in the next one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[Readable] = deque()
        self._left = TURN_COST
        self.waiting = False

    def read(self, reader: Readable) -> None:
        """Read on, now or in one of the next turns; once for each time that there is more."""
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
        finally:  # one whose end goes wrong holds up no other
            if self._queue:
                self.waiting = True
                self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self.waiting = False
        self._left = TURN_COST
        self._run()
