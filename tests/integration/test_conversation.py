"""One message's whole way on real parts: client, gateway process, local SageMaker, model."""

import asyncio
import base64
import contextlib
import json

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.transports.connection import MAX_BAD_MESSAGES, MAX_OPEN_BYTES, MAX_REFUSED
from tests.integration.conftest import Start
from tests.support.client import JSON, MSGPACK, client, in_time, raw
from tests.support.processes import Process, admin
from tests.support.timing import UNIT
from tests.support.transports import BOTH

pytestmark = pytest.mark.parametrize("transport", BOTH, indirect=True, scope="module")

ROUTES = """
[routes.chat]
endpoint_name = "my-endpoint"
content_type = "text/plain; charset=utf-8"
allow = ["inference_id"]
queued_messages = 2
message_bytes = 100000
resume_seconds = 0.5
allowed_origins = ["https://chat.example.com"]

[routes.json]
endpoint_name = "my-endpoint"
content_type = "application/json"
body = "json"

[routes.lazy]
endpoint_name = "my-endpoint"
open = "on_first_message"
content_type = "text/plain"

[routes.stateless]
endpoint_name = "my-endpoint"
session = "stateless"
content_type = "text/plain"

[routes.prefix]
endpoint_name = "my-endpoint"
session = "prefix-aware"
content_type = "text/plain"

[routes.missing]
endpoint_name = "no-such-endpoint"
"""


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
async def test_a_conversation_keeps_its_state(
    own_url: str, platform: Process, subprotocol: str
) -> None:
    async with client(own_url, subprotocol) as chat:
        assert chat.socket.subprotocol == subprotocol
        opened = await chat.open()
        assert opened["route"] == "chat"
        assert opened["expires_at"].endswith("Z")
        assert opened["limits"] == {
            "message_bytes": 100_000,
            "queued_messages": 2,
            "resume_seconds": 0.5,
        }
        await chat.ask("My name is Ada.")
        done = await chat.ask("What is my name?")
        assert done["status"] == "completed"
        assert "Turn 2 on instance" in done["text"]
        assert "Your name is Ada." in done["text"]
        assert done["content_type"] == "text/plain; charset=utf-8"
        assert done["invoked_production_variant"] == "AllTraffic"
        assert done["custom_attributes"].startswith("turn=2")
        assert done["duration_ms"] >= 0
        await chat.send("ping", data="x")
        assert await chat.receive() == {"type": "pong", "data": "x"}
        await chat.send("session.close")
        closed = await chat.until("session.closed")
        assert closed["reason"] == "client"
        assert await chat.closed() == (1000, "")
        numbers = [message["event"] for message in chat.messages if "event" in message]
        assert numbers == list(range(1, len(numbers) + 1))
    counts = admin(platform)["instances"]
    assert sum(instance["closed"] for instance in counts) == 1


async def test_json_that_messagepack_can_not_hold(url: str) -> None:
    async with client(url, MSGPACK, route="json") as chat:
        await chat.open()
        number = b"123456789012345678901234567890"
        await chat.send("message.send", id="b", bytes=number, content_type="image/png")
        assert (await chat.until("message.done"))["text"] == number.decode()


async def test_an_event_may_be_acknowledged_before_it_is_sent(url: str) -> None:
    async with client(url) as chat:
        await chat.open()
        turn = {"type": "message.send", "id": "a", "text": "hi"}
        chat.send_at_once(turn, {"type": "event.ack", "event": 2})
        assert (await chat.until("message.done"))["event"] == 3
        assert (await chat.ask("hi"))["event"] == 5


async def test_bodies_of_every_form(url: str) -> None:
    async with client(url, MSGPACK) as chat:
        await chat.open()
        binary = {"content_type": "application/octet-stream"}
        await chat.send("message.send", id="1", bytes=b"\x00\xff", **binary)
        assert (await chat.until("message.done"))["bytes"] == b"\x00\xff"
        await chat.send("message.send", id="2", base64="AP8=", **binary)
        assert (await chat.until("message.done"))["bytes"] == b"\x00\xff"
    async with client(url, JSON, route="json") as chat:
        await chat.open()
        await chat.send("message.send", id="1", json={"text": "Remember that 2 is even."})
        done = await chat.until("message.done")
        assert done["json"]["facts"] == ["2 is even"]
        await chat.send("message.send", id="2", base64=base64.b64encode(b'"hi"').decode())
        assert (await chat.until("message.done"))["json"]["turn"] == 2


