"""What an operator sees of a gateway: its log, line by line, and its probes."""

import json
import signal
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.integration.conftest import Start
from tests.support.client import client
from tests.support.processes import Process, admin
from tests.support.timing import UNIT

ROUTES = """
[server]
log_format = "json"

[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
allow = ["target_variant"]
retries = 0

[routes.missing]
endpoint_name = "no-such-endpoint"
"""


def lines(process: Process, event: str) -> list[dict[str, Any]]:
    """The log's lines of that event."""
    written = [json.loads(line) for line in process.lines if line.startswith("{")]
    return [line for line in written if line["event"] == event]


async def test_what_aws_refuses_is_logged_in_its_own_words(
    start_gateway: Start, platform: Process
) -> None:
    process = start_gateway(platform.url, ROUTES)
    async with client(process.websocket, route="missing") as chat:
        await chat.send("session.open")
        error = await chat.until("error")
        assert "no-such-endpoint" not in error["message"]
        await chat.closed()
    process.stop()
    (line,) = lines(process, "call failed")
    assert line["level"] == "error"
    assert line["message"] == "Endpoint no-such-endpoint of account 000000000000 not found."
    assert line["endpoint"] == "no-such-endpoint"
    assert line["body_bytes"] == len(b'{"requestType":"NEW_SESSION"}')
    assert (line["route"], line["call"], line["status"]) == ("missing", "open", 400)
    assert (line["code"], line["error"]) == ("ValidationError", "unavailable")
    assert len(line["session"]) == 32


