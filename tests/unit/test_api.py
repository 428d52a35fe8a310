"""Sessions over HTTP: a message is a request, and whatever becomes of it, its turn ends once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from gateway.admission import Refused
from gateway.conversation import Resuming
from gateway.errors import CloseCode, ErrorCode, Failure, Outcome
from gateway.protocol import messages as wire
from gateway.runner import SessionRunner
from gateway.session.output import error_message
from gateway.session.policy import Recovery
from gateway.session.ports import ModelReply, ModelSession
from gateway.transports import api as module
from gateway.transports.api import Api
from gateway.transports.drafts import OPTION_HEADERS
from gateway.transports.gate import ApiRequest, Gate
from gateway.transports.origins import Origins
from gateway.transports.problems import STATUS
from gateway.transports.proxies import Proxies
from tests.support.serving import on_uvloop, serving
from tests.support.sessions import REFUSED, Fixture, done, refuses, running
from tests.support.timing import UNIT
from tests.support.visitors import Anybody

Event = dict[str, Any]


class Client:
    """Somebody who speaks HTTP, and the gateway that is spoken to.

    Attributes:
        f: Its sessions.
        http: The client.
        visitor: Whoever it is.
    """

    def __init__(self, f: Fixture, http: httpx.AsyncClient, visitor: Anybody) -> None:
        self.f = f
        self.http = http
        self.visitor = visitor
        self.key = ""
        self.path = ""

    @property
    def runner(self) -> SessionRunner:
        """Its session's."""
        (runner,) = self.f.sessions.runners
        return runner

    async def open(self) -> None:
        """Open a session."""
        response = await self.http.post("/v1/routes/chat/sessions")
        assert response.status_code == 201, response.text
        opened = response.json()
        assert response.headers["location"] == f"/v1/sessions/{opened['session_id']}"
        assert response.headers["cache-control"] == "no-store"
        self.path, self.key = response.headers["location"], opened["resume_key"]

    async def begin(self, head: str, begun: bytes) -> bytes:
        """The answer to a request for a session whose body never comes to its end."""
        url = self.http.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        request = f"POST /v1/routes/chat/sessions HTTP/1.1\r\nHost: here\r\n{head}\r\n\r\n"
        writer.write(request.encode() + begun)
        try:
            async with asyncio.timeout(20 * UNIT):
                return await reader.readuntil(b"}")
        finally:
            writer.close()

    def headers(self, **headers: str) -> dict[str, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return {"Session-Key": self.key, **named}

    async def send(self, body: bytes = b"hello", **headers: str) -> httpx.Response:
        """Send a message."""
        path = f"{self.path}/messages"
        return await self.http.post(path, content=body, headers=self.headers(**headers))

    @asynccontextmanager
    async def streaming(self, body: bytes = b"hello", **headers: str) -> AsyncIterator["Events"]:
        """Send a message, and have its reply in parts."""
        given = self.headers(Accept="text/event-stream", **headers)
        path = f"{self.path}/messages"
        async with self.http.stream("POST", path, content=body, headers=given) as response:
            yield Events(response)

    @asynccontextmanager
    async def listening(self, **headers: str) -> AsyncIterator["Events"]:
        """Listen to the session."""
        path = f"{self.path}/events"
        async with self.http.stream("GET", path, headers=self.headers(**headers)) as response:
            yield Events(response)

    async def look(self) -> httpx.Response:
        return await self.http.get(self.path, headers=self.headers())

    async def close(self) -> httpx.Response:
        return await self.http.delete(self.path, headers=self.headers())


class Events:
    """A stream of server-sent events.

    Attributes:
        response: That it is.
        comments: How many lines were comments.
    """

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        self.response = response
        self.comments = 0
        self._lines = response.aiter_lines()

    async def next(self) -> Event:
        """The next event, whose number is its id."""
        number, data = None, ""
        async with asyncio.timeout(20 * UNIT):
            async for line in self._lines:
                if line.startswith("id: "):
                    number = int(line[4:])
                elif line.startswith("data: "):
                    data = line[6:]
                elif line.startswith(":"):
                    self.comments += 1
                elif data:
                    event: Event = json.loads(data)
                    assert event.get("event") == number
                    return event
        raise EOFError

    async def rest(self) -> list[Event]:
        """All that there is until the end."""
        events = []
        while True:
            try:
                events.append(await self.next())
            except EOFError:
                return events


@asynccontextmanager
async def api(
    heartbeat: float = 60.0, *, plain: bool = False, **policy: Any
) -> AsyncIterator[Client]:
    """A client, before it has opened a session.

    Args:
        heartbeat: How long a stream may be silent.
        plain: Whether the server has no extensions to ASGI.
        policy: The route's.
    """
    async with running() as f:
        f.add_route(**{"resume_seconds": 30.0, **policy})
        visitor = Anybody()
        origins = Origins({"chat": ["https://app.example"]}, public=None)
        gate = Gate(visitor, origins=origins, proxies=Proxies(), shown=("Location",))
        app = Starlette(routes=Api(f.sessions, gate, heartbeat).routes())

        async def without_extensions(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "extensions": None}, receive, send)

        async with serving(without_extensions if plain else app) as served:
            url = f"http://127.0.0.1:{served.port}"
            async with httpx.AsyncClient(base_url=url, timeout=20 * UNIT) as http:
                yield Client(f, http, visitor)
                f.model.waits.set()


