"""Responses of a gateway whose model and store do as a test tells them."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from msgspec import structs
from starlette.applications import Starlette
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.session.policy import Opening, Recovery
from gateway.session.ports import ModelReply
from gateway.session.storage import StoreUnavailable
from gateway.stores.memory import MemoryStore
from gateway.transports.open import Connections
from gateway.transports.openai import past, responses, starting
from gateway.transports.openai.keeping import (
    DEFAULT_BOUNDS,
    RESENT_SECONDS,
    Bounds,
    Keeper,
    record_name,
)
from gateway.transports.openai.paths import paths
from gateway.transports.origins import Origins
from gateway.transports.proxies import Proxies
from tests.support.openresponses import check_response, check_stream
from tests.support.serving import Peer, on_uvloop, serving
from tests.support.sessions import BUSY, REFUSED, Fixture, refuses, running
from tests.support.timing import UNIT
from tests.support.visitors import Anybody

Json = dict[str, Any]

AGAIN = {"X-Stainless-Retry-Count": "1"}
FIRST = {"X-Stainless-Retry-Count": "0"}
LOST = Failure(code=ErrorCode.TIMEOUT, message="It took too long.", outcome=Outcome.UNKNOWN)


class Records(MemoryStore):
    """A store that does not answer what a test names.

    Attributes:
        away: Names of methods.
        held: What responses wait for that are to be kept.
        times: How long each record is to be kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.away = set[str]()
        self.held: asyncio.Event | None = None
        self.times = dict[str, float]()

    async def put_record(self, name: str, record: bytes, seconds: float) -> None:
        self._look("put", name)
        self.times[name] = seconds
        if self.held is not None and name.startswith("response:"):
            await self.held.wait()
        await super().put_record(name, record, seconds)

    async def get_record(self, name: str, seconds: float | None = None) -> bytes | None:
        self._look("get", name)
        if seconds is not None:
            self.times[name] = seconds
        return await super().get_record(name, seconds)

    async def replace_record(self, name: str, record: bytes, seconds: float) -> bool:
        self._look("replace", name)
        return await super().replace_record(name, record, seconds)

    async def delete_record(self, name: str) -> bool:
        self._look("delete", name)
        return await super().delete_record(name)

    def _look(self, what: str, name: str) -> None:
        if {what, f"{what} {name.partition(':')[0]}"} & self.away:
            raise StoreUnavailable("it is away")


class Client:
    """Somebody who speaks OpenAI's API, and the gateway that is spoken to.

    Attributes:
        f: Its sessions.
        http: The client.
        visitor: Whoever it is.
        records: What is kept.
        url: The gateway's address.
    """

    def __init__(
        self, f: Fixture, http: httpx.AsyncClient, visitor: Anybody, records: Records, url: str
    ) -> None:
        self.f = f
        self.http = http
        self.visitor = visitor
        self.records = records
        self.url = url

    async def post(self, *, headers: Any = None, **asked: Any) -> httpx.Response:
        """Ask for a response."""
        body = {"model": "chat", "input": "hi", **asked}
        return await self.http.post("/openai/v1/responses", json=body, headers=headers)

    async def create(self, **asked: Any) -> Json:
        """A response."""
        answer = await self.post(**asked)
        assert answer.status_code == 200, answer.text
        return check_response(answer.json())

    async def retrieve(self, response_id: str, query: str = "") -> httpx.Response:
        return await self.http.get(f"/openai/v1/responses/{response_id}{query}")

    async def begun(self) -> None:
        """Wait until the model has been sent a turn."""
        await self.f.until(lambda: self.f.model.invoked)


@asynccontextmanager
async def api(
    *,
    connections: int = 3,
    most: int = 10,
    keep_seconds: float = 600.0,
    bounds: Bounds = DEFAULT_BOUNDS,
    **policy: Any,
) -> AsyncIterator[Client]:
    """A client.

    Args:
        connections: How many WebSockets there may be.
        most: How many sessions.
        keep_seconds: How long responses are kept.
        bounds: How long conversations may be.
        policy: The route's.
    """
    async with running(max_sessions=most) as f:
        f.add_route(**{"resume_seconds": 30.0, "retries": 0, **policy})
        f.model.answers = ModelReply(body=b"hi", content_type="text/plain")
        visitor, records = Anybody(), Records()
        visitor.principal = "ada"
        app = Starlette(
            routes=paths(
                f.sessions,
                records,
                admission=visitor,
                origins=Origins({"chat": []}, public=None),
                proxies=Proxies(),
                keep_seconds=keep_seconds,
                bounds=bounds,
                heartbeat_seconds=60.0,
                connections=Connections(connections),
                answered=Counter(),
            )
        )
        async with serving(app) as served:
            url = f"http://127.0.0.1:{served.port}"
            async with httpx.AsyncClient(base_url=url, timeout=20 * UNIT) as http:
                yield Client(f, http, visitor, records, url)
                f.model.waits.set()


