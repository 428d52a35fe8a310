"""A gateway that shuts down: turns finish, sessions are closed, clients are told."""

import signal

import pytest

from tests.integration.conftest import Start
from tests.support.client import client
from tests.support.processes import admin

ROUTE = """
[server]
drain_seconds = {drain}
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain"
"""


async def test_the_running_turn_finishes_and_sessions_are_closed(
    start_local: Start, start_gateway: Start
) -> None:
    platform = start_local()
    process = start_gateway(platform.url, ROUTE.format(drain=20))
    async with client(process.websocket) as busy, client(process.websocket) as idle:
        await busy.open()
        await idle.open()
        for number in ("1", "2"):
            await busy.send("message.send", id=number, text="/sleep 0.5")
            await busy.until("message.accepted", id=number)
        process.popen.send_signal(signal.SIGTERM)
        assert await idle.closed() == (1012, "unavailable")
        waiting = await busy.until("message.done", id="2")
        assert waiting["error"]["outcome"] == "not_invoked"
        assert waiting["error"]["retryable"] is True
        assert (await busy.until("message.done", id="1"))["status"] == "completed"
        assert (await busy.until("session.closed"))["reason"] == "operator"
        assert (await busy.closed())[0] == 1012
    assert process.wait() == 0
    state = admin(platform)["instances"]
    assert sum(instance["closed"] for instance in state) == 2


async def test_who_still_reads_gets_all_of_it(start_local: Start, start_gateway: Start) -> None:
    platform = start_local()
    process = start_gateway(platform.url, ROUTE.format(drain=20))
    async with client(process.websocket, max_queue=1) as chat:
        await chat.open()
        await chat.send("message.send", id="1", text="/bytes 20000000")
        await chat.until("message.accepted")
        process.popen.send_signal(signal.SIGTERM)
        assert (await chat.until("message.done"))["status"] == "completed"
        assert (await chat.until("session.closed"))["reason"] == "operator"
        assert (await chat.closed())[0] == 1012
    assert process.wait() == 0


@pytest.mark.parametrize("drain", [0.2, 3600])
async def test_time_runs_out_by_itself_or_by_a_second_signal(
    start_local: Start, start_gateway: Start, drain: float
) -> None:
    platform = start_local()
    process = start_gateway(platform.url, ROUTE.format(drain=drain))
    async with client(process.websocket) as chat, client(process.websocket) as other:
        await chat.open()
        await other.open()
        await chat.send("message.send", id="1", text="/sleep 60")
        await chat.until("message.accepted")
        process.popen.send_signal(signal.SIGINT)
        await other.closed()
        process.popen.send_signal(signal.SIGINT)
        done = await chat.until("message.done")
        assert (done["status"], done["error"]["outcome"]) == ("failed", "unknown")
        assert (await chat.closed())[0] == 1012
    assert process.wait() == 0
    assert sum(instance["closed"] for instance in admin(platform)["instances"]) == 2


async def test_the_log_says_with_which_code_a_connection_closed(
    start_local: Start, start_gateway: Start
) -> None:
    process = start_gateway(start_local().url, ROUTE.format(drain=1))
    async with client(process.websocket) as chat:
        await chat.send("ping")
        assert (await chat.closed())[0] == 4400
    process.stop()
    assert "code=4400" in process.output


async def test_nothing_that_a_user_wrote_is_logged(
    start_local: Start, start_gateway: Start
) -> None:
    process = start_gateway(start_local().url, ROUTE.format(drain=1), "--log-level", "DEBUG")
    async with client(process.websocket, route="") as chat:
        opened = await chat.open()
        await chat.ask("secret words")
        await chat.ask("/fail 500 secret words")
        await chat.ask("/echo secret words")
        await chat.send("nonsense", secret="words")
        await chat.until("error")
        await chat.send("session.close")
        await chat.closed()
    async with client(process.websocket) as chat:
        await chat.open()
        await chat.socket.send(b"secret\xff", text=True)
        await chat.closed()
    process.stop()
    assert "turn" in process.output
    assert "Traceback" not in process.output
    assert "secret" not in process.output
    assert opened["resume_key"] not in process.output
