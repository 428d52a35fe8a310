"""Streams of the local SageMaker, as AWS's own client reads them."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import ClientPayloadError
from botocore.eventstream import EventStreamBuffer
from botocore.exceptions import EventStreamError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from gateway.local import eventstream
from gateway.local.builtin import BuiltinModel
from gateway.local.containers import HttpContainer
from gateway.local.faults import Fault
from gateway.local.platform import Endpoint
from gateway.local.server import REGION, running
from tests.support.processes import local
from tests.support.timing import UNIT

NAME = "my-endpoint"
TEXT = "text/plain"
JSON = "application/json"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    session: Any = AioSession()
    config = AioConfig(retries={"total_max_attempts": 1})
    async with session.create_client(
        "sagemaker-runtime", region_name=REGION, endpoint_url=url, config=config
    ) as client:
        yield client


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint(NAME, [BuiltinModel("i-1"), BuiltinModel("i-2")])


@pytest.fixture
async def url(endpoint: Endpoint) -> AsyncIterator[str]:
    async with running([endpoint]) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[Any]:
    async with connected(url) as client:
        yield client


async def opened(client: Any) -> str:
    """The id of a new session."""
    reply = await client.invoke_endpoint(
        EndpointName=NAME, Body=b'{"requestType":"NEW_SESSION"}', SessionId="NEW_SESSION"
    )
    name: str = reply["NewSessionId"].partition(";")[0]
    return name


async def begun(client: Any, body: bytes, content_type: str = TEXT, **options: Any) -> Any:
    """A stream that has begun."""
    return await client.invoke_endpoint_with_response_stream(
        EndpointName=NAME, Body=body, ContentType=content_type, **options
    )


async def told(stream: Any) -> AsyncIterator[bytes]:
    """The parts that are left of a stream."""
    try:
        async for event in stream:
            yield event["PayloadPart"]["Bytes"]
    finally:
        stream.close()


async def parts(client: Any, body: bytes, content_type: str = TEXT, **options: Any) -> list[bytes]:
    """All parts of a stream."""
    reply = await begun(client, body, content_type, **options)
    return [part async for part in told(reply["Body"])]


async def one(client: Any, body: bytes, content_type: str = TEXT, **options: Any) -> bytes:
    """The reply in one piece."""
    reply = await client.invoke_endpoint(
        EndpointName=NAME, Body=body, ContentType=content_type, **options
    )
    data: bytes = await reply["Body"].read()
    return data


async def rest(stream: Any) -> list[Any]:
    """The events that are left of a stream."""
    return [event async for event in stream]


async def broken(client: Any, body: bytes, content_type: str = TEXT) -> tuple[list[bytes], str]:
    """The parts of a stream that breaks, and how it does."""
    reply = await begun(client, body, content_type)
    got: list[bytes] = []
    try:
        async for part in told(reply["Body"]):
            got.append(part)  # noqa: PERF401 - it ends with an error
    except EventStreamError as error:
        return got, error.response["Error"]["Code"]
    except ClientPayloadError:
        return got, "cut"
    return got, "not at all"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens on the other side of a connection."""
    async with asyncio.timeout(20 * UNIT):
        while not condition():  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.01 * UNIT)