def error(answer: httpx.Response) -> tuple[int, str, bool]:
    """What is wrong, and whether clients send it again."""
    again = answer.headers["x-should-retry"] == "true"
    return answer.status_code, answer.json()["error"]["code"], again


def events_of(text: str) -> list[Json]:
    """Those of a stream."""
    lines = [line for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


# Before the model is asked


@on_uvloop
async def test_what_is_not_begun_may_be_sent_again() -> None:
    async with api(most=1) as client:
        client.visitor.waits = 2.0
        answer = await client.post()
        assert error(answer) == (429, "rate_limit_exceeded", True)
        assert answer.headers["retry-after"] == "2"
        client.visitor.waits = 0.0
        client.f.model.opens = refuses(BUSY)
        assert error(await client.post()) == (429, "throttled", True)
        client.f.model.opens = refuses(REFUSED)
        assert error(await client.post())[:2] == (503, "unavailable")
        assert client.f.model.invoked == 0
        client.f.sessions.draining = True
        assert error(await client.post()) == (503, "unavailable", True)
        client.f.sessions.draining = False


@on_uvloop
async def test_too_many_sessions() -> None:
    async with api(most=1) as client:
        await client.create()
        assert error(await client.post()) == (503, "unavailable", True)


@on_uvloop
async def test_what_is_too_large() -> None:
    async with api(message_bytes=400) as client:
        assert error(await client.post(input="x" * 500)) == (413, "too_large", False)
        answer = await client.http.post("/openai/v1/responses", content=b"{")
        assert error(answer) == (400, "invalid_json", False)


@on_uvloop
async def test_a_chat_that_has_grown_too_large() -> None:
    template = {"messages": "$messages", "stream": "$stream"}
    async with api(message_bytes=400, chat=True, template=template) as client:
        reply = {"choices": [{"message": {"content": "a" * 200}}]}
        client.f.model.answers = ModelReply(
            body=json.dumps(reply).encode(), content_type="application/json"
        )
        one = await client.create()
        answer = await client.post(previous_response_id=one["id"], input="b" * 200)
        assert error(answer) == (413, "too_large", False)


# A turn that fails


@pytest.mark.parametrize("stream", [False, True])
@on_uvloop
async def test_a_turn_that_was_not_seen_is_told_by_its_status(stream: bool) -> None:
    async with api() as client:
        one = await client.create()
        client.f.model.answers = BUSY
        on = {"previous_response_id": one["id"], "input": "more"}
        answer = await client.post(stream=stream, **on)
        assert error(answer) == (429, "throttled", True)
        client.f.model.answers = ModelReply(body=b"there", content_type="text/plain")
        two = await client.create(**on)
        assert two["id"][:69] == one["id"][:69], "in its place, in the same session"
        assert two["id"].endswith("2x1")
        three = await client.create(previous_response_id=two["id"])
        assert three["id"].endswith("3")


@on_uvloop
async def test_a_turn_that_may_have_been_seen() -> None:
    async with api() as client:
        client.f.model.answers = LOST
        assert error(await client.post()) == (424, "timeout", False)
        response = check_stream(events_of((await client.post(stream=True)).text))
        assert response["error"] == {
            "code": "timeout",
            "message": "It took too long. The model may have seen the request.",
        }


@on_uvloop
async def test_a_stream_that_waits_for_its_model_begins_all_the_same() -> None:
    async with api() as client:
        client.f.model.waits.clear()
        body = {"model": "chat", "input": "hi", "stream": True}
        async with client.http.stream("POST", "/openai/v1/responses", json=body) as answer:
            chunks = answer.aiter_text()
            events = events_of(await anext(chunks))
            assert [event["type"] for event in events] == [
                "response.created",
                "response.in_progress",
            ]
            client.f.model.waits.set()
            events += events_of("".join([chunk async for chunk in chunks]))
        check_stream(events)


# What is sent again


@on_uvloop
async def test_a_request_that_is_sent_again() -> None:
    async with api() as client:
        client.f.model.waits.clear()
        first = asyncio.create_task(client.post(headers=FIRST))
        await client.begun()
        again = [asyncio.create_task(client.post(headers=AGAIN)) for _ in range(2)]
        await asyncio.sleep(0.1)
        client.f.model.waits.set()
        answers = [(await each).json() for each in (first, *again)]
        assert answers[0] == answers[1] == answers[2]
        streamed = await client.post(headers=AGAIN)
        assert streamed.json() == answers[0]
        assert client.f.model.invoked == 1
        other = await client.post(headers=AGAIN, input="other")
        assert other.json()["id"] != answers[0]["id"]
        assert client.f.model.invoked == 2


@on_uvloop
async def test_nobody_in_particular_is_not_given_anothers_answer() -> None:
    async with api() as client:
        client.visitor.principal = "anonymous"
        await client.create(headers=FIRST)
        again = await client.post(headers=AGAIN)
        assert error(again) == (424, "gateway_lost", False)
        assert "Idempotency-Key" in again.json()["error"]["message"]
        assert (await client.post(headers=AGAIN, input="never came")).status_code == 200
        client.f.model.answers = BUSY
        assert (await client.post(headers=FIRST, input="busy")).status_code == 429
        client.f.model.answers = ModelReply(body=b"hi", content_type="text/plain")
        assert (await client.post(headers=AGAIN, input="busy")).status_code == 200
        assert client.f.model.invoked == 4


@pytest.mark.parametrize("principal", ["anonymous", "ada"])
@on_uvloop
async def test_a_key_is_known_again(principal: str) -> None:
    async with api() as client:
        client.visitor.principal = principal
        one = await client.create(headers={"Idempotency-Key": "1"})
        assert await client.create(headers={"Idempotency-Key": "1", **AGAIN}) == one
        assert await client.create(headers={"Idempotency-Key": "1"}) == one
        for other in ({"Idempotency-Key": "2", **AGAIN}, {"Idempotency-Key": "3"}):
            assert (await client.create(headers=other))["id"] != one["id"]
        changed = await client.create(headers={"Idempotency-Key": "1"}, input="other")
        assert changed["id"] != one["id"]
        assert client.f.model.invoked == 4


@on_uvloop
async def test_a_request_that_is_sent_again_before_it_has_got_anywhere() -> None:
    async with api() as client:
        put, held, goes_on = client.records.put_record, asyncio.Event(), asyncio.Event()

        async def slowly(name: str, record: bytes, seconds: float) -> None:
            await put(name, record, seconds)
            if not held.is_set():
                held.set()
                await goes_on.wait()

        client.records.put_record = slowly  # type: ignore[method-assign]
        first = asyncio.create_task(client.post(headers=FIRST))
        await held.wait()
        assert error(await client.post(headers=AGAIN)) == (503, "unavailable", True)
        goes_on.set()
        one = (await first).json()
        assert (await client.post(headers=AGAIN)).json() == one
        assert client.f.model.invoked == 1


@on_uvloop
async def test_a_request_that_was_refused_is_sent_again() -> None:
    async with api(most=1) as client:
        opens, client.f.model.opens = client.f.model.opens, refuses(BUSY)
        assert error(await client.post(headers=FIRST)) == (429, "throttled", True)
        client.f.model.opens = opens
        await client.f.until(lambda: not client.f.sessions.runners)
        assert (await client.post(headers=AGAIN)).status_code == 200


@on_uvloop
async def test_a_request_that_is_sent_again_where_nothing_is_stored() -> None:
    async with api() as client:
        one = await client.create(headers=FIRST, store=False)
        again = await client.create(headers=AGAIN, store=False)  # while its log is kept
        assert again["output"] == one["output"]
        for runner in client.f.sessions.runners:
            runner.stop()
            client.f.sessions.ended(runner)
        assert error(await client.post(headers=AGAIN, store=False)) == (424, "gateway_lost", False)
        assert client.f.model.invoked == 1


@on_uvloop
async def test_a_request_is_not_known_by_one_of_long_ago() -> None:
    async with api(keep_seconds=86_400.0) as client:
        one = await client.create(headers=FIRST)
        kept = {name.partition(":")[0]: seconds for name, seconds in client.records.times.items()}
        assert kept == {"asked": RESENT_SECONDS, "response": 86_400.0}
        again = await client.create(headers=AGAIN)
        assert again == one
        kept = {name.partition(":")[0]: seconds for name, seconds in client.records.times.items()}
        assert kept == {"asked": RESENT_SECONDS, "response": 86_400.0}


@on_uvloop
async def test_a_request_that_was_not_seen_is_sent_again() -> None:
    async with api() as client:
        client.f.model.answers = BUSY
        assert (await client.post(headers=FIRST)).status_code == 429
        client.f.model.answers = ModelReply(body=b"hi", content_type="text/plain")
        assert (await client.post(headers=AGAIN)).status_code == 200


@on_uvloop
async def test_a_request_that_has_failed_is_sent_again() -> None:
    async with api() as client:
        client.f.model.answers = LOST
        assert error(await client.post(headers=FIRST)) == (424, "timeout", False)
        assert error(await client.post(headers=AGAIN)) == (424, "gateway_lost", False)
        text = (await client.post(headers=AGAIN, stream=True, input="x")).text
        assert check_stream(events_of(text))["status"] == "failed"
        assert client.f.model.invoked == 2


@on_uvloop
async def test_of_two_at_once_with_one_key_one_runs() -> None:
    async with api() as client:
        get, both = client.records.get_record, asyncio.Barrier(2)

        async def together(name: str, seconds: float | None = None) -> bytes | None:
            found = await get(name, seconds)
            if name.startswith("asked:"):
                await both.wait()
            return found

        client.records.get_record = together  # type: ignore[method-assign]
        key = {"Idempotency-Key": "1"}
        answers = await asyncio.gather(client.post(headers=key), client.post(headers=key))
        one, other = sorted(answers, key=lambda answer: answer.status_code)
        assert (one.status_code, error(other)) == (200, (503, "unavailable", True))
        client.records.get_record = get  # type: ignore[method-assign]
        assert (await client.post(headers=key)).json() == one.json()
        assert client.f.model.invoked == 1


# The store


@on_uvloop
async def test_nothing_is_begun_that_can_not_be_kept() -> None:
    async with api() as client:
        one = await client.create()
        client.records.away = {"put", "get"}
        assert error(await client.post(headers=FIRST)) == (503, "unavailable", True)
        answer = await client.post(previous_response_id=one["id"])
        assert error(answer) == (503, "unavailable", True)
        assert error(await client.retrieve(one["id"])) == (503, "unavailable", True)
        assert client.f.model.invoked == 1


@on_uvloop
async def test_a_store_that_fails_when_a_turn_is_accepted() -> None:
    async with api() as client:
        client.records.away = {"put response"}
        assert error(await client.post()) == (424, "gateway_lost", False)
        assert error(await client.post(headers=FIRST, input="x")) == (424, "gateway_lost", True)
        client.records.away = set()
        assert (await client.post(headers=AGAIN, input="x")).status_code == 200
        assert client.f.model.invoked == 2


@on_uvloop
async def test_a_store_that_fails_when_a_turn_of_a_conversation_is_accepted() -> None:
    async with api() as client:
        made = (await client.http.post("/openai/v1/conversations", json={})).json()
        client.records.away = {"put response", "delete"}
        answer = await client.post(headers=FIRST, conversation=made["id"])
        assert error(answer) == (424, "gateway_lost", True)
        client.records.away = set()
        answer = await client.post(input="x", conversation=made["id"])
        assert error(answer) == (409, "conversation_locked", True), "the turn may be under way"
        assert client.f.model.invoked == 1


@on_uvloop
async def test_a_store_that_fails_when_a_turn_is_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with api() as client:
        client.records.away = {"replace"}
        one = await client.create()
        assert "could not be kept" in capsys.readouterr().out
        client.records.away = set()
        found = check_response((await client.retrieve(one["id"])).json())
        assert found["output"] == one["output"]
        client.f.model.waits.clear()
        two = await client.create(input="more", previous_response_id=one["id"], background=True)
        (runner,) = client.f.sessions.runners
        runner.stop()
        assert two["status"] == "in_progress"


# A session that is not there


@on_uvloop
async def test_a_session_that_fails_with_a_turn_has_no_other_run_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with api() as client:
        one = await client.create()
        (runner,) = client.f.sessions.runners
        receive = runner.receive

        def failing(*given: Any) -> None:
            receive(*given)
            runner._crash(RuntimeError())

        monkeypatch.setattr(runner, "receive", failing)
        answer = await client.post(input="more", previous_response_id=one["id"])
        assert error(answer) == (424, "gateway_lost", False)
        assert client.f.model.invoked == 2


@on_uvloop
async def test_a_session_that_is_not_there_yet_and_one_that_is_gone() -> None:
    async with api() as client:
        client.f.model.waits.clear()
        one = await client.create(background=True)
        (runner,) = client.f.sessions.runners
        client.f.sessions.ended(runner)  # as another replica knows of it, or of none
        assert (await client.retrieve(one["id"])).json()["status"] == "in_progress"
        path = f"/openai/v1/responses/{one['id']}"
        for answer in (
            await client.retrieve(one["id"], "?stream=true"),
            await client.http.post(f"{path}/cancel"),
            await client.http.delete(path),
        ):
            assert error(answer) == (503, "unavailable", True)
        keeper = Keeper(client.records, 600.0)
        kept = await keeper.response(one["id"], "ada")
        assert kept is not None
        old = structs.replace(kept.response, created_at=1)
        name = record_name("response", one["id"])
        await keeper.put(name, structs.replace(kept, response=old))
        text = (await client.retrieve(one["id"], "?stream=true")).text
        assert events_of(text)[-1]["type"] == "response.failed"
        found = check_response((await client.retrieve(one["id"])).json())
        assert "may have answered" in found["error"]["message"]
        runner.stop()


# A log that is no longer whole


@on_uvloop
async def test_a_log_that_is_not_kept() -> None:
    async with api(streams=True, log_events=8) as client:
        client.f.model.parts = ["a", "b", "c"]
        client.f.model.answers = ModelReply(body=None)
        one = await client.create()
        text = (await client.retrieve(one["id"], "?stream=true")).text
        whole = events_of(text)
        assert check_stream(whole) == one
        await client.create(previous_response_id=one["id"])
        text = (await client.retrieve(one["id"], "?stream=true")).text
        assert events_of(text) == [*whole[:2], whole[-1]]
        rest = (await client.retrieve(one["id"], "?stream=true&starting_after=4")).text
        assert events_of(rest) == whole[-1:]
        assert rest.endswith(responses.DONE.decode())


@on_uvloop
async def test_a_turn_whose_parts_are_not_kept() -> None:
    async with api(streams=True, log_events=8) as client:
        client.f.model.parts = [f"{number} " for number in range(20)]
        client.f.model.answers = ModelReply(body=None)
        assert error(await client.post()) == (424, "gateway_lost", False)


@on_uvloop
async def test_who_reads_a_part_of_a_log_keeps_none_of_it() -> None:
    async with api(streams=True, log_events=8) as client:
        client.f.model.waits.clear()
        client.f.model.answers = ModelReply(body=None)
        body = {"model": "chat", "input": "hi", "stream": True}
        async with client.http.stream("POST", "/openai/v1/responses", json=body) as answer:
            lines = answer.aiter_lines()
            said = list[Json]()

            async def read(kind: str) -> None:
                async for line in lines:
                    said.extend(found := events_of(line))
                    if found and said[-1]["type"] == kind:
                        return

            await client.begun()
            for number in range(20):
                client.f.model.streams[-1]([f"{number} "])
                await read("response.output_text.delta")
            response_id = said[0]["response"]["id"]
            path = f"/openai/v1/responses/{response_id}?stream=true&starting_after=2"
            async with client.http.stream("GET", path) as late:
                client.f.model.waits.set()
                await read("response.completed")
                rest = events_of("".join([chunk async for chunk in late.aiter_text()]))
        assert rest == said[-1:]
        assert (await client.retrieve(response_id)).json() == said[-1]["response"]


# Over a WebSocket


def socket(client: Client) -> Any:
    return connect(f"{client.url.replace('http', 'ws', 1)}/openai/v1/responses", max_size=None)


@on_uvloop
async def test_a_key_that_is_withdrawn() -> None:
    async with api() as client, socket(client) as websocket:
        await websocket.send('{"type": "response.create", "model": "chat", "input": "hi"}')
        while json.loads(await websocket.recv())["type"] != "response.completed":
            pass
        assert client.visitor.on_withdrawn is not None
        client.visitor.on_withdrawn()
        with pytest.raises(ConnectionClosedError, match="4401"):
            await websocket.recv()


@on_uvloop
async def test_a_token_that_expires() -> None:
    async with api() as client:
        client.visitor.expires_at = time.time() + 0.2
        async with socket(client) as websocket:
            with pytest.raises(ConnectionClosedError, match="4401"):
                await websocket.recv()


@on_uvloop
async def test_who_may_not_connect() -> None:
    async with api(connections=1) as client, socket(client):
        with pytest.raises(InvalidStatus) as caught:
            await socket(client).__aenter__()
        assert caught.value.response.status_code == 503
        client.visitor.principal = None
        with pytest.raises(InvalidStatus) as caught:
            await socket(client).__aenter__()
        assert caught.value.response.status_code == 401
        client.visitor.principal = "ada"
        assert client.visitor.there == 1


@on_uvloop
async def test_a_gateway_that_stops_sends_clients_elsewhere() -> None:
    async with api() as client, socket(client) as websocket:
        client.f.sessions.draining = True
        await websocket.send('{"type": "response.create", "model": "chat", "input": "hi"}')
        with pytest.raises(ConnectionClosedError, match="1012"):
            await websocket.recv()
        client.f.sessions.draining = False


@on_uvloop
async def test_what_a_socket_is_refused() -> None:
    async with api() as client, socket(client) as websocket:
        client.visitor.waits = 1.0
        await websocket.send('{"type": "response.create", "model": "chat", "input": "hi"}')
        told = json.loads(await websocket.recv())
        assert (told["status"], told["error"]["code"]) == (429, "rate_limit_exceeded")
        client.visitor.waits = 0.0
        client.f.model.opens = refuses(BUSY)
        await websocket.send('{"type": "response.create", "model": "chat", "generate": false}')
        told = json.loads(await websocket.recv())
        assert (told["status"], told["error"]["code"]) == (429, "throttled")


async def drained(websocket: Any) -> None:
    """Read until the connection is closed."""
    while True:
        await websocket.recv()


def frame_of(**asked: Any) -> str:
    return json.dumps({"type": "response.create", "model": "chat", "input": "hi", **asked})


@on_uvloop
async def test_what_waits_is_charged_when_it_comes() -> None:
    async with api() as client, socket(client) as websocket:
        client.f.model.waits.clear()
        await websocket.send(frame_of())
        await client.begun()
        client.visitor.waits = 1.0
        await websocket.send(frame_of())
        await client.f.until(lambda: client.visitor.taken == 2)
        client.visitor.waits = 0.0
        client.f.model.waits.set()
        while (told := json.loads(await websocket.recv()))["type"] != "error":
            pass
        assert (told["status"], told["error"]["code"]) == (429, "rate_limit_exceeded")
        assert client.f.model.invoked == 1


@on_uvloop
async def test_what_waits_is_bounded_in_bytes() -> None:
    async with api(message_bytes=20_000) as client, socket(client) as websocket:
        client.f.model.waits.clear()
        budget = client.f.sessions.budget
        await websocket.send(frame_of())
        await client.begun()
        before = budget.total
        await websocket.send(frame_of(input="x" * 10_000))
        await client.f.until(lambda: budget.total > before + 10_000)
        budget.limit = 1
        await websocket.send(frame_of(input="x" * 9_000))
        await client.f.until(lambda: budget.refused == 1)
        budget.limit = 1_000_000
        await websocket.send(frame_of(input="x" * 10_000))
        with pytest.raises(ConnectionClosedError, match="4429"):
            await drained(websocket)
        client.f.model.waits.set()
        await client.f.until(lambda: budget.total <= before)


@on_uvloop
async def test_what_waits_is_counted_in_bytes_whatever_it_is_written_in() -> None:
    async with api(message_bytes=20_000) as client, socket(client) as websocket:
        client.f.model.waits.clear()
        await websocket.send(frame_of())
        await client.begun()
        for _ in range(2):  # of four bytes each
            asked = json.loads(frame_of(input="\U0001f600" * 4000))
            await websocket.send(json.dumps(asked, ensure_ascii=False))
        with pytest.raises(ConnectionClosedError, match="4429"):
            async with asyncio.timeout(10 * UNIT):
                await drained(websocket)
        client.f.model.waits.set()


@on_uvloop
async def test_what_is_not_taken_is_told_in_its_turn() -> None:
    async with api() as client, socket(client) as websocket:
        client.f.model.waits.clear()
        await websocket.send(frame_of())
        await client.begun()
        budget = client.f.sessions.budget
        budget.limit = 1
        await websocket.send(frame_of(input="x" * 10_000))
        await client.f.until(lambda: budget.refused == 1)
        budget.limit = 1_000_000
        client.f.model.waits.set()
        while (told := json.loads(await websocket.recv()))["type"] != "error":
            pass
        assert (told["status"], told["error"]["code"]) == (429, "rate_limit_exceeded")


@on_uvloop
async def test_a_conversation_is_held_before_its_response_is_kept() -> None:
    async with api() as client:
        made = await client.http.post("/openai/v1/conversations", json={})
        conversation = made.json()["id"]
        client.records.held = asyncio.Event()
        first = asyncio.create_task(client.post(input="one", conversation=conversation))
        await client.begun()
        second = await client.post(input="two", conversation=conversation)
        assert error(second) == (409, "conversation_locked", True)
        client.records.held.set()
        assert (await first).status_code == 200
        await client.create(input="three", conversation=conversation)
        listed = await client.http.get(
            f"/openai/v1/conversations/{conversation}/items?order=asc&limit=100"
        )
        said = [each["content"][0]["text"] for each in listed.json()["data"][::2]]
        assert said == ["one", "three"]


@on_uvloop
async def test_a_conversation_is_held_until_what_is_not_stored_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(past, "YOUNG_SECONDS", 0.0)
    async with api(on_lost=Recovery.REPLAY) as client:
        made = (await client.http.post("/openai/v1/conversations", json={})).json()
        client.f.model.waits.clear()
        asked = {"input": "one", "conversation": made["id"], "store": False}
        first = asyncio.create_task(client.post(**asked))
        await client.begun()
        await client.f.until(lambda: any("response:" in name for name in client.records._records))
        locked = await client.post(input="two", conversation=made["id"])
        assert error(locked) == (409, "conversation_locked", True)
        client.f.model.waits.set()
        one = (await first).json()
        assert (await client.retrieve(one["id"])).status_code == 404
        assert not any("response:" in name for name in client.records._records)
        two = await client.create(input="two", conversation=made["id"])
        items = f"/openai/v1/conversations/{made['id']}/items?order=asc"
        listed = (await client.http.get(items)).json()["data"]
        assert [each["content"][0]["text"] for each in listed] == ["one", "hi", "two", "hi"]
        assert two["id"][:69] != one["id"][:69], "whose session is closed"


@on_uvloop
async def test_a_conversation_whose_gateway_has_died_is_held_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(past, "YOUNG_SECONDS", 0.0)
    async with api(on_lost=Recovery.REPLAY) as client:
        made = (await client.http.post("/openai/v1/conversations", json={})).json()
        client.f.model.waits.clear()
        asked = {"input": "one", "conversation": made["id"], "store": False}
        first = asyncio.create_task(client.post(**asked))
        await client.begun()
        await client.f.until(lambda: any("response:" in name for name in client.records._records))
        (runner,) = client.f.sessions.runners
        runner.abandon()
        monkeypatch.setattr(starting, "YOUNG_SECONDS", 0.0)
        client.f.model.waits.set()
        await client.create(input="two", conversation=made["id"])
        names = [name for name in client.records._records if name.startswith("response:")]
        assert len(names) == 1, "what is not stored is not kept for longer"
        assert error(await first) == (424, "gateway_lost", False)


TOO_LONG = (400, "conversation_too_long", False)


@on_uvloop
async def test_a_conversation_may_be_so_long() -> None:
    async with api(bounds=Bounds(3, 100_000)) as client:
        item = {"role": "user", "content": "x"}
        made = await client.http.post("/openai/v1/conversations", json={"items": [item]})
        path = f"/openai/v1/conversations/{made.json()['id']}/items"
        assert (await client.http.post(path, json={"items": [item]})).status_code == 200
        asked = {"conversation": made.json()["id"]}
        client.f.add_route(route="told", resume_seconds=30.0, on_lost=Recovery.REPLAY)
        await client.create(model="told", **asked)
        for answer in (
            await client.post(model="told", **asked),
            await client.http.post(path, json={"items": [item]}),
        ):
            assert error(answer) == TOO_LONG
            assert "3 turns" in answer.json()["error"]["message"]
        assert len((await client.http.get(path)).json()["data"]) == 4, "but it is there"
        one = await client.create()
        two = await client.create(previous_response_id=one["id"])
        three = await client.create(previous_response_id=two["id"])
        answer = await client.post(previous_response_id=three["id"])
        assert error(answer) == TOO_LONG
        assert answer.json()["error"]["param"] == "previous_response_id"


@on_uvloop
async def test_a_conversation_may_be_so_large() -> None:
    template = {"messages": "$messages", "stream": "$stream"}
    async with api(bounds=Bounds(100, 1_000), chat=True, template=template) as client:
        reply = {"choices": [{"message": {"content": "a" * 200}}]}
        client.f.model.answers = ModelReply(
            body=json.dumps(reply).encode(), content_type="application/json"
        )
        item = {"role": "user", "content": "x" * 1_000}
        made = await client.http.post("/openai/v1/conversations", json={"items": [item]})
        path = f"/openai/v1/conversations/{made.json()['id']}/items"
        assert error(await client.http.post(path, json={"items": [item]})) == TOO_LONG
        assert error(await client.post(conversation=made.json()["id"])) == TOO_LONG
        one = await client.create(input="x" * 1_000)
        assert error(await client.post(previous_response_id=one["id"])) == TOO_LONG
        assert client.f.model.invoked == 1


@on_uvloop
async def test_a_conversation_that_is_no_longer_whole() -> None:
    async with api() as client:
        made = (await client.http.post("/openai/v1/conversations", json={})).json()
        for _ in range(3):
            await client.create(conversation=made["id"])
        (entry,) = [name for name in client.records._records if name.endswith(":1")]
        await client.records.delete_record(entry)
        assert error(await client.post(conversation=made["id"])) == (400, "not_kept", False)


# A client that does not read


PART = "x" * 60_000
PARTS = 250
"""Together more than a connection takes that nobody reads, and many times what a log holds."""


async def say(client: Client) -> None:
    """Have the model say all of that."""
    await client.begun()
    for _ in range(PARTS):
        client.f.model.streams[-1]([PART])
        await asyncio.sleep(0)


@asynccontextmanager
async def slow_api() -> AsyncIterator[Client]:
    async with api(streams=True, log_bytes=600_000, message_bytes=10_000) as client:
        client.f.model.waits.clear()
        client.f.model.answers = ModelReply(body=None)
        yield client


async def completed(client: Client, response_id: str) -> Json:
    """What is kept of a response, once it is over."""
    async with asyncio.timeout(20 * UNIT):
        while True:
            kept = await Keeper(client.records, 600.0).response(response_id, "ada")
            if kept is not None and kept.response.is_over:
                return msgspec.to_builtins(kept.response)  # type: ignore[no-any-return]
            await asyncio.sleep(0.01)


def request_of(client: Client, method: str, path: str, **body: Any) -> bytes:
    content = json.dumps(body).encode() if body else b""
    return (
        f"{method} /openai/v1/{path} HTTP/1.1\r\nHost: {client.http.base_url.netloc.decode()}\r\n"
        f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


@on_uvloop
async def test_a_client_that_does_not_read_spoils_nothing() -> None:
    async with slow_api() as client, Peer(client.http.base_url.port or 0) as peer:
        asked = {"model": "chat", "input": "hi", "stream": True}
        await peer.send(request_of(client, "POST", "responses", **asked))
        begun = await peer.until(b"response.in_progress")
        await say(client)
        client.f.model.waits.set()
        found = await completed(client, re.findall(rb"resp_\w+", begun)[0].decode())
        assert found["status"] == "completed"
        assert found["output"][0]["content"][0]["text"] == PART * PARTS
        text = (await peer.closed()).decode()
        assert text.count("event: response.output_text.delta") < PARTS
        *_, last, done = text.split("data: ")
        assert last.startswith('{"type":"response.completed"'), "it is told the end, which has all"
        assert done.startswith("[DONE]")


@on_uvloop
async def test_who_looks_on_and_does_not_read_spoils_nothing() -> None:
    async with slow_api() as client, Peer(client.http.base_url.port or 0) as peer:
        one = await client.create(background=True)
        await peer.send(request_of(client, "GET", f"responses/{one['id']}?stream=true"))
        await peer.until(b"response.in_progress")
        await say(client)
        reading, before = asyncio.create_task(peer.closed()), -1
        while len(peer.got) > before:
            before = len(peer.got)
            await asyncio.sleep(0.2 * UNIT)
        assert (await client.retrieve(one["id"])).json()["status"] == "in_progress"
        client.f.model.waits.set()
        assert b"event: response.completed" in await reading
        assert (await completed(client, one["id"]))["status"] == "completed"


async def warmed(websocket: Any, *, stored: bool) -> str:
    """The id of a warm-up."""
    warm = {"type": "response.create", "model": "chat", "generate": False, "store": stored}
    await websocket.send(json.dumps(warm))
    while (event := json.loads(await websocket.recv()))["type"] != "response.completed":
        pass
    return str(event["response"]["id"])


@on_uvloop
async def test_a_warm_up_that_others_go_on_with() -> None:
    async with api(opening=Opening.CALL) as client:
        async with socket(client) as websocket:
            warm = await warmed(websocket, stored=True)
            one = await client.create(previous_response_id=warm)
        await client.f.until(lambda: client.visitor.there == 0)
        two = await client.create(previous_response_id=one["id"])
        assert len({each[5:37] for each in (warm, one["id"], two["id"])}) == 1
        assert client.f.model.closed == []


@on_uvloop
async def test_a_warm_up_that_nobody_can_go_on_with() -> None:
    async with api(opening=Opening.CALL) as client:
        async with socket(client) as websocket:
            await warmed(websocket, stored=False)
        await client.f.until(lambda: client.f.model.closed == ["m"])


@on_uvloop
async def test_a_websocket_that_is_not_read_spoils_nothing() -> None:
    async with slow_api() as client, socket(client) as websocket:
        await websocket.send('{"type": "response.create", "model": "chat", "input": "hi"}')
        begun = json.loads(await websocket.recv())
        websocket.transport.pause_reading()
        await say(client)
        client.f.model.waits.set()
        assert (await completed(client, begun["response"]["id"]))["status"] == "completed"
        websocket.transport.resume_reading()
        while (event := json.loads(await websocket.recv()))["type"] != "response.completed":
            pass
        assert event["response"]["output"][0]["content"][0]["text"] == PART * PARTS


@on_uvloop
async def test_what_went_before_is_kept_before_the_model_is_asked() -> None:
    async with api() as client, socket(client) as websocket:
        await websocket.send(frame_of(store=False))
        said = json.loads(await websocket.recv())
        while said["type"] != "response.completed":
            said = json.loads(await websocket.recv())
        client.records.away = {"put response"}
        await websocket.send(frame_of(store=True, previous_response_id=said["response"]["id"]))
        assert json.loads(await websocket.recv())["status"] == 503
        assert client.f.model.invoked == 1
