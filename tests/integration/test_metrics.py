"""What a scrape shows of a gateway that has something to do, of one process and of several."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from gateway import Settings, create_app
from gateway.budget import COUNTED_BYTES
from gateway.cli import main
from gateway.local.valkey import LocalValkey
from gateway.security.keys import add
from tests.integration.conftest import AWS, Start
from tests.support.client import client, raw
from tests.support.processes import ENVIRONMENT, Process, admin
from tests.support.timing import UNIT
from tests.support.tree import children

ALERTS = Path(__file__).parents[2] / "deploy" / "monitoring" / "alerts.yaml"

ROUTES = """
[server]
log_level = "INFO"
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
stream = "raw"
queued_messages = 1
retries = 0
on_lost = "renew"
[routes.whole]
endpoint_name = "my-endpoint"
content_type = "text/plain"
"""

PLAIN = """
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
"""

SPLIT = (PLAIN, "")

WORKERS = """
[server]
workers = 2
[metrics]
port = 0
[store]
kind = "valkey"
url = "{valkey.url}"
password = "{valkey.password}"
lease_seconds = 2
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
"""

Sample = tuple[str, frozenset[tuple[str, str]]]


class Scrape:
    """What was scraped.

    Args:
        text: As it came.
    """

    def __init__(self, text: str) -> None:
        self.samples: dict[Sample, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.samples[sample.name, frozenset(sample.labels.items())] = sample.value

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples of that name that have these labels, and maybe others."""
        wanted = labels.items()
        found = [
            value
            for (known, has), value in self.samples.items()
            if known == f"session_gateway_{name}" and wanted <= has
        ]
        return sum(found)


async def scrape(url: str) -> Scrape:
    """What is there now."""
    async with httpx.AsyncClient(verify=False, timeout=20 * UNIT) as http:
        response = await http.get(f"{url}/metrics")
    response.raise_for_status()
    return Scrape(response.text)


async def until(url: str, name: str, value: float, **labels: str) -> Scrape:
    """Scrape until this is so."""
    async with asyncio.timeout(20 * UNIT):
        while (found := await scrape(url)).sum(name, **labels) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


def port_of(process: Process) -> str:
    """Where a gateway shows its metrics."""
    (port,) = re.findall(r"metrics are served.*port=(\d+)", process.output)
    return f"http://127.0.0.1:{port}"


async def test_what_a_conversation_leaves_in_the_metrics(
    start_gateway: Start, platform: Process
) -> None:
    process = start_gateway(platform.url, ROUTES)
    url = process.url
    async with client(process.websocket) as chat, client(process.websocket, route="whole") as other:
        await chat.open()
        await other.open()
        assert (await chat.ask("hi"))["status"] == "completed"
        assert (await other.ask("hi"))["status"] == "completed"
        await chat.send("message.send", id="slow", text="/sleep 60")
        await chat.send("message.send", id="next", text="hi" * COUNTED_BYTES)
        await chat.send("message.send", id="over", text="hi")
        assert (await chat.until("error"))["code"] == "queue_full"
        await chat.send("nonsense")
        await chat.until("error")
        now = await until(url, "turns_in_flight", 1, route="chat")
        assert now.sum("connections", route="chat", protocol="v1.json.session-gateway") == 1
        assert now.sum("sessions", route="chat", state="running", attached="true") == 1
        assert now.sum("sessions", state="ready") == 1
        assert now.sum("turns_queued", route="chat") == 1
        assert now.sum("messages_refused_total", route="chat", code="queue_full") == 1
        assert now.sum("messages_refused_total", route="chat", code="bad_message") == 1
        assert now.sum("log_bytes", route="chat") > 0
        assert 0 < now.sum("buffer_bytes") < now.sum("buffer_limit_bytes")
        for message in ("next", "slow"):
            await chat.send("message.cancel", id=message)
            await chat.until("message.done", id=message)
    async with raw(process.websocket, "chat") as socket:
        await socket.send("hi")
        await socket.recv()
    now = await until(url, "sessions_ended_total", 1, route="chat", reason="client")
    assert now.sum("connections") == 0
    assert now.sum("connections_closed_total") == 3
    assert now.sum("turns_total", route="chat", status="completed", error="") == 2
    assert now.sum("turns_total", route="chat", status="cancelled", outcome="not_invoked") == 1
    assert now.sum("turns_total", route="whole") == 1
    assert now.sum("sessions_opened_total") == 3
    for family in ("duration", "queued", "gateway"):
        assert now.sum(f"turn_{family}_seconds_count", route="chat") == 4
    assert now.sum("turn_upstream_seconds_count", route="chat") == 3, "one never got there"
    assert now.sum("turn_first_delta_seconds_count", route="chat") == 1, "the raw one's is whole"
    assert now.sum("deltas_total", route="chat") >= 1
    assert now.sum("turn_first_delta_seconds_count", route="whole") == 0
    parts = ("queued", "upstream", "gateway")
    whole = now.sum("turn_duration_seconds_sum", route="chat")
    split = sum(now.sum(f"turn_{part}_seconds_sum", route="chat") for part in parts)
    assert abs(whole - split) < 0.001
    assert now.sum("build_info") == 1
    assert now.sum("draining") == 0
    assert not any(name.startswith("session_gateway_store") for name, _ in now.samples)