@asynccontextmanager
async def opened(heartbeat: float = 60.0, **policy: Any) -> AsyncIterator[Client]:
    """A client with a session; see `api`."""
    async with api(heartbeat, **policy) as client:
        await client.open()
        yield client


def problem(response: httpx.Response) -> tuple[int, str]:
    """What a response says is wrong."""
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["status"] == response.status_code
    assert told["detail"]
    return response.status_code, told["code"]


@on_uvloop
async def test_a_method_that_a_path_does_not_take() -> None:
    async with opened() as client:
        response = await client.http.put(client.path, headers=client.headers())
        assert problem(response) == (405, "bad_message")
        assert response.headers["allow"] == "DELETE, GET, HEAD"
        assert client.visitor.there == 0
        assert client.visitor.refunds == 1  # for having opened it


HISTORY = {"history": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}]}


class TestHistory:
    @on_uvloop
    async def test_that_the_gateway_keeps(self) -> None:
        template = {"messages": "$messages"}
        async with api(sends_history=True, template=template) as client:
            response = await client.http.post("/v1/routes/chat/sessions", json=HISTORY)
            assert response.status_code == 201
            told = response.json()
            assert told["context"] == "sent"
            client.path, client.key = response.headers["location"], told["resume_key"]
            assert (await client.send(b"two", Content_Type="text/plain")).status_code == 200
            ((request, *_),) = client.f.model.asked
            messages = json.loads(request.body)["messages"]
            assert [each["content"] for each in messages] == ["one", "1", "two"]

    @on_uvloop
    async def test_that_is_replayed(self) -> None:
        async with api(on_lost=Recovery.REPLAY) as client:
            response = await client.http.post("/v1/routes/chat/sessions", json=HISTORY)
            assert response.json()["context"] == "replayed"
            await client.f.until(lambda: client.f.model.invoked == 1)
            ((request, *_),) = client.f.model.asked
            assert request.body == b"one", "which the model answers anew"
            response = await client.http.post("/v1/routes/chat/sessions", json={"history": []})
            assert response.status_code == 201
            assert "context" not in response.json()

    @on_uvloop
    async def test_that_is_refused(self) -> None:
        async with api(on_lost=Recovery.REPLAY, transcript_bytes=2) as client:

            async def asked(path: str = "chat", content: bytes = b"") -> tuple[int, str]:
                path = f"/v1/routes/{path}/sessions"
                body = content or json.dumps(HISTORY).encode()
                return problem(await client.http.post(path, content=body))

            assert await asked(content=b"history") == (422, "bad_message")
            assert await asked() == (413, "too_large")
            assert await asked(content=b"x" * 100_000) == (413, "too_large")
            client.f.add_route(resume_seconds=30.0)
            assert await asked() == (422, "validation_error")
            taken = client.visitor.taken
            assert await asked("other") == (404, "unknown_route")
            assert client.visitor.taken == taken + 1
            assert not len(client.f.sessions)

    @pytest.mark.parametrize(
        ("head", "begun"),
        [
            ("Content-Length: 3000000", b""),
            ("Transfer-Encoding: chunked", b"400\r\n" + b" " * 0x400),
        ],
    )
    @on_uvloop
    async def test_that_no_model_can_be_told_is_refused_before_it_has_come(
        self, head: str, begun: bytes
    ) -> None:
        async with api() as client:
            answer = await client.begin(head, begun)
            assert answer.startswith(b"HTTP/1.1 422 ")
            assert b'"code":"validation_error"' in answer
            assert client.visitor.taken == 1
            client.visitor.waits = 1.0
            assert (await client.begin(head, begun)).startswith(b"HTTP/1.1 429 ")
            client.visitor.principal = None
            assert (await client.begin(head, begun)).startswith(b"HTTP/1.1 401 ")
            assert client.visitor.taken == 2

    @on_uvloop
    async def test_on_a_route_without_sessions_is_refused_before_it_has_come(self) -> None:
        async with api(resume_seconds=0.0, on_lost=Recovery.REPLAY) as client:
            answer = await client.begin("Content-Length: 300", b"{")
            assert answer.startswith(b"HTTP/1.1 422 ")
            assert client.visitor.taken == 1


