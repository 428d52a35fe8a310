"""The event log of a session: what it has told its client, numbered, until that may be forgotten.

A connection is a reader of the log at a position. That is all it knows of the session's past, so
a slow connection, a new one and one that takes over are the same to the session.
"""

from collections import deque

from msgspec import UNSET

from gateway.protocol.messages import Event, MessageDelta, MessageDone

# What an event takes beside its body: its fields, its object, its place in the log.
OVERHEAD_BYTES = 512


def size_of(event: Event) -> int:
    """About how many bytes an event holds; a body counts in full."""
    if not isinstance(event, MessageDone | MessageDelta):
        return OVERHEAD_BYTES
    if event.text is not UNSET:
        return OVERHEAD_BYTES + len(event.text)
    if isinstance(event, MessageDone) and event.json is not UNSET:
        return OVERHEAD_BYTES + len(bytes(event.json))
    return OVERHEAD_BYTES + (len(event.base64) if event.base64 is not UNSET else 0)


class EventLog:
    """Events numbered from 1 without gaps, the oldest dropped first.

    Args:
        max_events: How many are kept.
        max_bytes: How much they may hold together. The newest is kept whatever its size.
        max_age: How long one is kept, in seconds; looked at whenever another one is added.
    """

    def __init__(self, *, max_events: int, max_bytes: int, max_age: float) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._max_age = max_age
        # Each event with the bytes of all events up to and including it, and its time.
        self._entries: deque[tuple[Event, int, float]] = deque()
        self._total = 0
        self._dropped = 0
        self.forgotten = 0
        """The newest number that nobody needs any more."""
        self.last = 0
        """The newest number; 0 where there is none."""

    @property
    def first(self) -> int:
        """The oldest number that can still be had; one past `last` where there is none."""
        return self.last + 1 - len(self._entries)

    def append(self, event: Event, now: float) -> None:
        """Add the event that follows `last`, and drop what no longer fits."""
        if event.event != self.last + 1:
            raise ValueError(f"event {event.event} does not follow {self.last}")
        self._total += size_of(event)
        self._entries.append((event, self._total, now))
        self.last += 1
        while len(self._entries) > 1 and (
            len(self._entries) > self._max_events
            or self._total - self._dropped > self._max_bytes
            or self._entries[0][2] < now - self._max_age
        ):
            self._drop()

    def get(self, number: int) -> Event:
        """The event of that number.

        Raises:
            KeyError: It has been dropped, or has not happened yet.
        """
        if not self.first <= number <= self.last:
            raise KeyError(number)
        return self._entries[number - self.first][0]

    def forget(self, through: int) -> None:
        """Drop everything up to and including this number."""
        self.forgotten = max(self.forgotten, through)
        while self._entries and self.first <= through:
            self._drop()

    def bytes_after(self, position: int) -> int:
        """How much the kept events hold whose numbers are greater."""
        if position < self.first:
            return self._total - self._dropped
        return self._total - self._entries[position - self.first][1]

    def _drop(self) -> None:
        _, self._dropped, _ = self._entries.popleft()
