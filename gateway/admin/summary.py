"""What metrics say to people: how much goes on now, and how long it took lately."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import accumulate

from gateway.admin.views import Figures, Latency, ReplicaState, RouteState
from gateway.measures import TURNS
from gateway.telemetry.reading import Labels, Reading, total

Readings = Mapping[str, Reading]
"""What metrics stand at, by the names of replicas: of those that have answered."""

STATUSES = ("completed", "cancelled", "failed")


class Window:
    """The last readings, so that what has changed meanwhile is known.

    Args:
        most: How many are kept.
    """

    def __init__(self, most: int) -> None:
        self._kept: deque[tuple[float, Readings]] = deque(maxlen=most)

    def add(self, now: float, readings: Readings) -> None:
        """Take the newest in.

        Args:
            now: The time, in seconds of a clock that is never set.
            readings: Of all replicas that have answered.
        """
        self._kept.append((now, readings))

    def changed(self, name: str, back: int | None = None) -> tuple["Change", float]:
        """How a counter or a histogram has changed, at all replicas that have answered last.

        A replica counts from when it has answered first: what it has counted before is not new.

        Args:
            name: The metric's.
            back: Over how many readings; all without it.

        Returns:
            That, and over how many seconds.
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
    """How a metric has changed, by the values of its labels.

    Attributes:
        numbers: Of a counter.
        counts: Of a histogram: in each of its buckets.
    """

    def __init__(self) -> None:
        self.numbers: Counter[Labels] = Counter()
        self.counts: dict[Labels, list[int]] = {}

    def add(self, name: str, before: Reading | None, now: Reading) -> None:
        """Take what has changed at one replica in.

        Args:
            name: The metric's.
            before: What all stood at; None for from the start on.
            now: What they stand at.
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
    """What a metric of all replicas stands at."""
    change = Change()
    for reading in readings.values():
        change.add(name, None, reading)
    return change


class Summary:
    """What goes on at the replicas that have answered.

    Args:
        endpoints: What each route leads to, by their names.
        readings: What metrics stand at.
        window: The last ones, these among them; None where latencies are to be of all turns since
            the replicas have started.
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
        """Each of them, as the configuration has them."""
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
        """Of one route, or of all."""
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
    """What is known of a replica.

    Args:
        name: Its own.
        reading: What its metrics stand at; None where it does not answer.
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
    """Of all samples of that name, or of those of one route: it is the first label."""
    samples = reading.numbers.get(name, ())
    return int(sum(value for labels, value in samples if route in {None, *labels[:1]}))


def _by_status(change: Change, route: str | None) -> dict[str, int]:
    found = dict.fromkeys(STATUSES, 0)
    for (name, status, *_), number in change.numbers.items():
        if route in {None, name}:
            found[status] = found.get(status, 0) + number  # of another version, perhaps
    return found


def _latency(change: Change, route: str | None) -> Latency:
    """Of one route, or of all."""
    counts = [0] * (len(TURNS) + 1)
    for (name,), each in change.counts.items():
        if route in {None, name}:
            counts = [a + b for a, b in zip(counts, each, strict=True)]
    return Latency(
        count=sum(counts), p50=quantile(counts, 0.5), p95=quantile(counts, 0.95), counts=counts
    )


def quantile(counts: Sequence[int], share: float) -> float | None:
    """How long so many of all have taken at the most, in seconds; None where there are none.

    Within a bucket they are taken to be spread evenly, as Prometheus's ``histogram_quantile`` has
    it; what is past the last bound counts as that.

    Args:
        counts: In each bucket of `TURNS`.
        share: How many, of 1.
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
