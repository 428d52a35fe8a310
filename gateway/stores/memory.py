"""Sessions in this process's memory: for one gateway, whose sessions end with it."""

import math
import time
from collections.abc import Callable

from cachetools import TLRUCache

from gateway.session.log import EventLog
from gateway.session.ports import LogBounds, SessionRecord, StoreFull

MAX_TICKETS = 10_000
"""How many there may be at once; the oldest are void then."""


class MemoryStore:
    """A bounded store whose records expire each at its own time.

    A full store turns new sessions away instead of dropping one that somebody uses. That a session
    has expired is for itself to know; here its record only stops to take up room.

    Args:
        max_sessions: How many records it holds.
        clock: Seconds since the epoch.
    """

    def __init__(self, *, max_sessions: int, clock: Callable[[], float] = time.time) -> None:
        self._records: TLRUCache[str, SessionRecord] = TLRUCache(
            max_sessions,
            ttu=lambda _key, record, _now: (
                math.inf if record.expires_at is None else record.expires_at
            ),
            timer=clock,
        )
        self._tickets: TLRUCache[str, tuple[bytes, float]] = TLRUCache(
            MAX_TICKETS, ttu=lambda _digest, ticket, _now: ticket[1], timer=clock
        )

    def __len__(self) -> int:
        return len(self._records)

    async def create(self, record: SessionRecord, bounds: LogBounds) -> EventLog:
        """See `Store.create`."""
        if len(self._records) >= self._records.maxsize:  # but for those that have expired
            raise StoreFull
        self._records[record.id] = record
        return EventLog(bounds)

    async def put(self, record: SessionRecord) -> None:
        """See `Store.put`."""
        # One that has expired meanwhile, and whose place another has got, is to drop none.
        if record.id in self._records or len(self._records) < self._records.maxsize:
            self._records[record.id] = record

    async def delete(self, session_id: str) -> None:
        """See `Store.delete`."""
        self._records.pop(session_id, None)

    async def add_ticket(self, digest: str, holder: bytes, expires_at: float) -> None:
        """See `TicketStore.add_ticket`."""
        self._tickets[digest] = holder, expires_at

    async def take_ticket(self, digest: str) -> bytes | None:
        """See `TicketStore.take_ticket`."""
        kept = self._tickets.pop(digest, None)
        return None if kept is None else kept[0]
