"""Counters and histograms that objects keep of their work.

They are always kept, since that costs less than checking whether they are wanted.
`gateway.telemetry` reads them for metrics; the code that handles messages does not depend on it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

TURNS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Bucket bounds for the model's durations in seconds: AWS ends a call after 1 minute, a stream
after 8."""

MOMENTS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Bucket bounds for what should be fast: the gateway's own work, its event loop, its store."""


class Histogram:
    """A histogram.

    Args:
        bounds: Upper bounds of the buckets, in order; another bucket has larger values.

    Attributes:
        counts: Number of values in each bucket, not cumulative.
        sum: Sum of all values.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def __repr__(self) -> str:
        return f"<Histogram of {sum(self.counts)}>"

    def observe(self, value: float) -> None:
        """Add a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Add values. With many, this takes a third of the time of adding them one by one."""
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
    """Counts of commands to a store since the gateway started.

    Attributes:
        trips: Durations of round trips; commands sent together share one.
        commands: Number of commands.
        failures: Number of commands without a reply.
    """

    __slots__ = ("commands", "failures", "trips")

    def __init__(self) -> None:
        self.trips = Histogram(MOMENTS)
        self.commands = self.failures = 0
