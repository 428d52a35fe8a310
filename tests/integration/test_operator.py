"""What an operator sees of a gateway: its log, line by line, and its probes."""

import json
from typing import Any

import pytest

from tests.integration.conftest import Start
from tests.support.client import client
from tests.support.processes import Process, admin

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
    assert (line["route"], line["call"], line["status"]) == ("missing", "open", 400)
    assert (line["code"], line["error"]) == ("ValidationError", "unavailable")
    assert len(line["session"]) == 32


async def test_wrong_keys(
    start_gateway: Start, platform: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    process = start_gateway(platform.url, ROUTES)
    async with client(process.websocket) as chat:
        await chat.send("session.open")
        error = await chat.until("error")
        assert error["code"] == "unavailable"
        assert "operator" in error["message"]
        assert await chat.closed() == (4503, "unavailable")
    process.stop()
    (line,) = lines(process, "call failed")
    assert (line["code"], line["level"]) == ("InvalidSignatureException", "error")
    assert "signature" in line["message"]
    assert "wrong" not in process.output


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