async def test_text_is_no_json(url: str) -> None:
    async with client(url, route="json") as chat:
        await chat.open()
        await chat.send("message.send", id="1", text="My name is Ada.")
        refused = await chat.until("error")
        assert (refused["code"], refused["id"]) == ("validation_error", "1")
        assert "send `json`, or set the route's `request`" in refused["message"]
        await chat.send("message.send", id="1", json={"text": "My name is Ada."})
        assert (await chat.until("message.done"))["json"]["name"] == "Ada"
    async with raw(url, route="json") as socket:
        await socket.send('{"text": "My name is Ada."}')
        assert json.loads(await in_time(socket.recv()))["name"] == "Ada"


async def test_the_first_message_may_open_the_session(url: str) -> None:
    async with client(url, route="lazy") as chat:
        assert (await chat.open())["expires_at"] is None
        await chat.send("message.send", id="1", text="hi")
        assert (await chat.until("session.updated"))["expires_at"] is not None
        assert "Turn 1" in (await chat.until("message.done"))["text"]


@pytest.mark.parametrize("route", ["stateless", "prefix"])
async def test_models_without_sessions(url: str, route: str) -> None:
    async with client(url, route=route) as chat:
        await chat.open()
        first, second = await chat.ask("hi"), await chat.ask("hi again")
        assert "Stateless" in first["text"]
        if route == "prefix":
            assert first["text"] == second["text"], "the same instance"


async def test_raw(url: str) -> None:
    async with raw(url) as socket:
        await socket.send("My name is Ada.")
        await socket.send(b"What is my name?")
        assert "Turn 1" in await in_time(socket.recv())
        answer = await in_time(socket.recv())
        assert isinstance(answer, str)
        assert "Your name is Ada." in answer
        await socket.send("/bytes 3")
        assert await in_time(socket.recv()) == b"xxx"
        await socket.send("/fail 500")
        with pytest.raises(ConnectionClosed):
            await in_time(socket.recv())
        assert (socket.close_code, socket.close_reason) == (1011, "model_error")


async def test_raw_closes_the_session_with_the_socket(own_url: str, platform: Process) -> None:
    async with raw(own_url) as socket:
        await socket.send("hi")
        await in_time(socket.recv())
    for _ in range(1000):
        if any(instance["closed"] for instance in admin(platform)["instances"]):
            return
        await asyncio.sleep(0.01 * UNIT)
    raise AssertionError("the session was not closed")