@on_uvloop
async def test_a_conversation() -> None:
    async with opened() as client:
        looked = (await client.look()).json()
        assert looked | {"session_id": ""} == {
            "session_id": "",
            "route": "chat",
            "state": "ready",
            "expires_at": None,
            "last_event": 1,
            "running": None,
            "queued": [],
        }
        for number in range(2):
            response = await client.send()
            assert (response.status_code, response.content) == (200, b"hi"), number
        assert (await client.look()).json()["last_event"] == 5
        assert client.f.model.invoked == 2
        assert (await client.close()).status_code == 204
        assert client.f.model.closed == ["m"]
        assert (await client.look()).json()["state"] == "ended"
        assert (await client.close()).status_code == 204
        assert problem(await client.send()) == (404, "session_lost")


@on_uvloop
async def test_bodies_go_to_the_model_and_come_back_as_they_are() -> None:
    async with opened(client_fields=frozenset(OPTION_HEADERS.values())) as client:
        answer = ModelReply(
            body=b"\x00\xff",
            content_type="image/png",
            variant="blue",
            custom_attributes="a=b",
        )
        client.f.model.answers = answer
        options = {name: f"of {name}" for name in OPTION_HEADERS}
        response = await client.send(b"\xfe\x00", Content_Type="image/x", **options)
        assert response.content == b"\x00\xff"
        headers = response.headers
        assert headers["content-type"] == "image/png"
        assert headers["x-invoked-production-variant"] == "blue"
        assert headers["x-custom-attributes"] == "a=b"
        assert int(headers["x-duration-ms"]) >= 0
        ((request, _, _),) = client.f.model.asked
        assert (request.body, request.content_type) == (b"\xfe\x00", "image/x")
        for header, name in OPTION_HEADERS.items():
            assert getattr(request, name) == f"of {header}"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (ModelReply(body=b'{"a": 1}', content_type="application/json"), "application/json"),
        (ModelReply(body=b'{"a": 1}'), "application/json"),
        (ModelReply(body="é".encode(), content_type="text/plain"), "text/plain"),
        (ModelReply(body=b"\xff", content_type="text/plain"), "text/plain"),
        (ModelReply(body=b"", content_type=None), "application/octet-stream"),
        (ModelReply(body=None), "application/octet-stream"),
    ],
)
@on_uvloop
async def test_whatever_a_reply_is(reply: ModelReply, kind: str) -> None:
    async with opened(json_replies=True) as client:
        client.f.model.answers = reply
        response = await client.send()
        assert (response.content, response.headers["content-type"]) == (reply.body or b"", kind)


@on_uvloop
async def test_text_is_made_the_models_request_of_where_the_route_says_how() -> None:
    async with opened(template={"inputs": "$text"}) as client:
        await client.send("é".encode(), Content_Type="text/plain; charset=utf-8")
        await client.send(b'{"inputs": "as it is"}', Content_Type="application/json")
        assert problem(await client.send(b"\xff")) == (422, "bad_message")
        bodies = [(request.body, request.content_type) for request, *_ in client.f.model.asked]
        assert bodies == [
            ('{"inputs":"é"}'.encode(), "application/json"),
            (b'{"inputs": "as it is"}', "application/json"),
        ]


