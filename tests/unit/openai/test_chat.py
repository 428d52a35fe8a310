"""Chat completions of a gateway whose model, store and quotas do as a test tells them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette

from gateway.errors import ErrorCode, Failure, Outcome
from gateway.security.limits import LocalAccounts
from gateway.security.principals import PrincipalLimits
from gateway.session.policy import Recovery
from gateway.session.ports import ModelReply, ModelSession
from gateway.session.storage import StoreUnavailable
from gateway.stores.memory import MemoryStore
from gateway.transports.openai.chat import ChatCompletions
from gateway.transports.openai.gate import OpenAiGate
from gateway.transports.openai.keeping import Keeper
from gateway.transports.openai.models import Models
from gateway.transports.openai.starting import Starter
from gateway.transports.openai.warm import WarmSessions
from gateway.transports.origins import Origins
from gateway.transports.proxies import Proxies
from tests.support.serving import Peer, on_uvloop, serving
from tests.support.sessions import BUSY, Fixture, refuses, running
from tests.support.timing import UNIT
from tests.support.visitors import Anybody

TEMPLATE = {"messages": "$messages", "stream": "$stream"}
HI = {"role": "assistant", "content": "hi"}
WHOLE = {"id": "x", "choices": [{"index": 0, "message": HI, "finish_reason": "stop"}]}
CHUNK = {"id": "x", "choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]}
JSON = "application/json"


class Records(MemoryStore):
    """A store that may be away."""

    is_away = False

    async def put_record(self, name: str, record: bytes, seconds: float) -> None:
        self._look()
        await super().put_record(name, record, seconds)

    async def add_record(self, name: str, record: bytes, seconds: float) -> bool:
        self._look()
        return await super().add_record(name, record, seconds)

    async def take_record(self, name: str) -> bytes | None:
        self._look()
        return await super().take_record(name)

    def _look(self) -> None:
        if self.is_away:
            raise StoreUnavailable("it is away")


class Client:
    """Somebody who asks for completions, and the gateway that is asked."""

    def __init__(
        self, f: Fixture, http: httpx.AsyncClient, visitor: Anybody, store: Records
    ) -> None:
        self.f = f
        self.http = http
        self.visitor = visitor
        self.store = store

    async def ask(
        self, *messages: Any, headers: dict[str, str] | None = None, **fields: Any
    ) -> httpx.Response:
        said = [{"role": "user", "content": "hello"}] if not messages else [*messages]
        body = {"model": "chat", "messages": said, **fields}
        return await self.http.post("/openai/v1/chat/completions", json=body, headers=headers)

    @property
    def asked(self) -> list[tuple[Any, str | None]]:
        """What the model was sent, and in which of its sessions."""
        return [
            (request.body, None if session is None else session.id)
            for request, session, _ in self.f.model.asked
        ]

    @property
    def models(self) -> list[str | None]:
        """The sessions at the model that turns went to."""
        return [session for _, session in self.asked]


@asynccontextmanager
async def chats(
    *, limits: PrincipalLimits | None = None, max_sessions: int = 10, **policy: Any
) -> AsyncIterator[Client]:
    options: dict[str, Any] = {"max_sessions": max_sessions}
    if limits is not None:
        options["quota"] = LocalAccounts(limits)
    async with running(**options) as f:
        given = {"resume_seconds": 30.0, "chat": True, "sends_history": True, "retries": 0}
        f.add_route(**{"streams": True, "template": TEMPLATE, **given, **policy})
        numbers = iter(range(1, 1000))
        f.model.opens = lambda: ModelSession(f"m-{next(numbers)}")
        f.model.answers = ModelReply(body=json.dumps(WHOLE).encode(), content_type=JSON)
        visitor, store = Anybody(), Records()
        visitor.principal = "ada"
        origins = Origins({"chat": []}, public=None)
        gate = OpenAiGate(visitor, origins=origins, proxies=Proxies())
        keeper = Keeper(store, 60.0)
        completions = ChatCompletions(
            f.sessions,
            gate,
            Starter(f.sessions, keeper, lambda: 1000.0),
            keeper,
            WarmSessions(f.sessions, store),
            heartbeat_seconds=60.0,
            clock=lambda: 1000.0,
        )
        app = Starlette(routes=[*completions.routes(), *Models(f.sessions, gate).routes()])
        async with serving(app) as served:
            url = f"http://127.0.0.1:{served.port}"
            async with httpx.AsyncClient(base_url=url, timeout=20 * UNIT) as http:
                yield Client(f, http, visitor, store)
                f.model.waits.set()


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@on_uvloop
async def test_a_conversation_goes_on_in_its_session() -> None:
    async with chats() as client:
        first = await client.ask()
        assert first.json()["choices"] == WHOLE["choices"]
        assert first.headers["cache-control"] == "no-store"
        (runner,) = client.f.sessions.runners
        assert first.headers["x-request-id"] == f"req_{runner.id}_r1"
        assert (await client.ask(user("hello"), HI, user("more"))).status_code == 200
        assert client.models == ["m-1", "m-1"]
        assert msgspec.json.decode(client.asked[1][0])["messages"] == [
            user("hello"),
            HI,
            user("more"),
        ]


@on_uvloop
async def test_two_that_go_on_from_the_same_do_not_share_a_session() -> None:
    async with chats() as client:
        await client.ask()
        client.f.model.waits.clear()
        more = [
            asyncio.create_task(client.ask(user("hello"), HI, user(text))) for text in ("a", "b")
        ]
        await client.f.until(lambda: client.f.model.invoked == 3)
        client.f.model.waits.set()
        assert [each.status_code for each in await asyncio.gather(*more)] == [200, 200]
        assert sorted(map(str, client.models)) == ["m-1", "m-1", "m-2"]
        assert client.f.model.closed == []


@on_uvloop
async def test_of_two_that_know_the_same_one_is_kept() -> None:
    async with chats() as client:
        await client.ask()
        await client.ask()
        await client.f.until(lambda: client.f.model.closed == ["m-2"])
        await client.f.until(lambda: len(client.f.sessions) == 1)
        await client.ask(user("hello"), HI, user("more"))
        assert client.models == ["m-1", "m-2", "m-1"]


LIMITS = PrincipalLimits(connections=9, sessions=2, messages_per_second=1, bytes_per_second=1)


@pytest.mark.parametrize("of_principal", [False, True])
@on_uvloop
async def test_those_that_wait_longest_make_room(of_principal: bool) -> None:
    options: dict[str, Any] = {"limits": LIMITS} if of_principal else {"max_sessions": 2}
    async with chats(**options) as client:
        for text in ("a", "b", "c", "d"):
            assert (await client.ask(user(text))).status_code == 200
        assert client.f.model.closed == ["m-1", "m-2"]
        assert (await client.ask(user("d"), HI, user("more"))).status_code == 200
        assert (await client.ask(user("a"), HI, user("more"))).status_code == 200
        assert client.models == ["m-1", "m-2", "m-3", "m-4", "m-4", "m-5"]


@on_uvloop
async def test_those_that_are_elsewhere_do_not() -> None:
    async with chats(max_sessions=1) as client:
        await client.ask(user("a"))
        (runner,) = client.f.sessions.runners
        runner.abandon()
        other = await client.f.sessions.open(client.f.sessions.routes["chat"], "ada")
        assert (await client.ask(user("b"))).status_code == 503
        assert client.store._records, "whoever goes on finds it there"
        client.f.sessions.ended(other)


@pytest.mark.parametrize("of_principal", [False, True])
@on_uvloop
async def test_those_that_are_busy_do_not(of_principal: bool) -> None:
    options: dict[str, Any] = {"limits": LIMITS} if of_principal else {"max_sessions": 2}
    async with chats(**options) as client:
        client.f.model.waits.clear()
        busy = [asyncio.create_task(client.ask(user(text))) for text in ("a", "b")]
        await client.f.until(lambda: client.f.model.invoked == 2)
        response = await client.ask(user("c"))
        assert response.status_code == (429 if of_principal else 503)
        assert response.headers["x-should-retry"] == "true"
        assert float(response.headers["retry-after"]) >= 1
        client.f.model.waits.set()
        assert [each.status_code for each in await asyncio.gather(*busy)] == [200, 200]


@on_uvloop
async def test_a_session_that_is_gone_is_opened_anew() -> None:
    async with chats() as client:
        await client.ask()
        (runner,) = client.f.sessions.runners
        runner.abandon()
        assert (await client.ask(user("hello"), HI, user("more"))).status_code == 200
        assert client.models == ["m-1", "m-2"]


@pytest.mark.parametrize("name", ["X-Session-Id", "prompt_cache_key"])
@on_uvloop
async def test_a_name_leads_to_the_newest_of_it(name: str) -> None:
    async with chats() as client:
        fields: dict[str, Any] = {name: "k"} if name == "prompt_cache_key" else {}
        headers = None if fields else {name: "k"}
        for number in range(3):
            await client.ask(user(f"rewritten {number}"), headers=headers, **fields)
        await client.ask(user("rewritten 2"), headers={"X-Session-Id": "another"})
        assert client.models == ["m-1", "m-1", "m-1", "m-2"]


@on_uvloop
async def test_a_name_leads_nowhere_while_its_session_is_busy() -> None:
    async with chats() as client:
        await client.ask(user("a"), prompt_cache_key="k")
        client.f.model.waits.clear()
        busy = asyncio.create_task(client.ask(user("a"), HI, user("b")))
        await client.f.until(lambda: client.f.model.invoked == 2)
        other = asyncio.create_task(client.ask(user("c"), prompt_cache_key="k"))
        await client.f.until(lambda: client.f.model.invoked == 3)
        client.f.model.waits.set()
        await asyncio.gather(busy, other)
        assert client.models == ["m-1", "m-1", "m-2"]


# Failures


@pytest.mark.parametrize("streams", [False, True])
@on_uvloop
async def test_what_has_not_run_may_be_sent_again(streams: bool) -> None:
    async with chats() as client:
        await client.ask()
        client.f.model.answers = BUSY
        asked = (user("hello"), HI, user("more"))
        count = {"x-stainless-retry-count": "0"}
        failed = await client.ask(*asked, stream=streams, headers=count)
        assert (failed.status_code, failed.headers["x-should-retry"]) == (429, "true")
        client.f.model.answers = ModelReply(body=json.dumps(WHOLE).encode(), content_type=JSON)
        count = {"x-stainless-retry-count": "1"}
        again = await client.ask(*asked, stream=streams, headers=count)
        assert again.status_code == 200
        assert client.models == ["m-1", "m-1", "m-1"], "which has heard nothing else"


@pytest.mark.parametrize("streams", [False, True])
@on_uvloop
async def test_what_may_have_run_is_not(streams: bool) -> None:
    lost = Failure(code=ErrorCode.TIMEOUT, message="Late.", outcome=Outcome.UNKNOWN)
    async with chats() as client:
        client.f.model.answers = lost
        for count in ("0", "1", "2"):
            headers = {"x-stainless-retry-count": count}
            failed = await client.ask(stream=streams, headers=headers)
            assert (failed.status_code, failed.headers["x-should-retry"]) == (424, "false")
        assert client.f.model.invoked == 1


@on_uvloop
async def test_nobody_in_particular_is_not_given_anothers_answer() -> None:
    async with chats() as client:
        client.visitor.principal = "anonymous"
        first = await client.ask(headers={"x-stainless-retry-count": "0"})
        again = await client.ask(headers={"x-stainless-retry-count": "1"})
        assert (again.status_code, again.headers["x-should-retry"]) == (424, "false")
        assert "Idempotency-Key" in again.json()["error"]["message"]
        assert client.f.model.invoked == 1
        key = {"Idempotency-Key": "1"}
        one = await client.ask(user("keyed"), headers=key)
        assert one.json()["id"] != first.json()["id"]
        assert (await client.ask(user("keyed"), headers=key)).json() == one.json()
        headers = {"Idempotency-Key": "2", "x-stainless-retry-count": "1"}
        other = await client.ask(user("keyed"), headers=headers)
        assert other.json()["id"] != one.json()["id"]
        assert client.f.model.invoked == 3


@on_uvloop
async def test_what_is_sent_again_at_once_waits_for_the_first() -> None:
    async with chats() as client:
        put = client.store.put_record
        held, goes_on = asyncio.Event(), asyncio.Event()

        async def slowly(name: str, record: bytes, seconds: float) -> None:
            await put(name, record, seconds)
            if not held.is_set():
                held.set()
                await goes_on.wait()

        client.store.put_record = slowly  # type: ignore[method-assign]
        first = asyncio.create_task(client.ask(headers={"x-stainless-retry-count": "0"}))
        await held.wait()
        again = await client.ask(headers={"x-stainless-retry-count": "1"})
        assert (again.status_code, again.headers["x-should-retry"]) == (503, "true")
        goes_on.set()
        assert (await first).status_code == 200
        again = await client.ask(headers={"x-stainless-retry-count": "2"})
        assert again.json() == (await first).json()
        assert client.f.model.invoked == 1


@on_uvloop
async def test_of_two_at_once_with_one_key_one_runs() -> None:
    async with chats() as client:
        get, both = client.store.get_record, asyncio.Barrier(2)

        async def together(name: str, seconds: float | None = None) -> bytes | None:
            found = await get(name, seconds)
            if name.startswith("asked:"):
                await both.wait()
            return found

        client.store.get_record = together  # type: ignore[method-assign]
        key = {"Idempotency-Key": "1"}
        answers = await asyncio.gather(client.ask(headers=key), client.ask(headers=key))
        assert sorted(answer.status_code for answer in answers) == [200, 503]
        assert client.f.model.invoked == 1


@on_uvloop
async def test_a_stream_that_was_told_nothing_is_not_stopped_by_who_has_left_it() -> None:
    async with chats() as client:
        client.f.model.waits.clear()
        body = json.dumps({"model": "chat", "messages": [user("hello")], "stream": True})
        path, port = "/openai/v1/chat/completions", client.http.base_url.port or 0

        def sent(times: int) -> bytes:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
            return f"{head}X-Stainless-Retry-Count: {times}\r\n\r\n{body}".encode()

        async with Peer(port) as peer:
            await peer.send(sent(0))
            await client.f.until(lambda: client.f.model.invoked)
        async with Peer(port) as peer:
            await peer.send(sent(1))
            (runner,) = client.f.sessions.runners
            await client.f.until(lambda: len(runner.session.clients.readers) == 2)
            client.f.model.streams[-1]([json.dumps(CHUNK)])
            await peer.until(b'"content":"hi"')
            client.f.model.waits.set()
            got = await peer.until(b"0\r\n\r\n")
        assert b"data: [DONE]" in got
        assert client.f.model.invoked == 1


@on_uvloop
async def test_what_was_refused_before_it_was_sent_is_tried_again() -> None:
    async with chats(max_sessions=1) as client:
        client.f.model.waits.clear()
        busy = asyncio.create_task(client.ask(user("busy")))
        await client.f.until(lambda: client.f.model.invoked == 1)
        refused = await client.ask(headers={"x-stainless-retry-count": "0"})
        assert refused.status_code == 503
        client.f.model.waits.set()
        await busy
        again = await client.ask(headers={"x-stainless-retry-count": "1"})
        assert again.status_code == 200


@on_uvloop
async def test_a_session_of_words_that_may_have_heard_more_is_closed() -> None:
    lost = Failure(code=ErrorCode.TIMEOUT, message="Late.", outcome=Outcome.UNKNOWN)
    options: dict[str, Any] = {"chat": False, "sends_history": False, "template": None}
    async with chats(**options, on_lost=Recovery.REPLAY, streams=False) as client:
        client.f.model.answers = ModelReply(body=b"hi", content_type="text/plain")
        await client.ask()
        client.f.model.answers = lost
        asked = (user("hello"), HI, user("more"))
        assert (await client.ask(*asked)).status_code == 424
        await client.f.until(lambda: client.f.model.closed == ["m-1"])
        client.f.model.answers = ModelReply(body=b"hi", content_type="text/plain")
        assert (await client.ask(*asked)).status_code == 200
        told = [body for body, session in client.asked if session == "m-2"]
        assert told == [b"hello", b"more"], "it is told what was said"


@on_uvloop
async def test_a_session_that_can_not_be_opened_is_an_answer() -> None:
    async with chats() as client:
        client.f.model.opens = refuses(BUSY)
        failed = await client.ask(stream=True)
        assert (failed.status_code, failed.json()["error"]["code"]) == (429, "throttled")
        await client.f.until(lambda: not client.f.sessions.runners)


@on_uvloop
async def test_an_answer_in_another_form_says_so() -> None:
    async with chats() as client:
        client.f.model.answers = ModelReply(body=b"hi", content_type="text/plain")
        failed = await client.ask()
        assert (failed.status_code, failed.json()["error"]["code"]) == (424, "stream_broken")


@on_uvloop
async def test_a_stream_ends_with_what_was_wrong() -> None:
    async with chats() as client:
        client.f.model.parts = [json.dumps(CHUNK)]
        client.f.model.answers = Failure(
            code=ErrorCode.STREAM_BROKEN, message="It broke off.", outcome=Outcome.INVOKED
        )
        response = await client.ask(stream=True)
        assert response.status_code == 200
        first, last = response.text.strip().split("\n\n")
        assert json.loads(first.removeprefix("data: "))["choices"] == CHUNK["choices"]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stream_broken"


@on_uvloop
async def test_a_whole_reply_can_be_a_stream() -> None:
    async with chats() as client:
        lines = (await client.ask(stream=True)).text.strip().split("\n\n")
        assert lines[-1] == "data: [DONE]"
        said = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-1]]
        assert [each["delta"] for each in said] == [HI, {}]


@on_uvloop
async def test_a_stream_that_is_not_read_ends_with_why() -> None:
    async with chats(log_bytes=600_000) as client:
        client.f.model.waits.clear()
        body = json.dumps({"model": "chat", "messages": [user("hello")], "stream": True})
        async with Peer(client.http.base_url.port or 0) as peer:
            path = "/openai/v1/chat/completions"
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            await peer.send((head + body).encode())
            await client.f.until(lambda: client.f.model.invoked)
            chunk = {**CHUNK, "choices": [{"index": 0, "delta": {"content": "x" * 60_000}}]}
            for _ in range(250):  # more than a connection takes that nobody reads
                client.f.model.streams[-1]([json.dumps(chunk)])
                await asyncio.sleep(0)
            last = (await peer.until(b'"error"')).split(b"data: ")[-1]
        assert b"too slowly" in last
        await client.f.until(client.f.model.calls[-1].cancelled)


@on_uvloop
async def test_without_the_store_nothing_is_kept_and_nothing_sent_twice() -> None:
    async with chats() as client:
        client.store.is_away = True
        assert (await client.ask()).status_code == 200
        await client.f.until(lambda: client.f.model.closed == ["m-1"])
        refused = await client.ask(headers={"x-stainless-retry-count": "0"})
        assert (refused.status_code, refused.headers["x-should-retry"]) == (503, "true")
        assert client.f.model.invoked == 1, "it could not be known when it is sent again"


@on_uvloop
async def test_who_sends_too_much_waits() -> None:
    async with chats() as client:
        client.visitor.waits = 1.5
        refused = await client.ask()
        assert (refused.status_code, refused.headers["retry-after-ms"]) == (429, "1500")


@on_uvloop
async def test_a_gateway_that_stops_sends_elsewhere() -> None:
    async with chats() as client:
        client.f.sessions.draining = True
        refused = await client.ask()
        assert (refused.status_code, refused.headers["x-should-retry"]) == (503, "true")


@on_uvloop
async def test_what_is_too_large_opens_no_session() -> None:
    async with chats(message_bytes=400, system="s" * 100) as client:
        assert (await client.ask(user("x" * 100))).status_code == 200
        assert (await client.ask(user("x" * 250))).status_code == 413, "with all around it"
        assert (await client.ask(user("x" * 500))).status_code == 413
        assert client.models == ["m-1"]
        assert len(client.f.sessions) == 1


@on_uvloop
async def test_models_are_those_that_one_may_use() -> None:
    async with chats() as client:
        client.f.add_route(route="other")
        listed = (await client.http.get("/openai/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["chat", "other"]
        client.visitor.routes = frozenset({"other"})
        listed = (await client.http.get("/openai/v1/models")).json()
        assert [model["id"] for model in listed["data"]] == ["other"]
        for name, status in (("other", 200), ("chat", 404), ("none", 404)):
            assert (await client.http.get(f"/openai/v1/models/{name}")).status_code == status
        assert (await client.ask()).status_code == 403
        unknown = await client.http.post("/openai/v1/audio/speech")
        assert unknown.json()["error"]["code"] == "unknown_url"