class TestRefusedHandshakes:
    async def test_unknown_subprotocols(self, url: str) -> None:
        async with client(url, "v9.json.session-gateway") as chat:
            assert (await chat.closed())[0] == 4406

    async def test_the_first_known_subprotocol_is_taken(self, url: str) -> None:
        async with client(url, "bearer.abc", "v9", MSGPACK, JSON) as chat:
            assert chat.socket.subprotocol == MSGPACK

    async def test_credentials_are_never_echoed(self, url: str) -> None:
        async with client(url, "bearer.abc", "ticket.abc") as chat:
            assert chat.socket.subprotocol is None

    async def test_unknown_routes(self, url: str) -> None:
        for route in ("nowhere", "no/where", "nowhere/"):
            async with client(url, route=route) as chat:
                assert await chat.closed() == (4404, "unknown_route")

    async def test_no_route_at_all_is_the_default_one(self, url: str) -> None:
        async with connect(f"{url}/ws/") as socket:
            await socket.send("hi")
            assert "Turn 1" in await in_time(socket.recv())

    @pytest.mark.parametrize("origin", ["https://evil.example.com", "null", "http://localhost:1"])
    async def test_foreign_origins(self, url: str, origin: str) -> None:
        with pytest.raises(InvalidStatus) as refused:
            async with client(url, origin=origin):
                pass
        assert refused.value.response.status_code == 403
        assert b"allowed_origins" in (refused.value.response.body or b"")

    async def test_a_page_may_ask_why_it_was_refused(self, url: str) -> None:
        """A browser does not tell it, and lets it read only what says that anybody may."""
        base = url.replace("ws", "http", 1)
        evil = {"Origin": "https://evil.example.com"}
        good = {"Origin": "https://chat.example.com"}
        async with httpx.AsyncClient(base_url=base, timeout=20 * UNIT) as http:
            for path, headers, status in (
                ("/ws", evil, 403),
                ("/ws/json", good, 403),
                ("/ws", good, 426),
                ("/ws/chat", {}, 426),
                ("/ws/nowhere", {}, 426),
            ):
                answer = await http.post(path, headers=headers)
                assert answer.status_code == status
                readable = answer.headers.get("access-control-allow-origin")
                assert readable == ("*" if status == 403 else None)
                if status == 403:
                    assert answer.headers["content-type"] == "application/problem+json"
                    assert answer.json()["code"] == "forbidden"
                    assert "allowed_origins" in answer.json()["detail"]
                else:
                    assert answer.headers["upgrade"] == "websocket"
                    assert (await http.get(path, headers=headers)).status_code == 426

    async def test_its_own_page_and_those_on_the_list(self, url: str) -> None:
        for origin in (url.replace("ws", "http", 1), "https://chat.example.com"):
            async with client(url, origin=origin) as chat:
                await chat.open()
        with pytest.raises(InvalidStatus):  # the list is that of another route
            async with client(url, route="json", origin="https://chat.example.com"):
                pass

    async def test_a_name_that_was_pointed_at_this_machine(self, url: str) -> None:
        host = "evil.example.com"
        with pytest.raises(InvalidStatus):
            async with client(url, origin=f"http://{host}", additional_headers={"Host": host}):
                pass