def test_messages_are_encoded_as_the_client_decodes_them() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.payload_part(b"\x00part") + eventstream.exception("Wrong", b"{}"))
    first, second = list(buffer)
    assert first.headers == {
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    assert first.payload == b"\x00part"
    assert second.headers == {
        ":exception-type": "Wrong",
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    assert second.payload == b"{}"


async def test_a_stream_in_a_session(client: Any, endpoint: Endpoint) -> None:
    session = await opened(client)
    reply = await begun(client, b"My name is Ada.", SessionId=session)
    assert reply["ContentType"] == "text/plain; charset=utf-8"
    assert reply["InvokedProductionVariant"] == "AllTraffic"
    instance = next(i for i in endpoint.instances if i.opened)
    assert reply["CustomAttributes"] == f"turn=1;instance={instance.name}"
    got = [event["PayloadPart"]["Bytes"] async for event in reply["Body"]]
    said = f"Turn 1 on instance {instance.name}. Hello Ada, I will remember your name."
    assert got == [word.encode() for word in said.replace(" ", " \0").split("\0")]
    assert b"Your name is Ada." in await one(client, b"Who am I?", SessionId=session)
    assert instance.container.turns == {session: 2}
    assert endpoint.streams == 1
    assert endpoint.abandoned == 0


async def test_the_headers_are_the_api_models(url: str, client: Any) -> None:
    """The content type is the encoding's; the container's own is in a header."""
    seen: list[Any] = []
    client.meta.events.register(
        "after-call.sagemaker-runtime.InvokeEndpointWithResponseStream",
        lambda http_response, **_: seen.append(http_response.headers),
    )
    await parts(client, b"hi")
    assert seen[0]["content-type"] == "application/vnd.amazon.eventstream"
    assert seen[0]["X-Amzn-SageMaker-Content-Type"] == "text/plain; charset=utf-8"
    assert seen[0]["x-Amzn-Invoked-Production-Variant"] == "AllTraffic"
    assert seen[0]["x-amzn-requestid"]
    async with httpx.AsyncClient(timeout=20 * UNIT) as http:
        unsigned = await http.post(f"{url}/endpoints/{NAME}/invocations-response-stream")
    assert unsigned.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"SessionId": "NEW_SESSION"}, "Value at 'sessionId'"),
        ({"SessionId": "unknown"}, "Session unknown not found"),
        ({"Accept": "x" * 1025}, "Value at 'accept'"),
        ({"EndpointName": "elsewhere"}, "Endpoint elsewhere of account"),
    ],
)
async def test_parameters_are_checked(client: Any, given: dict[str, Any], message: str) -> None:
    call = {"EndpointName": NAME, "Body": b"hi", **given}
    with pytest.raises(client.exceptions.ValidationError, match=message):
        await client.invoke_endpoint_with_response_stream(**call)


async def test_errors_before_the_first_part(client: Any, endpoint: Endpoint) -> None:
    with pytest.raises(client.exceptions.ModelError) as caught:
        await begun(client, b"/fail 418 no tea")
    response: Any = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert (response["OriginalStatusCode"], response["OriginalMessage"]) == (418, "no tea")
    endpoint.faults.add(Fault(error="ServiceUnavailable"))
    with pytest.raises(client.exceptions.ServiceUnavailable):
        await begun(client, b"hi")


async def test_what_a_stream_says_of_sessions_is_not_told(client: Any, endpoint: Endpoint) -> None:
    session = await opened(client)
    reply = await begun(client, b"/close", SessionId=session)
    assert not {"NewSessionId", "ClosedSessionId"} & set(reply)
    assert [part async for part in told(reply["Body"])]
    assert sum(endpoint.sessions.values()) == 0


def lines(data: bytes) -> list[Any]:
    return [msgspec.json.decode(line) for line in data.splitlines()]


def events(data: bytes, field: bytes) -> list[Any]:
    found = data.split(b"\n\n")
    assert found.pop() == b""
    assert all(event.startswith(field) for event in found)
    texts = [event.removeprefix(field) for event in found]
    return [text if text == b"[DONE]" else msgspec.json.decode(text) for text in texts]


