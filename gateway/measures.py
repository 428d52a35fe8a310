"""Counts and times that objects keep of what they do, for whoever wants to see inside.

They are kept always, since they cost less than to ask whether they are wanted; `gateway.telemetry`
reads them when it is asked for metrics, and nothing on the way of a message knows of that.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

TURNS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Bounds for what a model takes, in seconds: AWS ends a call after a minute, a stream after 8."""

MOMENTS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bounds for what should take no time: the gateway's own work, its event loop, its store."""


class Histogram:
    """How often values were how large.

    Args:
        bounds: The greatest value of each bucket, in order; greater ones have one of their own.

    Attributes:
        counts: How many values each bucket has, without those of the buckets below.
        sum: All values together.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def __repr__(self) -> str:
        return f"<Histogram of {sum(self.counts)}>"

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Count values. Of many, each takes a third of what it takes by itself."""
        ordered, counts, below = sorted(values), self.counts, 0
        for number, bound in enumerate(self.bounds):
            through = bisect_right(ordered, bound, below)
            if through != below:
                counts[number] += through - below
                below = through
            if below == len(ordered):
                break
        counts[-1] += len(ordered) - below
        self.sum += sum(ordered)


class StoreMeasures:
    """What a store was asked for, since the gateway has started.

    Attributes:
        trips: How long round trips have taken: commands that go together are one.
        commands: How many there were.
        failures: How many of them had no answer.
    """

    __slots__ = ("commands", "failures", "trips")

    def __init__(self) -> None:
        self.trips = Histogram(MOMENTS)
        self.commands = self.failures = 0