async def test_what_goes_wrong(start_gateway: Start, platform: Process) -> None:
    process = start_gateway(platform.url, ROUTES)
    async with client(process.websocket) as chat:
        await chat.open()
        await chat.ask("hi")
        (instance,) = [each for each in admin(platform)["instances"] if each["opened"]]
        admin(platform, f"/instances/{instance['name']}/lose")
        assert (await chat.ask("hi"))["status"] == "completed"
        admin(platform, "/faults", error="ThrottlingException")
        assert (await chat.ask("hi"))["error"]["code"] == "throttled"
    now = await scrape(process.url)
    assert now.sum("sessions_renewed_total", route="chat", reason="lost", context="lost") == 1
    assert now.sum("call_failures_total", call="turn", error="session_lost") == 1
    assert now.sum("turns_total", status="failed", error="throttled", outcome="not_invoked") == 1
    limit = now.sum("turns_in_flight_limit", route="chat")
    assert 0 < limit < now.sum("turns_in_flight_limit", route="whole") == 200
    assert now.sum("breaker_open") == 0


async def test_what_rules_alert_of_is_0_before_it_happens_first(
    start_gateway: Start, platform: Process
) -> None:
    process = start_gateway(platform.url, PLAIN)
    now = await scrape(process.url)
    for outcome in ("not_invoked", "unknown", "invoked"):
        key = {"route": "chat", "status": "failed", "error": "internal", "outcome": outcome}
        assert now.samples["session_gateway_turns_total", frozenset(key.items())] == 0
    rules = ALERTS.read_text()
    asked = re.findall(r"increase\((session_gateway_\w+)\{(\w+)=~?\"([^\"]+)\"\}", rules)
    assert len(asked) == len(re.findall(r"increase\(", rules))
    for name, label, values in asked:
        for value in values.split("|"):
            there = [has for known, has in now.samples if known == name and (label, value) in has]
            assert there, (name, value)
    for context in ("lost", "replayed", "partial"):
        key = {"route": "chat", "reason": "lost", "context": context}
        assert now.samples["session_gateway_sessions_renewed_total", frozenset(key.items())] == 0
    assert {dict(has).get("limit") for _, has in now.samples} - {None} == {
        *("max_connections", "max_sessions", "max_turns_in_flight", "buffer_bytes"),
        *("connections_per_address", "connections_per_principal", "sessions_per_principal"),
        "handshakes_per_second",
    }