class TestTheSameMessageAgain:
    @on_uvloop
    async def test_is_answered_alike_and_sent_once(self) -> None:
        async with opened() as client:
            first = await client.send(Idempotency_Key="a")
            client.f.model.answers = ModelReply(body=b"other")
            again = await client.send(Idempotency_Key='"a"')
            assert (again.status_code, again.content) == (200, first.content)
            assert again.headers["idempotency-key"] == "a"
            assert client.f.model.invoked == 1

    @on_uvloop
    async def test_while_the_first_is_at_the_model(self) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            both = [
                asyncio.create_task(client.send(Idempotency_Key="a")),
                asyncio.create_task(client.send(Idempotency_Key="a")),
            ]
            await client.f.until(lambda: len(client.runner.session.clients.readers) == 2)
            client.f.model.waits.set()
            assert [(await each).content for each in both] == [b"hi", b"hi"]
            assert client.f.model.invoked == 1

    @on_uvloop
    async def test_in_parts(self) -> None:
        async with opened(streams=True) as client:
            client.f.model.parts = ["one", "two"]
            client.f.model.answers = ModelReply(body=None)
            async with client.streaming(Idempotency_Key="a") as events:
                first = await events.rest()
            async with client.streaming(Idempotency_Key="a") as events:
                assert await events.rest() == first

    @on_uvloop
    async def test_with_another_body(self) -> None:
        async with opened() as client:
            await client.send(Idempotency_Key="a")
            response = await client.send(b"else", Idempotency_Key="a")
            assert problem(response) == (422, "bad_message")

    @on_uvloop
    async def test_whose_reply_is_no_longer_kept(self) -> None:
        async with opened() as client:
            await client.send(Idempotency_Key="a")
            client.runner.handle(wire.EventAck(event=client.runner.log.last))
            assert problem(await client.send(Idempotency_Key="a")) == (409, "duplicate")

    @on_uvloop
    async def test_whole_where_the_first_wanted_it_in_parts(self) -> None:
        async with opened(streams=True) as client:
            client.f.model.parts = ["one", b"\xff", "two"]
            client.f.model.answers = ModelReply(body=None, content_type="text/plain")
            async with client.streaming(Idempotency_Key="a") as events:
                assert len(await events.rest()) == 5
            response = await client.send(Idempotency_Key="a")
            assert response.content == b"one\xfftwo"
            assert response.headers["content-type"] == "text/plain"
            client.runner.handle(wire.EventAck(event=3))
            assert problem(await client.send(Idempotency_Key="a")) == (409, "duplicate")

    @on_uvloop
    async def test_after_the_end_of_the_session(self) -> None:
        async with opened() as client:
            client.f.model.answers = ModelReply(body=b"bye", session_closed=True)
            assert (await client.send(Idempotency_Key="a")).content == b"bye"
            assert (await client.look()).json()["state"] == "ended"
            assert (await client.send(Idempotency_Key="a")).content == b"bye"
            assert problem(await client.send()) == (404, "session_lost")

    @on_uvloop
    async def test_tells_nothing_of_the_session_that_was_before(self) -> None:
        async with opened(streams=True) as client:
            client.f.model.answers = ModelReply(body=b"hi", new_session=ModelSession("new", 9e9))
            await client.send()
            await client.send(Idempotency_Key="a")
            async with client.streaming(Idempotency_Key="a") as events:
                told = [each["type"] for each in await events.rest()]
            assert told == ["message.accepted", "message.done"]


class TestGone:
    """A client that has gone waits for nothing, and what it has asked for goes on."""

    @pytest.mark.parametrize("plain", [False, True])
    @on_uvloop
    async def test_while_its_turn_is_at_the_model(self, *, plain: bool) -> None:
        async with opened(plain=plain) as client:
            client.f.model.waits.clear()
            asking = asyncio.create_task(client.send(Idempotency_Key="a"))
            await client.f.until(lambda: client.f.model.invoked)
            asking.cancel()
            await client.f.until(lambda: not client.runner.session.clients.readers)
            await client.f.until(lambda: not client.visitor.there)
            client.f.model.waits.set()
            assert (await client.send(Idempotency_Key="a")).content == b"hi"
            assert client.f.model.invoked == 1

    @on_uvloop
    async def test_while_its_session_is_looked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with opened() as client:
            looking, found = asyncio.Event(), client.f.sessions.resume
            goes_on = asyncio.Event()

            async def resume(asked: Resuming) -> Any:
                looking.set()
                await goes_on.wait()
                return await found(asked)

            monkeypatch.setattr(client.f.sessions, "resume", resume)
            asking = asyncio.create_task(client.send())
            await looking.wait()
            asking.cancel()
            await asyncio.sleep(0.1 * UNIT)
            goes_on.set()
            await client.f.until(lambda: not client.visitor.there)
            assert client.f.model.invoked == 0

    @on_uvloop
    async def test_while_it_asks_for_the_head_alone(self) -> None:
        async with opened() as client:
            path = f"{client.path}/events"
            response = await client.http.head(path, headers=client.headers())
            assert response.headers["content-type"].startswith("text/event-stream")
            assert not client.runner.session.clients.readers


