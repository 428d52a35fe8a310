"""Decouples reading a turn from sending it to its client.

The task that reads a turn to its end also stores the result. It must not wait for a client that is
slow or gone: the session's log is bounded, and events would be dropped before they are read.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from gateway.admission import Refused
from gateway.budget import COUNTED_BYTES
from gateway.sessions import Sessions
from gateway.transports.exchange import Moved

Json = dict[str, Any]


class Told(Protocol):
    """A running turn: a `Turn` or a `Talk`."""

    @property
    def is_over(self) -> bool:
        """Whether the turn has ended."""
        ...

    async def next(self) -> list[Json]:
        """Wait for the next events; an empty list is a heartbeat.

        Raises:
            Moved: The session is at another replica.
            Refused: The session is temporarily unavailable.
        """
        ...

    def leave(self) -> None:
        """Stop listening."""
        ...


class Relay:
    """Reads a turn in a task of its own, and buffers what its client has not received yet.

    If the buffer is full, further events are dropped, except for the last.

    Args:
        sessions: The replica's sessions, one of which is the turn's.
        turn: The turn.
        write: Encodes events.
        most_bytes: Maximum size of the buffer, without the last event.

    Attributes:
        held: See `gateway.budget.Holder`.
        has_missed: Whether events were dropped.
    """

    def __init__(
        self,
        sessions: Sessions,
        turn: Told,
        write: Callable[[list[Json]], list[bytes]],
        most_bytes: int,
    ) -> None:
        self.held = 0
        self.has_missed = False
        self._turn = turn
        self._write = write
        self._budget = sessions.budget
        self._most_bytes = most_bytes
        self._pieces = list[bytes]()
        self._bytes = 0
        self._error: Moved | Refused | None = None
        self._is_read, self._is_left = turn.is_over, False
        self._news: asyncio.Future[None] | None = None
        if not turn.is_over:
            # After shutdown, `spawn` does not start the task.
            sessions.spawn(self._read()).add_done_callback(lambda _: self._end())

    async def _read(self) -> None:
        turn = self._turn
        try:
            while not turn.is_over:
                self._hold(await turn.next())
        except (Moved, Refused) as error:
            self._error = error
        finally:
            self._end()

    def _end(self) -> None:
        self._turn.leave()
        self._is_read = True
        self._wake()

    def _hold(self, told: list[Json]) -> None:
        """Buffer events for the client."""
        if self._is_left:
            return
        is_last = self._turn.is_over
        pieces = self._write(told) if is_last or not self.has_missed else []
        if self._pieces and self._bytes + sum(map(len, pieces)) > self._most_bytes:
            self.has_missed = True
        if self.has_missed:
            pieces = pieces[-1:] if is_last else []
        self._pieces += pieces
        self._bytes += sum(map(len, pieces))
        self._count()
        self._wake()

    def _count(self) -> None:
        held = self._bytes if self._bytes > COUNTED_BYTES else 0
        if held or self.held:
            self._budget.change(self, held)

    def give_back(self) -> None:
        """See `gateway.budget.Holder`."""
        self.has_missed = True
        self._pieces = self._pieces[-1:] if self._turn.is_over else []
        self._bytes = sum(map(len, self._pieces))
        self._count()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # For its client

    @property
    def is_through(self) -> bool:
        """Whether the turn has been read, and the client has received everything."""
        return self._is_read and not self._pieces and self._error is None

    async def next(self) -> list[bytes]:
        """Wait for encoded events; an empty list is a heartbeat.

        Raises:
            Moved: See `Told.next`.
            Refused: See `Told.next`.
        """
        if not self._pieces and not self._is_read:
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        pieces, self._pieces, self._bytes = self._pieces, [], 0
        self._count()
        if self._error is not None and not pieces:
            raise self._error
        return pieces

    def leave(self) -> None:
        """Stop buffering, because the client has everything or is gone; the turn is still read."""
        self._is_left = True
        self._pieces, self._bytes = [], 0
        self._count()