async def test_what_is_too_much_names_its_setting(start_gateway: Start, platform: Process) -> None:
    limits = "[server]\nmax_connections = 2\n[store]\nmax_sessions = 1\n"
    process = start_gateway(platform.url, limits + PLAIN)
    async with client(process.websocket) as chat, client(process.websocket) as second:
        await chat.open()
        await second.send("session.open")
        assert (await second.closed())[0] == 4503
        await until(process.url, "connections", 1)
        async with client(process.websocket), client(process.websocket) as third:
            assert (await third.closed())[0] == 4503
        await chat.socket.close(3333, "as I like")
    now = await until(process.url, "connections", 0)
    assert now.sum("limits_hit_total", limit="max_sessions") == 1
    assert now.sum("limits_hit_total", limit="max_connections") == 1
    assert now.sum("limits_hit_total", limit="handshakes_per_second") == 0
    assert now.sum("connections_closed_total", code="4503") == 1
    assert now.sum("connections_closed_total", code="other") == 1, "a client may choose any"


async def test_openais_websockets_count_as_others_do(
    start_gateway: Start, platform: Process
) -> None:
    process = start_gateway(
        platform.url, '[server]\nmax_connections = 1\nlog_level = "INFO"\n' + PLAIN
    )
    url = f"{process.url.replace('http', 'ws')}/openai/v1/responses"
    async with connect(url):
        now = await scrape(process.url)
        assert now.sum("connections", route="", protocol="openai") == 1
        async with client(process.websocket) as chat:
            assert (await chat.closed())[0] == 4503
    now = await until(process.url, "connections", 0)
    assert now.sum("connections_closed_total", route="", code="1000") == 1
    assert now.sum("limits_hit_total", limit="max_connections") == 1
    await process.says("connection closed")
    assert re.search(r"connection closed.*seconds=", process.output)


async def test_requests_are_counted(start_gateway: Start, platform: Process) -> None:
    process = start_gateway(platform.url, PLAIN)
    async with httpx.AsyncClient(base_url=process.url, verify=False, timeout=20 * UNIT) as http:
        opened = (await http.post("/v1/routes/chat/sessions")).json()
        path, key = f"/v1/sessions/{opened['session_id']}", {"Session-Key": opened["resume_key"]}
        assert (await http.post(f"{path}/messages", content="hi", headers=key)).is_success
        assert (await http.get(path)).status_code == 404
    now = await scrape(process.url)
    assert now.sum("http_requests_total", status="200") == 1
    assert now.sum("http_requests_total", status="201") == 1
    assert now.sum("http_requests_total", status="404") == 1
    assert now.sum("turns_total", route="chat", status="completed") == 1
    assert now.sum("sessions", attached="false") == 1