class TestBadInput:
    async def test_nothing_but_session_open_comes_first(self, url: str) -> None:
        for first in ('{"type":"ping"}', "{", "[]"):
            async with client(url) as chat:
                await chat.socket.send(first)
                assert (await chat.closed())[0] == 4400

    async def test_a_session_open_is_small(self, url: str) -> None:
        for size, code in ((MAX_OPEN_BYTES - 100, 4410), (MAX_OPEN_BYTES, 4400)):
            async with client(url) as chat:
                await chat.send(
                    "session.open",
                    token="x" * size,
                    session_id="x",
                    resume_key="y",
                    last_event=0,
                )
                assert (await chat.closed())[0] == code

    async def test_a_wrong_session_open_may_be_mended(self, url: str) -> None:
        async with client(url) as chat:
            await chat.send("session.open", extra=1)
            assert "`extra`" in (await chat.until("error", code="bad_message"))["message"]
            await chat.send("session.open", session_id="x")
            assert "`resume_key`" in (await chat.until("error"))["message"]
            await chat.open()

    async def test_there_is_nothing_to_resume(self, url: str) -> None:
        async with client(url) as chat:
            await chat.send("session.open", session_id="x", resume_key="y", last_event=0)
            assert await chat.closed() == (4410, "session_lost")

    async def test_bad_messages_are_answered_and_the_twentieth_ends_it(self, url: str) -> None:
        async with client(url) as chat:
            await chat.open()
            for _ in range(19):
                await chat.send("message.send", id="a", text=1)
                error = await chat.until("error", code="bad_message")
                assert "$.text" in error["message"]
                assert error["retryable"] is False
            assert (await chat.ask("hi"))["status"] == "completed"
            await chat.send("session.open")
            assert (await chat.closed())[0] == 4400
            assert chat.messages[-1]["code"] == "bad_message"

    async def test_a_message_that_is_too_large(self, url: str) -> None:
        for size in (100_001, 7_000_000):
            async with client(url) as chat:
                await chat.open()
                with contextlib.suppress(ConnectionClosed):  # it may end before all is sent
                    await chat.socket.send("x" * size)
                assert (await chat.closed())[0] == 1009
        async with client(url) as chat:
            await chat.open()
            await chat.socket.send("é" * 60_000)
            assert (await chat.closed())[0] == 1009

    async def test_text_that_is_not_utf_8(self, url: str) -> None:
        async with client(url) as chat, client(url) as other:
            await other.open()
            await chat.open()
            await chat.socket.send(b"\xff\xfe", text=True)
            assert (await chat.closed())[0] == 1007
            assert (await other.ask("hi"))["status"] == "completed"

    async def test_fields_that_the_route_keeps_to_itself(self, url: str) -> None:
        async with client(url) as chat:
            await chat.open()
            await chat.send("message.send", id="1", text="hi", target_model="m")
            error = await chat.until("error", id="1")
            assert error["code"] == "forbidden"
            done = await chat.ask("hi", "2", inference_id="x", custom_attributes="a=b")
            assert done["status"] == "completed"

    async def test_too_many_messages(self, url: str) -> None:
        async with client(url) as chat:
            await chat.open()
            for number in range(4):
                await chat.send("message.send", id=f"{number}", text="/sleep 0.2")
            assert (await chat.until("error", code="queue_full"))["id"] == "3"
            for number in range(3):
                assert (await chat.until("message.done", id=f"{number}"))["status"] == "completed"

    async def test_too_many_refused_messages(self, url: str) -> None:
        half = MAX_REFUSED // 2
        unknown = {"type": "message.cancel", "id": "unknown"}
        async with client(url, route="stateless") as chat:
            await chat.open()
            for number in range(2):  # an accepted message makes good for what was before it
                await chat.ask("hi", f"{number}")
                chat.send_at_once(*[unknown] * half)
            chat.send_at_once(*[unknown] * (half - 1), {"type": "ping"}, unknown)
            assert await chat.closed() == (4429, "too many refused messages")
        kinds = [message["type"] for message in chat.messages if message["type"] != "message.done"]
        assert kinds[-half - 1 :] == ["error"] * (half - 1) + ["pong", "error"]

    async def test_a_message_that_is_sent_again_and_again(self, url: str) -> None:
        message = {"type": "message.send", "id": "a", "text": "hi"}
        async with client(url, route="stateless") as chat:
            await chat.open()
            await chat.ask("hi", "a")
            chat.send_at_once(*[message] * MAX_REFUSED)
            assert await chat.closed() == (4429, "too many refused messages")

    async def test_nothing_is_opened_after_too_many_bad_messages(self, url: str) -> None:
        bad, good = {"type": "session.open", "x": 1}, {"type": "session.open"}
        async with client(url, route="stateless") as chat:
            chat.send_at_once(*[bad] * MAX_BAD_MESSAGES, good)
            assert await chat.closed() == (4400, "too many bad messages")
        assert {message["type"] for message in chat.messages} == {"error"}


