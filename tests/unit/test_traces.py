"""Traces: what is a span of what, where a turn's parent comes from, and what the model is told."""

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import UNSET
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.testing import capture_logs

from gateway.errors import ErrorCode, Failure
from gateway.protocol import messages as wire
from gateway.session.ports import ModelReply
from gateway.telemetry import traces
from gateway.telemetry.traces import TurnTracer, exported, provider
from gateway.tracecontext import CARRIER, MAX_ATTRIBUTES, carrier_in, carrier_of, with_parent
from tests.support.sessions import done, running
from tests.support.timing import UNIT

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
SAMPLED = 1
"""A flag."""
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"


class Traced:
    """Spans of turns, as they end."""

    def __init__(self, sample: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = provider(SimpleSpanProcessor(self.exporter), "gw-1", sample)

    def tracer(self, attributes: str | None = None) -> TurnTracer:
        """A route's."""
        return TurnTracer(self.provider.get_tracer("test"), "chat", "my-endpoint", attributes)

    def spans(self) -> dict[str, ReadableSpan]:
        """By name."""
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def traced() -> Iterator[Traced]:
    made = Traced()
    yield made
    made.provider.shutdown()


async def opened(f: Any, tracer: TurnTracer, **policy: Any) -> Any:
    """A session of a route that is traced."""
    route = f.add_route(**policy)
    route.tracer = tracer
    runner = await f.sessions.open(route, "anonymous")
    f.connection.client = runner.start(f.connection.key, f.connection)
    await f.until(lambda: runner.log.last)
    return runner


async def turn(traced: Traced, attributes: str | None = None, **fields: Any) -> Any:
    """One turn of a session; what the model was asked."""
    async with running() as f:
        f.model.parts = fields.pop("parts", [])
        f.model.answers = fields.pop("answers", ModelReply(body=None))
        runner = await opened(f, traced.tracer(attributes), streams=bool(f.model.parts))
        message = wire.MessageSend(id="a", text="secret", **fields)
        runner.receive(message, 1, 10)
        await f.until(lambda: done(runner, "a"))
        return f.model.asked[-1][0]


async def test_a_turn_is_a_span_with_its_parts_below(traced: Traced) -> None:
    request = await turn(traced, parts=["a", "b"])
    assert request.custom_attributes is UNSET
    spans = traced.spans()
    assert spans.keys() == {"turn", "queue", "invoke"}
    whole, queue, invoke = spans["turn"], spans["queue"], spans["invoke"]
    assert whole.parent is None
    assert whole.context is not None
    for below in (queue, invoke):
        assert below.parent is not None
        assert below.parent.span_id == whole.context.span_id
    assert whole.start_time is not None
    assert whole.end_time is not None
    assert queue.start_time == pytest.approx(whole.start_time, abs=1e6)
    assert invoke.start_time is not None
    assert whole.start_time <= invoke.start_time + 1e6 <= whole.end_time + 2e6
    assert [event.name for event in invoke.events] == ["first part", "last part"]
    about = dict(whole.attributes or {})
    assert len(str(about.pop("session_gateway.session"))) == 32
    assert about == {
        "session_gateway.route": "chat",
        "session_gateway.endpoint": "my-endpoint",
        "session_gateway.message": "a",
        "session_gateway.status": "completed",
        "session_gateway.deltas": 2,
    }
    assert whole.resource.attributes["service.instance.id"] == "gw-1"
    assert "secret" not in "".join(span.to_json() for span in spans.values())


async def test_one_that_fails_says_so(traced: Traced) -> None:
    await turn(traced, answers=Failure(code=ErrorCode.MODEL_ERROR, message="x"))
    whole = traced.spans()["turn"]
    assert not whole.status.is_ok
    assert whole.attributes is not None
    assert whole.attributes["error.type"] == "model_error"
    assert whole.attributes["session_gateway.outcome"] == "not_invoked"


async def test_its_parent_is_what_its_message_came_with(traced: Traced) -> None:
    token = CARRIER.set({"traceparent": PARENT, "tracestate": "a=b"})
    await turn(traced)
    CARRIER.reset(token)
    whole = traced.spans()["turn"]
    assert whole.parent is not None
    assert f"{whole.parent.trace_id:032x}-{whole.parent.span_id:016x}" == f"{TRACE}-{SPAN}"
    assert whole.context is not None
    assert whole.context.trace_state["a"] == "b"


async def test_what_a_message_says_itself_wins(traced: Traced) -> None:
    token = CARRIER.set({"traceparent": OTHER})
    request = await turn(traced, custom_attributes=f"user=1,traceparent={PARENT}")
    CARRIER.reset(token)
    whole = traced.spans()["turn"]
    assert whole.parent is not None
    assert f"{whole.parent.trace_id:032x}" == TRACE
    assert request.custom_attributes == f"user=1,traceparent={PARENT}", "as it came"


@pytest.mark.parametrize(
    ("default", "given", "before"),
    [
        ("", UNSET, ""),
        ("a=b", UNSET, "a=b,"),
        ("a=b", "c=d", "c=d,"),
        ("", f"c=d,traceparent={PARENT};e=f", "c=d,"),
    ],
)
async def test_the_model_is_told_what_it_is_a_part_of(
    traced: Traced, default: str, given: Any, before: str
) -> None:
    request = await turn(traced, default, custom_attributes=given)
    told = carrier_in(request.custom_attributes)
    invoke = traced.spans()["invoke"].context
    assert invoke is not None
    assert told is not None
    parent, _, flags = told["traceparent"].rpartition("-")
    assert parent == f"00-{invoke.trace_id:032x}-{invoke.span_id:016x}"
    assert int(flags, 16) & SAMPLED
    assert request.custom_attributes.startswith(f"{before}traceparent=")
    assert request.custom_attributes.endswith(";e=f") == (given is not UNSET and "e=f" in given)


async def test_one_that_is_never_sent_is_a_span_all_the_same(traced: Traced) -> None:
    async with running() as f:
        f.model.waits.clear()
        runner = await opened(f, traced.tracer())
        for message_id in ("a", "b"):
            runner.receive(wire.MessageSend(id=message_id, text="x"), 1, 1)
        runner.handle(wire.MessageCancel(id="b"))
        await f.until(lambda: done(runner, "b"))
        f.model.waits.set()
        await f.until(lambda: done(runner, "a"))
    first, *_ = traced.exporter.get_finished_spans()
    by_message = {
        (span.attributes or {})["session_gateway.message"]
        for span in traced.exporter.get_finished_spans()
        if span.name == "turn"
    }
    assert by_message == {"a", "b"}
    assert first.name in {"turn", "queue"}


@pytest.mark.parametrize(("sample", "flags", "there"), [(1, "01", 1), (1, "00", 0), (0, "01", 0)])
async def test_a_client_decides_against_traces_and_not_for_them(
    sample: float, flags: str, *, there: bool
) -> None:
    traced = Traced(sample)
    await turn(traced, custom_attributes=f"traceparent={PARENT[:-2]}{flags}")
    assert bool(traced.spans()) == there
    traced.provider.shutdown()


async def test_none_where_none_are_to_be_but_the_model_is_told_that() -> None:
    traced = Traced(sample=0.0)
    request = await turn(traced, "")
    told = carrier_in(request.custom_attributes)
    assert told is not None
    assert not int(told["traceparent"][-2:], 16) & SAMPLED
    assert not traced.spans()
    traced.provider.shutdown()


async def test_a_tracer_that_fails_costs_no_turn(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(TurnTracer, "_begin", fail)
    with capture_logs() as logs:
        await turn(traced)
    assert [entry["event"] for entry in logs].count("a trace failed") == 2


async def test_one_that_nobody_is_told_the_end_of_ends_all_the_same(traced: Traced) -> None:
    async with running() as f:
        for end in ("crashed", "fenced"):
            traced.exporter.clear()
            f.model.waits.clear()
            runner = await opened(f, traced.tracer())
            for message_id in ("a", "b"):
                runner.receive(wire.MessageSend(id=message_id, text="x"), 1, 1)
            await f.until(lambda: f.model.invoked)
            f.model.calls.clear()
            measures = runner.route.measures
            if end == "crashed":
                runner._crash(RuntimeError())
                measures.count()
                assert measures.turns == {("failed", "internal", "unknown"): 2}
                assert measures.ended == {"internal": 1}
                assert not traced.spans()["turn"].status.is_ok
                assert traced.spans().keys() == {"turn", "queue", "invoke"}
            else:
                runner.fenced()
                measures.count()
                assert not measures.turns
                assert not measures.ended, "it goes on"
                about = traced.spans()["turn"].attributes or {}
                assert "session_gateway.message" in about
                assert "session_gateway.status" not in about
                assert traced.spans().keys() == {"turn", "queue", "invoke"}


async def test_turns_of_a_crash_are_counted_wherever_they_were_accepted() -> None:
    async with running() as f:
        f.model.waits.clear()
        runner = await f.open()
        for message_id in ("a", "b"):
            runner.handle(wire.MessageSend(id=message_id, text="x"))
        await f.until(lambda: f.model.invoked)
        runner._tally._times.clear()
        runner._crash(RuntimeError())
        runner._crash(RuntimeError())
        measures = runner.route.measures
        measures.count()
        assert measures.turns == {("failed", "internal", "unknown"): 2}
        assert measures.ended == {"internal": 1}


async def test_a_collector_that_hangs_holds_no_process_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()
    monkeypatch.setattr(TracerProvider, "shutdown", lambda _: hangs.wait())
    monkeypatch.setattr(traces, "EXPORT_SECONDS", 0.01)
    try:
        async with asyncio.timeout(10 * UNIT), exported("http://127.0.0.1:1", None, 1.0):
            pass
    finally:
        hangs.set()


async def test_a_clock_that_is_set_back_makes_no_span_negative(
    traced: Traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(10**18, -(10**15))
    monkeypatch.setattr(time, "time_ns", lambda: next(now))
    await turn(traced, parts=["a", "b"])
    spans = traced.spans()
    for span in spans.values():
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time


def test_what_the_environment_says_of_the_resource_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    about = Traced().provider.resource.attributes
    assert about["service.name"] == "mine"
    assert about["deployment.environment"] == "test"
    assert about["service.instance.id"] == "gw-1"


class TestContext:
    def test_headers(self) -> None:
        assert carrier_of({"a": "b", "tracestate": "c=d"}) is None
        headers = {"traceparent": PARENT, "tracestate": "c=d", "a": "b"}
        assert carrier_of(headers) == {"traceparent": PARENT, "tracestate": "c=d"}

    @pytest.mark.parametrize(
        ("state", "keeps"),
        [
            ("a=b", True),
            ("a=b, c=d e,\t,1@f=g", True),
            (",".join(f"k{number}=v" for number in range(32)), True),
            (",".join(f"k{number}=v" for number in range(33)), False),
            (f"a={'b' * 256}", True),
            (f"a={'b' * 257}", False),
            (",".join(["a=" + "b" * 254, "c=" + "d" * 253]), True),
            (",".join(["a=" + "b" * 254, "c=" + "d" * 255]), False),
            ("my own words", False),
            ("Authorization=Bearer a", False),
            ("a=\x1b[31m", False),
            ("a=1,a=2", False),
            ("a=b\n", False),
        ],
    )
    def test_a_state_that_is_none_is_left_out(
        self, state: str, *, keeps: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        carrier = carrier_of({"traceparent": PARENT, "tracestate": state})
        assert carrier is not None
        assert ("tracestate" in carrier) == keeps
        TraceContextTextMapPropagator().extract(carrier)
        assert not caplog.records

    def test_a_parent_that_is_too_long_is_none(self) -> None:
        assert carrier_of({"traceparent": f"01{PARENT[2:]}-" + "a" * 512}) is None

    def test_the_first_that_is_one_counts_and_all_are_replaced(self) -> None:
        attributes = f"traceparent={'-' * 55};Traceparent={PARENT.upper()},traceparent={PARENT}"
        assert carrier_in(attributes) == {"traceparent": PARENT}
        said = f"traceparent={OTHER}"
        assert with_parent(attributes, OTHER) == f"{said};{said},{said}"

    def test_one_in_place_of_a_shorter_may_not_fit(self) -> None:
        attributes = "traceparent=a;" + "b" * (MAX_ATTRIBUTES - 14)
        assert with_parent(attributes, PARENT) == attributes

    @pytest.mark.parametrize(
        "attributes",
        ["", "a=b", f"xtraceparent={PARENT}", f"traceparent={PARENT}0", "traceparent=00-1"],
    )
    def test_attributes_without_one(self, attributes: str) -> None:
        assert carrier_in(attributes) is None

    def test_a_parent_that_does_not_fit_is_left_out(self) -> None:
        said = len(f",traceparent={PARENT}")
        fits = "a" * (MAX_ATTRIBUTES - said)
        assert len(with_parent(fits, PARENT)) == MAX_ATTRIBUTES
        assert with_parent(fits + "a", PARENT) == fits + "a"