async def test_an_application_that_has_a_gateway_says_itself_who_sees_them(
    platform: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    aws = {"region": "us-east-1", "endpoint_url": platform.url}
    routes = {"chat": {"endpoint_name": "my-endpoint"}}
    application = create_app(Settings.model_validate({"aws": aws, "routes": routes}))
    transport = httpx.ASGITransport(application)
    async with (
        application.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", verify=False) as http,
    ):
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/metrics")).status_code == 404


async def test_the_clients_port_has_none_where_others_reach_it(
    start_gateway: Start, platform: Process, tmp_path: Path
) -> None:
    add(tmp_path / "keys.toml", "ada", None)
    auth = f'[auth.keys]\nfile = "{tmp_path / "keys.toml"}"\n'
    process = start_gateway(platform.url, auth + "[metrics]\nport = 0\n" + PLAIN)
    async with httpx.AsyncClient(verify=False, timeout=20 * UNIT) as http:
        assert (await http.get(f"{process.url}/metrics")).status_code == 404
        own = port_of(process)
        assert (await http.get(f"{own}/metrics")).status_code == 200
        assert (await http.get(f"{own}/healthz")).status_code == 404
        assert (await http.post(f"{own}/metrics")).status_code == 405
        assert (await http.head(f"{own}/metrics")).text == ""
        asked = {"Accept": "application/openmetrics-text; version=1.0.0"}
        response = await http.get(f"{own}/metrics", headers=asked)
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        assert response.text.endswith("# EOF\n")
        for odd in (
            "text/plain; version=x",
            "application/openmetrics-text; version=x",
            "image/png",
        ):
            response = await http.get(f"{own}/metrics", headers={"Accept": odd})
            assert response.status_code == 200, odd
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        rebound = await http.get(f"{own}/metrics", headers={"Host": "rebound.example"})
        assert rebound.status_code == 421, "it is for this machine alone"
    assert process.stop() == 0


async def test_the_clients_port_shows_them_under_this_machines_names_only(
    start_gateway: Start, platform: Process
) -> None:
    process = start_gateway(platform.url, 'allowed_origins = ["https://a.example"]'.join(SPLIT))
    async with httpx.AsyncClient(verify=False, timeout=20 * UNIT) as http:
        for host, status in (("localhost", 200), ("a.example", 421), ("b.example", 421)):
            response = await http.get(f"{process.url}/metrics", headers={"Host": host})
            assert response.status_code == status, host


async def test_workers_are_shown_together_and_what_they_counted_outlives_them(
    start_gateway: Start, platform: Process, valkey: LocalValkey
) -> None:
    process = start_gateway(platform.url, WORKERS.format(valkey=valkey))
    url = port_of(process)
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(12):
            clients.append(await stack.enter_async_context(client(process.websocket)))
            await clients[-1].open()
            assert (await clients[-1].ask("hi"))["status"] == "completed"
        now = await scrape(url)
        assert now.sum("build_info") == now.sum("store_up") == 2
        assert now.sum("connections") == now.sum("sessions") == 12
        assert now.sum("turns_total", status="completed") == 12
        assert now.sum("turn_duration_seconds_count") == 12
        assert now.sum("store_round_trip_seconds_count") > 0
        before = children(process.popen.pid)
        os.kill(before[0], signal.SIGKILL)
        now = await until(url, "build_info", 1)
        assert now.sum("turns_total", status="completed") == 12, "a counter never goes back"
        assert now.sum("connections") < 12, "but its connections are gone"
        now = await until(url, "build_info", 2)
        assert now.sum("turns_total", status="completed") == 12
        # One that is told to end says what it stood at, though nobody has asked since.
        for each in clients:
            with contextlib.suppress(ConnectionClosed, TimeoutError):
                await each.ask("again")
        os.kill(before[1], signal.SIGTERM)
        await process.says("a worker has ended")
        now = await until(url, "build_info", 2)
        assert now.sum("turns_total", status="completed") > 12
    assert process.stop() == 0
    assert "Traceback" not in process.output


async def test_a_worker_that_hangs_is_missing_and_holds_nobody_up(
    start_gateway: Start, platform: Process, valkey: LocalValkey
) -> None:
    process = start_gateway(platform.url, WORKERS.format(valkey=valkey))
    url = port_of(process)
    assert (await scrape(url)).sum("build_info") == 2
    hanging = children(process.popen.pid)[0]
    os.kill(hanging, signal.SIGSTOP)
    try:
        assert (await scrape(url)).sum("build_info") == 1
    finally:
        os.kill(hanging, signal.SIGCONT)
    assert (await until(url, "build_info", 2)).sum("draining") == 0


def test_a_port_that_is_taken_is_said_with_its_setting(platform: Process, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = tmp_path / "gateway.toml"
        aws = AWS.format(url=platform.url, transport="auto")
        file.write_text(f"{aws}[metrics]\nport = {port}\n{PLAIN}")
        done = CliRunner().invoke(main, ["serve", "--config", str(file), "--port", "0"])
    assert done.exit_code == 1
    assert f"port {port}" in done.output
    assert "`port` in [metrics]" in done.output
