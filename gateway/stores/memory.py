"""Sessions in this process's memory: for one gateway, whose sessions end with it."""

import math
import time
from collections.abc import Callable

from cachetools import TLRUCache

from gateway.session.ports import Evicted, SessionRecord, StoreFull


class MemoryStore:
    """A bounded store whose records expire each at its own time.

    A full store turns new sessions away instead of dropping one that somebody uses; so a record
    leaves by being deleted or by expiring, and of the latter `evicted` is told.

    Args:
        max_sessions: How many records it holds.
        evicted: Called for each record that has expired.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        max_sessions: int,
        evicted: Evicted,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._evicted = evicted
        self._records: TLRUCache[str, SessionRecord] = TLRUCache(
            max_sessions,
            ttu=lambda _key, record, _now: (
                math.inf if record.expires_at is None else record.expires_at
            ),
            timer=clock,
        )

    def __len__(self) -> int:
        return len(self._records)

    async def put(self, record: SessionRecord) -> None:
        """See `Store.put`."""
        # The cache drops what has expired, unannounced, whenever it changes; within this block
        # its clock stands still, so nothing more expires after `_expire` has told of all.
        with self._records.timer as now:
            self._expire(now, replaced=record.id)
            if record.id not in self._records and len(self._records) >= self._records.maxsize:
                raise StoreFull
            if record.expires_at is not None and record.expires_at <= now:
                self._records.pop(record.id, None)
                self._evicted(record)
            else:
                self._records[record.id] = record

    async def get(self, session_id: str) -> SessionRecord | None:
        """See `Store.get`."""
        return self._records.get(session_id)

    async def delete(self, session_id: str) -> None:
        """See `Store.delete`."""
        with self._records.timer as now:
            self._expire(now)
            self._records.pop(session_id, None)

    async def expire(self) -> None:
        """See `Store.expire`."""
        with self._records.timer as now:
            self._expire(now)

    def _expire(self, now: float, replaced: str | None = None) -> None:
        for session_id, record in self._records.expire(now):
            if session_id != replaced:  # that one lives on, in the record that takes its place
                self._evicted(record)
