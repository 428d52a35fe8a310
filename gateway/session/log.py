"""The event log of a session in this process's memory."""

from array import array

from msgspec import UNSET, structs

from gateway.protocol.messages import Event, MessageDelta, MessageDone
from gateway.session.ports import LogBounds
from gateway.session.sizes import utf8_size

# Memory that an event takes beside its body: its fields, its object, its entry in the log.
OVERHEAD_BYTES = 256

# How many entries of dropped events there may be beyond those of kept ones.
_SPARE = 16


def size_of(event: Event) -> int:
    """Estimate an event's memory in bytes; a body counts in full."""
    if isinstance(event, MessageDelta):
        if event.text is not UNSET:
            return OVERHEAD_BYTES + utf8_size(event.text)
    elif isinstance(event, MessageDone):
        if event.text is not UNSET:
            return OVERHEAD_BYTES + utf8_size(event.text)
        if event.json is not UNSET:
            return OVERHEAD_BYTES + memoryview(event.json).nbytes
    else:
        return OVERHEAD_BYTES
    return OVERHEAD_BYTES + (0 if event.base64 is UNSET else len(event.base64))


class EventLog:
    """See `Log`.

    Args:
        bounds: The limits of what is kept.

    Attributes:
        holding: Whether new events can't be read until `told` is raised.
    """

    __slots__ = (
        "_events",
        "_start",
        "_times",
        "_total",
        "_totals",
        "bounds",
        "first",
        "held",
        "holding",
        "last",
        "told",
        "trimmed",
    )

    def __init__(self, bounds: LogBounds) -> None:
        self.bounds = bounds
        # The events, each with the bytes of all up to and including it, and its time. There may be
        # thousands, so they are in arrays instead of tuples. Index 0 has event number `_start`;
        # dropped events are None until they are cut off.
        self._events: list[Event | None] = []
        self._totals = array("q")
        self._times = array("d")
        self._start = 1
        self._total = 0
        self.first = 1
        self.last = 0
        self.told = 0
        self.holding = False
        self.trimmed = 0
        self.held = 0

    def append(self, event: Event, now: float) -> None:
        """See `Log.append`.

        Raises:
            ValueError: The event's number does not follow the last one.
        """
        last = self.last + 1
        if event.event != last:
            raise ValueError(f"event {event.event} does not follow {self.last}")
        self.last = last
        size = size_of(event)
        self._total += size
        self.held += size
        self._events.append(event)
        self._totals.append(self._total)
        self._times.append(now)
        if not self.holding:
            self.told = last
        bounds = self.bounds
        while (
            self.held > bounds.max_bytes
            or last - self.first >= bounds.max_events
            or self._times[self.first - self._start] < now - bounds.max_age
        ) and self.first < last:
            self._drop()

    def renumber(self, after: int, by: int) -> None:
        """See `Log.renumber`."""
        before = max(after, self.first - 1)
        moved = [
            (event, self._times[number - self._start])
            for number, event in enumerate(self.since(before), before + 1)
        ]
        self.begin(before + by)
        for event, time in moved:
            self.append(structs.replace(event, event=event.event + by), time)

    def begin(self, last: int) -> None:
        """Drop everything, and continue after this number."""
        self._events.clear()
        del self._totals[:], self._times[:]
        self.first = self._start = last + 1
        self.last = self.told = last
        self.held = self._total = 0

    def since(self, number: int) -> list[Event]:
        """See `Log.since`."""
        begin = max(number + 1, self.first) - self._start
        return [event for event in self._events[begin:] if event is not None]

    def shrink(self, max_bytes: int) -> None:
        """See `Log.shrink`."""
        while self.held > max_bytes and self.first < self.last:
            self._drop()

    def get(self, number: int) -> Event | None:
        """See `Log.get`."""
        if number > self.told or number < self.first:
            return None
        return self._events[number - self._start]

    def trim(self, through: int) -> None:
        """See `Log.trim`."""
        self.trimmed = max(self.trimmed, through)
        while self.first <= through and self.first <= self.last:
            self._drop()

    def bytes_after(self, position: int) -> int:
        """See `Log.bytes_after`."""
        if position < self.first:
            return self.held
        return self._total - self._totals[position - self._start]

    def _drop(self) -> None:
        index = self.first - self._start
        self._events[index] = None
        self.held = self._total - self._totals[index]
        self.first += 1
        if index * 2 > len(self._events) + _SPARE:  # rarely, since it moves all entries that follow
            del self._events[: index + 1]
            del self._totals[: index + 1]
            del self._times[: index + 1]
            self._start = self.first
