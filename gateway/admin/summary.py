"""Summarizes metrics for operators: current load and recent latencies."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import accumulate

from gateway.admin.views import Figures, Latency, ReplicaState, RouteState
from gateway.measures import TURNS
from gateway.telemetry.reading import Labels, Reading, total

Readings = Mapping[str, Reading]
"""The metrics of each replica that has answered, by its name."""

STATUSES = ("completed", "cancelled", "failed")


class Window:
    """The most recent readings, from which changes are computed.

    Args:
        most: Maximum number of readings kept.
    """

    def __init__(self, most: int) -> None:
        self._kept: deque[tuple[float, Readings]] = deque(maxlen=most)

    def add(self, now: float, readings: Readings) -> None:
        """Add the newest readings.

        Args:
            now: Time in seconds of a monotonic clock.
            readings: Readings of all replicas that have answered.
        """
        self._kept.append((now, readings))

    def changed(self, name: str, back: int | None = None) -> tuple["Change", float]:
        """Compute how a counter or a histogram has changed, summed over the newest readings.

        A replica's changes count from its first answer in the window: what it counted before is
        not new.

        Args:
            name: Name of the metric.
            back: Number of readings to go back; all by default.

        Returns:
            The change, and the seconds in which it happened.
        """
        kept = [*self._kept][-(back + 1) :] if back else [*self._kept]
        change, seconds = Change(), 0.0
        if not kept:
            return change, seconds
        now, newest = kept[-1]
        for replica, reading in newest.items():
            since, before = next((at, each[replica]) for at, each in kept if replica in each)
            change.add(name, before, reading)
            seconds = max(seconds, now - since)
        return change, seconds


class Change:
    """Change of a metric, by label values.

    Attributes:
        numbers: Changes of a counter.
        counts: Changes of a histogram's buckets.
    """

    def __init__(self) -> None:
        self.numbers: Counter[Labels] = Counter()
        self.counts: dict[Labels, list[int]] = {}

    def add(self, name: str, before: Reading | None, now: Reading) -> None:
        """Add the change at one replica.

        Args:
            name: Name of the metric.
            before: The earlier reading; None to count from the replica's start.
            now: The later reading.
        """
        for labels, value in now.numbers.get(name, ()):
            self.numbers[labels] += int(value)
        for labels, spread in now.spreads.get(name, ()):
            self._count(labels, spread.counts, 1)
        if before is not None:
            for labels, value in before.numbers.get(name, ()):
                self.numbers[labels] -= int(value)
            for labels, spread in before.spreads.get(name, ()):
                self._count(labels, spread.counts, -1)

    def _count(self, labels: Labels, counts: Sequence[int], sign: int) -> None:
        known = self.counts.setdefault(labels, [0] * len(counts))
        for place, count in enumerate(counts):
            known[place] += sign * count


def since_the_start(readings: Readings, name: str) -> Change:
    """Sum a metric of all replicas since their start."""
    change = Change()
    for reading in readings.values():
        change.add(name, None, reading)
    return change


class Summary:
    """Summary of the replicas that have answered.

    Args:
        endpoints: Endpoint of each route, by the route's name.
        readings: The newest readings.
        window: Recent readings, including these; None for latencies of all turns since the
            replicas started.
    """

    def __init__(
        self, endpoints: Mapping[str, str], readings: Readings, window: Window | None = None
    ) -> None:
        self._endpoints = endpoints
        self._count = len(readings)
        self._now = total(readings.values())
        self._turns = since_the_start(readings, "turns")
        names = ("turn_first_delta_seconds", "turn_duration_seconds")
        if window is None:
            self._ended, self._seconds = Change(), 0.0
            self._first, self._whole = (since_the_start(readings, name) for name in names)
        else:
            self._ended, self._seconds = window.changed("turns", 1)
            self._first, self._whole = (window.changed(name)[0] for name in names)

    def routes(self) -> list[RouteState]:
        """Return the state of each route, in the order of the configuration."""
        found = []
        for name, endpoint in self._endpoints.items():
            figures = self.figures(name)
            open_at = figures.breakers_open
            found.append(
                RouteState(
                    **{field: getattr(figures, field) for field in figures.__struct_fields__},
                    route=name,
                    endpoint=endpoint,
                    breaker="closed"
                    if not open_at
                    else "open"
                    if open_at >= self._count
                    else "partly open",
                )
            )
        return found

    def figures(self, route: str | None = None) -> Figures:
        """Return the figures of one route, or of all."""
        states: Counter[str] = Counter()
        attached = 0
        for (name, state, is_attached), number in self._now.numbers.get("sessions", ()):
            if route in {None, name}:
                states[state] += int(number)
                attached += int(number) if is_attached == "true" else 0
        turns = _by_status(self._turns, route)
        ended = sum(_by_status(self._ended, route).values())
        return Figures(
            sessions=dict(states),
            attached=attached,
            turns_in_flight=self._sum("turns_in_flight", route),
            turns_in_flight_limit=self._sum("turns_in_flight_limit", route),
            turns_waiting=self._sum("turns_waiting", route),
            turns_queued=self._sum("turns_queued", route),
            turns_awaited=self._sum("turns_awaited", route),
            breakers_open=self._sum("breaker_open", route),
            turns=turns,
            per_second=round(ended / self._seconds, 3) if self._seconds else 0.0,
            first_part=_latency(self._first, route),
            whole=_latency(self._whole, route),
        )

    def _sum(self, name: str, route: str | None) -> int:
        return _sum(self._now, name, route)


def replica_state(name: str, reading: Reading | None, *, here: bool) -> ReplicaState:
    """Return the state of a replica.

    Args:
        name: Its name.
        reading: Its metrics; None if it does not answer.
        here: Whether it is this one.
    """
    if reading is None:
        return ReplicaState(name=name, here=here, answers=False)
    (((version,), _), *_) = reading.numbers["build_info"]
    return ReplicaState(
        name=name,
        here=here,
        answers=True,
        draining=bool(_sum(reading, "draining")),
        version=version,
        sessions=_sum(reading, "sessions"),
        connections=_sum(reading, "connections"),
        turns_in_flight=_sum(reading, "turns_in_flight"),
        memory_bytes=_sum(reading, "process_resident_memory_bytes"),
    )


def _sum(reading: Reading, name: str, route: str | None = None) -> int:
    """Sum the samples of a metric, or those of one route, which is the first label."""
    samples = reading.numbers.get(name, ())
    return int(sum(value for labels, value in samples if route in {None, *labels[:1]}))


def _by_status(change: Change, route: str | None) -> dict[str, int]:
    found = dict.fromkeys(STATUSES, 0)
    for (name, status, *_), number in change.numbers.items():
        if route in {None, name}:
            found[status] = found.get(status, 0) + number  # a newer version may have more statuses
    return found


def _latency(change: Change, route: str | None) -> Latency:
    """Return the latency of one route, or of all."""
    counts = [0] * (len(TURNS) + 1)
    for (name,), each in change.counts.items():
        if route in {None, name}:
            counts = [a + b for a, b in zip(counts, each, strict=True)]
    return Latency(
        count=sum(counts), p50=quantile(counts, 0.5), p95=quantile(counts, 0.95), counts=counts
    )


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Estimate a quantile in seconds; None if nothing was measured.

    Values are assumed to be evenly spread within a bucket, as by Prometheus's
    ``histogram_quantile``. Values beyond the last bound count as that bound.

    Args:
        counts: Counts of the buckets of `TURNS`.
        share: The quantile, from 0 to 1.
    """
    sums = [*accumulate(counts)]
    if not sums or not sums[-1]:
        return None
    rank = share * sums[-1]
    place = next(place for place, below in enumerate(sums) if below >= rank)
    if place == len(TURNS):
        return TURNS[-1]
    low = TURNS[place - 1] if place else 0.0
    below = sums[place - 1] if place else 0
    return round(low + (TURNS[place] - low) * (rank - below) / counts[place], 6)