class TestShapes:
    async def ask(self, client: Any, accept: str = "*/*", **body: Any) -> bytes:
        data = msgspec.json.encode(body)
        if not body.get("stream"):
            return await one(client, data, JSON, Accept=accept)
        got = await parts(client, data, JSON, Accept=accept)
        assert len(got) >= 3
        assert b"".join(got) == await one(client, data, JSON, Accept=accept), (
            "the container does not see which call it is"
        )
        return b"".join(got)

    async def test_text(self, client: Any) -> None:
        assert await parts(client, b"/count 3 0") == [b"1 ", b"2 ", b"3"]
        assert await parts(client, b"/echo a  b\n c ") == [b"a  ", b"b\n ", b"c"]
        assert await parts(client, b"/echo") == []

    async def test_messages_as_vllm(self, client: Any) -> None:
        messages = [{"role": "user", "content": "/count 3 0"}]
        data = await self.ask(client, messages=messages, stream=True)
        assert data.startswith(
            b'data: {"object":"chat.completion.chunk",'
            b'"choices":[{"index":0,"delta":{"content":"1 "},"finish_reason":null}]}\n\n'
        )
        *chunks, last, done = events(data, b"data: ")
        assert done == b"[DONE]"
        assert [c["choices"][0]["delta"]["content"] for c in chunks] == ["1 ", "2 ", "3"]
        assert last["choices"][0]["finish_reason"] == "stop"
        value = msgspec.json.decode(await self.ask(client, messages=messages))
        assert value["choices"][0]["message"] == {"role": "assistant", "content": "1 2 3"}

    async def test_messages_as_lmi(self, client: Any) -> None:
        messages = [{"role": "user", "content": "/count 2 0"}]
        data = await self.ask(client, "application/jsonlines", messages=messages, stream=True)
        assert [chunk["choices"][0]["delta"] for chunk in lines(data)] == [
            {"content": "1 "},
            {"content": "2"},
            {},
        ]

    async def test_inputs_as_lmi(self, client: Any) -> None:
        data = await self.ask(client, inputs="/count 2 0", stream=True)
        assert lines(data) == [
            {"token": {"text": "1 "}},
            {"token": {"text": "2"}},
            {"token": {"text": ""}, "generated_text": "1 2"},
        ]
        assert await self.ask(client, inputs="/count 2 0") == b'{"generated_text":"1 2"}'

    async def test_inputs_as_tgi(self, client: Any) -> None:
        asked: Any = {"inputs": "/count 2 0", "parameters": {"details": True}}
        data = await self.ask(client, **asked, stream=True)
        assert events(data, b"data:") == [
            {"token": {"text": "1 "}, "generated_text": None},
            {"token": {"text": "2"}, "generated_text": None},
            {"token": {"text": "", "special": True}, "generated_text": "1 2"},
        ]
        assert await self.ask(client, **asked) == b'[{"generated_text":"1 2"}]'

    async def test_any_other_json(self, client: Any) -> None:
        data = await self.ask(client, text="/count 3 0", stream=True)
        assert lines(data) == [{"text": "1 "}, {"text": "2 "}, {"text": "3"}]
        value = msgspec.json.decode(await self.ask(client, text="/count 3 0"))
        assert (value["text"], value["turn"]) == ("1 2 3", 0)
        assert len(await parts(client, b'{"text": "hi"}', JSON)) == 1, "it did not ask for parts"

    @pytest.mark.parametrize(
        ("asked", "last"),
        [
            ({"text": "/break 1"}, b'{"code":500,"error":"failed as asked"}\n'),
            ({"inputs": "/break 1"}, b'{"code":500,"error":"failed as asked"}\n'),
            (
                {"inputs": "/break 1", "parameters": {"details": True}},
                b'data:{"error":"failed as asked","error_type":"generation"}\n\n',
            ),
            (
                {"messages": [{"content": "/break 1"}]},
                b'data: {"error":{"message":"failed as asked","code":500}}\n\ndata: [DONE]\n\n',
            ),
        ],
    )
    async def test_a_model_that_fails_in_mid_stream(
        self, client: Any, asked: Any, last: bytes
    ) -> None:
        data = msgspec.json.encode({**asked, "stream": True})
        assert (await parts(client, data, JSON))[1:] == [last]
        with pytest.raises(client.exceptions.ModelError, match="failed as asked"):
            await one(client, msgspec.json.encode(asked), JSON)

    async def test_text_that_breaks_off(self, client: Any) -> None:
        assert await broken(client, b"/break 2") == ([b"1 ", b"2"], "ModelStreamError")
        with pytest.raises(client.exceptions.ModelError):
            await one(client, b"/break 2")