class TestStreams:
    @on_uvloop
    async def test_a_reply_in_parts(self) -> None:
        async with opened(streams=True) as client:
            client.f.model.waits.clear()
            async with client.streaming(Idempotency_Key="a") as events:
                assert await events.next() == {
                    "type": "message.accepted",
                    "event": 2,
                    "id": "a",
                    "queued": 0,
                }
                await client.f.until(lambda: client.f.model.streams)
                client.f.model.streams[0](["one", b"\x00"])
                assert (await events.next())["text"] == "one"
                assert (await events.next())["base64"] == "AA=="
                client.f.model.answers = ModelReply(body=None)
                client.f.model.waits.set()
                (last,) = await events.rest()
                assert (last["type"], last["status"], last["deltas"]) == (
                    "message.done",
                    "completed",
                    2,
                )

    @on_uvloop
    async def test_json_of_several_lines_is_one_event(self) -> None:
        async with opened(json_replies=True) as client:
            client.f.model.answers = ModelReply(body=b'{"a":\r\n1,\n"b":2}')
            async with client.streaming() as events:
                *_, last = await events.rest()
            assert last["json"] == {"a": 1, "b": 2}

    @on_uvloop
    async def test_a_turn_that_fails(self) -> None:
        async with opened() as client:
            client.f.model.answers = REFUSED
            async with client.streaming() as events:
                *_, last = await events.rest()
            assert last["error"]["code"] == "unavailable"

    @on_uvloop
    async def test_what_is_not_accepted_is_no_stream(self) -> None:
        async with opened(message_bytes=4) as client:
            response = await client.send(Accept="text/event-stream")
            assert problem(response) == (413, "too_large")

    @on_uvloop
    async def test_what_others_say_is_not_told(self) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            async with client.streaming(Idempotency_Key="a") as events:
                assert (await events.next())["id"] == "a"
                other = asyncio.create_task(client.send(Idempotency_Key="b"))
                await client.f.until(lambda: client.runner.log.last == 3)
                client.f.model.waits.set()
                assert [each["id"] for each in await events.rest()] == ["a"]
            await other

    @on_uvloop
    async def test_nothing_is_said_for_long(self) -> None:
        async with opened(heartbeat=0.01 * UNIT) as client:
            client.f.model.waits.clear()
            async with client.listening() as listening, client.streaming() as events:
                await events.next()
                await asyncio.sleep(0.1 * UNIT)
                client.f.model.waits.set()
                await events.rest()
                for _ in range(3):
                    await listening.next()
            assert events.comments > 0
            assert listening.comments > 0


class TestListening:
    @on_uvloop
    async def test_to_all_that_is_kept_and_what_comes(self) -> None:
        async with opened() as client, client.listening() as events:
            first = await events.next()
            assert first["type"] == "session.opened"
            assert first["resume_key"] == client.key
            await client.send(Idempotency_Key="a")
            assert [(await events.next())["type"] for _ in range(2)] == [
                "message.accepted",
                "message.done",
            ]
            await client.close()
            assert [each["type"] for each in await events.rest()] == ["session.closed"]

    @on_uvloop
    async def test_from_where_it_was_left(self) -> None:
        async with opened() as client:
            await client.send()
            async with client.listening(Last_Event_ID="2") as events:
                assert (await events.next())["event"] == 3

    @pytest.mark.parametrize("newest", ["-1", "x", "99", "1" * 16, "²"])
    @on_uvloop
    async def test_from_what_is_no_event(self, newest: str) -> None:
        async with opened() as client:
            headers = client.headers(Last_Event_ID=newest)
            given = [(k.encode(), v.encode()) for k, v in headers.items()]
            response = await client.http.get(f"{client.path}/events", headers=given)
            assert problem(response) == (422, "bad_message")

    @on_uvloop
    async def test_ends_with_what_was_shown(self) -> None:
        async with opened() as client:
            async with client.listening(Last_Event_ID="1") as events:
                await client.f.until(lambda: client.visitor.on_withdrawn)
                assert client.visitor.on_withdrawn is not None
                client.visitor.on_withdrawn()
                assert await events.rest() == []
            client.visitor.expires_at = 0.0
            async with client.listening() as events:
                assert await events.rest() == []

    @on_uvloop
    async def test_a_listener_that_has_gone_is_missed(self) -> None:
        async with opened(heartbeat=0.01 * UNIT) as client:
            async with client.listening(Last_Event_ID="1"):
                await client.f.until(lambda: client.runner.session.clients.readers)
            await client.f.until(lambda: not client.runner.session.clients.readers)


