"""Asynchronous routes on real parts: what comes later comes, whatever happens meanwhile."""

import asyncio
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import pytest

from tests.integration.conftest import Start
from tests.support import valkey
from tests.support.client import client, in_time, raw
from tests.support.processes import Process, admin
from tests.support.timing import UNIT

CONFIG = """
s3_endpoint_url = "{url}/_s3"
sqs_endpoint_url = "{url}/_sqs"
[server]
drain_seconds = {drain}
{store}
[routes.slow]
mode = "async"
endpoint_name = "my-endpoint"
content_type = "text/plain"
poll_seconds = 0.05
poll_max_seconds = 0.2
{more}
"""
STORE = '[store]\nkind = "valkey"\nurl = "{url}"\nlease_seconds = 1'

Begin = Callable[..., Process]


@pytest.fixture
def later(start_local: Start) -> Process:
    return start_local("--asynchronous")


@pytest.fixture
def begin(start_gateway: Start, later: Process) -> Begin:
    """Start a gateway in front of it."""

    def begin(more: str = "", store: str = "", drain: float = 20) -> Process:
        config = CONFIG.format(url=later.url, more=more, store=store, drain=drain)
        return start_gateway(later.url, config)

    return begin


@pytest.fixture
def shared(stack: ExitStack) -> str:
    """A store that gateways share, and that outlives them."""
    return STORE.format(url=stack.enter_context(valkey.server()).url)


QUEUED = 'input_location = "s3://inputs/put/"\nnotification_queue_url = "{url}/_sqs"'


@pytest.mark.parametrize("more", ["", QUEUED], ids=["polled", "told"])
async def test_a_message_is_accepted_at_once_and_done_later(
    begin: Begin, later: Process, more: str
) -> None:
    gateway = begin(more.format(url=later.url))
    admin(later, "/faults", delay_work_seconds=0.5)
    async with client(gateway.websocket) as chat:
        await chat.open()
        done = await chat.ask("/echo hi", "m1", stream=True)
        assert [message["type"] for message in chat.messages[1:]] == [
            "message.accepted",
            "message.done",
        ]
        assert (done["text"], done["deltas"], done["status"]) == ("hi", 0, "completed")
        assert done["duration_ms"] >= 500
        failed = await chat.ask("/fail 500 secret")
        error = failed["error"]
        assert (error["code"], error["outcome"]) == ("model_error", "invoked")
        assert "secret" not in str(error)


async def test_over_raw_connections_and_http_too(begin: Begin) -> None:
    gateway = begin()
    async with raw(gateway.websocket) as socket:
        await socket.send("/echo raw")
        assert await in_time(socket.recv()) == "raw"
    async with httpx.AsyncClient(base_url=gateway.url, timeout=20 * UNIT) as http:
        opened = (await http.post("/v1/routes/slow/sessions")).json()
        answer = await http.post(
            f"/v1/sessions/{opened['session_id']}/messages",
            content="/echo over HTTP",
            headers={"Session-Key": opened["resume_key"], "Content-Type": "text/plain"},
        )
    assert (answer.status_code, answer.text) == (200, "over HTTP")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


async def test_what_is_cancelled_is_not_waited_for(begin: Begin, later: Process) -> None:
    gateway = begin()
    admin(later, "/faults", delay_work_seconds=600)
    async with client(gateway.websocket) as chat:
        await chat.open()
        await chat.send("message.send", id="m1", text="hi")
        await chat.until("message.accepted")
        await until(lambda: admin(later)["submitted"])
        line = 'session_gateway_turns_awaited{route="slow"} 1.0'
        await until(lambda: line in httpx.get(f"{gateway.url}/metrics").text)
        await chat.send("message.cancel", id="m1")
        done = await chat.until("message.done")
        assert (done["status"], done["outcome"]) == ("cancelled", "unknown")


async def test_a_body_that_is_too_large(begin: Begin) -> None:
    async with client(begin().websocket) as chat:
        await chat.open()
        done = await chat.ask("x" * 128_001)
        assert (done["error"]["code"], done["error"]["outcome"]) == ("too_large", "not_invoked")


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20 * UNIT):
        while not condition():  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["restart", "death"])