class TestFailures:
    async def test_the_models_errors_end_their_turn_alone(self, url: str) -> None:
        async with client(url) as chat:
            await chat.open()
            done = await chat.ask("/fail 500 secret words")
            assert done["status"] == "failed"
            assert done["error"]["code"] == "model_error"
            assert done["error"]["outcome"] == "invoked"
            assert "secret" not in json.dumps(chat.messages)
            assert (await chat.ask("hi"))["status"] == "completed"

    @pytest.mark.parametrize(
        ("error", "code", "outcome", "retryable"),
        [
            ("ThrottlingException", "throttled", "not_invoked", True),
            ("ModelNotReadyException", "model_not_ready", "not_invoked", True),
            ("ServiceUnavailable", "unavailable", "unknown", False),
            ("InternalFailure", "unavailable", "unknown", False),
        ],
    )
    async def test_the_platforms_errors(
        self,
        own_url: str,
        platform: Process,
        error: str,
        code: str,
        outcome: str,
        retryable: bool,
    ) -> None:
        async with client(own_url) as chat:
            await chat.open()
            admin(platform, "/faults", error=error, times=4 if retryable else 1)
            failed = (await chat.ask("hi"))["error"]
            assert (failed["code"], failed["outcome"]) == (code, outcome)
            assert failed["retryable"] is retryable
            assert "Turn 1 " in (await chat.ask("hi"))["text"], "the model saw no turn before"

    async def test_an_endpoint_that_is_not_there(self, url: str) -> None:
        async with client(url, route="missing") as chat:
            await chat.send("session.open")
            error = await chat.until("error")
            assert error["code"] == "unavailable"
            assert error["retryable"] is False
            assert "no-such-endpoint" not in error["message"]
            assert await chat.closed() == (4503, "unavailable")

    async def test_a_session_that_the_model_does_not_open(
        self, own_url: str, platform: Process
    ) -> None:
        for told in ("", "-; Expires=never", "x" * 300):
            admin(platform, "/faults", new_session_id=told)
            async with client(own_url) as chat:
                await chat.send("session.open")
                error = await chat.until("error")
                assert error["code"] == "model_error"
                assert "stateful sessions" in error["message"]
                assert (await chat.closed())[0] == 4503

    async def test_an_instance_that_goes_away(self, own_url: str, platform: Process) -> None:
        async with client(own_url) as chat:
            await chat.open()
            attributes = (await chat.ask("hi"))["custom_attributes"]
            admin(platform, f"/instances/{attributes.partition('instance=')[2]}/lose")
            await chat.send("message.send", id="a", text="still there?")
            await chat.send("message.send", id="b", text="hello?")
            error = (await chat.until("message.done", id="a"))["error"]
            assert (error["code"], error["outcome"]) == ("session_lost", "not_invoked")
            assert (await chat.until("session.closed"))["reason"] == "lost"
            assert await chat.closed() == (4410, "session_lost")

    async def test_the_model_may_renew_and_close_its_session(self, url: str) -> None:
        async with client(url) as chat:
            opened = await chat.open()
            await chat.ask("/renew")
            assert (await chat.until("session.updated"))["expires_at"] >= opened["expires_at"]
            assert "Turn 2" in (await chat.ask("hi"))["text"]
            await chat.ask("/close")
            assert (await chat.until("session.closed"))["reason"] == "model"
            assert (await chat.closed())[0] == 4410

    async def test_a_running_turn_is_cancelled(self, own_url: str, platform: Process) -> None:
        async with client(own_url) as chat:
            await chat.open()
            await chat.send("message.send", id="a", text="/sleep 60")
            await chat.until("message.accepted")
            await chat.send("message.cancel", id="a")
            done = await chat.until("message.done")
            assert (done["status"], done["outcome"]) == ("cancelled", "unknown")
            assert (await chat.ask("hi"))["status"] == "completed"
            assert admin(platform)["abandoned"] == 1, "the request was closed"


async def test_an_endpoint_that_is_down(start_gateway: Start) -> None:
    process = start_gateway("http://127.0.0.1:9", ROUTES)
    async with client(process.websocket, route="lazy") as chat:
        await chat.open()
        error = (await chat.ask("hi"))["error"]
        assert (error["code"], error["outcome"]) == ("unavailable", "not_invoked")
        assert error["retryable"] is True


async def test_limits_of_the_server(start_gateway: Start, platform: Process) -> None:
    impatient = "[server]\nopen_timeout_seconds = 0.2\n"
    url = start_gateway(platform.url, impatient + ROUTES).websocket
    async with client(url) as chat, raw(url) as socket:
        assert await chat.closed() == (4408, "no session.open in time")
        await in_time(socket.wait_closed())
        assert (socket.close_code, socket.close_reason) == (4408, "no frame in time")
    small = "[server]\nmax_connections = 2\n[store]\nmax_sessions = 1\n"
    url = start_gateway(platform.url, small + ROUTES).websocket
    async with client(url) as first:
        await first.open()
        async with client(url) as second:
            await second.send("session.open")
            error = await second.until("error")
            assert (error["code"], error["retryable"]) == ("unavailable", True)
            assert error["retry_after"] > 0
            assert await second.closed() == (4503, "unavailable")
        async with raw(url) as held, client(url) as third:
            assert (await third.closed())[0] == 4503
            assert held.subprotocol is None


async def test_who_fills_what_the_gateway_may_hold_is_refused(
    start_gateway: Start, platform: Process
) -> None:
    narrow = "[server]\nbuffer_bytes = 4_000_000\ndrain_seconds = 0.1\n" + ROUTES.replace(
        "queued_messages = 2\nmessage_bytes = 100000", "message_bytes = 400000"
    )
    url = start_gateway(platform.url, narrow).websocket
    large = "x" * 390_000
    async with client(url) as chat:
        await chat.open()
        await chat.send("message.send", id="a", text="/sleep 60")
        for number in range(11):
            await chat.send("message.send", id=f"{number}", text=large)
        error = await chat.until("error", id="10")
        assert error["code"] == "queue_full"
        assert "The gateway's buffers are full" in error["message"]
        await chat.send("message.send", id="1", text=large)
        assert (await chat.until("message.duplicate", id="1"))["status"] == "queued"


