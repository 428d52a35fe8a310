"""Sessions in this process's memory: for replicas in one process, and a model of what stores do."""

import asyncio
import contextlib
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from cachetools import TLRUCache
from msgspec import Struct, structs

from gateway.session.storage import (
    NOBODY,
    OVER_SECONDS,
    Beats,
    Change,
    Count,
    Fenced,
    Glimpse,
    Outdated,
    Saved,
    Title,
    Use,
)

MAX_TICKETS = 10_000
"""Maximum number of tickets; more make the oldest ones invalid."""


RECORD_BYTES = 268_435_456
"""Default for the maximum size of all records together, in bytes."""

_RECORD_OVERHEAD = 512  # bytes for its name and its entry


class _Kept(Struct):
    """A session; `saved` is None once it has ended."""

    title: Title
    saved: Saved | None
    lasts: list[int]  # number of the newest event in each piece of its log
    until: float


class MemoryStore:
    """See `gateway.session.storage.Store`.

    Args:
        clock: Returns seconds since the epoch.
        record_bytes: Maximum size of all records together; the least recently read are evicted.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.time, record_bytes: int = RECORD_BYTES
    ) -> None:
        self._clock = clock
        self._sessions: TLRUCache[str, _Kept] = TLRUCache(
            math.inf, ttu=lambda _id, kept, _now: kept.until, timer=clock
        )
        self._tickets: TLRUCache[str, tuple[bytes, float]] = TLRUCache(
            MAX_TICKETS, ttu=lambda _digest, ticket, _now: ticket[1], timer=clock
        )
        self._records: TLRUCache[str, tuple[bytes, float]] = TLRUCache(
            record_bytes,
            ttu=lambda _name, record, _now: record[1],
            timer=clock,
            getsizeof=lambda record: len(record[0]) + _RECORD_OVERHEAD,
        )
        self._counts: dict[str, tuple[dict[str, int], float]] = {}  # with their expiry
        self._used: TLRUCache[str, Sequence[float]] = TLRUCache(  # when buckets are full again
            math.inf, ttu=lambda _name, full_at, _now: max(full_at), timer=clock
        )
        self._owned: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._beats: dict[str, float] = {}
        self._inboxes: defaultdict[str, list[bytes]] = defaultdict(list)
        self._news: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def save(
        self,
        session_id: str,
        title: Title,
        number: int,
        change: Change,
        *,
        seconds: float,
        release: bool = False,
    ) -> asyncio.Future[None]:
        """See `SessionStore.save`."""
        saved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._save(session_id, title, number, change, seconds, release=release)
        except (Fenced, Outdated) as error:
            saved.set_exception(error)
        else:
            saved.set_result(None)
        return saved

    def _save(
        self,
        session_id: str,
        title: Title,
        number: int,
        change: Change,
        seconds: float,
        *,
        release: bool,
    ) -> None:
        kept = self._sessions.get(session_id)
        if kept is not None:
            if kept.title.token > title.token:
                raise Fenced
            over = kept.saved is None
            if kept.title.token == title.token and (over or kept.title.owner != title.owner):
                raise Fenced
        before = None if kept is None else kept.saved
        if change.whole:
            if before is not None and before.title == title and before.number >= number:
                raise Outdated
            before = None
        elif before is None or before.title != title or before.number != number - 1:
            raise Outdated
        lasts = [] if before is None or kept is None else kept.lasts
        after = Title(NOBODY, title.token) if release else title
        self._owned[title.owner][session_id] = None
        saved = _merged(before, change, after, number)
        if change.events is not None:
            lasts = [*lasts, change.last]
        gone = sum(last < change.first for last in lasts)
        saved = structs.replace(saved, events=saved.events[gone:])
        until = self._clock() + seconds
        self._sessions[session_id] = _Kept(after, saved, lasts[gone:], until)

    async def glimpse(self, session_id: str) -> Glimpse | None:
        """See `SessionStore.glimpse`."""
        kept = self._sessions.get(session_id)
        if kept is None or kept.saved is None:
            return None
        return Glimpse(kept.title, kept.saved.head)

    async def claim(self, session_id: str, before: Title, replica: str) -> Saved | None:
        """See `SessionStore.claim`."""
        kept = self._sessions.get(session_id)
        if kept is None or kept.saved is None or kept.title != before:
            return None
        title = Title(replica, before.token + 1)
        saved = structs.replace(kept.saved, title=title)
        self._owned[before.owner].pop(session_id, None)
        self._owned[replica][session_id] = None
        self._sessions[session_id] = structs.replace(kept, title=title, saved=saved)
        return saved

    async def delete(self, session_id: str, title: Title) -> None:
        """See `SessionStore.delete`."""
        kept = self._sessions.get(session_id)
        if kept is None or kept.title.token <= title.token:
            until = self._clock() + OVER_SECONDS
            self._sessions[session_id] = _Kept(Title(NOBODY, title.token), None, [], until)
            self._owned[title.owner].pop(session_id, None)

    async def owned(self, replica: str, count: int) -> Sequence[str]:
        """See `SessionStore.owned`."""
        ids = [*self._owned[replica]]
        return random.sample(ids, min(count, len(ids)))

    async def disown(self, replica: str, session_ids: Sequence[str]) -> None:
        """See `SessionStore.disown`."""
        for session_id in session_ids:
            self._owned[replica].pop(session_id, None)

    async def beat(self, replica: str) -> Beats:
        """See `ReplicaStore.beat`."""
        now = self._beats[replica] = self._clock()
        return Beats(now, {name: now - beat for name, beat in self._beats.items()})

    async def resign(self, replica: str) -> None:
        """See `ReplicaStore.resign`."""
        self._beats[replica] = 0.0

    async def bury(self, replica: str) -> None:
        """See `ReplicaStore.bury`."""
        self._beats.pop(replica, None)
        self._owned.pop(replica, None)
        self._inboxes.pop(replica, None)

    async def post(self, replica: str, letters: Sequence[bytes]) -> int:
        """See `ReplicaStore.post`."""
        inbox = self._inboxes[replica]
        inbox += letters
        self._news[replica].set()
        return len(inbox)

    async def collect(self, replica: str, seconds: float) -> Sequence[bytes]:
        """See `ReplicaStore.collect`."""
        if not self._inboxes[replica]:
            self._news[replica].clear()
            try:
                await asyncio.wait_for(self._news[replica].wait(), seconds)
            except TimeoutError:
                return []
        return self._inboxes.pop(replica, [])

    async def add_ticket(self, digest: str, holder: bytes, expires_at: float) -> None:
        """See `TicketStore.add_ticket`."""
        self._tickets[digest] = holder, expires_at

    async def take_ticket(self, digest: str) -> bytes | None:
        """See `TicketStore.take_ticket`."""
        kept = self._tickets.pop(digest, None)
        return None if kept is None else kept[0]

    async def put_record(self, name: str, record: bytes, seconds: float) -> None:
        """See `RecordStore.put_record`."""
        self._records.pop(name, None)
        with contextlib.suppress(ValueError):  # larger than the maximum
            self._records[name] = record, self._clock() + seconds

    async def add_record(self, name: str, record: bytes, seconds: float) -> bool:
        """See `RecordStore.add_record`."""
        if name in self._records:
            return False
        await self.put_record(name, record, seconds)
        return True

    async def replace_record(self, name: str, record: bytes, seconds: float) -> bool:
        """See `RecordStore.replace_record`."""
        if name not in self._records:
            return False
        await self.put_record(name, record, seconds)
        return True

    async def get_record(self, name: str, seconds: float | None = None) -> bytes | None:
        """See `RecordStore.get_record`."""
        kept = self._records.get(name)
        if kept is None:
            return None
        if seconds is not None:
            await self.put_record(name, kept[0], seconds)
        return kept[0]

    async def take_record(self, name: str) -> bytes | None:
        """See `RecordStore.take_record`."""
        kept = self._records.pop(name, None)
        return None if kept is None else kept[0]

    async def delete_record(self, name: str) -> bool:
        """See `RecordStore.delete_record`."""
        return self._records.pop(name, None) is not None

    async def count(
        self, replica: str, counts: Sequence[Count], *, whole: bool, seconds: float
    ) -> Sequence[int]:
        """See `CountStore.count`."""
        now = self._clock()
        self._counts = {name: kept for name, kept in self._counts.items() if kept[1] > now}
        if not whole and replica not in self._counts:
            raise Outdated
        own = {} if whole else self._counts[replica][0]
        self._counts[replica] = own, now + seconds
        others = [kept for name, (kept, _) in self._counts.items() if name != replica]
        given = []
        for what, here, wanted, most in counts:
            there = sum(other.get(what, 0) for other in others)
            more = max(0, min(wanted, most - here - there))
            given.append(more)
            own[what] = here + more
            if not own[what]:
                del own[what]
        return given

    def use(self, name: str, uses: Sequence[Use]) -> asyncio.Future[Sequence[float]]:
        """See `CountStore.use`."""
        now = self._clock()
        before = self._used.get(name, [now] * len(uses))
        seconds = [
            max(0.0, full_at - now) + use.amount / use.rate
            for full_at, use in zip(before, uses, strict=True)
        ]
        self._used[name] = [now + each for each in seconds]
        told: asyncio.Future[Sequence[float]] = asyncio.get_running_loop().create_future()
        told.set_result(seconds)
        return told


def _merged(before: Saved | None, change: Change, title: Title, number: int) -> Saved:
    turns = dict(before.turns) if before else {}
    turns.update(change.turns)
    for message_id in change.gone:
        turns.pop(message_id, None)
    ended = [*(before.ended if before else ()), *change.ended]
    said = [*(before.said if before else ()), *change.said]
    events = [*(before.events if before else ())]
    if change.events is not None:
        events.append(change.events)
    return Saved(
        title=title,
        number=number,
        head=change.head,
        turns=turns,
        ended=ended[max(0, len(ended) - change.max_ended) :],
        said=said[max(0, len(said) - change.max_said) :],
        events=events,
    )