async def test_a_reply_survives_whoever_has_asked_for_it(
    begin: Begin, later: Process, shared: str, how: signal.Signals
) -> None:
    gateway = begin(store=shared)
    admin(later, "/faults", delay_work_seconds=4 * UNIT)
    async with client(gateway.websocket) as chat:
        opened = await chat.open()
        await chat.send("message.send", id="m1", text="/echo at last")
        accepted = await chat.until("message.accepted")
        await until(lambda: admin(later)["submitted"])
        await asyncio.sleep(0.3 * UNIT)  # so that it is stored where the reply will be
    assert admin(later)["ended"] == 0
    begun = time.monotonic()
    await asyncio.to_thread(gateway.stop, how)
    assert admin(later)["ended"] == 0, f"it took {time.monotonic() - begun:g} s to end"
    async with client(begin(store=shared).websocket) as chat:
        await chat.send(
            "session.open",
            session_id=opened["session_id"],
            resume_key=opened["resume_key"],
            last_event=accepted["event"],
        )
        done = await chat.until("message.done")
        assert (done["status"], done["text"]) == ("completed", "at last")
    assert admin(later)["submitted"] == 1


async def test_a_session_moves_with_what_it_waits_for(
    begin: Begin, later: Process, shared: str
) -> None:
    one, other = begin(store=shared), begin(store=shared)
    admin(later, "/faults", delay_work_seconds=2 * UNIT)
    async with client(one.websocket) as chat:
        opened = await chat.open()
        await chat.send("message.send", id="m1", text="/echo there")
        accepted = await chat.until("message.accepted")
        await until(lambda: admin(later)["submitted"])
        async with client(other.websocket) as elsewhere:
            await elsewhere.send(
                "session.open",
                session_id=opened["session_id"],
                resume_key=opened["resume_key"],
                last_event=accepted["event"],
            )
            await elsewhere.until("session.resumed")
            done = await elsewhere.until("message.done")
            assert done["text"] == "there"
    assert admin(later)["submitted"] == 1


async def test_without_a_store_a_gateway_that_stops_waits_no_longer_than_it_may(
    begin: Begin, later: Process
) -> None:
    gateway = begin(drain=0.2)
    admin(later, "/faults", delay_work_seconds=600)
    async with client(gateway.websocket) as chat:
        await chat.open()
        await chat.send("message.send", id="m1", text="hi")
        await until(lambda: admin(later)["submitted"])
        stopping = asyncio.create_task(asyncio.to_thread(gateway.stop))
        done = await chat.until("message.done")
        assert (done["status"], done["error"]["outcome"]) == ("failed", "unknown")
        assert await chat.closed() == (1012, "unavailable")
        await stopping


async def test_who_comes_back_late_gets_the_reply(begin: Begin, later: Process) -> None:
    gateway = begin("resume_seconds = 0.3\nlog_seconds = 60")
    admin(later, "/faults", delay_work_seconds=1.0)
    async with client(gateway.websocket) as chat:
        opened = await chat.open()
        await chat.send("message.send", id="m1", text="/echo late")
        await chat.until("message.accepted")
    await until(lambda: admin(later)["ended"])
    await asyncio.sleep(0.05)
    async with client(gateway.websocket) as chat:
        await chat.send(
            "session.open",
            session_id=opened["session_id"],
            resume_key=opened["resume_key"],
            last_event=2,
        )
        assert (await chat.until("message.done"))["text"] == "late"


async def test_a_request_that_is_cut_off_is_sent_again(
    begin: Begin, later: Process, shared: str
) -> None:
    admin(later, "/faults", delay_work_seconds=4 * UNIT)
    one, other = begin(store=shared), begin(store=shared)

    async with httpx.AsyncClient(timeout=20 * UNIT) as http:

        async def ask(gateway: Process, opened: dict[str, str]) -> httpx.Response:
            return await http.post(
                f"{gateway.url}/v1/sessions/{opened['session_id']}/messages",
                content="/echo once",
                headers={
                    "Session-Key": opened["resume_key"],
                    "Content-Type": "text/plain",
                    "Idempotency-Key": "m1",
                },
            )

        opened = (await http.post(f"{one.url}/v1/routes/slow/sessions")).json()
        asking = asyncio.create_task(ask(one, opened))
        await until(lambda: admin(later)["submitted"])
        await asyncio.sleep(0.3 * UNIT)
        stopping = asyncio.create_task(asyncio.to_thread(one.stop))
        assert (await asking).status_code == 503
        await stopping
        assert admin(later)["ended"] == 0
        answer = await ask(other, opened)
        assert (answer.status_code, answer.text) == (200, "once")
    assert admin(later)["submitted"] == 1