class TestRefused:
    @on_uvloop
    async def test_sessions_that_are_not_there_for_who_asks(self) -> None:
        async with opened() as client:
            wrong = {"Session-Key": "x"}
            responses = [
                await client.http.get(client.path, headers=wrong),
                await client.http.get(f"{client.path}/events", headers=wrong),
                await client.http.post(f"{client.path}/messages", headers=wrong),
                await client.http.delete(client.path),
                await client.http.get("/v1/sessions/x", headers=client.headers()),
            ]
            client.visitor.principal = "somebody else"
            responses.append(await client.look())
            responses.append(await client.send())
            assert {problem(each) for each in responses} == {(404, "session_lost")}

    @on_uvloop
    async def test_routes_that_are_not_for_this(self) -> None:
        async with api(resume_seconds=0.0) as client:
            response = await client.http.post("/v1/routes/other/sessions")
            assert problem(response) == (404, "unknown_route")
            response = await client.http.post("/v1/routes/chat/sessions")
            assert problem(response) == (422, "validation_error")

    @on_uvloop
    async def test_a_route_that_who_asks_may_not_use(self) -> None:
        async with opened() as client:
            client.visitor.routes = frozenset({"other"})
            responses = [await client.look(), await client.send(), await client.close()]
            assert {problem(each) for each in responses} == {(403, "forbidden")}
            assert not client.runner.session.clients.readers

    @on_uvloop
    async def test_who_has_not_said_who_it_is(self) -> None:
        async with api() as client:
            client.visitor.principal = None
            response = await client.http.post("/v1/routes/chat/sessions")
            assert problem(response) == (401, "unauthenticated")
            assert response.headers["www-authenticate"] == "Bearer"
            assert client.visitor.refunds == 0

    @on_uvloop
    async def test_who_sends_too_much(self) -> None:
        async with opened() as client:
            client.visitor.waits = 2.5
            for request in (client.look, client.close):
                assert problem(await request()) == (429, "rate_limited")
            response = await client.send()
            assert problem(response) == (429, "rate_limited")
            assert response.headers["retry-after"] == "3"

    @pytest.mark.parametrize("chunked", [False, True])
    @on_uvloop
    async def test_bodies_that_are_too_large(self, *, chunked: bool) -> None:
        async with opened(message_bytes=10) as client:

            async def parts() -> AsyncIterator[bytes]:
                for _ in range(3):
                    yield b"x" * 4

            content = parts() if chunked else b"x" * 11
            path = f"{client.path}/messages"
            response = await client.http.post(path, content=content, headers=client.headers())
            assert problem(response) == (413, "too_large")

    @pytest.mark.parametrize(
        ("header", "value"),
        [
            ("Idempotency-Key", ""),
            ("Idempotency-Key", "x" * 65),
            ("Idempotency-Key", "a b"),
            ("X-Custom-Attributes", "x" * 1025),
            ("X-Custom-Attributes", "é"),
            ("Content-Type", "x" * 1025),
        ],
    )
    @on_uvloop
    async def test_headers_that_are_not_what_they_should_be(self, header: str, value: str) -> None:
        async with opened() as client:
            given = [
                (k.encode(), v.encode()) for k, v in {**client.headers(), header: value}.items()
            ]
            path = f"{client.path}/messages"
            response = await client.http.post(path, content=b"x", headers=given)
            assert problem(response) == (422, "bad_message")
            assert header in response.json()["detail"]

    @on_uvloop
    async def test_options_that_the_route_does_not_leave_to_clients(self) -> None:
        async with opened() as client:
            assert problem(await client.send(X_Target_Model="m")) == (403, "forbidden")

    @on_uvloop
    async def test_while_the_gateway_stops(self) -> None:
        async with opened() as client:
            client.f.sessions.draining = True
            responses = [
                await client.http.post("/v1/routes/chat/sessions"),
                await client.send(),
                await client.http.get(f"{client.path}/events", headers=client.headers()),
            ]
            assert {problem(each) for each in responses} == {(503, "unavailable")}
            assert responses[0].headers["retry-after"] == "1"
            client.f.sessions.draining = False

    @on_uvloop
    async def test_a_gateway_that_stops_while_a_body_comes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with api() as client:

            async def body_of(_request: ApiRequest, _most: int) -> bytes:
                client.f.sessions.draining = True
                return b""

            monkeypatch.setattr(module, "body_of", body_of)
            response = await client.http.post("/v1/routes/chat/sessions")
            assert problem(response) == (503, "unavailable")
            assert response.headers["retry-after"] == "1"
            assert "shutting down" in response.json()["detail"]
            client.f.sessions.draining = False

    @on_uvloop
    async def test_as_many_sessions_as_there_may_be(self) -> None:
        async with opened() as client:
            client.f.sessions._max_sessions = 1
            response = await client.http.post("/v1/routes/chat/sessions")
            assert problem(response) == (503, "unavailable")
            assert response.headers["retry-after"] == "5"

    @on_uvloop
    async def test_a_model_that_opens_none(self) -> None:
        async with api() as client:
            client.f.model.opens = refuses(REFUSED)
            response = await client.http.post("/v1/routes/chat/sessions")
            assert problem(response) == (503, "unavailable")
            assert response.json()["retryable"] is False
            await client.f.until(lambda: not len(client.f.sessions))

    @on_uvloop
    async def test_a_session_that_ends_before_it_has_begun(self) -> None:
        async with api() as client:
            client.f.model.waits_to_close.clear()
            opens = asyncio.Event()

            async def open_(principal: str) -> Any:  # noqa: ARG001
                await opens.wait()

            client.f.model.open = open_  # type: ignore[method-assign]
            asking = asyncio.create_task(client.http.post("/v1/routes/chat/sessions"))
            await client.f.until(lambda: len(client.f.sessions))
            client.runner.abandon()
            assert problem(await asking) == (503, "unavailable")
            opens.set()

    @on_uvloop
    async def test_nobody_waits_for_the_session(self) -> None:
        async with api() as client:
            opens, open_ = asyncio.Event(), client.f.model.open

            async def late(principal: str) -> Any:
                await opens.wait()
                return await open_(principal)

            client.f.model.open = late  # type: ignore[method-assign]
            asking = asyncio.create_task(client.http.post("/v1/routes/chat/sessions"))
            await client.f.until(lambda: len(client.f.sessions))
            asking.cancel()
            await asyncio.wait([asking])
            await asyncio.sleep(0.1 * UNIT)
            opens.set()
            await client.f.until(lambda: client.f.model.closed)


