"""OpenTelemetry traces of turns: an optional extra, imported only if tracing is configured.

A turn is a span from the acceptance of its message until its end is readable. It has two children:
`queue` until it is sent, and `invoke` from then until the end of its reply, with events for the
first and the last part. The model gets `invoke` as its parent.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Mapping

import structlog
from msgspec import UNSET, structs
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway import __version__
from gateway.protocol.messages import MessageDone
from gateway.session.ports import ModelRequest
from gateway.session.turn_queue import Turn
from gateway.tally import TurnTimes
from gateway.tracecontext import CARRIER, Carrier, carrier_in, with_parent

EXPORT_SECONDS = 5
"""Seconds that the collector may take for a batch of spans, and for all that are left when the
process ends. The queue of spans is bounded; when it is full, the newest are dropped."""

log = structlog.stdlib.get_logger("gateway.traces")

_context = TraceContextTextMapPropagator()


class _Trace:
    """The trace of a turn.

    Attributes:
        carrier: Trace context of the message's connection or request, if any.
        turn: The turn's span, once it is sent.
        invoke: Its child; the turn's span itself if nothing is recorded.
    """

    __slots__ = ("_epoch", "carrier", "invoke", "turn")

    def __init__(self, carrier: Carrier | None) -> None:
        # Computed once: even if the clock is set in between, no span ends before it begins.
        self._epoch = time.time_ns() - time.monotonic_ns()
        self.carrier = carrier
        self.turn: Span | None = None
        self.invoke: Span | None = None

    def wall(self, moment: float) -> int:
        """Convert a time of `time.monotonic` to nanoseconds since the epoch."""
        return self._epoch + int(moment * 1e9)


class TurnTracer:
    """See `gateway.tally.Tracer`.

    Args:
        tracer: OpenTelemetry's tracer.
        route: Name of the route.
        endpoint: The model's endpoint.
        attributes: Default ``CustomAttributes`` of the route's messages; None to not propagate the
            trace to the model.
    """

    def __init__(self, tracer: Tracer, route: str, endpoint: str, attributes: str | None) -> None:
        self._tracer = tracer
        self._about = {"session_gateway.route": route, "session_gateway.endpoint": endpoint}
        self._attributes = attributes

    def accepted(self) -> _Trace:
        """See `gateway.tally.Tracer.accepted`."""
        return _Trace(CARRIER.get())

    def sent(self, times: TurnTimes, session_id: str, turn: Turn) -> ModelRequest:
        """See `gateway.tally.Tracer.sent`."""
        try:
            return self._sent(times, session_id, turn)
        except Exception:
            log.exception("a trace failed")
            return turn.request

    def _sent(self, times: TurnTimes, session_id: str, turn: Turn) -> ModelRequest:
        trace = _trace_of(times)
        request = turn.request
        given = request.custom_attributes
        if trace.turn is None:
            carrier = None if given is UNSET else carrier_in(given)
            trace.carrier = carrier or trace.carrier
            trace.turn = trace.invoke = self._begin(times, session_id, turn.id)
            if trace.turn.is_recording():
                below, sent = set_span_in_context(trace.turn), trace.wall(times.sent)
                queue = self._tracer.start_span(
                    "queue", below, start_time=trace.wall(times.accepted), record_exception=False
                )
                queue.end(sent)
                trace.invoke = self._tracer.start_span(
                    "invoke", below, SpanKind.CLIENT, start_time=sent, record_exception=False
                )
        if self._attributes is None or trace.invoke is None:
            return request
        written: dict[str, str] = {}
        _context.inject(written, set_span_in_context(trace.invoke))
        parent = written.get("traceparent")
        if parent is None:
            return request
        attributes = with_parent(self._attributes if given is UNSET else given, parent)
        return structs.replace(request, custom_attributes=attributes or UNSET)

    def _begin(self, times: TurnTimes, session_id: str, message_id: str) -> Span:
        trace = _trace_of(times)
        carrier = trace.carrier
        parent = Context() if carrier is None else _context.extract(carrier, Context())
        return self._tracer.start_span(
            "turn",
            parent,
            SpanKind.SERVER,
            attributes={
                **self._about,
                "session_gateway.session": session_id,
                "session_gateway.message": message_id,
            },
            start_time=trace.wall(times.accepted),
            record_exception=False,
        )

    def ended(self, times: TurnTimes, session_id: str, done: MessageDone | None) -> None:
        """See `gateway.tally.Tracer.ended`."""
        try:
            self._ended(times, session_id, done)
        except Exception:
            log.exception("a trace failed")

    def _ended(self, times: TurnTimes, session_id: str, done: MessageDone | None) -> None:
        trace = _trace_of(times)
        span = trace.turn
        if span is None and done is not None:
            span = self._begin(times, session_id, done.id)
        if span is None or not span.is_recording():
            return
        if trace.invoke is not None:
            if times.first:
                trace.invoke.add_event("first part", timestamp=trace.wall(times.first))
                trace.invoke.add_event("last part", timestamp=trace.wall(times.last))
            trace.invoke.end(trace.wall(times.sent + times.upstream))
        if done is not None:
            span.set_attributes(_end_of(done))
            if done.error is not UNSET:
                span.set_status(Status(StatusCode.ERROR))
        span.end(trace.wall(times.told))


def _trace_of(times: TurnTimes) -> _Trace:
    trace: _Trace = times.trace
    return trace


def _end_of(done: MessageDone) -> Mapping[str, str | int]:
    said: dict[str, str | int] = {
        "session_gateway.status": done.status,
        "session_gateway.deltas": done.deltas,
    }
    if done.error is not UNSET:
        said["error.type"] = done.error.code.value
        said["session_gateway.outcome"] = done.error.outcome.value
    elif done.outcome is not UNSET:
        said["session_gateway.outcome"] = done.outcome.value
    return said


def provider(processor: SpanProcessor, replica: str | None, sample: float) -> TracerProvider:
    """Create a tracer provider.

    Args:
        processor: Processes its spans.
        replica: Name of this replica.
        sample: Share of turns to trace, except for those whose client's trace is not sampled.
    """
    about = {"service.name": "session-gateway", "service.version": __version__}
    if replica is not None:
        about["service.instance.id"] = replica
    share = TraceIdRatioBased(sample)
    made = TracerProvider(
        ParentBased(share, remote_parent_sampled=share),  # clients must not decide the cost
        Resource.create(about).merge(OTELResourceDetector().detect()),  # from the environment
        shutdown_on_exit=False,
    )
    made.add_span_processor(processor)
    return made


@contextlib.asynccontextmanager
async def exported(endpoint: str, replica: str | None, sample: float) -> AsyncIterator[Tracer]:
    """Export spans to a collector for as long as the context lasts.

    Args:
        endpoint: The collector's URL for OTLP over HTTP.
        replica: See `provider`.
        sample: See `provider`.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS))
    made = provider(processor, replica, sample)
    try:
        yield made.get_tracer("session-gateway", __version__)
    finally:
        # Each queued batch may take up to `EXPORT_SECONDS`; bound the time of all of them.
        stopping = threading.Thread(target=made.shutdown, daemon=True)
        stopping.start()
        await asyncio.to_thread(stopping.join, EXPORT_SECONDS)