async def test_wrong_keys(
    start_gateway: Start, platform: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SWORDFISH")
    process = start_gateway(platform.url, ROUTES)
    async with client(process.websocket) as chat:
        await chat.send("session.open")
        error = await chat.until("error")
        assert error["code"] == "unavailable"
        assert "log says how" in error["message"]
        assert await chat.closed() == (4503, "unavailable")
    process.stop()
    (line,) = lines(process, "call failed")
    assert (line["code"], line["level"]) == ("InvalidSignatureException", "error")
    assert "signature" in line["message"]
    assert line["symptom"] == "secret_wrong"
    assert "SWORDFISH" not in process.output


async def test_what_a_client_wrote_is_not_in_the_words_of_aws_or_a_container(
    start_gateway: Start, platform: Process
) -> None:
    process = start_gateway(platform.url, ROUTES)
    async with client(process.websocket) as chat:
        opened = await chat.open()
        await chat.ask("hi", "variant", target_variant="my secret")
        await chat.ask("/fail 503 my secret", "fail")
        admin(platform, "/faults", error="ThrottlingException")
        await chat.ask("my secret", "throttled")
    process.stop()
    variant, container, throttled = lines(process, "call failed")
    same = {"route": "chat", "session": opened["session_id"], "endpoint": "my-endpoint"}
    assert all(same.items() <= line.items() for line in (variant, container, throttled))
    told = "Value at targetVariant failed to satisfy constraint"
    assert (variant["message"], variant["error"]) == (told, "validation_error")
    assert (container["original_status"], container["error"]) == (503, "model_error")
    assert (throttled["code"], throttled["level"]) == ("ThrottlingException", "warning")
    assert throttled["message"]
    assert "secret" not in process.output


async def test_a_turn_is_a_line_where_it_is_asked_for(
    start_gateway: Start, platform: Process
) -> None:
    config = ROUTES.replace("[server]", "[server]\nlog_turns = true")
    process = start_gateway(platform.url, config)
    async with client(process.websocket) as chat:
        opened = await chat.open()
        done = await chat.ask("my secret", "first")
        await chat.ask("/fail 503 my secret", "second")
        await chat.send("message.send", id="third", text="/sleep 60")
        await chat.until("message.accepted", id="third")
        await chat.send("message.cancel", id="third")
        await chat.until("message.done", id="third")
    process.stop()
    turns = lines(process, "turn")
    assert [(turn["id"], turn["status"], turn.get("error")) for turn in turns] == [
        ("first", "completed", None),
        ("second", "failed", "model_error"),
        ("third", "cancelled", None),
    ]
    same = {"level": "info", "route": "chat", "session": opened["session_id"], "deltas": 0}
    assert all(same.items() <= turn.items() for turn in turns)
    assert turns[0]["duration_ms"] == done["duration_ms"]
    assert [turn.get("outcome") for turn in turns] == [None, "invoked", "unknown"]
    (model,) = {turn["sagemaker_session"] for turn in turns}
    assert model not in {None, opened["session_id"]}
    for turn in turns:
        assert turn["queued_ms"] >= 0
        assert turn["upstream_ms"] >= 0
        assert turn["gateway_us"] > 0
    (closed,) = lines(process, "connection closed")
    assert closed["seconds"] > 0
    assert "secret" not in process.output


async def test_no_turn_is_a_line_otherwise(start_gateway: Start, platform: Process) -> None:
    process = start_gateway(platform.url, ROUTES)
    async with client(process.websocket) as chat:
        await chat.open()
        await chat.ask("hi")
    process.stop()
    assert not lines(process, "turn")
    (opened,), (closed,) = lines(process, "connection opened"), lines(process, "connection closed")
    assert opened["client"] == closed["client"] == "127.0.0.1"
    assert closed["session"] == chat.messages[0]["session_id"]


async def test_a_refused_origin_is_logged_with_what_to_put_where(
    start_gateway: Start, platform: Process
) -> None:
    process = start_gateway(platform.url, ROUTES)
    for _ in range(3):
        with pytest.raises(InvalidStatus):
            async with client(process.websocket, origin="https://x.example.com"):
                pass
    process.stop()
    (line,) = lines(process, "origin refused")
    assert (line["route"], line["client"]) == ("chat", "127.0.0.1")
    allowed = 'add "https://x.example.com" to allowed_origins of [routes.chat]'
    assert line["hint"].startswith(allowed)
    config = ROUTES.replace("retries", 'allowed_origins = ["https://x.example.com"]\nretries')
    process = start_gateway(platform.url, config)
    async with client(process.websocket, origin="https://x.example.com") as chat:
        await chat.open()


async def test_a_gateway_without_credentials_says_so_and_serves(
    start_gateway: Start, platform: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    process = start_gateway(platform.url, ROUTES)
    async with client(process.websocket) as chat:
        await chat.send("session.open")
        assert (await chat.until("error"))["code"] == "unavailable"
        await chat.closed()
    await process.says("calls to AWS will fail")
    process.stop()
    (line,) = lines(process, "calls to AWS will fail")
    assert (line["level"], line["about"]) == ("warning", "credentials")
    assert "AWS_ACCESS_KEY_ID" in line["why"]
    (call,) = lines(process, "call failed")
    assert call["raised"].startswith("NoCredentials")
    assert call["level"] == "error"


async def test_a_gateway_with_credentials_says_nothing(
    start_gateway: Start, platform: Process
) -> None:
    process = start_gateway(platform.url, ROUTES)
    async with client(process.websocket) as chat:
        await chat.open()
    process.stop()
    assert "calls to AWS" not in process.output


@pytest.mark.parametrize("host", ["10.1.2.3:8080", "chat.example.com", "elb"])
async def test_probes_come_with_any_host(
    start_gateway: Start, platform: Process, host: str
) -> None:
    process = start_gateway(platform.url, ROUTES)
    async with httpx.AsyncClient(
        base_url=process.url, headers={"Host": host}, timeout=20 * UNIT
    ) as http:
        for path in ("/healthz", "/readyz"):
            got = await http.get(path)
            assert (got.status_code, got.text) == (200, "ok\n")
            assert got.headers["cache-control"] == "no-cache"
            head = await http.head(path)
            assert (head.status_code, head.text) == (200, "")


async def test_who_drains_is_alive_and_not_ready(start_gateway: Start, platform: Process) -> None:
    process = start_gateway(platform.url, ROUTES)
    async with (
        httpx.AsyncClient(base_url=process.url, timeout=20 * UNIT) as probe,
        client(process.websocket) as busy,
        client(process.websocket) as idle,
    ):
        assert (await probe.get("/readyz")).status_code == 200
        await idle.open()
        await busy.open()
        await busy.send("message.send", id="1", text="/sleep 60")
        await busy.until("message.accepted")
        process.popen.send_signal(signal.SIGTERM)
        await idle.closed()
        draining = await probe.get("/readyz")
        assert (draining.status_code, draining.text) == (503, "draining\n")
        assert (await probe.get("/healthz")).status_code == 200
        async with httpx.AsyncClient(base_url=process.url, timeout=20 * UNIT) as another:
            with pytest.raises(httpx.ConnectError):
                await another.get("/readyz")
        process.popen.send_signal(signal.SIGTERM)
        await busy.closed()
    assert process.wait() == 0