class TestFailures:
    @pytest.mark.parametrize("code", ErrorCode)
    @on_uvloop
    async def test_a_turn_that_fails(self, code: ErrorCode) -> None:
        async with opened(remembered_messages=9) as client:
            failure = Failure(code=code, message="No.", outcome=Outcome.UNKNOWN, retry_after=1.2)
            client.f.model.answers = failure
            response = await client.send()
            assert problem(response) == (STATUS[code], code)
            told = response.json()
            assert (told["outcome"], told["retryable"]) == ("unknown", False)
            assert response.headers["retry-after"] == "2"

    @on_uvloop
    async def test_a_turn_that_is_cancelled(self) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            asking = asyncio.create_task(client.send(Idempotency_Key="a"))
            await client.f.until(lambda: client.f.model.invoked)
            client.runner.handle(wire.MessageCancel(id="a"))
            response = await asking
            assert problem(response) == (409, "cancelled")
            assert response.json()["outcome"] == "unknown"

    @on_uvloop
    async def test_a_session_that_is_closed_meanwhile(self) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            asking = asyncio.create_task(client.send(Idempotency_Key="a"))
            await client.f.until(lambda: client.f.model.invoked)
            assert (await client.close()).status_code == 204
            assert problem(await asking) == (409, "cancelled")

    @on_uvloop
    async def test_a_session_that_fails_meanwhile(self) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            asking = asyncio.create_task(client.send(Idempotency_Key="a"))
            await client.f.until(lambda: client.f.model.invoked)
            client.runner._crash(RuntimeError())
            response = await asking
            assert problem(response) == (500, "internal")
            assert response.json()["outcome"] == "unknown"

    @on_uvloop
    async def test_a_listener_that_is_cut_listens_again(self) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            asking = asyncio.create_task(client.send())
            await client.f.until(lambda: client.f.model.invoked)
            client.runner._subscribers.abort(None, CloseCode.TOO_SLOW, "")
            await client.f.until(lambda: 3 in client.runner.session.clients.readers)
            client.f.model.waits.set()
            assert (await asking).content == b"hi"
            assert client.f.model.invoked == 1


