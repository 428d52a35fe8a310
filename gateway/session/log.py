"""The event log of a session: what it has told its client, numbered, until that may be forgotten.

A connection is a reader of the log at a position. That is all it knows of the session's past, so
a slow connection, a new one and one that takes over are the same to the session.
"""

from array import array
from typing import Any

from msgspec import UNSET

from gateway.protocol.messages import Event, MessageDelta, MessageDone

# What an event takes beside its body: its fields, its object, its place in the log.
OVERHEAD_BYTES = 256

# How many places of dropped events there may be beyond those of kept ones.
_SPARE = 16


def size_of(event: Event) -> int:
    """About how many bytes an event holds; a body counts in full."""
    if isinstance(event, MessageDelta):
        if event.text is not UNSET:
            return OVERHEAD_BYTES + len(event.text)
    elif isinstance(event, MessageDone):
        if event.text is not UNSET:
            return OVERHEAD_BYTES + len(event.text)
        if event.json is not UNSET:
            return OVERHEAD_BYTES + memoryview(event.json).nbytes
    else:
        return OVERHEAD_BYTES
    return OVERHEAD_BYTES + (0 if event.base64 is UNSET else len(event.base64))


class EventLog:
    """Events numbered from 1 without gaps, the oldest dropped first.

    Args:
        max_events: How many are kept.
        max_bytes: How much they may hold together. The newest is kept whatever its size.
        max_age: How long one is kept, in seconds; looked at whenever another one is added.
    """

    __slots__ = (
        "_dropped",
        "_events",
        "_max_age",
        "_max_bytes",
        "_max_events",
        "_start",
        "_times",
        "_total",
        "_totals",
        "first",
        "forgotten",
        "last",
    )

    def __init__(self, *, max_events: int, max_bytes: int, max_age: float) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age = max_age
        # The events, each with the bytes of all up to and including it, and its time. There may be
        # thousands, so they are in no tuples. At index 0 is the one with the number `_start`, and
        # None in place of those that were dropped and not cut off yet.
        self._events: list[Any] = []
        self._totals = array("q")
        self._times = array("d")
        self._start = 1
        self._total = 0
        self._dropped = 0
        self.forgotten = 0
        """The newest number that nobody needs any more."""
        self.first = 1
        """The oldest number that can still be had; one past `last` where there is none."""
        self.last = 0
        """The newest number; 0 where there is none."""

    def append(self, event: Event, now: float) -> None:
        """Add the event that follows `last`, and drop what no longer fits."""
        if event.event != self.last + 1:
            raise ValueError(f"event {event.event} does not follow {self.last}")
        self.last += 1
        self._total += size_of(event)
        self._events.append(event)
        self._totals.append(self._total)
        self._times.append(now)
        oldest = now - self._max_age
        while (
            self.last - self.first >= self._max_events
            or self._total - self._dropped > self._max_bytes
            or self._times[self.first - self._start] < oldest
        ) and self.first < self.last:
            self._drop()

    def get(self, number: int) -> Event:
        """The event of that number.

        Raises:
            KeyError: It has been dropped, or has not happened yet.
        """
        if not self.first <= number <= self.last:
            raise KeyError(number)
        event: Event = self._events[number - self._start]
        return event

    def forget(self, through: int) -> None:
        """Drop everything up to and including this number."""
        self.forgotten = max(self.forgotten, through)
        while self.first <= through and self.first <= self.last:
            self._drop()

    def bytes_after(self, position: int) -> int:
        """How much the kept events hold whose numbers are greater."""
        if position < self.first:
            return self._total - self._dropped
        return self._total - self._totals[position - self._start]

    def _drop(self) -> None:
        index = self.first - self._start
        self._events[index] = None
        self._dropped = self._totals[index]
        self.first += 1
        if index * 2 > len(self._events) + _SPARE:  # not each time: it moves all that follow
            del self._events[: index + 1]
            del self._totals[: index + 1]
            del self._times[: index + 1]
            self._start = self.first
