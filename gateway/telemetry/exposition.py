"""Metrics in Prometheus' exposition format."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.telemetry.families import FAMILIES, PREFIX, Family
from gateway.telemetry.reading import Reading

Read = Callable[[], Awaitable[Reading]]
"""Reads the current values of all metrics."""


class _Collected(Collector):
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        """See prometheus-client."""
        for family in FAMILIES:
            yield _metric(family, self._reading)


def _metric(family: Family, reading: Reading) -> Metric:
    name = family.name if family.name.startswith("process_") else PREFIX + family.name
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
        bounds = [*map(floatToGoString, family.bounds), "+Inf"]
        for labels, spread in reading.spreads.get(family.name, ()):
            counts = itertools.accumulate(spread.counts)
            histogram.add_metric(labels, [*zip(bounds, counts, strict=True)], spread.sum)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(name, family.help, labels=family.labels)
    for labels, value in reading.numbers.get(family.name, ()):
        metric.add_metric(labels, value)
    return metric


def rendered(reading: Reading, accept: str) -> tuple[bytes, str]:
    """Render metrics; returns the text and its content type.

    Args:
        reading: The values.
        accept: The request's ``Accept``: OpenMetrics, or else Prometheus' own format.
    """
    registry = CollectorRegistry()
    registry.register(_Collected(reading))
    try:
        encoder, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # `accept` has an invalid version
        encoder, content_type = choose_encoder("")
    return encoder(registry), content_type


def metrics_path(read: Read) -> Route:
    """``GET /metrics``."""
    one_at_a_time = asyncio.Lock()

    async def metrics(request: Request) -> Response:
        accept = request.headers.get("accept", "")
        async with one_at_a_time:
            # Rendering a hundred routes takes a tenth of a second, so don't block the event loop.
            body, content_type = await asyncio.to_thread(rendered, await read(), accept)
        return Response(body, headers={"Content-Type": content_type, "Vary": "Accept"})

    return Route("/metrics", metrics)