class TestMoving:
    @on_uvloop
    async def test_who_waits_goes_on_where_the_session_is(self) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            asking = asyncio.create_task(client.send(Idempotency_Key="a"))
            await client.f.until(lambda: client.f.model.invoked)
            client.runner._subscribers.abort(None, CloseCode.RESTARTING, "")
            await client.f.until(lambda: 3 in client.runner.session.clients.readers)
            client.f.model.waits.set()
            assert (await asking).content == b"hi"
            assert client.f.model.invoked == 1

    @pytest.mark.parametrize("named", [True, False])
    @on_uvloop
    async def test_who_waits_where_nothing_stays_is_to_ask_elsewhere(self, *, named: bool) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            sent = client.send(Idempotency_Key="a") if named else client.send()
            asking = asyncio.create_task(sent)
            await client.f.until(lambda: client.f.model.invoked)
            client.f.sessions.draining = True
            client.runner._subscribers.abort(None, CloseCode.RESTARTING, "")
            response = await asking
            assert problem(response) == (503, "unavailable")
            assert response.json()["outcome"] == "unknown"
            assert response.json()["retryable"] is named
            assert ("retry-after" in response.headers) is named
            client.f.sessions.draining = False

    @on_uvloop
    async def test_where_it_is_can_t_be_found_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            asking = asyncio.create_task(client.send(Idempotency_Key="a"))
            await client.f.until(lambda: client.f.model.invoked)

            async def resume(_: Resuming) -> Any:
                raise Refused(ErrorCode.UNAVAILABLE, "The store is away.", 1.0)

            monkeypatch.setattr(client.f.sessions, "resume", resume)
            client.runner._subscribers.abort(None, CloseCode.RESTARTING, "")
            response = await asking
            assert problem(response) == (503, "unavailable")
            assert response.json()["outcome"] == "unknown"

    @on_uvloop
    async def test_it_is_not_taken_in_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            asking = asyncio.create_task(client.send(Idempotency_Key="a"))
            await client.f.until(lambda: client.f.model.invoked)
            refused = error_message(Failure(code=ErrorCode.THROTTLED, message="No."), "a")

            def receive(_message: wire.MessageSend, number: int, _size: int) -> None:
                client.runner._tell(number, refused)

            monkeypatch.setattr(client.runner, "receive", receive)
            client.runner._subscribers.abort(None, CloseCode.RESTARTING, "")
            assert (await asking).json()["outcome"] == "unknown"

    @on_uvloop
    async def test_a_stream_breaks_off(self) -> None:
        async with opened() as client:
            client.f.model.waits.clear()
            async with client.streaming() as events:
                await events.next()
                client.f.sessions.draining = True
                client.runner._subscribers.abort(None, CloseCode.RESTARTING, "")
                assert await events.rest() == []
                client.f.sessions.draining = False

    @on_uvloop
    async def test_who_closes_asks_again(self) -> None:
        async with opened() as client:
            client.f.model.waits_to_close.clear()
            closing = asyncio.create_task(client.close())
            await client.f.until(lambda: client.f.model.closed)
            client.runner._subscribers.abort(None, CloseCode.RESTARTING, "")
            assert problem(await closing) == (503, "unavailable")
            client.f.model.waits_to_close.set()


class TestPages:
    @on_uvloop
    async def test_of_other_origins_ask_first(self) -> None:
        async with api() as client:
            origin = {"Origin": "https://app.example"}
            response = await client.http.options("/v1/sessions/x", headers=origin)
            assert response.status_code == 204
            assert response.headers["access-control-allow-methods"] == "GET, DELETE, HEAD"
            assert "Session-Key" in response.headers["access-control-allow-headers"]
            response = await client.http.post("/v1/routes/chat/sessions", headers=origin)
            assert response.headers["access-control-allow-origin"] == "https://app.example"
            assert response.headers["access-control-expose-headers"] == "Location"

    @on_uvloop
    async def test_that_may_not(self) -> None:
        async with api() as client:
            origin = {"Origin": "https://evil.example"}
            response = await client.http.post("/v1/routes/chat/sessions", headers=origin)
            assert problem(response) == (403, "forbidden")
            assert len(client.f.sessions) == 0


@on_uvloop
async def test_a_session_of_a_connection_is_read_along_and_not_taken_over() -> None:
    async with api() as client:
        runner = await client.f.sessions.open(client.f.routes["chat"], "anonymous")
        connection = client.f.connection
        runner.start(connection.key, connection)
        await client.f.until(lambda: runner.log.last)
        client.path, client.key = f"/v1/sessions/{runner.id}", connection.reader.resume_key
        assert (await client.send()).content == b"hi"
        assert runner.session.clients.owner == 1
        assert not connection.ended
        assert done(runner, (await client.send()).headers["idempotency-key"])
