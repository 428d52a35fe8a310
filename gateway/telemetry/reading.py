"""What metrics stand at, in one process or in several together.

A scrape asks one process, which may speak for several. So what each stands at is a value that can
be sent and added up. prometheus-client's own way for several processes is files that all of them
write to; it has no room for what is read when it is asked for, and forgets no gauge of a process
that was killed.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Self

import msgspec

from gateway.measures import Histogram
from gateway.telemetry.families import BY_NAME

Labels = tuple[str, ...]


class Spread(msgspec.Struct, array_like=True):
    """What a histogram stands at; see `Histogram`."""

    counts: list[int]
    sum: float


class Reading(msgspec.Struct):
    """What all metrics stand at.

    Attributes:
        numbers: Of counters and gauges, by name and then by the values of their labels.
        spreads: The same of histograms.
    """

    numbers: dict[str, list[tuple[Labels, float]]] = {}
    spreads: dict[str, list[tuple[Labels, Spread]]] = {}

    def set(self, name: str, value: float, *labels: str) -> None:
        """Say what a counter or a gauge stands at."""
        assert len(labels) == len(BY_NAME[name].labels)  # noqa: S101 - by how it is called
        self.numbers.setdefault(name, []).append((labels, float(value)))

    def spread(self, name: str, histogram: Histogram, *labels: str) -> None:
        """The same of a histogram."""
        spread = Spread([*histogram.counts], histogram.sum)
        self.spreads.setdefault(name, []).append((labels, spread))

    @property
    def is_familiar(self) -> bool:
        """Whether its metrics have the labels and the buckets that they have here: those of another
        version may have others.
        """
        return "build_info" in self.numbers and all(
            len(labels) == len(family.labels)
            and (isinstance(value, float) or len(value.counts) == len(family.bounds) + 1)
            for metrics in (self.numbers, self.spreads)
            for name, samples in metrics.items()
            if (family := BY_NAME.get(name)) is not None
            for labels, value in samples
        )

    def lasting(self) -> Self:
        """What counts on when its process is gone: a counter that went back would be taken for one
        that has begun anew.
        """
        return type(self)(
            {
                name: samples
                for name, samples in self.numbers.items()
                if BY_NAME[name].kind == "counter"
            },
            self.spreads,
        )


def total(readings: Iterable[Reading]) -> Reading:
    """The sum of what several processes stand at."""
    numbers: dict[str, defaultdict[Labels, float]] = {}
    spreads: dict[str, dict[Labels, Spread]] = {}
    for reading in readings:
        for name, samples in reading.numbers.items():
            sums = numbers.setdefault(name, defaultdict(float))
            for labels, value in samples:
                sums[labels] += value
        for name, each in reading.spreads.items():
            known = spreads.setdefault(name, {})
            for labels, spread in each:
                before = known.get(labels)
                known[labels] = spread if before is None else _sum(before, spread)
    return Reading(
        {name: [*sums.items()] for name, sums in numbers.items()},
        {name: [*known.items()] for name, known in spreads.items()},
    )


def _sum(one: Spread, other: Spread) -> Spread:
    counts = [a + b for a, b in zip(one.counts, other.counts, strict=True)]
    return Spread(counts, one.sum + other.sum)