async def test_an_unused_session_is_closed_at_the_model(
    start_gateway: Start, platform: Process
) -> None:
    routes = ROUTES.replace("[routes.json]", "idle_seconds = 0.3\n[routes.json]")
    url = start_gateway(platform.url, routes).websocket
    async with client(url) as chat:
        slow = {"type": "message.send", "id": "a", "text": "/sleep 0.5"}
        chat.send_at_once({"type": "session.open"}, slow)
        await chat.until("message.done", status="completed")
        assert (await chat.until("session.closed"))["reason"] == "idle"
        assert await chat.closed() == (4410, "session_lost")
    assert sum(instance["closed"] for instance in admin(platform)["instances"]) == 1


async def test_a_closed_socket_lets_accepted_turns_finish(own_url: str, platform: Process) -> None:
    async with client(own_url) as chat:
        await chat.open()
        for number in range(3):
            await chat.send("message.send", id=f"{number}", text="/sleep 0.1")
        await chat.until("message.accepted", id="2")
    async with client(own_url) as other:
        await other.open()
        async with asyncio.timeout(20 * UNIT):
            while not sum(i["closed"] for i in admin(platform)["instances"]):
                await other.ask("/sleep 0.1")
        state = admin(platform)
    assert state["abandoned"] == 0
    used = [i["invocations"] for i in state["instances"] if i["closed"]]
    assert used == [5], "opened, three turns, closed"


async def test_silence_ends_a_connection_and_any_frame_keeps_it(
    start_gateway: Start, platform: Process
) -> None:
    server = f"[server]\nheartbeat_seconds = {UNIT}\n"
    url = start_gateway(platform.url, server + ROUTES).websocket
    async with client(url) as dead, client(url) as alive:
        await alive.open()
        await dead.open()
        dead.socket.transport.pause_reading()  # neither pings nor the close are answered
        for _ in range(3):  # pings of the gateway are, which keeps this one
            await in_time(alive.socket.ping())
            assert (await alive.ask(f"/sleep {UNIT}"))["status"] == "completed"
        dead.socket.transport.resume_reading()
        assert (await dead.closed())[0] == 4408


async def test_pages_and_health(url: str) -> None:
    base = url.replace("ws", "http", 1)
    async with httpx.AsyncClient(base_url=base, timeout=20 * UNIT) as http:
        assert (await http.get("/healthz")).text == "ok\n"
        assert (await http.get("/readyz")).status_code == 200
        page = await http.get("/")
        assert "<title>session-gateway</title>" in page.text
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in page.headers
        module = await http.get("/static/client.js")
        again = await http.get(
            "/static/client.js", headers={"If-None-Match": module.headers["etag"]}
        )
        assert (module.status_code, again.status_code) == (200, 304)
        assert module.headers["content-type"].startswith("text/javascript")
        for answer in (module, again):
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        style = await http.get("/static/chat/page.css")
        assert "access-control-allow-origin" not in style.headers
        assert (await http.get("/static/../pyproject.toml")).status_code == 404
        assert (await http.get("/voice")).status_code == 404, "no route has that name"
        told = (await http.get("/page.json")).json()
        names = [route.pop("name") for route in told["routes"]]
        assert names == ["chat", "json", "lazy", "stateless", "prefix", "missing"]
        assert told.pop("routes")[0] == {
            "text": True,
            "json": False,
            "binary": False,
            "content_type": "text/plain; charset=utf-8",
            "streams": False,
            "history": "model",
            "branches": None,
            "history_turns": 100,
            "history_bytes": 1_048_576,
            "message_bytes": 100_000,
            "resume_seconds": 0.5,
        }
        assert told == {
            "title": "session-gateway",
            "logo": "static/icon.svg",
            "welcome": None,
            "examples": [],
            "authenticated": False,
            "default": "chat",
        }
