"""Values of metrics, in one process or summed over several.

A scrape reaches one process, which may answer for several, so values must be sent between processes
and added up. prometheus-client's multiprocess mode has all processes write to files; it does not
support values that are read on demand, and keeps the gauges of killed processes.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Self

import msgspec

from gateway.measures import Histogram
from gateway.telemetry.families import BY_NAME

Labels = tuple[str, ...]


class Spread(msgspec.Struct, array_like=True):
    """The values of a histogram; see `Histogram`."""

    counts: list[int]
    sum: float


class Reading(msgspec.Struct):
    """The values of all metrics.

    Attributes:
        numbers: Values of counters and gauges by name, each with its label values.
        spreads: The same for histograms.
    """

    numbers: dict[str, list[tuple[Labels, float]]] = {}
    spreads: dict[str, list[tuple[Labels, Spread]]] = {}

    def set(self, name: str, value: float, *labels: str) -> None:
        """Add the value of a counter or a gauge."""
        assert len(labels) == len(BY_NAME[name].labels)  # noqa: S101 - a programming error
        self.numbers.setdefault(name, []).append((labels, float(value)))

    def spread(self, name: str, histogram: Histogram, *labels: str) -> None:
        """Add the values of a histogram."""
        spread = Spread([*histogram.counts], histogram.sum)
        self.spreads.setdefault(name, []).append((labels, spread))

    @property
    def is_familiar(self) -> bool:
        """Whether its metrics have the labels and buckets of this version, unlike those of a
        process of another version.
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
        """Return what must outlast the process: a counter that decreases would be taken for one
        that was reset.
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
    """Add up the values of several processes."""
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