class TestFaults:
    @pytest.mark.parametrize(
        ("mode", "error"),
        [
            ("exception", "ModelStreamError"),
            ("time", "ModelStreamError"),
            ("internal", "InternalStreamFailure"),
            ("cut", "cut"),
        ],
    )
    async def test_streams_that_break(
        self, client: Any, endpoint: Endpoint, mode: Any, error: str
    ) -> None:
        endpoint.faults.add(Fault(break_after_parts=2, break_mode=mode, times=2))
        for _ in range(2):
            assert await broken(client, b"/count 5 0") == ([b"1 ", b"2 "], error)
        assert len(await parts(client, b"/count 5 0")) == 5
        assert endpoint.abandoned == 0

    async def test_a_break_comes_at_the_end_at_the_latest(
        self, client: Any, endpoint: Endpoint
    ) -> None:
        endpoint.faults.add(Fault(break_after_parts=9))
        assert await broken(client, b"/count 1") == ([b"1"], "ModelStreamError")

    async def test_an_exception_says_which(self, url: str, endpoint: Endpoint) -> None:
        """botocore keeps the message and drops the error code; both are sent."""
        bodies = []
        for mode in ("exception", "time"):
            fault: Any = {"break_after_parts": 0, "break_mode": mode}
            endpoint.faults.add(Fault(**fault))
            async with connected(url) as client:
                reply = await begun(client, b"hi")
                bodies.append(await reply["Body"]._raw_stream.read())
        for body, code in zip(bodies, ("StreamBroken", "ModelInvocationTimeExceeded"), strict=True):
            buffer = EventStreamBuffer()
            buffer.add_data(body)
            (message,) = buffer
            value = msgspec.json.decode(message.payload)
            assert value["ErrorCode"] == code
            assert value["Message"]

    async def test_a_cut_is_in_the_middle_of_a_message(
        self, client: Any, endpoint: Endpoint
    ) -> None:
        endpoint.faults.add(Fault(break_after_parts=0, break_mode="cut"))
        reply = await begun(client, b"hi")
        stream = reply["Body"]._raw_stream.content
        data = await stream.readany()
        with pytest.raises(ClientPayloadError):
            await stream.readany()
        reply["Body"].close()
        (length,) = struct.unpack("!I", data[:4])
        assert 12 < len(data) < length

    async def test_parts_of_other_sizes(self, client: Any, endpoint: Endpoint) -> None:
        body = "/echo Grüße, 世界 🙂 und so".encode()
        said = body.removeprefix(b"/echo ")
        endpoint.faults.add(Fault(part_bytes=1))
        assert await parts(client, body) == [bytes([byte]) for byte in said]
        endpoint.faults.add(Fault(part_bytes=7))
        assert [len(part) for part in await parts(client, body)][:-1] == [7] * (len(said) // 7)
        endpoint.faults.add(Fault(part_bytes=7, part_seed=1))
        first, second = await parts(client, body), await parts(client, body)
        assert first == second
        assert b"".join(first) == said
        assert len({len(part) for part in first}) > 2
        assert max(map(len, first)) <= 7
        endpoint.faults.add(Fault(part_bytes=0))
        assert (await parts(client, body))[0] == "Grüße, ".encode()

    async def test_large_bodies_come_in_parts(self, client: Any) -> None:
        got = await parts(client, b"/bytes 200000")
        assert [len(part) for part in got] == [65_536, 65_536, 65_536, 3392]

    async def test_parts_that_wait(self, client: Any, endpoint: Endpoint) -> None:
        endpoint.faults.add(Fault(delay_parts_seconds=0.05 * UNIT))
        start = asyncio.get_running_loop().time()
        await parts(client, b"/count 4 0")
        assert asyncio.get_running_loop().time() - start >= 0.2 * UNIT

    async def test_a_client_that_goes_away_stops_the_work(
        self, client: Any, endpoint: Endpoint
    ) -> None:
        session = await opened(client)
        reply = await begun(client, b"/count 100000 20", SessionId=session)
        await anext(aiter(reply["Body"]))
        assert sum(instance.in_flight for instance in endpoint.instances) == 1
        reply["Body"].close()
        await until(lambda: endpoint.abandoned == 1)
        await until(lambda: not any(instance.in_flight for instance in endpoint.instances))
        assert b"Turn 2" in await one(client, b"hi", SessionId=session)

    async def test_time_limits(self) -> None:
        limited = Endpoint(
            NAME, [BuiltinModel("i-1")], reply_seconds=0.3 * UNIT, stream_seconds=0.3 * UNIT
        )
        async with running([limited]) as url, connected(url) as client:
            for call in (begun(client, b"/sleep 99"), one(client, b"/count 9999")):
                with pytest.raises(client.exceptions.ModelError, match="timed out"):
                    await call
            got, error = await broken(client, b"/count 9999")
            assert got
            assert error == "ModelStreamError"

    async def test_losing_an_instance_breaks_what_it_is_at_work_on(
        self, client: Any, endpoint: Endpoint
    ) -> None:
        session = await opened(client)
        (holder,) = (name for name, count in endpoint.sessions.items() if count)
        reply = await begun(client, b"/count 1000", SessionId=session)
        stream = aiter(reply["Body"])
        await anext(stream)
        call = asyncio.create_task(one(client, b"/sleep 60", SessionId=session))
        early = asyncio.create_task(begun(client, b"/sleep 60", SessionId=session))
        instance = next(i for i in endpoint.instances if i.name == holder)
        await until(lambda: instance.in_flight == 3)
        endpoint.lose(holder)
        endpoint.restore(holder)
        with pytest.raises(EventStreamError, match="reset or closed"):
            await rest(stream)
        reply["Body"].close()
        for task in (call, early):
            with pytest.raises(client.exceptions.ModelError):
                await task
        assert endpoint.abandoned == 0
        assert instance.container.turns == {session: 3}

    async def test_admin_calls(self, url: str, client: Any) -> None:
        first, second = await opened(client), await opened(client)
        async with httpx.AsyncClient(base_url=f"{url}/_local/{NAME}", timeout=20 * UNIT) as http:
            for path, body in (
                ("/faults", b'{"break_after_parts": -1}'),
                ("/faults", b'{"break_mode": "x"}'),
                ("/expire", b'{"session": "unknown"}'),
                ("/expire", b'{"sessions": []}'),
            ):
                assert (await http.post(path, content=body)).status_code == 400
            assert (await http.post("/expire", json={"session": first})).status_code == 204
            assert b"Stateless" in await one(client, b"hi", SessionId=first)
            with pytest.raises(client.exceptions.ModelError, match="session not found"):
                await begun(client, b"hi", SessionId=first)
            assert b"Turn 1" in b"".join(await parts(client, b"hi", SessionId=second))
            assert (await http.post("/expire")).status_code == 204
            assert b"Stateless" in b"".join(await parts(client, b"hi", SessionId=second))
            await http.post("/faults", json={"break_after_parts": 1, "break_mode": "internal"})
            assert (await broken(client, b"hi"))[1] == "InternalStreamFailure"
            state = (await http.get(f"{url}/_local/{NAME}")).json()
        assert state["streams"] == 4
        assert [instance["in_flight"] for instance in state["instances"]] == [0, 0]
        turns: dict[str, int] = {}
        for instance in state["instances"]:
            for session, count in instance["turns"].items():
                turns[session] = turns.get(session, 0) + count
        assert turns == {"": 3, second: 1}


async def test_the_command_has_flags_for_streams() -> None:
    flags = "--break-after-parts=3 --break-mode=internal --part-bytes=2 --delay-parts=0.01"
    with local(*flags.split()) as process:
        async with connected(process.url) as client:
            got = await broken(client, b"/echo a b c d e")
            assert got == ([b"a ", b"b ", b"c "], "InternalStreamFailure")
            assert await parts(client, b"/echo abc") == [b"ab", b"c"]
    with local("--part-bytes=4", "--part-seed=2") as process:
        async with connected(process.url) as client:
            sizes = [len(part) for part in await parts(client, b"/echo " + b"x" * 99)]
            assert sum(sizes) == 99
            assert set(sizes[:-1]) == {1, 2, 3, 4}


class Behind:
    """A container of somebody else's, and what it sees."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self.go = asyncio.Event()
        self.seen: list[Any] = []
        self.break_off = False

    async def invocations(self, request: Request) -> Response:
        self.seen.append(dict(request.headers))
        body = await request.body()
        if body == b"fail":
            return Response(b"no", 503)

        async def chunks() -> AsyncIterator[bytes]:
            try:
                yield b"first\xe2"
                await self.go.wait()
                if self.break_off:
                    raise RuntimeError("as the test asks")
                yield b"\x82\xac"
            finally:
                self.stopped.set()

        return StreamingResponse(chunks(), media_type="text/event-stream")


@pytest.fixture
async def behind() -> AsyncIterator[tuple[Behind, Endpoint, Any]]:
    container = Behind()
    app = Starlette(routes=[Route("/invocations", container.invocations, methods=["POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server._serve([listener]))
        endpoint = Endpoint(NAME, [HttpContainer(f"http://127.0.0.1:{listener.getsockname()[1]}")])
        async with running([endpoint]) as url, connected(url) as client:
            yield container, endpoint, client
        server.should_exit = True
        await serving


class TestHttpContainer:
    async def test_parts_come_as_they_are_sent(self, behind: tuple[Behind, Endpoint, Any]) -> None:
        container, endpoint, client = behind
        reply = await begun(client, b"hi", TEXT, Accept="text/event-stream", CustomAttributes="a=1")
        assert reply["ContentType"] == "text/event-stream; charset=utf-8"
        stream = aiter(reply["Body"])
        assert (await anext(stream))["PayloadPart"]["Bytes"] == b"first\xe2"
        container.go.set()
        assert [event["PayloadPart"]["Bytes"] async for event in stream] == [b"\x82\xac"]
        assert container.seen[0]["accept"] == "text/event-stream"
        assert container.seen[0]["x-amzn-sagemaker-custom-attributes"] == "a=1"
        assert "x-amzn-sagemaker-accept" not in container.seen[0]
        assert await one(client, b"hi") == "first€".encode()
        endpoint.expire(None)
        assert endpoint.instances[0].container.turns == {}

    async def test_an_error_of_the_container(self, behind: tuple[Behind, Endpoint, Any]) -> None:
        *_, client = behind
        for call in (begun(client, b"fail"), one(client, b"fail")):
            with pytest.raises(client.exceptions.ModelError) as caught:
                await call
            assert caught.value.response["OriginalStatusCode"] == 503

    async def test_a_client_that_goes_away_stops_it(
        self, behind: tuple[Behind, Endpoint, Any]
    ) -> None:
        container, endpoint, client = behind
        reply = await begun(client, b"hi")
        await anext(aiter(reply["Body"]))
        reply["Body"].close()
        async with asyncio.timeout(10 * UNIT):
            await container.stopped.wait()
        await until(lambda: endpoint.abandoned == 1)

    async def test_a_container_that_breaks_off(self, behind: tuple[Behind, Endpoint, Any]) -> None:
        container, _, client = behind
        container.break_off = True
        reply = await begun(client, b"hi")
        stream = aiter(reply["Body"])
        assert await anext(stream)
        container.go.set()
        with pytest.raises(EventStreamError, match="reset or closed"):
            await anext(stream)
        reply["Body"].close()
        with pytest.raises(client.exceptions.ModelError):
            await one(client, b"hi")

    async def test_no_container_at_all(self) -> None:
        nobody = Endpoint(NAME, [HttpContainer("http://127.0.0.1:9")])
        async with running([nobody]) as url, connected(url) as client:
            with pytest.raises(client.exceptions.ModelError, match="timed out"):
                await begun(client, b"hi")
