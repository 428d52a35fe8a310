"""Traces, as a collector has them and as a container is told of them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.cli import main
from gateway.tracecontext import carrier_in
from tests.integration.conftest import AWS
from tests.support.client import client
from tests.support.listener import listening
from tests.support.parrot import Parrot
from tests.support.processes import Process, aside, gateway
from tests.support.timing import UNIT

TRACES = [digit * 32 for digit in "abc"]

CONFIG = """
[traces]
endpoint = "http://127.0.0.1:{port}/v1/traces"
[routes.chat]
endpoint_name = "my-endpoint"
session = "stateless"
content_type = "text/plain"
trace_attributes = true
custom_attributes = "team=a"
"""


def parent(trace: str) -> str:
    return f"00-{trace}-{'1' * 16}-01"


class Collector:
    """Takes spans as OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        while not reader.at_eof():
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            (size,) = [line for line in head.splitlines() if line.startswith("content-length")]
            request = ExportTraceServiceRequest()
            request.ParseFromString(await reader.readexactly(int(size.partition(":")[2])))
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self.spans += scope.spans
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()


@asynccontextmanager
async def stage(tmp_path: Path) -> AsyncIterator[tuple[Process, Parrot, Collector]]:
    """A gateway between an endpoint and a collector; it has sent all spans when it has ended."""
    parrot, collector = Parrot(), Collector()
    async with listening(parrot.serve) as platform, listening(collector.serve) as taking:
        file = tmp_path / "gateway.toml"
        aws = AWS.format(url=f"http://127.0.0.1:{platform}", transport="auto")
        file.write_text(aws + CONFIG.format(port=taking))
        async with aside(gateway(file)) as process:
            yield process, parrot, collector


def told(parrot: Parrot) -> list[dict[str, str]]:
    """What each call has named as its parent."""
    found = []
    for head in parrot.heard:
        (line,) = [each for each in head.splitlines() if "custom-attributes:" in each.lower()]
        attributes = line.partition(":")[2].strip()
        assert attributes.startswith("team=a,") or "user=1" in attributes
        carrier = carrier_in(attributes)
        assert carrier is not None
        found.append(dict(carrier))
    return found


async def test_from_the_client_to_the_container(tmp_path: Path) -> None:
    async with stage(tmp_path) as (process, parrot, collector):
        headers = {"traceparent": parent(TRACES[0])}
        async with client(process.websocket, additional_headers=headers) as chat:
            await chat.open()
            await chat.ask("hi", "by-handshake")
            own = f"user=1,traceparent={parent(TRACES[1])}"
            await chat.ask("hi", "by-message", custom_attributes=own)
        async with httpx.AsyncClient(base_url=process.url, verify=False, timeout=20 * UNIT) as http:
            opened = (await http.post("/v1/routes/chat/sessions")).json()
            response = await http.post(
                f"/v1/sessions/{opened['session_id']}/messages",
                content="hi",
                headers={
                    "Session-Key": opened["resume_key"],
                    "Idempotency-Key": "by-request",
                    "traceparent": parent(TRACES[2]),
                },
            )
            assert response.status_code == 200
        await asyncio.to_thread(process.stop)
    spans = collector.spans
    turns = {
        value.value.string_value: span
        for span in spans
        if span.name == "turn"
        for value in span.attributes
        if value.key == "session_gateway.message"
    }
    named = [turns[f"by-{way}"] for way in ("handshake", "message", "request")]
    assert [span.trace_id.hex() for span in named] == TRACES
    assert {span.parent_span_id.hex() for span in named} == {"1" * 16}
    for carrier, trace, whole in zip(told(parrot), TRACES, named, strict=True):
        _, trace_id, span_id, _ = carrier["traceparent"].split("-")
        assert trace_id == trace
        (invoke,) = [span for span in spans if span.span_id.hex() == span_id]
        assert invoke.name == "invoke"
        assert invoke.parent_span_id == whole.span_id
        assert whole.start_time_unix_nano <= invoke.start_time_unix_nano
        assert invoke.end_time_unix_nano <= whole.end_time_unix_nano


async def test_a_collector_that_is_not_there_holds_nobody_up(tmp_path: Path) -> None:
    parrot = Parrot()
    async with listening(parrot.serve) as platform:
        file = tmp_path / "gateway.toml"
        aws = AWS.format(url=f"http://127.0.0.1:{platform}", transport="auto")
        file.write_text(aws + CONFIG.format(port=1))
        async with aside(gateway(file)) as process:
            async with client(process.websocket) as chat:
                await chat.open()
                assert (await chat.ask("hi"))["status"] == "completed"
            assert await asyncio.to_thread(process.stop) == 0


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gateway.telemetry.traces", None)
    file = tmp_path / "gateway.toml"
    file.write_text(AWS.format(url="http://127.0.0.1:1", transport="auto") + CONFIG.format(port=1))
    done = CliRunner().invoke(main, ["serve", "--config", str(file), "--port", "0"])
    assert done.exit_code == 2
    assert "pip install 'session-gateway[otel]'" in done.output
