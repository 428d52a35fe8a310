"""AWS's own session code for containers behind the local SageMaker, and each of its traps."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import Start
from tests.support.client import client
from tests.support.processes import MARGIN, Container, admin, lifetime
from tests.support.timing import UNIT

ROUTE = """
[routes.chat]
endpoint_name = "my-endpoint"
session = "container-standards"
content_type = "application/json"
body = "json"
"""


@pytest.fixture
def containers(stack: ExitStack, tmp_path: Path) -> list[Container]:
    containers = [Container(tmp_path / f"sessions-{number}") for number in (1, 2)]
    for container in containers:
        stack.callback(container.stop)
    return containers


async def test_ten_turns_prove_the_state_and_the_session_is_closed(
    containers: list[Container], start_local: Start, start_gateway: Start
) -> None:
    urls = [f"--container={container.url}" for container in containers]
    process = start_gateway(start_local(*urls).url, ROUTE)
    async with client(process.websocket) as chat, client(process.websocket) as other:
        await chat.open()
        await other.open()
        for turn in range(1, 11):
            for conversation in (chat, other):
                done = await conversation.ask("x", f"m{turn}", content_type="application/json")
                assert done["status"] == "failed", "text that is not JSON is refused"
                await conversation.send("message.send", id=f"j{turn}", json={"n": turn})
                done = await conversation.until("message.done", id=f"j{turn}")
                assert done["json"] == {"turn": turn}
        await chat.send("session.close")
        assert (await chat.until("session.closed"))["reason"] == "client"
        assert (await chat.closed())[0] == 1000
        await other.send("session.close")
        await other.closed()
    for container in containers:  # one conversation each
        container.stop()
        assert container.output.count(" created") == 1
        assert container.output.count(" closed") == 1


async def test_a_session_is_closed_before_the_container_goes_on_without_it(
    stack: ExitStack, tmp_path: Path, start_local: Start, start_gateway: Start
) -> None:
    container = Container(tmp_path / "sessions", SAGEMAKER_SESSIONS_EXPIRATION=lifetime(10))
    stack.callback(container.stop)
    platform = start_local(f"--container={container.url}")
    times = f"expiry_margin_seconds = {MARGIN}\nexpiring_notice_seconds = 60\n"
    process = start_gateway(platform.url, ROUTE + times)
    async with client(process.websocket) as chat:
        await chat.open()
        await chat.until("session.expiring")
        await chat.send("message.send", id="1", json={})
        assert (await chat.until("message.done"))["json"] == {"turn": 1}
        assert (await chat.until("session.closed"))["reason"] == "expired"
        assert (await chat.closed())[0] == 4410
    container.stop()
    assert container.output.count(" closed") == 1, "closed by the gateway, not expired"


async def test_why_the_margin_is_needed(stack: ExitStack, tmp_path: Path) -> None:
    """What the container does by itself: 200 without the session, then 400."""
    container = Container(tmp_path / "sessions", SAGEMAKER_SESSIONS_EXPIRATION="1")
    stack.callback(container.stop)
    async with httpx.AsyncClient(base_url=container.url, timeout=20 * UNIT) as http:
        opened = await http.post("/invocations", json={"requestType": "NEW_SESSION"})
        name = opened.headers["X-Amzn-SageMaker-New-Session-Id"].partition(";")[0]
        headers = {"X-Amzn-SageMaker-Session-Id": name}
        answer = await http.post("/invocations", json={}, headers=headers)
        while answer.json() != {"turn": None}:
            assert answer.status_code == 200
            await asyncio.sleep(0.1 * UNIT)
            answer = await http.post("/invocations", json={}, headers=headers)
        assert answer.status_code == 200, "silently stateless"
        lost = await http.post("/invocations", json={}, headers=headers)
        assert (lost.status_code, "session not found" in lost.text) == (400, True)
        closed = await http.post("/invocations", json={"requestType": "CLOSE"}, headers=headers)
        assert closed.status_code in {400, 424}


async def test_a_container_that_has_lost_the_session(
    containers: list[Container], tmp_path: Path, start_local: Start, start_gateway: Start
) -> None:
    process = start_gateway(start_local(f"--container={containers[0].url}").url, ROUTE)
    async with client(process.websocket) as chat:
        await chat.open()
        (session,) = (tmp_path / "sessions-1").iterdir()
        async with httpx.AsyncClient(base_url=containers[0].url, timeout=20 * UNIT) as http:
            headers = {"X-Amzn-SageMaker-Session-Id": session.name}
            await http.post("/invocations", json={"requestType": "CLOSE"}, headers=headers)
        await chat.send("message.send", id="1", json={})
        error = (await chat.until("message.done"))["error"]
        assert (error["code"], error["outcome"]) == ("session_lost", "not_invoked")
        assert (await chat.until("session.closed"))["reason"] == "lost"


async def test_sessions_that_are_off(
    stack: ExitStack, tmp_path: Path, start_local: Start, start_gateway: Start
) -> None:
    container = Container(tmp_path / "sessions", SAGEMAKER_ENABLE_STATEFUL_SESSIONS="false")
    stack.callback(container.stop)
    process = start_gateway(start_local(f"--container={container.url}").url, ROUTE)
    async with client(process.websocket) as chat:
        await chat.send("session.open")
        assert (await chat.until("error"))["code"] == "model_error"
        assert (await chat.closed())[0] == 4503
    process.stop()
    assert "symptom=sessions_off" in process.output
    assert "Set SAGEMAKER_ENABLE_STATEFUL_SESSIONS=true" in process.output


async def test_a_container_that_answers_without_opening(
    containers: list[Container], start_local: Start, start_gateway: Start
) -> None:
    """NEW_SESSION with an ordinary body: 200, an ordinary reply, and no session."""
    route = ROUTE.replace('"container-standards"', '"first-message"')
    process = start_gateway(start_local(f"--container={containers[0].url}").url, route)
    async with client(process.websocket) as chat:
        await chat.open()
        await chat.send("message.send", id="1", json={})
        assert (await chat.until("message.done"))["json"] == {"turn": None}
        assert (await chat.until("session.closed"))["reason"] == "lost"


@pytest.mark.parametrize("dialect", ["torchserve", "first-message"])
@pytest.mark.parametrize("expires", ["standard", "absent", "naive"])
async def test_other_dialects_and_ways_to_write_the_expiry(
    start_local: Start, start_gateway: Start, dialect: str, expires: str
) -> None:
    platform = start_local(f"--dialect={dialect}", f"--expires={expires}")
    process = start_gateway(platform.url, ROUTE.replace("container-standards", dialect))
    async with client(process.websocket) as chat:
        opened = await chat.open()
        for turn in (1, 2, 3):
            await chat.send("message.send", id=f"{turn}", json={"text": "hi"})
            done = await chat.until("message.done")
            assert done["json"]["turn"] == turn
        updated = [m for m in chat.messages if m["type"] == "session.updated"]
        told = updated[0] if dialect == "first-message" else opened
        assert (told["expires_at"] is None) is (expires == "absent")
        await chat.send("session.close")
        await chat.until("session.closed")
    assert sum(instance["closed"] for instance in admin(platform)["instances"]) == 1
